"""A file, or a plan -> a model that is ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mpsl_runtime.errors import UsageError
from mpsl_runtime.live.options import StreamOptions
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.model import EngineName, Model

if TYPE_CHECKING:
    from mpsl_runtime.model.filling import Filling
    from mpsl_runtime.run.plastic_runner import BankReset

__all__ = ["load", "model_of"]


def load(
    path: str | Path,
    *,
    engine: EngineName = "native",
    filling: Filling | None = None,
    dt_s: float | None = None,
    steps: int | None = None,
    step_us: int | None = None,
    threads: int = 1,
    memory_limit: int | None = None,
    plastic: str | None = None,
    banks_reset: BankReset = "never",
    **options: Unpack[StreamOptions],
) -> Model:
    """Loads a NIR file.

    Args:
        path: `model.nir`, or the name of a model, see `mpsl_runtime.zoo`.
        engine: `native` (event-driven, C++) or `reference` (numpy, slow, easy to read).
        filling: what a file that was never imported does not say, `Filling("snntorch")`; dt_s: of
            it, seconds a time step stands for.
        steps: T, overrides the model's own; step_us: length of a step, likewise. Both are needed
            to stream events into a file without mpsl metadata.
        threads: of the native engine. memory_limit: bytes that it may take, 2 GiB for None.
        plastic: layers that go on learning, `all` or names such as `L02,L03`; None: the network is
            frozen. banks_reset: `never`, or before each `window`; see `plastic_runner`.
        options: of the sources that are run, see `mpsl_runtime.live.options.SourceOptions`:
            `load("model.nir", fit=True)` runs recordings of any camera.

    Raises:
        ModelError: the file is damaged, not finite, too large, or has nodes that no engine runs.
        UsageError: an argument that cannot be, or what a file does not say.
    """
    from mpsl_runtime.model.filling import load_filled, with_times
    from mpsl_runtime.zoo import find_model

    said = with_times(filling, dt_s=dt_s, steps=steps, step_us=step_us)
    plan = load_filled(find_model(path), said, timed=False, overrules=True).plan
    return model_of(
        plan, engine=engine, steps=steps, step_us=step_us, threads=threads,
        memory_limit=memory_limit, plastic=plastic, banks_reset=banks_reset, **options,
    )  # fmt: skip


def model_of(
    plan: Plan,
    *,
    engine: EngineName = "native",
    steps: int | None = None,
    step_us: int | None = None,
    threads: int = 1,
    memory_limit: int | None = None,
    plastic: str | None = None,
    banks_reset: BankReset = "never",
    **options: Unpack[StreamOptions],
) -> Model:
    """A plan, ready to run; arguments and errors as of `load`."""
    if engine not in ("native", "reference"):
        raise UsageError("unknown engine", got=repr(engine), expected="native or reference")
    if engine == "native":
        from mpsl_runtime.run.engine import Engine as Program
    else:
        from mpsl_runtime.run.reference import Reference as Program  # type: ignore[assignment]
    runner: Any = Program(plan, threads=threads, memory_limit=memory_limit)
    if plastic is not None:
        from mpsl_runtime.run.plastic_runner import PlasticRunner, chosen_layers

        nodes = chosen_layers(plan, plastic)
        window = steps or (plan.metadata.steps if plan.metadata is not None else 1)
        runner = PlasticRunner(runner, plan, nodes, steps=window, banks_reset=banks_reset)
    return Model(plan, runner, steps=steps, step_us=step_us, options=options)
