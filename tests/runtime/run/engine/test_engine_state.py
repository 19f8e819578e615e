"""A state that is taken and restored: what follows is what would have followed, bit for bit."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.model.plan import Delay, Neuron, Plan, Source
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference
from mpsl_runtime.run.state import network_hash

Array = NDArray[np.float32]
Frames = Callable[..., Array]
Runner = Engine | Reference
FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)


@pytest.fixture
def isa() -> None:
    """Instead of the fixture that repeats every test: each draws two instruction sets."""


def follow(runner: Runner, frames: Array) -> list[NDArray[Any]]:
    """All that can be seen of the steps."""
    seen: list[NDArray[Any]] = []
    for frame in frames:
        seen += [runner.step(frame), runner.membrane.copy()]
        seen.append(np.array([runner.steps, runner.synops, *runner.fired]))
    return seen


def assert_goes_on(first: Runner, second: Runner, frames: Array, after: int) -> None:
    """`second` takes over from `first` after so many steps."""
    first.reset()
    follow(first, frames[:after])
    state = first.state()
    expected = follow(first, frames[after:])
    second.restore(state)
    assert second.state() == state
    for ours, theirs in zip(follow(second, frames[after:]), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert second.state() == first.state()


@given(data=st.data())
@settings(
    max_examples=FUZZ or 120,
    deadline=None,
    derandomize=not FUZZ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.parametrize("kind", ["networks", "int8_networks", "branching_networks"])
def test_any_engine_and_the_reference_go_on_from_each_other(
    kind: str,
    data: st.DataObject,
    isas: list[str],
    strategies: Any,
    make_plan: type[Any],
    make_frames: Frames,
) -> None:
    plan = data.draw(getattr(strategies, kind)(make_plan))
    frames = make_frames(plan, steps=6, density=data.draw(st.sampled_from([0.05, 0.3, 1.0])))

    def runner() -> Runner:
        isa = data.draw(st.sampled_from([*isas, "reference"]))
        if isa == "reference":
            return Reference(plan)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MPSL_ISA", isa)
            return Engine(plan, threads=data.draw(st.sampled_from([1, 2, 3])))

    second = runner()
    if data.draw(st.booleans()):
        second.run(frames)  # one that has run before
    assert_goes_on(runner(), second, frames, data.draw(st.integers(0, 5)))


def test_weights_of_any_size_go_on_with_other_threads(
    make_plan: type[Any], make_frames: Frames
) -> None:
    builder = make_plan((2, 9, 8), seed=4).conv(140).fire().pool().conv(70).fire()
    plan = make_plan.with_real_weights(builder.dense(9).fire().plan(), 3)
    frames = make_frames(plan, steps=8, density=0.3)
    assert_goes_on(Engine(plan), Engine(plan, threads=3), frames, 4)
    assert Engine(plan).run(frames).any()


def test_synapses_values_and_potentials_are_all_kept(
    make_plan: type[Any], make_frames: Frames
) -> None:
    builder = make_plan((2, 6, 5)).conv(20)
    builder.fire(synaptic_decay=builder.varied([0.5]), synaptic_gain=builder.varied([1.0]))
    builder.fire(kind="threshold").conv(3)
    integrating = np.full((3, 6, 5), np.inf, np.float32)
    builder.fire(kind="integrating", threshold=integrating)
    plan = builder.plan()
    frames = make_frames(plan, steps=6)
    for first in (Engine(plan), Reference(plan)):
        for second in (Engine(plan), Reference(plan)):
            assert_goes_on(first, second, frames, 3)
    assert Engine(plan).run(frames)[-1].any()


def test_a_graph_with_loops_and_delays_goes_on(make_plan: type[Any], make_frames: Frames) -> None:
    plan = make_plan((2, 6, 5)).conv(4).fire().dense(8).fire().dense(8).fire().plan()
    names = [node.name for node in plan.nodes]
    last = plan.nodes[-1]
    steps = np.arange(8, dtype=np.int64) % 3
    delay = Delay("late", steps, (8,), (8,), (Source(last.name),))
    sources = (Source(names[-3]), Source(last.name, delayed=True), Source("late", delayed=True))
    loop = replace(plan.nodes[-2], sources=sources)
    nodes = (*plan.nodes[:-2], loop, last, delay)
    looped = replace(plan, nodes=nodes)
    assert not looped.is_chain
    assert looped.output_neuron is None
    frames = make_frames(looped, steps=9, density=0.6)
    for first in (Engine(looped), Reference(looped)):
        for second in (Engine(looped), Reference(looped)):
            assert_goes_on(first, second, frames, 5)
    kept = Reference(looped)
    follow(kept, frames[:5])
    fresh = Reference(looped)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(follow(kept, frames[5:]), follow(fresh, frames[5:]), strict=True)
    ), "nothing is remembered, and nothing tested"


@pytest.fixture
def taken(small: Plan, make_frames: Frames) -> bytes:
    engine = Engine(small)
    follow(engine, make_frames(small, steps=3))
    return engine.state()


def resealed(content: bytes) -> bytes:
    """With the checksum that belongs to it."""
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


def test_a_state_of_another_network_is_refused(
    small: Plan, taken: bytes, make_plan: type[Any], make_frames: Frames
) -> None:
    threshold = make_plan((2, 6, 5)).conv(20).fire().pool().dense(4)
    others = [
        make_plan((2, 6, 5), seed=1).conv(20).fire().pool().dense(4).fire().plan(),
        threshold.fire(threshold=threshold.varied([1.0, 2.0])).plan(),
        make_plan((2, 6, 5)).conv(20).fire().pool(scale=0.5).dense(4).fire().plan(),
        make_plan((2, 6, 5)).conv(20).fire(reset="value").pool().dense(4).fire().plan(),
    ]
    for other in others:
        for runner in (Engine(other), Reference(other)):
            before = runner.state()
            with pytest.raises(DataError, match="state of another network; in test"):
                runner.restore(taken)
            assert runner.state() == before


def test_the_hash_is_that_of_what_the_network_does(small: Plan) -> None:
    def views(node: Any) -> Any:
        if not isinstance(node, Neuron):
            return node
        arrays = {k: v for k, v in vars(node).items() if isinstance(v, np.ndarray)}
        return replace(node, **{k: np.broadcast_to(v.flat[0], v.shape) for k, v in arrays.items()})

    same = replace(
        small, nodes=tuple(map(views, small.nodes)), source="elsewhere.nir", notes=("x",)
    )
    assert network_hash(same) == network_hash(small)
    renamed = replace(small.nodes[0], name="other")
    assert network_hash(replace(small, nodes=(renamed, *small.nodes[1:]))) != network_hash(small)
    # The same on every machine and in every version of Python and numpy.
    assert network_hash(small).hex()[:16] == "42cfcf3e2726db5d"


DAMAGE: list[tuple[Callable[[bytes], Any], str]] = [
    (lambda s: b"", "not the state of a network; got 0 bytes"),
    (lambda s: s[:30], "not the state of a network"),
    (lambda s: b"x" + s[1:], "not the state of a network"),
    (lambda s: resealed(s[:8] + b"\2\0\0\0" + s[12:]), "another version; got 2; expected 1"),
    (lambda s: resealed(s[:12] + bytes(32) + s[44:]), "another network"),
    (lambda s: s[:-1], "damaged; got .* bytes; expected"),
    (lambda s: s + b"\0", "damaged; got .* bytes; expected"),
    (lambda s: s[:44] + b"\7" + s[45:], "damaged; got another checksum"),
    (lambda s: s[:-5] + b"\1" + s[-4:], "damaged; got another checksum"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_what_is_damaged_is_refused(
    damage: Callable[[bytes], Any], message: str, small: Plan, taken: bytes
) -> None:
    for runner in (Engine(small), Reference(small)):
        before = runner.state()
        with pytest.raises(DataError, match=message):
            runner.restore(damage(taken))
        assert runner.state() == before


def test_any_flipped_bit_is_found(small: Plan, taken: bytes) -> None:
    engine, random = Engine(small), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(taken)
        content[random.integers(len(taken))] ^= 1 << random.integers(8)
        with pytest.raises(DataError):
            engine.restore(bytes(content))
    engine.restore(taken)


def test_a_state_that_no_network_can_have_is_refused(small: Plan, taken: bytes) -> None:
    sizes = [20 * 6 * 5 + 4] * 2
    spikes = len(taken) - 4 - 4 * 4 - sizes[1]
    assert set(taken[spikes : spikes + sizes[1]]) == {0, 1}
    with pytest.raises(DataError, match="neither 0 nor 1"):
        Engine(small).restore(resealed(taken[:spikes] + b"\2" + taken[spikes + 1 :]))


@pytest.mark.parametrize("state", [None, "mpslstat", 3, np.zeros(8, np.float32)])
def test_what_is_not_bytes_is_refused(state: Any, small: Plan) -> None:
    for runner in (Engine(small), Reference(small)):
        with pytest.raises(UsageError, match="state is not bytes"):
            runner.restore(state)


def test_a_batch_has_no_state(small: Plan) -> None:
    reference = Reference(small)
    reference.run_batch(np.zeros((2, 3, 2, 6, 5), np.float32))
    with pytest.raises(UsageError, match="only one sample has a state"):
        reference.state()


def test_steps_are_counted_from_the_last_reset(small: Plan, make_frames: Frames) -> None:
    frames = make_frames(small, steps=5)
    for runner in (Engine(small), Reference(small)):
        assert runner.steps == 0
        runner.run(frames)
        assert runner.steps == 5
        runner.step(frames[0])
        runner.step_sparse(np.array([1]), np.float32([1]))
        assert runner.steps == 7
        runner.run(np.broadcast_to(frames[0], (3, *frames[0].shape)))
        assert runner.steps == 3
        runner.reset()
        assert runner.steps == 0


def test_the_native_layer_checks_the_sizes_of_a_state(small: Plan) -> None:
    native = Engine(small)._network
    V, J = np.zeros(604, np.float32), np.zeros(0, np.float32)
    S, U = np.zeros(604, np.uint8), np.zeros(4, np.float32)
    assert native.state(1, V, J, S, U, J) == (0, 0)
    for arrays in (
        (V[1:], J, S, U, J), (V, V, S, U, J), (V, J, S[1:], U, J), (V, J, S, U[1:], J),
        (V, J, S, U, V),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="wrong size"):
            native.state(1, *arrays)
        with pytest.raises(ValueError, match="wrong size"):
            native.restore(1, *arrays, 0, 0)
    with pytest.raises(ValueError, match="wrong size"):
        native.state(0, V, J, S, U, J)
    with pytest.raises(IndexError):
        native.state(2, V, J, S, U, J)
    with pytest.raises(ValueError, match="S has the wrong type"):
        native.restore(1, V, J, V, U, J, 0, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        native.restore(1, V, J, S, U, J, -1, 0)
