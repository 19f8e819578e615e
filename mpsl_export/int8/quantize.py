"""A network on a grid: weights as int8, biases and thresholds on the same grid of each layer.

What the whole numbers of a layer are is said in `mpsl_runtime.model.scale`, since training on the
grid follows the same rule; here they are put into a network. The scale of each layer is what
`calibrate`
chooses, or what training used.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Node, Plan
from mpsl_runtime.model.provenance import PROVENANCE_KEYS
from mpsl_runtime.model.quanta import EXACT_LIMIT, LARGEST_WEIGHT
from mpsl_runtime.model.scale import Scale, is_exact_decay, whole_numbers

if TYPE_CHECKING:
    import nir

__all__ = [
    "Stage",
    "integers",
    "quantised_graph",
    "quantised_node",
    "quantised_plan",
    "scale_of",
    "stages",
    "stored_scales",
]

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Stage:
    """One weighted layer of a plan.

    Attributes:
        index: of its node in `Plan.nodes`. weighted: the node.
        neuron: the population that mpsl trained behind it, which sees it alone: its threshold is
            put on the grid with the weights. None: whatever is behind it stays as it is.
        threshold: V_th as trained; of a stage without `neuron` 1, what its errors are measured in.
        is_score: U of `neuron` are the scores of the model.
    """

    index: int
    weighted: Convolution | Dense
    neuron: Neuron | None
    threshold: float
    is_score: bool

    @property
    def is_free(self) -> bool:
        """Any scale will do, since the threshold follows; else only a power of two."""
        return self.neuron is not None and not self.is_score


def stages(plan: Plan) -> tuple[Stage, ...]:
    """The weighted layers of a network, in order.

    Raises:
        ModelError: neurons of mpsl with a decay that float32 does not hold exactly.
    """
    by_membrane = plan.metadata is not None and plan.metadata.readout == "membrane"
    found: list[Stage] = []
    for index, node in enumerate(plan.nodes):
        if not isinstance(node, Convolution | Dense):
            continue
        neuron = _trained_behind(plan, index)
        if neuron is None or neuron.V_th is None or neuron.rho is None:
            found.append(Stage(index, node, None, 1.0, is_score=False))
            continue
        _check_decay(neuron.rho, f"node {neuron.name!r} of {plan.source}")
        is_score = by_membrane and neuron is plan.output_neuron
        found.append(Stage(index, node, neuron, neuron.V_th, is_score))
    return tuple(found)


def _trained_behind(plan: Plan, index: int) -> Neuron | None:
    """The population that mpsl wrote, where it and this node see and are seen by nobody else."""
    heads = [(plan.nodes[i], row) for i, row in enumerate(plan.wiring) if (index, False) in row]
    node, row = heads[0] if len(heads) == 1 else (None, ())
    if not isinstance(node, Neuron) or len(row) != 1 or node.kind != "spiking":
        return None
    is_late = any((index, True) in row for row in plan.wiring)
    return None if node.V_th is None or is_late else node


def scale_of(stage: Stage, threshold: int) -> Scale:
    """The scale that makes a stage's threshold `threshold` ≥ 1 quanta; where only a power of two
    will do, the one that comes nearest to that."""
    return Scale.of(stage.threshold, threshold, is_score=not stage.is_free)


def integers(stage: Stage, scale: Scale) -> tuple[NDArray[np.int8], NDArray[np.int64], float]:
    """Weights and bias of a stage in quanta.

    Returns:
        (weight int8, bias int64, the part of the weights that had to be clipped to ±127).
    """
    weight = stage.weighted.weight.astype(np.float64)
    bias = stage.weighted.bias.astype(np.float64)
    clipped = float((np.abs(weight) >= (LARGEST_WEIGHT + 0.5) * scale.step).mean())
    whole = whole_numbers(weight, scale.step, LARGEST_WEIGHT)
    whole_bias = whole_numbers(bias, scale.step, EXACT_LIMIT)
    return whole.astype(np.int8), whole_bias.astype(np.int64), clipped


def quantised_node(stage: Stage, scale: Scale) -> Convolution | Dense:
    """The weights of a stage on their grid, as the float32 values that a file holds."""
    weight, bias, _ = integers(stage, scale)
    return replace(
        stage.weighted,
        weight=_stored(weight, scale.exponent),
        bias=_stored(bias, scale.exponent),
        weight_grid=scale.exponent,
    )


def quantised_plan(plan: Plan, scales: Sequence[Scale], input_max: int) -> Plan:
    """The int8 form of a network: the same nodes, their values on the grids.

    Args:
        plan: the network in float32.
        scales: one for each weighted layer. input_max: see `ModelMetadata.input_max`.

    Raises:
        ModelError: see `stages`; or the network has no metadata of mpsl.
    """
    if plan.metadata is None:
        raise ModelError("network has no metadata of mpsl", where=plan.source)
    nodes = list(plan.nodes)
    at = {node.name: index for index, node in enumerate(nodes)}
    for stage, scale in zip(stages(plan), scales, strict=True):
        nodes[stage.index] = quantised_node(stage, scale)
        if stage.neuron is not None:
            name = stage.neuron.name
            nodes[at[name]] = stage.neuron.with_threshold(scale.stored_threshold)
    metadata = replace(plan.metadata, weights="int8", input_max=input_max)
    return replace(plan, nodes=tuple(nodes), metadata=metadata)


def quantised_graph(
    graph: nir.NIRGraph,
    scales: Sequence[Scale],
    input_max: int,
    input_grid: float | None = None,
) -> nir.NIRGraph:
    """The same as a graph, to be written.

    Args:
        graph: the network in float32, without graphs inside it.
        scales, input_max: see `quantised_plan`. input_grid: if it is not the network's own.
    """
    import nir

    from mpsl_runtime.model.graph import plan_of
    from mpsl_runtime.model.neurons import neuron_node

    plan = plan_of(graph, source="the merged network")
    on_grid = quantised_plan(plan, scales, input_max)
    planned = {node.name: node for node in on_grid.nodes}
    nodes = dict(graph.nodes)
    for stage, scale in zip(stages(plan), scales, strict=True):
        grid = {"weight_grid": scale.exponent}
        name = stage.weighted.name
        nodes[name] = _on_grid(nodes[name], planned[name], grid)
        if stage.neuron is not None:
            name = stage.neuron.name
            before = NeuronMetadata.from_mapping(nodes[name].metadata, name)
            after = replace(before, threshold=scale.stored_threshold)
            nodes[name] = neuron_node(after, stage.neuron.output_shape, grid)
    # Where it comes from stays; the probe and what was verified are of the float network.
    kept = [key for key in PROVENANCE_KEYS if key in graph.metadata and key != "verified"]
    metadata = {key: graph.metadata[key] for key in kept}
    metadata |= on_grid.metadata.to_mapping() if on_grid.metadata is not None else {}
    metadata |= {} if input_grid is None else {"input_grid": input_grid}
    return nir.NIRGraph(nodes, list(graph.edges), metadata=metadata, type_check=False)


def _on_grid(node: nir.NIRNode, planned: Node, grid: dict[str, int]) -> nir.NIRNode:
    """A weighted node with the values of the plan's."""
    import nir

    if not isinstance(planned, Convolution | Dense):
        raise TypeError(f"{type(planned).__name__} has no weights")
    changed: Any = copy.copy(node)  # nir's own constructors know only square kernels
    changed.weight = planned.weight.reshape(np.shape(changed.weight))
    if not isinstance(node, nir.Linear):
        changed.bias = planned.bias
    changed.metadata = {**(node.metadata or {}), **grid}
    return changed


