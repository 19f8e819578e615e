"""What crosses into C++ is checked there: every array's type, shape, place and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import Neuron, Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Frames = Callable[..., Array]
SHAPE = ((1, 1), (1, 1, 1, 1), (1, 1), 1)


@pytest.fixture
def isa() -> None:
    """Instead of the fixture that repeats every test: nothing here depends on it."""


def floats(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def misaligned(array: NDArray[Any]) -> NDArray[Any]:
    """A copy that begins at an odd address."""
    room = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    room[...] = array
    assert not room.flags.aligned
    return room


def neurons(network: Any, **changes: Any) -> None:
    one = np.ones(1, np.float32)
    given = {
        "kind": "spiking", "reset": "subtract", "decay": one / 2, "threshold": one,
        "reset_value": 0 * one, "gain": None, "leak": None, "synaptic_decay": None,
        "synaptic_gain": None, **changes,
    }  # fmt: skip
    network.add_neurons(**given)


@pytest.fixture
def empty() -> Any:
    return _native.Network(2, 6, 5)


@pytest.fixture
def ready(empty: Any) -> Any:
    """[2, 6, 5] → 3 neurons."""
    empty.add_dense(np.ones((3, 60), np.float32), floats(3))
    neurons(empty)
    empty.finish()
    return empty


WRONG_WEIGHTS: list[tuple[Any, str]] = [
    (np.zeros((4, 2, 3, 3)), "wrong type; got float64; expected float32"),
    (np.zeros((4, 2, 3, 3), np.int8), "wrong type; got int8"),
    (np.zeros((4, 2, 3, 3), np.float16), "wrong type; got float16"),
    (np.zeros((4, 2, 3, 3), np.bool_), "wrong type; got bool8"),
    (floats(4, 2, 3), "wrong number of axes; got 3; expected 4"),
    (floats(4, 2, 3, 6)[..., ::2], "not contiguous"),
    (floats(3, 3, 2, 4).T, "not contiguous"),
    (misaligned(floats(4, 2, 3, 3)), "not aligned"),
    (floats(4, 3, 3, 3), "weight does not fit; got 108; expected 72"),
    (floats(0, 2, 3, 3), "groups do not divide"),
    (floats(4, 2, 9, 3), "kernel is larger than the input"),
    (np.full((4, 2, 3, 3), np.nan, np.float32), "weight is not finite"),
    (np.full((4, 2, 3, 3), -np.inf, np.float32), "weight is not finite"),
]


@pytest.mark.parametrize(("weight", "message"), WRONG_WEIGHTS, ids=range(len(WRONG_WEIGHTS)))
def test_weights_of_a_convolution(weight: Any, message: str, empty: Any) -> None:
    with pytest.raises(ValueError, match=message):
        empty.add_convolution(weight, floats(len(weight)), *SHAPE)


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (floats(5), "bias does not fit; got 5; expected 4"),
        (np.zeros(4), "bias has the wrong type"),
        (floats(8)[::2], "bias is not contiguous"),
        (np.array([0, 0, np.inf, 0], np.float32), "bias is not finite"),
    ],
)
def test_biases(bias: Any, message: str, empty: Any) -> None:
    with pytest.raises(ValueError, match=message):
        empty.add_convolution(floats(4, 2, 3, 3), bias, *SHAPE)
    with pytest.raises(ValueError, match=message):
        empty.add_dense(floats(4, 60), bias)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (((0, 1), (1, 1, 1, 1), (1, 1), 1), "out of range"),
        (((1, 1), (-1, 1, 1, 1), (1, 1), 1), "out of range"),
        (((1, 1), (1, 1, 1, 1), (1, 0), 1), "out of range"),
        (((1, 1), (1, 1, 1, 1), (1, 1), 0), "groups"),
        (((1, 1), (1, 1, 1, 1), (1, 1), -(2**62)), "groups"),
        (((1, 1), (1 << 30, 1, 1, 1), (1, 1), 1), "too large"),
        (((1, 1), (1 << 62, 1 << 62, 1, 1), (1, 1), 1), "too large"),
        (((1, 1 << 40), (1, 1, 1, 1), (1, 1), 1), "too large"),
        (((1, 1), (1, 1, 1, 1), (1, 1 << 31), 1), "too large"),
    ],
)
def test_numbers_of_a_convolution(numbers: Any, message: str, empty: Any) -> None:
    with pytest.raises(ValueError, match=message):
        empty.add_convolution(floats(4, 2, 3, 3), floats(4), *numbers)


def test_a_signal_that_cannot_be_indexed_is_refused(empty: Any) -> None:
    far = (1 << 29) - 3
    with pytest.raises(ValueError, match="signal is too large"):
        empty.add_convolution(floats(4, 2, 1, 1), floats(4), (1, 1), (far, far, 1, 1), (1, 1), 1)
    with pytest.raises(ValueError, match="signal is too large"):
        empty.add_pooling((1, 1), (1, 1), (far, 0), 1.0)
    for sizes in ((1 << 16, 1 << 16, 1), (1 << 31, 1, 1), (1 << 62, 1 << 62, 1 << 62)):
        with pytest.raises(ValueError, match="too large"):
            _native.Network(*sizes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": floats(61)}, "decay does not fit; got 61; expected 60"),
        ({"decay": floats(0)}, "decay does not fit; got 0"),
        ({"threshold": np.ones(60)}, "threshold has the wrong type"),
        ({"reset_value": floats(120)[::2]}, "reset value is not contiguous"),
        ({"decay": np.full(60, np.nan, np.float32)}, "decay is not finite"),
        ({"threshold": np.full(1, np.nan, np.float32)}, "threshold is not finite"),
        ({"threshold": np.full(1, np.inf, np.float32)}, "threshold is not finite"),
        ({"kind": "integrating", "threshold": np.full(1, np.nan, np.float32)}, "threshold is not"),
        ({"gain": floats(1)}, "go together"),
        ({"gain": floats(1), "leak": floats(2)}, "leak does not fit"),
        ({"synaptic_decay": floats(1)}, "go together"),
        (
            {"synaptic_decay": floats(1), "synaptic_gain": np.full(1, np.inf, np.float32)},
            "gain is not finite",
        ),
        ({"kind": "bursting"}, "kind of neuron is not known; got bursting"),
        ({"reset": "sometimes"}, "reset is not known; got sometimes"),
    ],
)
def test_parameters_of_neurons(changes: Any, message: str, empty: Any) -> None:
    with pytest.raises(ValueError, match=message):
        neurons(empty, **changes)


def test_one_value_for_all_neurons_is_the_same_as_an_array(
    make_plan: type[Any], make_frames: Frames
) -> None:
    for mapped in (False, True):
        small = make_plan((2, 6, 5)).conv(20).fire(has_input_map=mapped).scale().conv(3).fire()
        plan: Plan = small.plan()

        def view(node: Any) -> Any:
            arrays = {
                key: np.broadcast_to(value.flat[0], value.shape)
                for key, value in vars(node).items()
                if isinstance(node, Neuron) and isinstance(value, np.ndarray)
            }
            return replace(node, **arrays)

        views = replace(plan, nodes=tuple(view(node) for node in plan.nodes))
        frames = make_frames(plan, density=0.5)
        np.testing.assert_array_equal(Engine(views).run(frames), Engine(plan).run(frames))


STEPS: list[tuple[Any, Any, str]] = [
    (np.zeros((2, 6, 5)), floats(3), "frame has the wrong type"),
    (floats(2, 6, 6), floats(3), "frame has the wrong size"),
    (floats(2, 6, 10)[..., ::2], floats(3), "frame is not contiguous"),
    (misaligned(floats(2, 6, 5)), floats(3), "frame is not aligned"),
    (floats(2, 6, 5), floats(4), "output has the wrong size"),
    (floats(2, 6, 5), np.zeros(3), "output has the wrong type"),
    (floats(2, 6, 5), floats(6)[::2], "output is not contiguous"),
    (floats(2, 6, 5), misaligned(floats(3)), "output is not aligned"),
    (np.full((2, 6, 5), np.inf, np.float32), floats(3), "input is not finite"),
]


@pytest.mark.parametrize(("frame", "output", "message"), STEPS, ids=range(len(STEPS)))
def test_frames_and_outputs(frame: Any, output: Any, message: str, ready: Any) -> None:
    with pytest.raises(ValueError, match=message):
        ready.step(frame, output)


def test_an_output_that_cannot_be_written_is_refused(ready: Any) -> None:
    output = floats(3)
    output.flags.writeable = False
    with pytest.raises(TypeError, match="incompatible function arguments"):
        ready.step(floats(2, 6, 5), output)


@pytest.mark.parametrize(
    ("frames", "steps", "output", "message"),
    [
        (floats(4, 2, 6, 5), 5, floats(5, 3), "frames have the wrong size; got 240"),
        (floats(4, 2, 6, 5), 4, floats(3, 3), "output has the wrong size; got 9; expected 12"),
        (floats(4, 2, 6, 5), 1 << 63, floats(3), "too large"),
        (floats(4, 2, 6, 5), (1 << 64) // 3 + 1, floats(2), "too large"),
    ],
)
def test_runs(frames: Any, steps: int, output: Any, message: str, ready: Any) -> None:
    with pytest.raises(ValueError, match=message):
        ready.run(frames, steps, False, output)


def addresses(*values: int) -> Any:
    return np.array(values, np.int32)


SPARSE: list[tuple[Any, Any, str]] = [
    (addresses(-1), floats(1), "address outside the input; got -1; expected 0 … 59"),
    (addresses(60), floats(1), "address outside the input; got 60"),
    (addresses(-(2**31)), floats(1), "address outside the input"),
    (addresses(3, 3), floats(2), "not in ascending order; got 3 after 3"),
    (addresses(7, 3), floats(2), "not in ascending order; got 3 after 7"),
    (addresses(3), floats(2), "differ in length"),
    (addresses(3)[None], floats(1, 1), "address has the wrong number of axes"),
    (np.array([3]), floats(1), "address has the wrong type; got int64; expected int32"),
    (np.array([3], np.uint32), floats(1), "address has the wrong type; got uint32"),
    (np.arange(8, dtype=np.int32)[::2], floats(4), "address is not contiguous"),
    (addresses(3), np.zeros(1), "value has the wrong type"),
    (addresses(1, 2), floats(4)[::2], "value is not contiguous"),
    (addresses(3), np.full(1, np.nan, np.float32), "input is not finite"),
]


@pytest.mark.parametrize(("address", "value", "message"), SPARSE, ids=range(len(SPARSE)))
def test_addresses_and_their_values(address: Any, value: Any, message: str, ready: Any) -> None:
    with pytest.raises(ValueError, match=message):
        ready.step_sparse(address, value, floats(3))
    assert ready.synops == 0


def test_nothing_refused_has_changed_anything(ready: Any) -> None:
    frame, output, expected = np.ones((2, 6, 5), np.float32), floats(3), floats(3)
    ready.step(frame, expected)
    ready.reset()
    for address, value, _ in SPARSE:
        with pytest.raises(ValueError, match=" "):
            ready.step_sparse(address, value, output)
    ready.step(frame, output)
    np.testing.assert_array_equal(output, expected)
    assert output.any()


def test_populations_that_are_not_there(ready: Any) -> None:
    for index in (1, 1 << 62):
        with pytest.raises(IndexError):
            ready.membrane(index, floats(3))
        with pytest.raises(IndexError):
            ready.spikes(index, np.zeros(3, np.uint8))
        with pytest.raises(IndexError):
            ready.keep_membrane(index)
    for index in (-1, 1 << 64):
        with pytest.raises(TypeError):
            ready.membrane(index, floats(3))


def test_frames_of_any_layout_are_the_same(make_plan: type[Any], make_frames: Frames) -> None:
    plan = make_plan((2, 6, 5)).conv(20).fire().dense(3).fire().plan()
    frames = make_frames(plan, steps=4)
    expected = Engine(plan).run(frames)
    wide = np.zeros((4, 2, 6, 10), np.float32)
    wide[..., ::2] = frames
    forms = [
        wide[..., ::2], misaligned(frames), frames.astype(">f4"), frames.astype(np.int64),
        np.asfortranarray(frames),
    ]  # fmt: skip
    for form in forms:
        np.testing.assert_array_equal(Engine(plan).run(form), expected)
        engine = Engine(plan)
        np.testing.assert_array_equal([engine.step(frame) for frame in form], expected)


def test_weights_of_any_layout_are_the_same(make_plan: type[Any], make_frames: Frames) -> None:
    plan = make_plan((2, 6, 5)).conv(20).fire().dense(3).fire().plan()
    frames = make_frames(plan, steps=4)
    for form in (np.asfortranarray, misaligned):
        nodes = [
            replace(node, weight=form(node.weight)) if hasattr(node, "weight") else node
            for node in plan.nodes
        ]
        other = Engine(replace(plan, nodes=tuple(nodes)))
        np.testing.assert_array_equal(other.run(frames), Engine(plan).run(frames))
    nodes = [replace(plan.nodes[0], weight=plan.nodes[0].weight.astype(np.float64))]
    with pytest.raises(UsageError, match="weight has the wrong type; got float64"):
        Engine(replace(plan, nodes=(*nodes, *plan.nodes[1:])))


@pytest.mark.parametrize("seed", range(8))
def test_events_in_any_order_are_the_frame_that_they_add_up_to(
    seed: int, make_plan: type[Any]
) -> None:
    """Bit for bit also with weights that are not exact in any order, and counted alike."""
    random = np.random.default_rng(seed)
    plan = make_plan.with_real_weights(
        make_plan((2, 6, 5)).conv(20).fire().dense(3).fire().plan(), seed
    )
    together, apart, reference = Engine(plan), Engine(plan), Reference(plan)
    for _ in range(5):
        address = random.integers(0, 60, 40)
        value = random.choice([-1.0, 0.5, 1.0, 2.0], 40).astype(np.float32)
        frame = np.zeros(60, np.float32)
        np.add.at(frame, address, value)
        together.step(frame.reshape(2, 6, 5))
        apart.step_sparse(address, value)
        reference.step_sparse(address, value)
        np.testing.assert_array_equal(apart.membrane, together.membrane)
    assert apart.synops == together.synops == reference.synops > 0


def test_values_of_one_address_that_add_up_to_too_much_are_refused(
    make_plan: type[Any], make_frames: Frames
) -> None:
    plan = make_plan((2, 6, 5)).conv(3).fire().plan()
    huge = np.full(2, 3e38, np.float32)
    for runner in (Engine(plan), Reference(plan)):
        with pytest.raises(UsageError, match="not finite"):
            runner.step_sparse(np.array([5, 5]), huge)
    whole = make_plan.on_grid(plan)
    for runner in (Engine(whole), Reference(whole)):
        runner.step_sparse(np.array([5]), np.float32([3]))
        with pytest.raises(Exception, match="larger than this int8 model"):
            runner.step_sparse(np.array([5, 5]), np.float32([2, 2]))
