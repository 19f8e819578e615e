"""Strategies: random networks for the engine, ordinary ones and such as nobody would train."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mpsl_runtime.model.plan import Convolution, Delay, Dense, Neuron, Plan, Source

__all__ = ["branching_networks", "extreme_networks", "int8_networks", "networks", "pairs"]


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def networks(draw: st.DrawFn, make_plan: type[Any]) -> Plan:
    """One to three populations with anything that may stand between them."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(4, 11)), draw(st.integers(4, 11)))
    builder = make_plan(shape, seed=draw(st.integers(0, 1 << 20)))
    for _ in range(draw(st.integers(1, 3))):
        _, rows, columns = builder.shape
        for node in draw(st.lists(st.sampled_from(["halve", "pool", "scale"]), max_size=2)):
            if node == "halve" and min(builder.shape[1:]) >= 4:
                builder.pool()
            elif node == "pool" and min(builder.shape[1:]) >= 3:
                scale = draw(st.sampled_from([1.0, 0.5]))
                builder.pool(kernel=draw(pairs(1, 3)), stride=draw(pairs(1, 3)), scale=scale)
            elif node == "scale":
                builder.scale()
        channels, rows, columns = builder.shape
        groups = draw(st.sampled_from([g for g in (1, 1, 2, 3, 4) if channels % g == 0]))
        kernel = (draw(st.integers(1, min(5, rows))), draw(st.integers(1, min(5, columns))))
        builder.conv(
            groups * draw(st.sampled_from([1, 3, 5, 20, 40, 66])),
            kernel,
            stride=draw(pairs(1, 3)),
            padding=(draw(pairs(0, 3)), draw(pairs(0, 3))),
            dilation=(1 if kernel[0] * 2 > rows else draw(st.integers(1, 2)), 1),
            groups=groups,
        )
        _fire(draw, builder)
    if draw(st.booleans()):
        _fire(draw, builder.dense(draw(st.integers(1, 70))))
    return builder.plan()


RESETS = ["subtract", "subtract", "value", "subtract-undecayed", "lost"]


def _fire(draw: st.DrawFn, builder: Any) -> None:
    options: dict[str, Any] = {"reset": draw(st.sampled_from(RESETS))}
    if math.prod(builder.shape) > 100_000:
        builder.fire(**options)
        return
    if draw(st.booleans()):
        options["decay"] = builder.varied([0.0, 0.5, 1.0])
        options["threshold"] = builder.varied([0.5, 1.0, 4.0])
        options["reset_value"] = builder.varied([0.0, -0.5])
        if draw(st.booleans()):
            options["drop"] = builder.varied([0.25, 1.0, 2.0])
    kind = draw(st.sampled_from(["plain", "plain", "map", "synapse", "threshold"]))
    if kind == "map":
        options["has_input_map"] = True
        options["gain"] = builder.varied([0.5, 1.0])
        options["leak"] = builder.varied([0.0, 0.25])
    elif kind == "synapse":
        options["synaptic_decay"] = builder.varied([0.0, 0.5])
        options["synaptic_gain"] = builder.varied([0.5, 1.0])
    elif kind == "threshold":
        options["kind"] = "threshold"
    if kind != "threshold" and draw(st.sampled_from([False, False, True])):
        options["many"] = True
        if "drop" in options:  # never above the threshold: who reaches that fires
            options["drop"] = builder.varied([0.25, 0.5])
    builder.fire(**options)