def stored_scales(
    found: Sequence[Stage], grids: Mapping[str, Any], thresholds: Mapping[str, Any], where: str
) -> tuple[Scale, ...]:
    """The scales with which an artifact says that it was made.

    Args:
        found: the stages of the merged float32 network.
        grids: exponent by name of the weighted node. thresholds: V_th by name of the neurons.
        where: the file, for messages.

    Raises:
        ModelError: one is missing, or a threshold is no whole multiple of its grid.
    """
    scales = []
    for stage in found:
        exponent = grids.get(stage.weighted.name)
        neuron = "" if stage.neuron is None else stage.neuron.name
        threshold = thresholds.get(neuron, 1.0 if not neuron else None)
        if exponent is None or threshold is None:
            raise ModelError(
                "int8 model does not say its grid", where=f"{stage.weighted.name} of {where}"
            )
        if stage.neuron is None:
            scales.append(Scale.power_of_two(int(exponent), stage.threshold))
            continue
        quanta = float(threshold) / math.ldexp(1.0, int(exponent))
        if not 1 <= quanta < math.inf or quanta != int(quanta):
            raise ModelError(
                "threshold of an int8 model is off its grid",
                got=f"{threshold} = {quanta:g} quanta",
                where=f"{neuron} of {where}",
            )
        step = stage.threshold / int(quanta)
        if stage.is_score:
            step = math.ldexp(1.0, int(exponent))
        scales.append(Scale(int(exponent), int(quanta), step))
    return tuple(scales)


def _stored(values: NDArray[np.integer], exponent: int) -> Array:
    return np.ldexp(values.astype(np.float64), exponent).astype(np.float32)


def _check_decay(decay: float, where: str) -> None:
    if not is_exact_decay(decay):
        raise ModelError(
            "decay has no exact binary form, so that int8 would not be exact",
            got=decay,
            expected="sums of powers of two, such as 0.5, 0.75 or 0.875 (recipe key neuron.decay)",
            where=where,
        )
