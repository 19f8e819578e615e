"""A model file proves itself: it is as it was sealed, and its probe gives what it gave.

No run, no data, no other program is needed; programs that are installed can be asked too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError, MpslError, UsageError, plain, shortened
from mpsl_runtime.model.graph import load_graph, plan_of
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.seal import broken_parts
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.probe import Probe
from mpsl_runtime.run.reference import Reference

__all__ = ["OWN_PROGRAMS", "Program", "Proof", "no_probe", "prove", "replayed"]

Array = NDArray[np.float32]
Program = Callable[[Plan, Array], tuple[list[NDArray[np.bool_]], Array | None]]
"""Plan and frames [T, *input_shape] in; the spikes of every population, [T, …], and the output at
the last step, [K], if it shows it, out."""


def _engine(plan: Plan, frames: Array) -> tuple[list[NDArray[np.bool_]], Array | None]:
    engine = Engine(plan)
    return engine.record(frames), engine.membrane


def _reference(plan: Plan, frames: Array) -> tuple[list[NDArray[np.bool_]], Array | None]:
    reference = Reference(plan)
    return reference.record(frames), reference.membrane


OWN_PROGRAMS: Mapping[str, Program] = {"engine": _engine, "reference": _reference}


@dataclass
class Proof:
    """What was found of one file.

    Attributes:
        file: its path. broken: parts that are not as they were sealed.
        steps: of the probe; populations: that it has, of which `silent` do not fire.
        programs: by name what differs, "" for nothing.
    """

    file: str
    broken: list[str]
    steps: int = 0
    populations: int = 0
    silent: list[str] = field(default_factory=list)
    programs: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """It is whole, and every program gives what it must."""
        return not self.broken and not any(self.programs.values())

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": self.file,
            "against": "probe",
            "broken": self.broken,
            "steps": self.steps,
            "populations": self.populations,
            "silent": self.silent,
            "programs": {name: text or "equal" for name, text in self.programs.items()},
            "passed": self.passed,
        }

    def lines(self) -> list[str]:
        """For people."""
        verdict = "passed" if self.passed else "FAILED"
        lines = [f"{self.file}: {verdict}, against its probe"]
        if self.broken:
            names = plain(shortened(", ".join(self.broken)))
            lines.append(f"  not as it was sealed: {names}")
        fired = self.populations - len(self.silent)
        lines.append(f"  {self.steps} steps, {fired} of {self.populations} populations fire")
        lines += [f"  {name:<10} {text or 'equal'}" for name, text in self.programs.items()]
        return lines


def prove(path: Path, programs: Mapping[str, Program]) -> Proof:
    """Proves a `.nir` file.

    Args:
        programs: that are to run it, by name.

    Raises:
        ModelError: the file is damaged, or has no probe or seal.
    """
    graph = load_graph(path)
    plan, probe = plan_of(graph, source=str(path)), Probe.of(graph.metadata, str(path))
    broken = broken_parts(path)
    if broken is None or probe is None:
        raise no_probe(path)
    return replayed(Proof(str(path), broken), plan, probe, programs)


def replayed(proof: Proof, plan: Plan, probe: Probe, programs: Mapping[str, Program]) -> Proof:
    """The proof, with what each program makes of the probe."""
    frames = probe.frames(plan)
    for name, program in programs.items():
        try:
            spikes, outputs = program(plan, frames)
        except UsageError:
            raise  # what was asked for is not here; the file may be as it was
        except MpslError as error:
            proof.programs[name] = str(error)
            continue
        proof.programs[name] = probe.difference(spikes, outputs)
        if not proof.populations:
            pairs = zip(plan.spiking, spikes, strict=True)
            proof.silent = [neuron.name for neuron, layer in pairs if not layer.any()]
            proof.steps, proof.populations = len(frames), len(spikes)
    return proof


def no_probe(path: Path) -> ModelError:
    """Of a file that an earlier version wrote, or another program."""
    return ModelError(
        "file has no probe that could prove it",
        expected="one that this version has written (mpsl export), or verify its run",
        where=path,
    )
