"""Operations, sparsity and footprint of a network on real samples, by the rules of NeuroBench 2.3.

Names and rules are those of the `neurobench` package (Yik et al., 2025), run with one sample in a
batch:

    Footprint           bytes of parameters and of what the neurons keep besides
    ConnectionSparsity  weights that are 0 / weights, rounded to four decimals
    ActivationSparsity  1 − spikes / (neurons · steps), over the layers that fire
    SynapticOperations  weights that are not 0 times inputs that are not 0, a sample; taps that fall
                        outside an image and biases do not count. `Effective_ACs` where a layer's
                        inputs in a step are all −1, 0 or 1, else `Effective_MACs`. `Dense`: every
                        weight times every input.
    MembraneUpdates     neurons whose U is another one than in the step before; in step 0 all

The engine's `synops` differ on purpose: they count spikes through pooling, and weights that are 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Node, Plan
from mpsl_runtime.run.reference import Reference, fanout

__all__ = ["connection_sparsity", "footprint", "measure", "nonzero_fanout"]

Array = NDArray[np.float32]


def measure(plan: Plan, samples: Iterable[Array]) -> dict[str, Any]:
    """NeuroBench's figures.

    Args:
        samples: each float32 [T, *input_shape], from rest.

    Returns:
        `Footprint`, `ConnectionSparsity`, `ActivationSparsity`, `SynapticOperations` {name: mean of
        a sample}, `MembraneUpdates` (mean of a sample) and `samples`, how many there were.

    Raises:
        DataError: no sample; an int8 model gets input that its proof does not cover.
    """
    counter = _Counting(plan)
    count = 0
    for frames in samples:
        counter.run(frames)
        count += 1
    if count == 0:
        raise DataError("no sample to measure", where=plan.source)
    return {
        "Footprint": footprint(plan),
        "ConnectionSparsity": connection_sparsity(plan),
        "ActivationSparsity": 1 - counter.spikes / counter.activations
        if counter.activations
        else 0.0,
        "SynapticOperations": {
            "Effective_MACs": counter.macs / count,
            "Effective_ACs": counter.acs / count,
            "Dense": counter.dense / count,
        },
        "MembraneUpdates": counter.updates / count,
        "samples": count,
    }


def footprint(plan: Plan) -> int:
    """Bytes of weights, biases and the neurons' constants, float32; a weight of an int8 layer is
    one byte. A constant that a whole population shares is one number."""
    total = 0
    for node in plan.nodes:
        if isinstance(node, Convolution | Dense):
            total += node.weight.size * (4 if node.weight_grid is None else 1) + node.bias.nbytes
        elif isinstance(node, Neuron):
            total += sum(_bytes(values) for values in _constants(node))
    return total


def _constants(neuron: Neuron) -> list[Array]:
    """What a population needs for a step, without what changes nothing."""
    held = [] if neuron.kind == "threshold" else [neuron.decay]
    if neuron.kind != "integrating":
        held.append(neuron.threshold)
    if neuron.kind == "spiking" and neuron.reset in ("value", "lost") and neuron.reset_value.any():
        held.append(neuron.reset_value)
    if neuron.has_input_map:
        held += [neuron.gain, neuron.leak]
    if neuron.synaptic_decay is not None and neuron.synaptic_gain is not None:
        held += [neuron.synaptic_decay, neuron.synaptic_gain]
    return held


def _bytes(values: Array) -> int:
    return values.itemsize if (values == values.flat[0]).all() else values.nbytes


def connection_sparsity(plan: Plan) -> float:
    """Weights that are exactly 0 / weights, rounded to four decimals; 0 without weights."""
    weights = [node.weight for node in plan.nodes if isinstance(node, Convolution | Dense)]
    total = sum(weight.size for weight in weights)
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return round(zeros / total, 4) if total else 0.0


def nonzero_fanout(node: Convolution | Dense) -> NDArray[np.int64]:
    """Weights other than 0 that each element of the input reaches, int64 [*input_shape]."""
    present = (node.weight != 0).astype(np.int64)
    if isinstance(node, Dense):
        counts: NDArray[np.int64] = present.sum(axis=0)
        return counts
    filters, per_group, rows, columns = present.shape
    grouped = present.reshape(node.groups, filters // node.groups, per_group, rows, columns)
    taps = grouped.sum(axis=1).reshape(-1, rows, columns)
    reach = [_reach(node, axis) for axis in (0, 1)]
    found: NDArray[np.int64] = np.einsum("cij,ih,jw->chw", taps, *reach)
    return found


def _reach(node: Convolution, axis: int) -> NDArray[np.int64]:
    """How often each tap of the kernel lands on each row (or column), int64 [taps, size]."""
    taps, size = node.weight.shape[2 + axis], node.input_shape[1 + axis]
    positions = (
        np.arange(node.output_shape[1 + axis])[None] * node.stride[axis]
        + np.arange(taps)[:, None] * node.dilation[axis]
        - node.padding[axis][0]
    )
    reach = np.zeros((taps, size), np.int64)
    tap, output = np.nonzero((positions >= 0) & (positions < size))
    np.add.at(reach, (tap, positions[tap, output]), 1)
    return reach


class _Counting(Reference):
    """A reference that adds up what each node of each step does."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        weighted = [node for node in plan.nodes if isinstance(node, Convolution | Dense)]
        self._effective = {node.name: nonzero_fanout(node) for node in weighted}
        self._dense = {node.name: int(fanout(node).sum()) for node in weighted}
        self._before: dict[str, Array] = {}
        self.macs = self.acs = self.dense = 0
        self.updates = self.spikes = self.activations = 0

    def reset(self, batch: int = 1) -> None:
        """See `Reference.reset`; the next step is the first one of a sample."""
        super().reset(batch)
        self._before = {}

    def _apply(self, node: Node, x: Array, activity: Array) -> tuple[Array, Array]:
        """One node in one step of one sample."""
        y, behind = super()._apply(node, x, activity)
        if isinstance(node, Convolution | Dense):
            work = int(self._effective[node.name][x[0] != 0].sum())
            if np.isin(x, (-1, 0, 1)).all():
                self.acs += work
            else:
                self.macs += work
            self.dense += self._dense[node.name]
        elif isinstance(node, Neuron):
            self._count_neurons(node, y)
        return y, behind

    def _count_neurons(self, node: Neuron, y: Array) -> None:
        if node.kind != "integrating":
            self.spikes += int(np.count_nonzero(y))
            self.activations += y.size
        if node.kind != "threshold":
            U = self._states[node.name].U
            before = self._before.get(node.name)
            self.updates += U.size if before is None else int((before != U).sum())
            self._before[node.name] = U.copy()
