"""Ctrl-C, or any other signal, ends what takes long within a second, wherever the engine is."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.engine import Engine

Array = NDArray[np.float32]
Frames = Callable[..., Array]

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")


class RangError(Exception):
    """The alarm."""


@pytest.fixture
def isa() -> None:
    """Instead of the fixture that repeats every test: what waits is the same for every set."""


@contextmanager
def alarm(after_s: float, rings: Callable[[], None] | None = None) -> Iterator[list[bool]]:
    """Rings in the main thread; gives a list that is not empty when it has rung."""
    rang: list[bool] = []

    def ring(*_: object) -> None:
        rang.append(True)
        if rings is not None:
            rings()
        raise RangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, after_s)
    try:
        yield rang
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stops(work: Callable[[], object]) -> None:
    """`work` is under way for minutes when the alarm rings, and ends within a second.

    The handler itself runs only when the work looks up, so that its own clock says nothing. Seconds
    of this process: on a crowded machine those of the wall hold the work of others.
    """
    begin, own = time.monotonic(), time.process_time()
    with alarm(0.3), pytest.raises(RangError):
        work()
    assert time.monotonic() - begin > 0.3
    assert time.process_time() - own < 1.3


def long_row(make_plan: type[Any], *, int8: bool = False) -> Plan:
    """A map of one row, which is one task: 3·10^11 additions a step, of which nothing is empty."""
    builder = make_plan((1, 1, 1 << 18))
    builder.fire(kind="threshold")
    builder.conv(64, (1, 20_000), padding=((0, 0), (10_000, 9_999))).fire()
    plan: Plan = builder.plan()
    return make_plan.on_grid(plan, weight=1) if int8 else plan


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("way", ["lists", "dense"])
def test_within_one_step(
    way: str, threads: int, make_plan: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPSL_CROSSOVER", "1" if way == "lists" else "0")
    engine = Engine(long_row(make_plan), threads=threads)
    frame = np.ones((1, 1, 1 << 18), np.float32)
    stops(lambda: engine.step(frame))
    assert engine.synops == 0, "the network is at rest again"


@pytest.mark.parametrize("way", ["lists", "dense"])
def test_within_one_step_of_whole_numbers(
    way: str, make_plan: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPSL_CROSSOVER", "1" if way == "lists" else "0")
    engine = Engine(long_row(make_plan, int8=True))
    frame = np.ones((1, 1, 1 << 18), np.float32)
    stops(lambda: engine.step(frame))


def test_within_the_calibration_of_dense_loops(make_plan: type[Any]) -> None:
    if _best() != "vnni":
        pytest.skip("no dense loops for int8 here")
    plan = long_row(make_plan, int8=True)
    stops(lambda: Engine(plan))


def _best() -> str:
    from mpsl_runtime import _native

    return _native.isa()


def test_within_a_window_of_a_pool(make_plan: type[Any]) -> None:
    builder = make_plan((1, 1000, 1000)).pool((801, 801), (1, 1), (400, 400), scale=1.0)
    engine = Engine(builder.fire().plan())
    stops(lambda: engine.step(np.ones((1, 1000, 1000), np.float32)))


def test_between_the_steps_of_a_run(make_plan: type[Any]) -> None:
    plan = make_plan((2, 30, 30)).conv(32).fire().dense(1).fire().plan()
    engine = Engine(plan)
    stops(lambda: engine.run(np.broadcast_to(np.float32(1), (100_000_000, 2, 30, 30))))


def test_an_engine_that_was_stopped_is_at_rest_and_goes_on(
    make_plan: type[Any], make_frames: Frames
) -> None:
    builder = make_plan((2, 64, 64)).conv(64, (9, 9), padding=((4, 4), (4, 4))).fire()
    plan = builder.conv(64, (9, 9), padding=((4, 4), (4, 4))).fire().dense(5).fire().plan()
    frames = make_frames(plan, steps=3)
    for threads in (1, 3):
        expected = Engine(plan, threads=threads).run(frames)
        engine = Engine(plan, threads=threads)
        many = np.tile(make_frames(plan, steps=10, density=0.9), (200, 1, 1, 1))
        stopped = 0
        for after_s in (0.01, 0.02, 0.05, 0.1, 0.2):
            with alarm(after_s):
                try:
                    engine.run(many)
                except RangError:
                    stopped += 1
            outputs = [engine.step(frame) for frame in frames]
            np.testing.assert_array_equal(outputs, expected)
            engine.reset()
        assert stopped == 5


def test_while_it_waits_for_another_thread(make_plan: type[Any]) -> None:
    plan = make_plan((2, 30, 30)).conv(64).fire().dense(3).fire().plan()
    engine, other = Engine(plan), threading.Event()
    frames = np.ones((3000, 2, 30, 30), np.float32)

    def work() -> None:
        other.set()
        engine.run(frames)

    thread = threading.Thread(target=work)
    thread.start()
    other.wait()
    time.sleep(0.05)
    stops(lambda: [engine.step(frames[0]) for _ in range(1000)])
    was_waiting = thread.is_alive()
    thread.join()
    assert was_waiting, "the other thread ended too early to be waited for"


def test_a_handler_cannot_call_the_engine_that_it_interrupts(make_plan: type[Any]) -> None:
    plan = make_plan((2, 30, 30)).conv(32).fire().dense(1).fire().plan()
    engine, said = Engine(plan), []
    frame = np.ones((2, 30, 30), np.float32)

    def call() -> None:
        with pytest.raises(UsageError, match="at work") as caught:
            engine.step(frame)
        said.append(str(caught.value))

    with alarm(0.2, call), pytest.raises(RangError):
        engine.run(np.broadcast_to(np.float32(1), (100_000_000, 2, 30, 30)))
    assert said
    engine.step(frame)


def test_other_threads_are_not_stopped_by_a_signal(
    make_plan: type[Any], make_frames: Frames
) -> None:
    plan = make_plan((2, 30, 30)).conv(64).fire().dense(3).fire().plan()
    frames = make_frames(plan, steps=2000, density=0.5)
    expected = Engine(plan).run(frames)
    results: list[Array] = []
    thread = threading.Thread(target=lambda: results.append(Engine(plan).run(frames)))
    with alarm(0.1) as rang:
        thread.start()
        with pytest.raises(RangError):
            time.sleep(5)
    assert rang
    thread.join()
    np.testing.assert_array_equal(results[0], expected)


# What a shell starts in the background has SIGINT ignored, and so have the tests there.
SCRIPT = """
import signal, sys
from mpsl_runtime import cli
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
cli.main(["run", *sys.argv[1:]])
"""


def test_ctrl_c_ends_the_command_line_in_one_line(tmp_path: Path) -> None:
    one = np.ones(1, np.float32)
    side = 1000
    nodes = {
        "input": nir.Input(input_type={"input": np.array([2, side, side])}),
        "n1": nir.SumPool2d(
            kernel_size=np.array([501, 501]), stride=np.array([1, 1]), padding=np.array([250, 250])
        ),
        "n2": nir.Threshold(threshold=one),
        "output": nir.Output(output_type={"output": np.array([2, side, side])}),
    }
    names = list(nodes)
    graph = nir.NIRGraph(nodes=nodes, edges=list(itertools.pairwise(names)), type_check=False)
    nir.write(str(tmp_path / "model.nir"), graph)
    (tmp_path / "events.csv").write_text("t,x,y,p\n0,0,0,1\n10,999,999,0\n", "utf-8")
    words = [
        "model.nir",
        "events.csv",
        "--policy",
        "tumbling",
        "--steps",
        "3",
        "--step-us",
        "1000",
        "--dt-s",
        "1e-4",
        "--from",
        "nir",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "MPSL_ISA": ""},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - begin < 10  # a second on a free core
    assert (process.returncode, out, err) == (130, "", "mpsl: interrupted\n")
