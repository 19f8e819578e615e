"""When are two runs of the same network the same? The tolerance of DESIGN §8, and its proof.

Two programs add the same float32 numbers in different orders, so that a membrane potential that
meets its threshold almost exactly may fire in one and not in the other: a tie. After a tie the two
runs are different runs. So a differing sample is explained by its FIRST differing neurons alone, in
(step, layer) order: up to there both runs agree on every spike, and from these agreed spikes the
numpy reference computes the membrane potential. Each of them must be a tie there,

    |U − V_th| ≤ 1e-5 · max(1, V_th)

The reference runs the merge of the run's own banks, not the artifact under test, so that a wrong
artifact cannot move the point of comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backends import Backend, Recording
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.metadata import ModelMetadata, upgraded
from mpsl_runtime.model.plan import Neuron, Node, Plan
from mpsl_runtime.run.reference import apply

__all__ = [
    "TIE_TOLERANCE",
    "Difference",
    "Referee",
    "array_differences",
    "first_difference",
    "metadata_differences",
    "plan_differences",
]

TIE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Difference:
    """Where two runs of one sample part.

    Attributes:
        sample: its id. backend: the program that differs from the record.
        layer: name of the node; step: 0 … T−1; neuron: index in channel-major order.
        membrane, threshold: U in the reference, and V_th.
        tie: the membrane potential is as close to the threshold as rounding may bring it.
        seen: U in the back end, where not a spike differs but this.
    """

    sample: str
    backend: str
    layer: str
    step: int
    neuron: int
    membrane: float
    threshold: float
    tie: bool
    seen: float | None = None

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def first_difference(
    one: Sequence[Recording], other: Sequence[Recording]
) -> tuple[int, int, NDArray[np.int64]] | None:
    """(step, layer index, all neurons that differ there), first by step and then by layer."""
    best: tuple[int, int] | None = None
    for index, (a, b) in enumerate(zip(one, other, strict=True)):
        steps = np.flatnonzero((a.spikes != b.spikes).any(axis=1))
        if steps.size and (best is None or (int(steps[0]), index) < best):
            best = int(steps[0]), index
    if best is None:
        return None
    step, index = best
    return step, index, np.flatnonzero(one[index].spikes[step] != other[index].spikes[step])


class Referee:
    """Judges differences between the record of training and a back end.

    Args:
        plan: of the merge of the run's banks; spiking populations only.
        replay: the network of banks, run again (`backends.replay`).
        probes: the record's own spikes of every layer, for the samples that have them.
    """

    def __init__(self, plan: Plan, replay: Backend, probes: dict[str, list[Recording]]) -> None:
        self._neurons = plan.spiking
        self._replay = replay
        self._probes = probes
        self._chains = _chains(plan)

    def explain(
        self,
        sample: str,
        frames: NDArray[np.float32],
        backend: Backend,
        recorded: NDArray[np.uint8],
        seen: NDArray[np.uint8],
    ) -> Difference:
        """Why the output of a sample differs.

        The network of banks stands for the record: by the record's probes, else by a replay on
        this machine. Where it does not give the recorded output (training ran on another device),
        or the back end not the output that it gave in a batch, a tie must be visible in the
        reference at or before the first output that differs.

        Args:
            frames: [T, C, H, W]. recorded, seen: output spikes [T, K] of training and back end.

        Returns:
            The first difference that is no tie, else the first tie.
        """
        trained = self._probes.get(sample) or self._replay.record(frames)
        tested = backend.record(frames)
        found = [
            self._visible(sample, frames, backend.name, trained, recorded),
            self._first(sample, frames, backend.name, trained, tested),
            self._visible(sample, frames, backend.name, tested, seen),
        ]
        differences = [difference for difference in found if difference is not None]
        wrong = [difference for difference in differences if not difference.tie]
        return (wrong or differences)[0]

    def hidden(
        self, sample: str, frames: NDArray[np.float32], backend: Backend
    ) -> Difference | None:
        """The first difference in any layer that is no tie, whether or not the output shows it:
        of a spike, else of a membrane potential by more than rounding explains."""
        tested = backend.record(frames)
        spike = self._first(sample, frames, backend.name, self._replay.record(frames), tested)
        if spike is not None and not spike.tie:
            return spike
        found: list[Difference] = []
        for index, recording in enumerate(tested):
            if recording.membrane is None:
                continue
            # Driven by the back end's own spikes, so that an earlier tie leaves no trace.
            expected = self.membranes(frames, tested, index, len(frames))
            threshold = self._neurons[index].threshold.reshape(-1)
            scale = np.maximum(np.maximum(1, threshold), np.abs(expected))
            apart = np.argwhere(np.abs(recording.membrane - expected) > TIE_TOLERANCE * scale)
            if len(apart):
                step, position = (int(i) for i in apart[0])
                difference = self._difference(
                    sample, backend.name, index, step, position, expected[step]
                )
                seen = float(recording.membrane[step, position])
                found.append(replace(difference, tie=False, seen=seen))
        return min(found, key=lambda difference: difference.step, default=None)

    def membranes(
        self, frames: NDArray[np.float32], spikes: Sequence[Recording], index: int, steps: int
    ) -> NDArray[np.float32]:
        """U [steps, n] of layer `index` in the reference, driven by given spikes.

        Input of the layer are the spikes of the one before it, and its neurons are reset by their
        own given spikes, so that ties of the reference itself leave no trace.
        """
        neuron = self._neurons[index]
        drive = frames[:steps]
        if index:
            shape = self._neurons[index - 1].output_shape
            drive = spikes[index - 1].spikes[:steps].astype(np.float32).reshape(steps, *shape)
        for node in self._chains[index]:
            drive = apply(node, drive)
        current = drive.reshape(steps, -1)
        decay, threshold, low = (
            values.reshape(-1) for values in (neuron.decay, neuron.threshold, neuron.reset_value)
        )
        state = np.zeros(current.shape[1], np.float32)
        rows = []
        for step in range(steps):
            membrane = decay * state + current[step]
            fired = spikes[index].spikes[step]
            after = membrane - threshold if neuron.reset == "subtract" else low
            state = np.where(fired, after, membrane)
            rows.append(membrane)
        return np.stack(rows)

    def _first(
        self,
        sample: str,
        frames: NDArray[np.float32],
        backend: str,
        one: Sequence[Recording],
        other: Sequence[Recording],
    ) -> Difference | None:
        found = first_difference(one, other)
        if found is None:
            return None
        step, index, neurons = found
        membrane = self.membranes(frames, one, index, step + 1)[step]
        gap = np.abs(membrane - self._neurons[index].threshold.reshape(-1))[neurons]
        # The farthest from its threshold speaks for all that differ here.
        return self._difference(
            sample, backend, index, step, int(neurons[int(gap.argmax())]), membrane
        )

    def _visible(
        self,
        sample: str,
        frames: NDArray[np.float32],
        backend: str,
        rerun: Sequence[Recording],
        output: NDArray[np.uint8],
    ) -> Difference | None:
        """None when a rerun repeats an output; else a tie that its run meets at or before the
        first output that differs, or, without one, that output itself."""
        differing = np.argwhere(rerun[-1].spikes != output.astype(np.bool_))
        if not len(differing):
            return None
        last, (step, position) = len(rerun) - 1, (int(i) for i in differing[0])
        for index, neuron in enumerate(self._neurons):
            membrane = self.membranes(frames, rerun, index, step + 1)
            gap = np.abs(membrane - neuron.threshold.reshape(-1))
            row, nearest = (int(i) for i in np.unravel_index(int(gap.argmin()), gap.shape))
            found = self._difference(sample, backend, index, row, nearest, membrane[row])
            if found.tie:
                return found
        return self._difference(sample, backend, last, step, position, membrane[step])

    def _difference(
        self,
        sample: str,
        backend: str,
        index: int,
        step: int,
        position: int,
        membrane: NDArray[np.float32],
    ) -> Difference:
        neuron = self._neurons[index]
        threshold = float(neuron.threshold.reshape(-1)[position])
        potential = float(membrane[position])
        return Difference(
            sample=sample,
            backend=backend,
            layer=neuron.name,
            step=step,
            neuron=position,
            membrane=potential,
            threshold=threshold,
            tie=abs(potential - threshold) <= TIE_TOLERANCE * max(1.0, threshold),
        )


def plan_differences(expected: Plan, got: Plan) -> list[str]:
    """What an artifact holds that the banks do not give; empty when both are the same bit for bit.

    Each entry names the node, what differs, and the first value.
    """
    names = [node.name for node in expected.nodes], [node.name for node in got.nodes]
    if names[0] != names[1]:
        return [f"nodes are {', '.join(names[1])} instead of {', '.join(names[0])}"]
    metadata = got.metadata.to_mapping() if got.metadata else None
    found = metadata_differences(expected.metadata, metadata)
    for one, other in zip(expected.nodes, got.nodes, strict=True):
        for key, value in vars(one).items():
            actual = vars(other).get(key)
            if isinstance(value, np.ndarray) and isinstance(actual, np.ndarray):
                found += array_differences(f"{one.name} {key}", value, actual)
            elif value is not actual and value != actual:
                found.append(f"{one.name} {key} is {actual} instead of {value}")
    return found


def metadata_differences(
    expected: ModelMetadata | None, got: Mapping[str, Any] | None
) -> list[str]:
    """One line for each entry of a model's metadata that differs, written as text or not."""
    if expected is None:
        return []
    found = upgraded(got or {})
    return [
        f"metadata {key} is {found.get(key)!s:.60} instead of {value!s:.60}"
        for key, value in expected.to_mapping().items()
        if str(found.get(key)) != str(value)
    ]


def array_differences(name: str, expected: NDArray[Any], got: NDArray[Any]) -> list[str]:
    """One line when two arrays are not the same bit for bit."""
    if expected.shape != got.shape:
        return [f"{name} has shape {list(got.shape)} instead of {list(expected.shape)}"]
    differing = np.argwhere(expected != got)
    if not len(differing):
        return []
    position = tuple(int(i) for i in differing[0])
    return [
        f"{name}{list(position) or ''} is {got[position]} instead of {expected[position]} "
        f"({len(differing)} of {expected.size} values differ)"
    ]


def _chains(plan: Plan) -> list[list[Node]]:
    """For each population the nodes between the one before it and itself."""
    chains: list[list[Node]] = []
    nodes: list[Node] = []
    for node in plan.nodes:
        if not isinstance(node, Neuron):
            nodes.append(node)
            continue
        if node.kind != "spiking" or node.has_input_map or node.synaptic_decay is not None:
            raise ModelError("only neurons of mpsl can be compared", where=node.name)
        chains.append(nodes)
        nodes = []
    return chains
