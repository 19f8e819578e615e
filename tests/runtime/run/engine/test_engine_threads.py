"""Several threads share a step: the same bits as one, and none of them outlives its engine."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
Equal = Callable[..., None]
Frames = Callable[..., Array]
COUNTS = [2, 3, 5, 17]  # also more than a layer has blocks


def tasks(expected: int | None = None) -> int:
    """Threads of this process; the kernel may take a moment to forget one that has ended."""
    for _ in range(100):
        found = sum(1 for _ in Path("/proc/self/task").iterdir())
        if expected is None or found == expected:
            break
        time.sleep(0.01)
    return found


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="needs /proc/self/task (Linux)"
)


@pytest.fixture
def wide(make_plan: type[Any]) -> Plan:
    """Layers of 3, 5 and 1 blocks, with and without pools, values and groups."""
    builder = make_plan((2, 9, 8), seed=4)
    builder.conv(140).fire().pool().conv(300, padding=((0, 1), (1, 0))).fire(reset="value")
    builder.conv(130).conv(66).fire()  # values between two weights
    return builder.dense(75).fire().dense(5).fire().plan()  # type: ignore[no-any-return]


@pytest.mark.parametrize("threads", COUNTS)
def test_float_networks_give_the_same_bits(
    threads: int, wide: Plan, make_frames: Frames, equal: Equal
) -> None:
    equal(wide, make_frames(wide, density=0.3), busy=False, threads=threads)


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("channels", [70, 200, 330])
def test_int8_networks_give_the_same_bits(
    threads: int, channels: int, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    builder = make_plan((2, 8, 6)).conv(130).fire().pool(scale=0.25).conv(channels).fire()
    plan = make_plan.on_grid(builder.conv(70).fire().dense(9).fire().plan())
    equal(plan, make_frames(plan, density=0.4), busy=False, threads=threads)


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_a_large_fully_connected_layer_gives_the_same_bits(
    threads: int, weights: str, make_plan: type[Any], make_frames: Frames, equal: Equal
) -> None:
    plan = make_plan((2, 8, 8)).conv(70).fire().dense(200).fire().dense(5).fire().plan()
    if weights == "int8":
        plan = make_plan.on_grid(plan)
    equal(plan, make_frames(plan, density=0.3), busy=False, threads=threads)


@pytest.mark.parametrize("threads", [2, 5])
def test_dense_loops_give_the_same_bits(
    threads: int,
    make_plan: type[Any],
    make_frames: Frames,
    equal: Equal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MPSL_CROSSOVER", "0")
    builder = make_plan((2, 8, 6)).conv(130).fire().pool(scale=0.25).conv(256).fire()
    plan = builder.conv(70).fire().dense(9).fire().plan()
    for one in (plan, make_plan.on_grid(plan)):
        equal(one, make_frames(one, density=0.4), busy=False, threads=threads)


@pytest.mark.parametrize("threads", COUNTS)
def test_weights_of_any_size_give_the_same_bits_as_one_thread(
    threads: int, wide: Plan, make_plan: type[Any], make_frames: Frames
) -> None:
    plan = make_plan.with_real_weights(wide, seed=3)
    frames = make_frames(plan, steps=6, density=0.3)
    one, several = Engine(plan), Engine(plan, threads=threads)
    for a, b in zip(one.record_membrane(frames), several.record_membrane(frames), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.run(frames).any()


@pytest.mark.parametrize("threads", COUNTS)
def test_a_constant_input_gives_the_same_bits(
    threads: int, wide: Plan, make_frames: Frames
) -> None:
    constant = np.broadcast_to(make_frames(wide, steps=1, density=0.5), (7, 2, 9, 8))
    engine, reference = Engine(wide, threads=threads), Reference(wide)
    for _ in range(2):
        np.testing.assert_array_equal(engine.run(constant), reference.run(constant))
    assert engine.synops == reference.synops


def test_many_short_steps_stay_equal(make_plan: type[Any], make_frames: Frames) -> None:
    plan = make_plan((2, 5, 4)).conv(200).fire().conv(140).fire().plan()
    frames = make_frames(plan, steps=500, density=0.1)
    expected = Engine(plan).run(frames)
    assert expected.any()
    np.testing.assert_array_equal(Engine(plan, threads=3).run(frames), expected)


def test_engines_live_side_by_side(make_frames: Frames, wide: Plan) -> None:
    frames = make_frames(wide, steps=20, density=0.2)
    expected = Engine(wide).run(frames)
    engines = [Engine(wide, threads=threads) for threads in (2, 3)]
    results: list[Array] = [np.empty(0, np.float32)] * 6

    def work(i: int) -> None:
        results[i] = engines[i % 2].run(frames)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(results))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


@needs_proc
def test_threads_end_with_their_engine(make_frames: Frames, small: Plan) -> None:
    frames = make_frames(small, steps=2)
    gc.collect()  # engines of other tests
    before = tasks()
    for used in (True, False) * 20:
        engine = Engine(small, threads=4)
        assert tasks(before + 3) == before + 3
        if used:
            engine.run(frames)
        del engine
        assert tasks(before) == before


@needs_proc
def test_waiting_threads_use_no_time(wide: Plan, make_frames: Frames) -> None:
    engine = Engine(wide, threads=4)
    engine.run(make_frames(wide, steps=2))
    before = os.times()
    time.sleep(0.2)
    after = os.times()
    assert after.user + after.system - before.user - before.system < 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("steps_again", [True, False])
def test_a_forked_process_steps_and_ends(
    steps_again: bool, wide: Plan, make_frames: Frames
) -> None:
    frames = make_frames(wide, steps=3)
    engine = Engine(wide, threads=3)
    expected = engine.run(frames)
    child = os.fork()
    if child == 0:  # must leave by os._exit: the test run goes on in the parent only
        equal = not steps_again or bool(np.array_equal(engine.run(frames), expected))
        del engine
        os._exit(0 if equal else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(engine.run(frames), expected)


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**30, 1.5, None])
def test_numbers_of_threads_that_cannot_be_are_refused(threads: Any, small: Plan) -> None:
    with pytest.raises(UsageError, match="threads"):
        Engine(small, threads=threads)


def test_refused_input_leaves_the_threads_working(wide: Plan, make_frames: Frames) -> None:
    frames = make_frames(wide, steps=3)
    engine = Engine(wide, threads=3)
    expected = engine.run(frames)
    for _ in range(3):
        with pytest.raises(UsageError, match="not finite"):
            engine.step(np.full((2, 9, 8), np.nan, np.float32))
    np.testing.assert_array_equal(engine.run(frames), expected)
