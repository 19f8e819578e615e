"""How the engine is called: forms of input, bad input, threads, instruction sets."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime import _native
from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import Convolution, Dense, Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Frames = Callable[..., Array]
Equal = Callable[..., None]


def test_steps_runs_and_events_are_the_same(make_frames: Frames, small: Plan) -> None:
    plan = small
    frames = make_frames(plan)
    expected = Reference(plan).run(frames)
    engine = Engine(plan)
    np.testing.assert_array_equal(engine.run(frames), expected)
    engine.reset()
    np.testing.assert_array_equal([engine.step(frame) for frame in frames], expected)
    engine.reset()
    steps = []
    for frame in frames.reshape(len(frames), -1):
        address = np.flatnonzero(frame).astype(np.int32)
        steps.append(engine.step_sparse(address, frame[address]))
    np.testing.assert_array_equal(steps, expected)
    assert expected.any()


def test_events_at_one_address_add_up(small: Plan) -> None:
    plan = small
    engine, reference = Engine(plan), Reference(plan)
    address, value = np.array([3, 3, 7, 3], np.int32), np.array([1, 1, 2, 0], np.float32)
    engine.step_sparse(address, value)
    reference.step_sparse(address, value)
    np.testing.assert_array_equal(engine.membrane, reference.membrane)


@pytest.mark.parametrize("first", ["conv", "dense", "pool", "neurons", "two"])
def test_a_constant_input_is_computed_once_and_exactly(
    first: str, make_plan: type[Any], make_frames: Frames
) -> None:
    builder = make_plan((2, 8, 6))
    if first == "conv":
        builder.conv(70)
    elif first == "dense":
        builder.dense(9)
    elif first == "pool":
        builder.pool(kernel=(3, 3), stride=(1, 1), scale=1.0).conv(6)
    elif first == "two":
        builder.conv(5).conv(6)
    plan = builder.fire().dense(4).fire().plan()
    frame = make_frames(plan, steps=1, density=1.0)
    constant = np.broadcast_to(frame, (6, *frame.shape[1:]))
    assert constant.strides[0] == 0
    reference, engine = Reference(plan), Engine(plan)
    expected = reference.run(constant)
    assert expected.any()
    np.testing.assert_array_equal(engine.run(constant), expected)
    assert engine.synops == reference.synops
    np.testing.assert_array_equal(engine.run(np.array(constant)), expected)
    other = make_frames(plan)
    np.testing.assert_array_equal(engine.run(other), reference.run(other))
    np.testing.assert_array_equal(engine.run(constant), expected)


def test_strided_and_integer_frames_are_taken(make_frames: Frames, small: Plan) -> None:
    plan = small
    frames = make_frames(plan)
    expected = Engine(plan).run(frames)
    wide = np.repeat(frames, 2, axis=3)[..., ::2]
    assert not wide.flags.c_contiguous
    np.testing.assert_array_equal(Engine(plan).run(wide), expected)
    np.testing.assert_array_equal(Engine(plan).run(frames.astype(np.uint8)), expected)
    read_only = frames.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(Engine(plan).run(read_only), expected)


def test_a_run_starts_from_rest_and_no_frames_give_no_steps(
    make_frames: Frames, small: Plan
) -> None:
    plan = small
    engine, frames = Engine(plan), make_frames(small)
    first = engine.run(frames)
    np.testing.assert_array_equal(engine.run(frames), first)
    assert engine.run(frames[:0]).shape == (0, 4)


def test_results_are_not_overwritten_by_the_next_step(make_frames: Frames, small: Plan) -> None:
    engine, frames = Engine(small), make_frames(small)
    outputs = [engine.step(frame) for frame in frames]
    np.testing.assert_array_equal(outputs, Engine(small).run(frames))


def test_the_caller_keeps_its_arrays(make_frames: Frames, small: Plan) -> None:
    plan = small
    weights = [node.weight.copy() for node in plan.nodes if isinstance(node, Convolution | Dense)]
    frames = make_frames(plan)
    before = frames.copy()
    Engine(plan).run(frames)
    np.testing.assert_array_equal(frames, before)
    kept = [node.weight for node in plan.nodes if isinstance(node, Convolution | Dense)]
    for now, then in zip(kept, weights, strict=True):
        np.testing.assert_array_equal(now, then)


BAD_FRAMES: list[Any] = [
    np.zeros((2, 5, 6), np.float32),
    np.zeros((1, 2, 6, 5), np.float32),
    np.full((2, 6, 5), np.nan, np.float32),
    np.full((2, 6, 5), -np.inf, np.float32),
    np.full((2, 6, 5), 1e300),
    np.full((2, 6, 5), "1"),
    np.full((2, 6, 5), 1j),
    None,
]


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=range(len(BAD_FRAMES)))
def test_a_frame_that_does_not_fit_is_refused_and_changes_nothing(
    frame: Any, make_frames: Frames, small: Plan
) -> None:
    plan = small
    engine, frames = Engine(plan), make_frames(plan)
    expected = Engine(plan).run(frames)
    engine.reset()
    outputs = [engine.step(frames[0])]
    with pytest.raises(UsageError):
        engine.step(frame)
    outputs += [engine.step(one) for one in frames[1:]]
    np.testing.assert_array_equal(outputs, expected)


def test_a_single_nan_among_numbers_is_found(small: Plan) -> None:
    frame = np.zeros((2, 6, 5), np.float32)
    frame[1, 5, 4] = np.nan
    with pytest.raises(UsageError, match="not finite"):
        Engine(small).step(frame)
    with pytest.raises(UsageError, match="not finite"):
        Engine(small).run(frame[None])


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ([60], [1.0]),
        ([-1], [1.0]),
        ([2**31], [1.0]),
        ([0, 1], [1.0]),
        ([[0]], [[1.0]]),
        ([0.5], [1.0]),
        ([0], [np.nan]),
        (["a"], [1.0]),
    ],
)
def test_events_that_do_not_fit_are_refused(address: Any, value: Any, small: Plan) -> None:
    for runner in (Engine(small), Reference(small)):
        with pytest.raises(UsageError):
            runner.step_sparse(np.array(address), np.array(value))


def test_the_native_layer_refuses_by_itself(small: Plan) -> None:
    network = _native.Network(2, 6, 5)
    one = np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="does not fit"):
        network.add_dense(np.zeros((3, 7), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="not finished"):
        network.step(np.zeros(60, np.float32), one)
    with pytest.raises(ValueError, match="has no neurons"):
        network.finish()
    with pytest.raises(ValueError, match="no values"):
        _native.Network(0, 1, 1)
    engine = Engine(small)
    native = engine._network
    with pytest.raises(ValueError, match="wrong size"):
        native.step(np.zeros((2, 6, 5), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="address outside"):
        native.step_sparse(np.array([60], np.int32), one, np.zeros(4, np.float32))
    with pytest.raises(IndexError):
        native.spikes(2, np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="wrong size"):
        native.spikes(0, np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="already finished"):
        native.finish()
    with pytest.raises(ValueError, match="output has the wrong type; got float64"):
        native.step(np.zeros((2, 6, 5), np.float32), np.zeros(4, np.float64))  # type: ignore[arg-type]


def test_the_native_layer_refuses_signals_that_are_not_there() -> None:
    network = _native.Network(2, 6, 5)
    late = network.add_late((4, 1, 1), True)
    with pytest.raises(IndexError):
        network.see([7], (2, 6, 5))
    with pytest.raises(ValueError, match="sees nothing"):
        network.see([], (2, 6, 5))
    with pytest.raises(ValueError, match="differ in size"):
        network.see([0, late], (2, 6, 5))
    with pytest.raises(ValueError, match="none of the step before"):
        network.follow(0, late)
    with pytest.raises(IndexError):
        network.follow(9, 0)
    with pytest.raises(ValueError, match="of another kind"):
        network.follow(late, 0)
    with pytest.raises(ValueError, match="delay does not fit"):
        network.add_delay(np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="below 0"):
        network.add_delay(np.full(60, -1, np.int32))
    one = np.ones(60, np.float32)
    network.add_neurons(
        "spiking", "subtract", one, one, one, None, None, None, None, np.zeros(1, np.float32)
    )
    with pytest.raises(ValueError, match="follows nothing"):
        network.finish()


def test_two_threads_may_share_an_engine(make_frames: Frames, small: Plan) -> None:
    plan = small
    frames = make_frames(plan, steps=40)
    engine = Engine(plan)
    workers = [threading.Thread(target=engine.run, args=(frames,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.testing.assert_array_equal(engine.run(frames), Reference(plan).run(frames))


def test_the_instruction_set_is_the_one_asked_for(isa: str, small: Plan) -> None:
    assert Engine(small).isa == isa


def test_an_unknown_instruction_set_is_refused(
    monkeypatch: pytest.MonkeyPatch, small: Plan
) -> None:
    monkeypatch.setenv("MPSL_ISA", "mmx")
    with pytest.raises(UsageError, match="MPSL_ISA"):
        Engine(small)


def test_the_portable_loops_are_always_there(monkeypatch: pytest.MonkeyPatch, small: Plan) -> None:
    monkeypatch.setenv("MPSL_ISA", "baseline")
    assert Engine(small).isa == "baseline"


def test_memory_is_about_that_of_weights_and_state(make_plan: type[Any]) -> None:
    plan = make_plan((2, 34, 34)).conv(64).fire().pool().conv(64).fire().plan()
    weights = sum(node.weight.nbytes for node in plan.nodes if isinstance(node, Convolution))
    state = sum(math.prod(neuron.output_shape) * 4 for neuron in plan.spiking)
    assert weights + state <= Engine(plan).memory_bytes < 3 * (weights + state)