@st.composite
def int8_networks(draw: st.DrawFn, make_plan: type[Any]) -> Plan:
    """Two to four weighted layers with pools between them."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(4, 11)), draw(st.integers(4, 11)))
    builder = make_plan(shape)
    for layer in range(draw(st.integers(2, 3))):
        if layer and draw(st.booleans()) and min(builder.shape[1:]) >= 4:
            builder.pool(scale=draw(st.sampled_from([1.0, 0.25])))
        _, rows, columns = builder.shape
        kernel = (draw(st.integers(1, min(5, rows))), draw(st.integers(1, min(5, columns))))
        groups = draw(st.sampled_from([1, 1, 1, builder.shape[0]]))
        builder.conv(
            groups * draw(st.sampled_from([1, 5, 20, 40, 66, 130, 260] if groups == 1 else [1, 2])),
            kernel,
            stride=draw(pairs(1, 3)),
            padding=(draw(pairs(0, 3)), draw(pairs(0, 3))),
            dilation=(1, 1 if kernel[1] * 2 > columns else draw(st.integers(1, 2))),
            groups=groups,
        )
        builder.fire(reset=draw(st.sampled_from(RESETS)))
    if draw(st.booleans()):
        builder.dense(draw(st.integers(1, 140))).fire()
    return make_plan.on_grid(builder.plan(), seed=draw(st.integers(0, 1 << 20)))


@st.composite
def extreme_networks(draw: st.DrawFn, make_plan: type[Any]) -> Plan:
    """Windows that reach far beyond the map, maps of one row, prime sizes, many groups; float or
    int8. What fits is small, but no number that leads there has to be."""
    shape = (draw(st.sampled_from(CHANNELS)), draw(EXTENTS), draw(EXTENTS))
    if draw(st.sampled_from([False] * 15 + [True])):
        return _beyond_lists(draw, make_plan)
    builder = make_plan(shape, seed=draw(st.integers(0, 1 << 20)))
    int8 = draw(st.booleans())
    if draw(st.booleans()):
        builder.fire(kind="threshold")  # spikes: their lists and dense loops
    for _ in range(draw(st.integers(1, 2))):
        if not int8 and draw(st.sampled_from([False, False, True])):
            axes = [draw(pool_windows(size)) for size in builder.shape[1:]]
            kernel, stride, padding = zip(*axes, strict=True)
            builder.pool(kernel, stride, padding, scale=1.0)
        channels, rows, columns = builder.shape
        groups = draw(st.sampled_from([g for g in (1, 1, 1, 2, 3, channels) if channels % g == 0]))
        filters = groups * draw(st.sampled_from([1, 3, 20, 33, 66] if groups < 4 else [1, 2]))
        room = min(150, 30_000 // channels + 1, 300_000 // (filters * channels // groups))
        above = draw(windows(rows, room))
        beside = draw(windows(columns, room // above[0]))
        builder.conv(filters, *zip(above, beside, strict=True), groups=groups)
        if int8:
            builder.fire(reset=draw(st.sampled_from(RESETS)))
        else:
            _fire(draw, builder)
    if draw(st.booleans()) and math.prod(builder.shape) < 20_000:
        builder.dense(draw(st.sampled_from([1, 7, 67]))).fire()
    plan: Plan = builder.plan()
    return make_plan.on_grid(plan, seed=draw(st.integers(0, 99))) if int8 else plan


CHANNELS = [1, 1, 2, 3, 31, 64, 67, 130, 4096]
EXTENTS = st.sampled_from([1, 2, 3, 5, 7, 13, 31, 61, 127])


def _beyond_lists(draw: st.DrawFn, make_plan: type[Any]) -> Plan:
    """A large kernel on a large map: about 2^32 outputs that a step of events reaches."""
    sides = st.sampled_from([509, 1021, 1024, 2048])
    builder = make_plan((draw(st.sampled_from([1, 2])), draw(sides), draw(sides)))
    kernel = tuple(draw(st.sampled_from([31, 64, 127])) for _ in range(2))
    padding = tuple((taps - 1, taps - 1) for taps in kernel)
    plan: Plan = builder.conv(1, kernel, padding=padding).fire().plan()
    return plan


FAR = st.one_of(
    st.integers(1, 4),
    st.sampled_from([7, 1009, 4093]),
    st.integers(10, 27).map(lambda exponent: (1 << exponent) - exponent % 2),
)


@st.composite
def windows(draw: st.DrawFn, size: int, most_taps: int) -> tuple[int, int, tuple[int, int], int]:
    """(taps, stride, padding, dilation) of a kernel that gives up to some dozen outputs on an axis
    of `size`, or about `size` of them."""
    taps = max(1, min(draw(st.sampled_from([1, 2, 3, 5, 11, 64, 251])), most_taps))
    dilation = min(draw(FAR), (1 << 27) // taps)
    outputs = draw(st.sampled_from([1, 2, 3, 5, 17, 40]))
    stride = min(draw(FAR), (1 << 27) // outputs)
    missing = max(0, (taps - 1) * dilation + 1 + (outputs - 1) * stride - size)
    before = draw(st.sampled_from([0, missing // 2, missing]))
    return taps, stride, (before, missing - before), dilation


@st.composite
def pool_windows(draw: st.DrawFn, size: int) -> tuple[int, int, int]:
    """(taps, stride, padding) of a pool; the padding is below the window."""
    taps, stride = draw(FAR), draw(FAR)
    missing = max(0, taps + (draw(st.sampled_from([1, 2, 5])) - 1) * stride - size)
    return taps, stride, min((missing + 1) // 2, taps - 1)


@st.composite
def branching_networks(draw: st.DrawFn, make_plan: type[Any]) -> Plan:
    """Networks as above with delays between their nodes, neurons that do not start at 0, edges that
    pass nodes over or come back from the step before, and perhaps weights at the end."""
    plan = draw(networks(make_plan))
    random = np.random.default_rng(draw(st.integers(0, 1 << 20)))
    nodes: list[Any] = []
    for node in plan.nodes:
        if isinstance(node, Neuron) and random.random() < 0.5:
            start = random.choice([0.0, 0.25, -0.5], node.output_shape).astype(np.float32)
            node = replace(node, initial=start)
        nodes.append(node)
        if random.random() < 0.3:
            shape = node.output_shape
            steps = random.integers(0, 4, shape if random.random() < 0.5 else 1)
            spread = np.broadcast_to(steps, shape).astype(np.int64)
            nodes.append(Delay(f"delay{len(nodes)}", spread, shape, shape))
    if random.random() < 0.5:
        size = math.prod(plan.output_shape)
        weight = (random.integers(-4, 5, (3, size)) / 4).astype(np.float32)
        nodes.append(Dense("last", weight, np.ones(3, np.float32), (size,), (3,)))
    shapes = {None: plan.input_shape, **{node.name: node.output_shape for node in nodes}}
    # Only these may go around or into weights: their values do not grow until sums are rounded.
    spikes = {node.name for node in nodes if isinstance(node, Neuron)}
    wired = []
    before: list[str | None] = [None]
    for node in nodes:
        fits = [name for name in shapes if math.prod(shapes[name]) == math.prod(node.input_shape)]
        weighted = isinstance(node, Convolution | Dense)
        others = [Source(name) for name in before[:-1]
                  if name in fits and (not weighted or name is None or name in spikes)]  # fmt: skip
        others += [Source(name, delayed=True) for name in fits if name in spikes]
        chosen = [source for source in others if random.random() < 0.4]
        wired.append(replace(node, sources=(Source(before[-1]), *chosen) if chosen else ()))
        before.append(node.name)
    return replace(plan, nodes=tuple(wired), output_shape=nodes[-1].output_shape)
