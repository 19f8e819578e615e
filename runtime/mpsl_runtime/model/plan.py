"""A checked NIR graph: its nodes in the order in which they run, each with its sources.

`Plan` is not a second description of a model: `graph` derives it from a `nir.NIRGraph` each time,
and nothing ever stores it. Reference, engine, ONNX and torch back ends all run this list, so that
units, thresholds and shapes are decided in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError, MpslError
from mpsl_runtime.events.binning import Binning
from mpsl_runtime.model.dialects import ResetRule
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.readout import Readout

if TYPE_CHECKING:
    from mpsl_runtime.model.plastic import PlasticLayer

__all__ = [
    "Convolution",
    "Delay",
    "Dense",
    "Flatten",
    "Neuron",
    "Node",
    "Plan",
    "Pooling",
    "Scaling",
    "Shape",
    "Source",
    "Sum",
]

Shape = tuple[int, ...]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """What a node sees: the output of `node` (None: the network's input).

    `delayed`: that of the step before, and 0 before the first step.
    """

    node: str | None
    delayed: bool = False


@dataclass(frozen=True, eq=False)
class Convolution:
    """Cross-correlation of [C, H, W] with `weight` [Co, C/groups, kh, kw], plus `bias` [Co].

    `padding` is ((top, bottom), (left, right)); `stride` and `dilation` are (rows, columns).
    `weight_grid` is the exponent of the grid of an int8 layer, see `mpsl_runtime.model.grid`.
    A Conv1d over [C, L] is one over [C, 1, L].

    Every node's input is the sum over its `sources`, added in their order; without any it is the
    node before it.
    """

    name: str
    weight: Array
    bias: Array
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int
    input_shape: Shape
    output_shape: Shape
    weight_grid: int | None = None
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, eq=False)
class Dense:
    """y = weight · x + bias, `weight` [out, in], `bias` [out]; `weight_grid` as above."""

    name: str
    weight: Array
    bias: Array
    input_shape: Shape
    output_shape: Shape
    weight_grid: int | None = None
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, eq=False)
class Pooling:
    """Sum over windows, times `scale` (1 for SumPool2d, 1/(kh·kw) for AvgPool2d).

    Rows and columns that no whole window covers are dropped.
    """

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    scale: float
    input_shape: Shape
    output_shape: Shape
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, eq=False)
class Flatten:
    """[C, H, W] -> [C·H·W], channel-major; or nothing, where the shapes are the same."""

    name: str
    input_shape: Shape
    output_shape: Shape
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, eq=False)
class Scaling:
    """y = scale · x, elementwise; `scale` has the shape of the input (perhaps as a view of one
    value, as the arrays of `Neuron`)."""

    name: str
    scale: Array
    input_shape: Shape
    output_shape: Shape
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, eq=False)
class Delay:
    """The value of `steps` steps before, for each element; 0 before there was one.

    `steps` int64 [*input_shape], ≥ 0.
    """

    name: str
    steps: NDArray[np.int64]
    input_shape: Shape
    output_shape: Shape
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, eq=False)
class Sum:
    """Its sources' sum and nothing more: an Output that several nodes feed."""

    name: str
    input_shape: Shape
    output_shape: Shape
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, eq=False)
class Neuron:
    """A population of point neurons; every array has the population's shape, float32. One value for
    all neurons is a view of that value (`numpy.broadcast_to`): it cannot be written to.

    One step, in float32 and in this order (`I` is the layer's current, bias included):

        if synaptic_decay is not None (CubaLIF):  I = J = synaptic_decay·J + synaptic_gain·I
        if has_input_map:                         I = gain·I + leak   (never in mpsl's own)
        U = decay·V + I
        `spiking`, where what the last step fired, F = fired(V), is taken off only now:
                      U = U − F·drop (subtract-undecayed), or reset_value where F (lost)
                      S = fired(U);  out S
                      V = U − S·drop (subtract), or reset_value where S, else U (value),
                      or U (subtract-undecayed, lost)
        `integrating` (LI, I):  V = U;  out U
        `threshold`   (Threshold, no state):  out [I ≥ threshold]

    fired(U) is [U ≥ threshold]; with `many`, floor(U/drop) there: several spikes in one step.
    NIR fires on v > v_threshold: the loader turns that into U ≥ nextafter(v_threshold, ∞).
    Models with mpsl metadata run in the units of U (DESIGN §6): decay ρ_m, threshold V_th.
    V starts at `initial`, or at 0 where that is None; J starts at 0.

    Attributes:
        kind: `spiking`, `integrating` or `threshold`.
        reset: what a spike does to V, and when; `lost`: the current of the step after it is lost.
        drop: what one spike takes from U; None: the threshold.
        many: a neuron fires as often in a step as `drop`, which is then > 0 and ≤ the threshold,
            goes into U.
        V_th, rho: threshold and decay ρ_m of a population that mpsl wrote, in float64 as they were
            trained; None of any other, and where the file was changed behind its metadata.
    """

    name: str
    kind: Literal["spiking", "integrating", "threshold"]
    decay: Array
    threshold: Array
    reset: ResetRule
    reset_value: Array
    gain: Array
    leak: Array
    has_input_map: bool
    synaptic_decay: Array | None
    synaptic_gain: Array | None
    input_shape: Shape
    output_shape: Shape
    V_th: float | None = None
    rho: float | None = None
    initial: Array | None = None
    sources: tuple[Source, ...] = ()
    drop: Array | None = None
    many: bool = False

    @property
    def taken(self) -> Array:
        """What one spike takes from U, for each neuron."""
        return self.threshold if self.drop is None else self.drop

    @property
    def resets_late(self) -> bool:
        """What a spike takes, it takes in the step after it."""
        return self.reset in ("subtract-undecayed", "lost")

    @property
    def is_binary(self) -> bool:
        """Its output is 0 or 1: it fires, and at most once in a step."""
        return self.kind != "integrating" and not self.many

    def with_threshold(self, V_th: float) -> Neuron:
        """The same population, each neuron with this threshold, which a spike takes from U."""
        return replace(self, threshold=np.full_like(self.threshold, V_th), drop=None, V_th=V_th)


