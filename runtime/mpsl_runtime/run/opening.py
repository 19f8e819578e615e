"""A plan -> a model that is ready to run."""

from __future__ import annotations

from typing import Any, Unpack

from mpsl_runtime.errors import UsageError
from mpsl_runtime.live.options import StreamOptions
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.model import EngineName, Model

__all__ = ["model_of"]


def model_of(
    plan: Plan,
    *,
    engine: EngineName = "native",
    steps: int | None = None,
    step_us: int | None = None,
    threads: int = 1,
    memory_limit: int | None = None,
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
    return Model(plan, runner, steps=steps, step_us=step_us, options=options)
