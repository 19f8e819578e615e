"""A network on a grid: weights as int8, biases and thresholds on the same grid of each layer.

What the whole numbers of a layer are is said in `mpsl_runtime.model.scale`, since training on the
grid follows the same rule; here they are put into a network. The scale of each layer is what
`calibrate`
chooses, or what training used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.grid import EXACT_LIMIT, LARGEST_WEIGHT
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Plan
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
    """One weighted layer of a plan: where it begins, its weights, the neurons behind them.

    Attributes:
        first, last: indices in `Plan.nodes` of its first node (pooling, flattening or the weights)
            and of its neurons.
        weighted: the weights. neuron: the population, all of one threshold.
        threshold: V_th as trained, decay: ρ_m.
        read_as_score: its U are the scores of the model.
    """

    first: int
    last: int
    weighted: Convolution | Dense
    neuron: Neuron
    threshold: float
    decay: float
    read_as_score: bool


def stages(plan: Plan) -> tuple[Stage, ...]:
    """The weighted layers of a merged network.

    Raises:
        ModelError: a decay that float32 does not hold exactly; a network that mpsl did not write.
    """
    found: list[Stage] = []
    first = 0
    for position, node in enumerate(plan.nodes):
        if not isinstance(node, Neuron):
            continue
        where = f"node {node.name!r} of {plan.source}"
        weighted = plan.nodes[position - 1] if position else None
        if not isinstance(weighted, Convolution | Dense) or node.kind != "spiking":
            raise ModelError(
                "network has no int8 form",
                got=f"{node.kind} neurons behind {type(weighted).__name__}",
                expected="spiking neurons behind a weighted layer",
                where=where,
            )
        if node.V_th is None or node.rho is None:
            raise ModelError(
                "network has no int8 form", got="neurons that mpsl did not write", where=where
            )
        _check_decay(node.rho, where)
        is_last = position == len(plan.nodes) - 1
        by_membrane = plan.metadata is not None and plan.metadata.readout == "membrane"
        found.append(
            Stage(
                first=first,
                last=position,
                weighted=weighted,
                neuron=node,
                threshold=node.V_th,
                decay=node.rho,
                read_as_score=is_last and by_membrane,
            )
        )
        first = position + 1
    return tuple(found)


def scale_of(stage: Stage, threshold: int) -> Scale:
    """The scale that makes a stage's threshold `threshold` ≥ 1 quanta, or, where U is a score, the
    power of two that comes nearest to that."""
    return Scale.of(stage.threshold, threshold, is_score=stage.read_as_score)


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
    """The int8 form of a merged network: the same nodes, their values on the grids.

    Args:
        plan: the merged network in float32.
        scales: one for each weighted layer. input_max: see `ModelMetadata.input_max`.

    Raises:
        ModelError: see `stages`; or the network has no metadata of mpsl.
    """
    if plan.metadata is None:
        raise ModelError("network has no metadata of mpsl", where=plan.source)
    nodes = {node.name: node for node in plan.nodes}
    for stage, scale in zip(stages(plan), scales, strict=True):
        nodes[stage.weighted.name] = quantised_node(stage, scale)
        nodes[stage.neuron.name] = stage.neuron.with_threshold(scale.stored_threshold)
    metadata = replace(plan.metadata, weights="int8", input_max=input_max)
    return replace(plan, nodes=tuple(nodes.values()), metadata=metadata)


def quantised_graph(graph: nir.NIRGraph, scales: Sequence[Scale], input_max: int) -> nir.NIRGraph:
    """The same as a graph, to be written.

    Args:
        graph: the merged network in float32. scales, input_max: see `quantised_plan`.
    """
    import nir

    from mpsl_runtime.model.graph import plan_of
    from mpsl_runtime.model.neurons import neuron_node

    plan = quantised_plan(plan_of(graph, source="the merged network"), scales, input_max)
    nodes = dict(graph.nodes)
    grid: dict[str, int | None] = {}
    for node in plan.nodes:
        if isinstance(node, Convolution | Dense):
            grid = {"weight_grid": node.weight_grid}
            nodes[node.name] = replace(
                nodes[node.name], weight=node.weight, bias=node.bias, metadata=grid
            )
        elif isinstance(node, Neuron):
            before = NeuronMetadata.from_mapping(nodes[node.name].metadata, node.name)
            after = replace(before, threshold=float(node.threshold.flat[0]))
            nodes[node.name] = neuron_node(after, node.output_shape, grid)
    metadata = plan.metadata.to_mapping() if plan.metadata is not None else {}
    return nir.NIRGraph(nodes=nodes, edges=list(graph.edges), metadata=metadata)


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
        threshold = thresholds.get(stage.neuron.name)
        if exponent is None or threshold is None:
            raise ModelError(
                "int8 model does not say its grid", where=f"{stage.weighted.name} of {where}"
            )
        quanta = float(threshold) / math.ldexp(1.0, int(exponent))
        if not 1 <= quanta < math.inf or quanta != int(quanta):
            raise ModelError(
                "threshold of an int8 model is off its grid",
                got=f"{threshold} = {quanta:g} quanta",
                where=f"{stage.neuron.name} of {where}",
            )
        step = stage.threshold / int(quanta)
        if stage.read_as_score:
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