Node = Convolution | Dense | Pooling | Flatten | Scaling | Delay | Sum | Neuron


@dataclass(frozen=True, eq=False)
class Plan:
    """The nodes of a network in order of execution; the last one's output is the network's.

    Attributes:
        nodes: in order; names are those of the NIR graph, `outer.inner` in a graph inside a graph.
        input_shape, output_shape: of one sample and one step.
        metadata: of a model written by mpsl, else None (then `step_us` etc. come from the caller).
        source: the file, for messages.
        notes: what the file says and was not taken at its word, for people.
        plastic: the layers that may go on learning where that is asked for; `nodes` are the frozen
            network, whatever stands here.
    """

    nodes: tuple[Node, ...]
    input_shape: Shape
    output_shape: Shape
    metadata: ModelMetadata | None
    source: str
    notes: tuple[str, ...] = ()
    plastic: tuple[PlasticLayer, ...] = ()

    @property
    def is_chain(self) -> bool:
        """Each node sees the one before it and nothing else."""
        return not any(node.sources for node in self.nodes)

    @cached_property
    def wiring(self) -> tuple[tuple[tuple[int, bool], ...], ...]:
        """For each node its sources: the index in `nodes`, −1 for the input, and `delayed`."""
        index: dict[str | None, int] = {node.name: i for i, node in enumerate(self.nodes)}
        index[None] = -1
        return tuple(
            tuple((index[source.node], source.delayed) for source in node.sources)
            or ((i - 1, False),)
            for i, node in enumerate(self.nodes)
        )

    @cached_property
    def late(self) -> tuple[int, ...]:
        """Indices of the nodes, −1 for the input, whose last step's value somebody sees."""
        return tuple(sorted({i for row in self.wiring for i, delayed in row if delayed}))

    @property
    def output_neuron(self) -> Neuron | None:
        """The population whose output is the network's; None where that is another node's."""
        index = len(self.nodes) - 1
        while index >= 0 and isinstance(self.nodes[index], Flatten):
            sources = self.wiring[index]
            if len(sources) > 1 or sources[0][1]:
                return None
            index = sources[0][0]
        node = self.nodes[index] if index >= 0 else None
        return node if isinstance(node, Neuron) else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the outputs; their numbers where the model does not say."""
        if self.metadata is not None and self.metadata.classes:
            return self.metadata.class_names
        return tuple(str(i) for i in range(math.prod(self.output_shape)))

    @property
    def readout(self) -> Readout:
        """As the model says; else `count`, or `membrane` where the output is no spikes."""
        if self.metadata is not None:
            return self.metadata.readout
        last = self.output_neuron
        return "membrane" if last is None or last.kind == "integrating" else "count"

    def binning(self, *, steps: int | None = None, step_us: int | None = None) -> Binning | None:
        """How events become this network's input; None where it takes no events, or where its time
        steps are not known.

        Args:
            steps: T instead of the model's own; step_us: length of a step, likewise. A model
                without metadata needs both.

        Raises:
            ModelError: the metadata describes no binning, or one to another input.
            UsageError: `steps` or `step_us` that cannot be.
        """
        if self.metadata is None:
            if self.input_shape[0] != 2 or len(self.input_shape) != 3 or not (steps and step_us):
                return None
            _, rows, columns = self.input_shape
            return Binning(sensor_width=columns, sensor_height=rows, step_us=step_us, steps=steps)
        if self.metadata.input_kind != "events":
            return None
        try:
            binning = self.metadata.binning
        except (MpslError, ValueError) as error:
            raise ModelError(
                "metadata describes no binning", got=error, where=self.source
            ) from error
        if binning.shape != self.input_shape:
            raise ModelError(
                "metadata does not fit the graph",
                got=f"events binned to {binning.shape}",
                expected=f"the Input's shape {self.input_shape}",
                where=self.source,
            )
        return replace(
            binning,
            steps=binning.steps if steps is None else steps,
            step_us=binning.step_us if step_us is None else step_us,
        )

    @property
    def spiking(self) -> tuple[Neuron, ...]:
        """The spiking populations in order; their number is the number of layers."""
        return tuple(n for n in self.nodes if isinstance(n, Neuron) and n.kind != "integrating")
