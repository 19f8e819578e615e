"""Plans with random weights, and the engine held against the reference on every instruction set.

Weights are small multiples of 1/4, so that sums are exact in any order: everything must be equal
bit for bit.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import (
    Convolution,
    Dense,
    Flatten,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
)
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Shape = tuple[int, ...]


def available() -> list[str]:
    """The instruction sets of this processor, by asking for each."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("baseline", "v3", "v4", "vnni"):
            patch.setenv("MPSL_ISA", name)
            try:
                found.append(_native.isa())
            except ValueError:
                continue
    return found


ISAS = available()
METADATA = ModelMetadata(
    mpsl=2, dataset="nmnist", network="", input_kind="events", steps=5, step_us=1000,
    coding="count", origin="zero", downsample=1, sensor_width=8, sensor_height=6, crop="",
    image_mean="", image_std="", input_grid=1.0, classes="", readout="count", dt_s=1e-4,
    recipe_hash="0" * 64, weights="int8", input_max=3,
)  # fmt: skip


@pytest.fixture(params=ISAS, autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MPSL_ISA", request.param)
    return str(request.param)


@pytest.fixture(scope="session")
def strategies() -> ModuleType:
    """random_networks.py."""
    path = Path(__file__).with_name("random_networks.py")
    spec = importlib.util.spec_from_file_location("random_networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def isas() -> list[str]:
    """The instruction sets of this processor."""
    return ISAS


class Builder:
    """Appends nodes with dyadic random weights; shapes follow from what is there."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.input_shape = self.shape = shape
        self.nodes: list[Node] = []

    def weights(self, *shape: int) -> Array:
        return (self.random.integers(-4, 5, shape) / 4).astype(np.float32)

    def add(self, node: Any) -> Builder:
        self.nodes.append(node)
        self.shape = node.output_shape
        return self

    def conv(
        self,
        filters: int,
        kernel: Any = (3, 3),
        stride: Any = (1, 1),
        padding: Any = ((1, 1), (1, 1)),
        dilation: Any = (1, 1),
        groups: int = 1,
    ) -> Builder:
        out = tuple(
            (size + sum(pad) - dilate * (taps - 1) - 1) // step + 1
            for size, pad, dilate, taps, step in zip(
                self.shape[1:], padding, dilation, kernel, stride, strict=True
            )
        )
        weight = self.weights(filters, self.shape[0] // groups, *kernel)
        return self.add(
            Convolution(
                f"n{len(self.nodes)}", weight, self.weights(filters), stride, padding, dilation,
                groups, self.shape, (filters, *out),
            )
        )  # fmt: skip

    def dense(self, out: int) -> Builder:
        if len(self.shape) == 3:
            self.flatten()
        weight = self.weights(out, *self.shape)
        return self.add(Dense(f"n{len(self.nodes)}", weight, self.weights(out), self.shape, (out,)))

    def flatten(self) -> Builder:
        return self.add(Flatten(f"n{len(self.nodes)}", self.shape, (math.prod(self.shape),)))

    def pool(
        self, kernel: Any = (2, 2), stride: Any = (2, 2), padding: Any = (0, 0), scale: float = 0.25
    ) -> Builder:
        out = tuple(
            (size + 2 * pad - window) // step + 1
            for size, pad, window, step in zip(self.shape[1:], padding, kernel, stride, strict=True)
        )
        return self.add(
            Pooling(
                f"n{len(self.nodes)}", kernel, stride, padding, scale, self.shape,
                (self.shape[0], *out),
            )
        )  # fmt: skip

    def scale(self) -> Builder:
        scale = self.random.choice([0.5, 1.0, 2.0], self.shape).astype(np.float32)
        return self.add(Scaling(f"n{len(self.nodes)}", scale, self.shape, self.shape))

    def fire(self, **changes: Any) -> Builder:
        """Neurons alike, with ρ = 0.5 and V_th = 1 unless `changes` say otherwise."""

        def full(value: float) -> Array:
            # As graph.load_plan lays them out; large ones only, so that arrays are tested as well.
            view = np.broadcast_to(np.float32(value), self.shape)
            return view if view.size > 10_000 else np.array(view)

        values: dict[str, Any] = {
            "kind": "spiking", "decay": full(0.5), "threshold": full(1), "reset": "subtract",
            "reset_value": full(0), "gain": full(1), "leak": full(0), "has_input_map": False,
            "synaptic_decay": None, "synaptic_gain": None,
        }  # fmt: skip
        return self.add(
            Neuron(
                name=f"n{len(self.nodes)}",
                input_shape=self.shape,
                output_shape=self.shape,
                **{**values, **changes},
            )
        )

    def varied(self, values: list[float]) -> Array:
        return self.random.choice(values, self.shape).astype(np.float32)

    def plan(self) -> Plan:
        return Plan(tuple(self.nodes), self.input_shape, self.shape, None, "test")

    exponent = -6  # of the quantum of int8 weights

    @classmethod
    def on_grid(cls, plan: Plan, *, weight: int | None = None, seed: int = 5) -> Plan:
        """The same network as an int8 model, random or with one weight, on thresholds that fire."""
        random = np.random.default_rng(seed)
        quantum = 2.0**cls.exponent
        nodes: list[Node] = []
        level = 1.0
        for node in plan.nodes:
            if isinstance(node, Convolution | Dense):
                shape = node.weight.shape
                whole = random.integers(-127, 128, shape)
                if weight is not None:
                    whole = np.full(shape, weight)
                level = max(1.0, np.round(30 * np.sqrt(np.prod(shape[1:]))))
                bias = random.integers(-int(level), int(level) + 1, len(node.bias))
                real, shift = np.float32(whole * quantum), np.float32(bias * quantum)
                nodes.append(replace(node, weight=real, bias=shift, weight_grid=cls.exponent))
            elif isinstance(node, Neuron):
                full = np.full(node.output_shape, level * quantum, np.float32)
                nodes.append(replace(node, threshold=full))
            else:
                nodes.append(node)
        model = replace(plan, nodes=tuple(nodes), metadata=METADATA)
        assert layer_grids(model)
        return model

    @staticmethod
    def with_real_weights(plan: Plan, seed: int) -> Plan:
        """The same network, its weights no longer exact in any order."""
        random = np.random.default_rng(seed)

        def real(node: Any) -> Any:
            factor = random.uniform(0.5, 1.5, node.weight.shape).astype(np.float32)
            return replace(node, weight=node.weight * factor)

        nodes = [real(n) if isinstance(n, Convolution | Dense) else n for n in plan.nodes]
        return replace(plan, nodes=tuple(nodes))


def events(plan: Plan, steps: int = 5, density: float = 0.3, seed: int = 1) -> Array:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 4, (steps, *plan.input_shape))
    return (counts * (random.random(counts.shape) < density)).astype(np.float32)


def assert_equal(plan: Plan, frames: Array, *, busy: bool = True, threads: int = 1) -> None:
    """Spikes, membranes and operations of every layer; `busy`: in every
    population of 20 or more some, but not all, fire."""
    reference, engine = Reference(plan), Engine(plan, threads=threads)
    np.testing.assert_array_equal(engine.run(frames), reference.run(frames))
    assert engine.synops == reference.synops
    np.testing.assert_array_equal(engine.membrane, reference.membrane)
    for neuron, ours, theirs in zip(
        plan.spiking, engine.record(frames), reference.record(frames), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs, err_msg=neuron.name)
        if busy and neuron.threshold.size >= 20:
            assert theirs.any(), f"{neuron.name} is silent and tests nothing"
            assert not theirs.all(), f"{neuron.name} always fires and tests nothing"
    for neuron, ours, theirs in zip(
        plan.spiking, engine.record_membrane(frames), reference.record_membrane(frames), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs, err_msg=neuron.name)


@pytest.fixture
def make_plan() -> type[Builder]:
    """`make_plan(shape, seed).conv(…).fire()….plan()`."""
    return Builder


@pytest.fixture
def make_frames() -> Callable[..., Array]:
    """`make_frames(plan, steps=5, density=0.3, seed=1)`."""
    return events


@pytest.fixture
def equal() -> Callable[..., None]:
    """`equal(plan, frames)`: engine and reference agree in every layer, bit for bit."""
    return assert_equal


@pytest.fixture
def small() -> Plan:
    """Two populations, a pool between them."""
    return Builder((2, 6, 5)).conv(20).fire().pool().dense(4).fire().plan()
