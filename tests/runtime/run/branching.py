"""Random NIR graphs with branches, loops, delays and graphs inside, and a simulation of them in
float64 that knows nothing of plans: it asks each node what it sees, at which step.

Half of the graphs step as NIR says; in the others each population has a rule of its own, made of
what any framework does."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

DT_S = 1e-4
PLAIN = {"fires": ">", "reset": "value", "start": "leak", "spikes": "one", "leak": "euler",
         "norm_input": "yes", "synapse": "filter"}  # fmt: skip
RULES = [
    {"dialect": "any", "dt_s": DT_S, **dict(zip(PLAIN, words, strict=True))}
    for words in product(
        [">", ">="], ["value", "subtract", "subtract-undecayed", "lost"],
        ["leak", "zero", "reset"], ["one", "many"], ["euler", "exact"], ["yes", "no"],
        ["filter", "sum"],
    )
]  # fmt: skip
Array = NDArray[np.float64]


@dataclass
class Growing:
    """A graph that grows at its end. `late`: edges that bring the value of the step before."""

    seed: int
    real: bool = True
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    late: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.width = int(self.random.integers(3, 80))
        self.nodes["input"] = nir.Input({"input": np.array([self.width])})
        self.end = "input"

    def weights(self, *shape: int) -> NDArray[np.float32]:
        if self.real:
            return self.random.normal(0, 1.2 / np.sqrt(shape[-1]), shape).astype(np.float32)
        return (self.random.integers(-4, 5, shape) / 4).astype(np.float32)

    def add(self, node: nir.NIRNode, *sources: str, name: str = "") -> str:
        name = name or f"n{len(self.nodes):02d}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def affine(self, source: str, out: int) -> str:
        inputs = self.width if source == self.end else out
        return self.add(nir.Affine(self.weights(out, inputs), self.weights(out)), source)

    def neurons(self, size: int) -> nir.NIRNode:
        """Spiking neurons of any kind; taus, thresholds and leaks that floats hold exactly where
        weights are dyadic."""

        def full(values: list[float]) -> NDArray[np.float64]:
            return self.random.choice(values, size).astype(np.float64)

        tau = full([2 * DT_S, 4 * DT_S, DT_S])
        leak, reset = full([0.0, 0.25]), full([0.0, -0.25])
        threshold = full([0.5, 0.75, 1.0])
        kind = self.random.choice(["lif", "lif", "if", "cuba", "threshold"])
        rule = RULES[int(self.random.integers(len(RULES)))] if self.seed % 2 else {}
        if kind == "lif":
            return nir.LIF(tau, full([1, 2]), leak, threshold, reset, metadata=rule)
        if kind == "if":
            return nir.IF(full([0.5, 1.0]) / DT_S, threshold, reset, metadata=rule)
        if kind == "cuba":
            return nir.CubaLIF(
                tau, full([2 * DT_S]), full([1, 2]), leak, threshold, reset, full([2.0]),
                metadata=rule,
            )  # fmt: skip
        return nir.Threshold(threshold, metadata=rule)

    def plain(self) -> None:
        size = int(self.random.integers(3, 80))
        behind = self.affine(self.end, size)
        self.end, self.width = self.add(self.neurons(size), behind), size

    def recurrent(self) -> None:
        """One population that sees itself, with weights or without."""
        self.plain()
        neurons = self.end
        back = neurons
        if self.random.random() < 0.8:
            back = self.add(
                nir.Affine(self.weights(self.width, self.width), self.weights(self.width)), neurons
            )
            self.edges.append((back, neurons))
        else:
            self.edges.append((neurons, neurons))
        self.late.add((neurons, back))

    def residual(self) -> None:
        """Two paths from one population, one with delay or scale, and their sum."""
        self.plain()
        start, size = self.end, self.width
        inner = self.add(self.neurons(size), self.affine(start, size))
        kind = self.random.choice(["direct", "delay", "scale"])
        other = start
        if kind == "delay":
            steps = self.random.integers(0, 4, size)
            other = self.add(nir.Delay(steps * DT_S), start)
        elif kind == "scale":
            other = self.add(nir.Scale(self.random.choice([0.5, -1.0, 2.0], size)), start)
        self.end = self.add(self.neurons(size), inner, other)

    def around_two(self) -> None:
        """Two populations in a loop."""
        self.plain()
        first, size = self.end, self.width
        second = self.add(self.neurons(size), self.affine(first, size))
        self.end = second
        back = self.affine(second, size)
        self.edges.append((back, first))
        self.late.add((second, back))

    def finish(self) -> nir.NIRGraph:
        last = self.random.choice(["spikes", "spikes", "affine", "li", "cubali", "two"])
        size = self.width
        if last != "spikes":
            size = 5
            self.end = self.affine(self.end, size)
        tau = np.full(size, 2 * DT_S)
        ones, leak = np.ones(size), np.full(size, 0.25)
        if last == "li":
            self.end = self.add(nir.LI(tau, ones, leak), self.end)
        elif last == "cubali":
            self.end = self.add(nir.CubaLI(tau, tau, ones, leak, 2 * ones), self.end)
        elif last == "two":
            self.edges.append((self.add(nir.Threshold(0.5 * ones), self.end), "output"))
        self.nodes["output"] = nir.Output({"output": np.array([size])})
        self.edges.append((self.end, "output"))
        order = self.random.permutation(len(self.edges))
        return nir.NIRGraph(self.nodes, [self.edges[i] for i in order], type_check=False)


def grown(seed: int, *, real: bool = True) -> tuple[nir.NIRGraph, set[tuple[str, str]]]:
    """A random graph, and its late edges."""
    graph = Growing(seed, real)
    blocks = [graph.plain, graph.recurrent, graph.residual, graph.around_two]
    for _ in range(int(graph.random.integers(1, 4))):
        blocks[int(graph.random.integers(len(blocks)))]()
    return graph.finish(), graph.late


def nested(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The same graph inside another one."""
    shapes = graph.nodes["input"].input_type["input"], graph.nodes["output"].output_type["output"]
    nodes = {
        "input": nir.Input({"input": shapes[0]}),
        "block": graph,
        "output": nir.Output({"output": shapes[1]}),
    }
    edges = [("input", "block"), ("block", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def frames(graph: nir.NIRGraph, steps: int = 8) -> NDArray[np.float32]:
    """Random spikes [T, n]."""
    size = int(graph.nodes["input"].input_type["input"][0])
    return (np.random.default_rng(7).random((steps, size)) < 0.3).astype(np.float32)


def fired(node: Any, v: Any) -> Any:
    """How often each neuron fires at this v."""
    rule = node.metadata or PLAIN
    reached = v >= node.v_threshold if rule["fires"] == ">=" else v > node.v_threshold
    return reached * (np.floor(v / node.v_threshold) if rule["spikes"] == "many" else 1.0)


def started(node: Any) -> Any:
    start = (node.metadata or PLAIN)["start"]
    if start == "reset" and hasattr(node, "v_reset"):
        return node.v_reset
    return getattr(node, "v_leak", np.zeros(1)) * (start != "zero")


def stepped(node: Any, v: Any, J: Any, current: Any) -> tuple[Any, Any, Any]:
    """(output, v, J) of a neuron after a step, from v and J before it."""
    rule = node.metadata or PLAIN

    def decay(tau: Any) -> Any:
        return np.exp(-DT_S / tau) if rule["leak"] == "exact" else 1 - DT_S / tau

    if hasattr(node, "tau_syn"):
        counts = 1.0 if rule["synapse"] == "sum" else 1 - decay(node.tau_syn)
        J = decay(node.tau_syn) * J + counts * node.w_in * current
        current = J
    late = fired(node, v) if hasattr(node, "v_threshold") else 0.0
    if isinstance(node, nir.IF):
        v = v + DT_S * node.r * current
    else:
        kept = decay(node.tau_mem if hasattr(node, "tau_mem") else node.tau)
        as_it_is = rule["leak"] == "exact" and rule["norm_input"] == "no"
        v = kept * v + (1 - kept) * node.v_leak
        v = v + (1.0 if as_it_is else 1 - kept) * node.r * current
    if not hasattr(node, "v_threshold"):
        return v, v, J
    if rule["reset"] == "subtract-undecayed":
        v = v - late * node.v_threshold
    elif rule["reset"] == "lost":
        v = np.where(late > 0, node.v_reset, v)
    spikes = fired(node, v)
    if rule["reset"] == "subtract":
        v = v - spikes * node.v_threshold
    elif rule["reset"] == "value":
        v = np.where(spikes > 0, node.v_reset, v)
    return spikes, v, J


def simulate(graph: nir.NIRGraph, late: set[tuple[str, str]], given: Array) -> dict[str, Array]:
    """What every node gives at every step, [T, n] by name, in float64, from the equations."""
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for tail, head in graph.edges:
        before[head].append(tail)

    @cache
    def seen(name: str, t: int) -> Any:
        return sum(output(tail, t - ((tail, name) in late)) for tail in before[name])

    @cache
    def state(name: str, t: int) -> tuple[Any, Any, Any]:
        """(output, v after the reset, J) of a neuron."""
        node = graph.nodes[name]
        if t < 0:
            return 0.0, started(node), 0.0
        _, v, J = state(name, t - 1)
        return stepped(node, v, J, seen(name, t))

    @cache
    def output(name: str, t: int) -> Any:
        node = graph.nodes[name]
        if t < 0:
            return 0.0
        if isinstance(node, nir.Input):
            return given[t].astype(float)
        if isinstance(node, nir.LIF | nir.IF | nir.CubaLIF | nir.LI | nir.CubaLI):
            return state(name, t)[0]
        if isinstance(node, nir.Delay):
            steps = np.rint(node.delay / DT_S).astype(int)
            past = np.array([seen_or_zero(name, t - age) for age in range(steps.max() + 1)])
            return past[steps, np.arange(len(steps))]
        current = seen(name, t)
        if isinstance(node, nir.Affine):
            return (
                node.weight.astype(float) @ (current + np.zeros(node.weight.shape[1])) + node.bias
            )
        if isinstance(node, nir.Scale):
            return node.scale * current
        if isinstance(node, nir.Threshold):
            at_least = (node.metadata or PLAIN)["fires"] == ">="
            return (current >= node.threshold if at_least else current > node.threshold) * 1.0
        return current

    def seen_or_zero(name: str, t: int) -> Any:
        size = len(graph.nodes[name].delay)
        return seen(name, t) + np.zeros(size) if t >= 0 else np.zeros(size)

    return {name: np.array([output(name, t) for t in range(len(given))]) for name in graph.nodes}
