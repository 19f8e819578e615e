"""The budget of a model: what is too large is refused in one line, at once, before it is taken."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.graph import load_plan, plan_of
from mpsl_runtime.model.plan import Convolution, Neuron, Plan, Pooling
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.memory import (
    DEFAULT_LIMIT,
    LARGEST_SIZE,
    limit_or_default,
    memory_limited,
    memory_text,
    operations,
    parse_memory,
    reached_pairs,
    reference_memory,
)
from mpsl_runtime.run.opening import load
from mpsl_runtime.run.reference import Reference, fanout

MiB = 1 << 20


def chain(shape: tuple[int, ...], *nodes: Any) -> Any:
    """A graph from Input to Output; the Output says the shape that the last node gives."""
    named = {f"n{i:02d}": node for i, node in enumerate(nodes, 1)}
    graph_nodes = {
        "input": nir.Input(input_type={"input": np.array(shape)}),
        **named,
        "output": nir.Output(output_type={"output": np.array([1])}),
    }
    edges = list(itertools.pairwise(graph_nodes))
    return nir.NIRGraph(nodes=graph_nodes, edges=edges, type_check=False)


def plan(shape: tuple[int, ...], *nodes: Any, out: tuple[int, ...]) -> Plan:
    graph = chain(shape, *nodes)
    graph.nodes["output"].output_type = {"output": np.array(out)}
    return plan_of(graph, source="test.nir", dt_s=1e-4)


def lif() -> Any:
    one = np.ones(1, np.float32)
    return nir.LIF(tau=one, r=one, v_leak=0 * one, v_threshold=one)


def threshold() -> Any:
    return nir.Threshold(threshold=np.ones(1, np.float32))


def conv(
    filters: int, channels: int, kernel: Any, padding: Any = 0, dilation: int = 1, groups: int = 1
) -> Any:
    return nir.Conv2d(
        input_shape=None, weight=np.ones((filters, channels // groups, *kernel), np.float32),
        stride=1, padding=padding, dilation=dilation, groups=groups,
        bias=np.zeros(filters, np.float32),
    )  # fmt: skip


def scale() -> Any:
    return nir.Scale(scale=np.ones(1, np.float32))


FAR = 2**25 - 1
# Each took gigabytes, wrote out of bounds, or never ended, from a file of kilobytes.
TOO_LARGE: dict[str, Callable[[], Plan]] = {
    "a padded image of spikes whose size wraps": lambda: plan(
        (4096, 2, 2), threshold(), conv(33, 4096, (2, 2), FAR, 2 * FAR + 1), lif(), out=(33, 1, 1)
    ),
    "events that reach 2^32 outputs": lambda: plan(
        (1, 1024, 1024), conv(1, 1, (64, 64), 63), lif(), out=(1, 1087, 1087)
    ),
    "a kernel as long as the map": lambda: plan(
        (1, 2**14, 1), conv(1, 1, (2**14, 1), (2**14 - 1, 0)), lif(), out=(1, 2**15 - 1, 1)
    ),
    "a chain of large signals": lambda: plan(
        (1, 2**13, 2**14), *[scale()] * 40, lif(), out=(1, 2**13, 2**14)
    ),
    "a large population of one parameter": lambda: plan((2**27,), lif(), out=(2**27,)),
    "many channels on a large map": lambda: plan(
        (1, 1024, 1024), conv(128, 1, (1, 1)), lif(), out=(128, 1024, 1024)
    ),
    "a channel of its own for each of many groups": lambda: plan(
        (2**20, 1, 1), conv(2**20, 2**20, (3, 3), 1, groups=2**20), lif(), out=(2**20, 1, 1)
    ),
}


@pytest.mark.parametrize("make", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_model_that_is_too_large_is_refused_before_anything_is_taken(
    make: Callable[[], Plan],
) -> None:
    model = make()
    tracemalloc.start()
    try:
        begin = time.process_time()
        with pytest.raises(ModelError, match="too much memory"):
            Engine(model)
        with pytest.raises(ModelError, match="too much memory"):
            Reference(model, memory_limit=MiB)
        took = time.process_time() - begin
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < 2
    assert most < 64 * MiB


def test_a_large_population_takes_no_memory_while_it_is_laid_out() -> None:
    tracemalloc.start()
    try:
        model = TOO_LARGE["a chain of large signals"]()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(model.nodes) == 41
    assert most < 8 * MiB


def test_a_window_far_beyond_the_map_is_summed_where_it_meets_the_map() -> None:
    """2^54 taps, of which 8194 lie on the map: this never ended."""
    far = 2**27
    pool = nir.SumPool2d(
        kernel_size=np.array([far, far]), stride=np.array([far, far]),
        padding=np.array([far - 1, far - 1]),
    )  # fmt: skip
    model = plan((2, 4096, 2), pool, threshold(), out=(2, 2, 2))
    frame = np.zeros((2, 4096, 2), np.float32)
    frame[0, 0, 1] = frame[1, 4095, 0] = frame[1, 0, 0] = 2
    # Windows begin at 1 − far and at 1.
    parts = [slice(0, 1), slice(1, None)]
    expected = np.array([[[c[a, b].sum() > 1 for b in parts] for a in parts] for c in frame])
    assert expected.sum() == 3
    for runner in (Engine(model), Reference(model)):
        np.testing.assert_array_equal(runner.run(frame[None]).reshape(2, 2, 2), expected)


def test_a_step_that_takes_minutes_is_refused() -> None:
    side = 1024
    model = plan(
        (1, side, side), threshold(), conv(4, 1, (side + 1,) * 2, side // 2), lif(),
        out=(4, side, side),
    )  # fmt: skip
    for runner in (Engine, Reference):
        with pytest.raises(ModelError, match=r"takes too long.*2\.5e\+12.*node 'n02'.*≤ 1e\+12"):
            runner(model, memory_limit=64 << 30)


def test_numbers_beyond_every_map_are_refused() -> None:
    far, shape = LARGEST_SIZE + 1, (1, 4, 4)
    given: dict[str, Any] = {
        "weight": np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32),
        "stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1,
        "input_shape": shape, "output_shape": shape,
    }  # fmt: skip
    nodes = [
        Convolution("n", **{**given, "padding": ((far, 0), (0, 0))}),
        Convolution("n", **{**given, "stride": (1, far)}),
        Convolution("n", **{**given, "dilation": (far, 1)}),
        Pooling("n", (far, 1), (1, 1), (0, 0), 1.0, shape, shape),
        Pooling("n", (1, 1), (1, 1), (0, far), 1.0, shape, shape),
    ]
    neurons = plan(shape, threshold(), out=shape).nodes[0]
    for node in nodes:
        for runner in (Engine, Reference):
            with pytest.raises(ModelError, match=r"is too large; got .*; in node 'n' of test"):
                runner(Plan((node, neurons), shape, shape, None, "test"))


@pytest.mark.parametrize("seed", range(40))
def test_operations_are_counted_without_walking_through_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    size, taps, stride, before, after, dilation = (
        int(random.integers(low, high))
        for low, high in ((1, 30), (1, 9), (1, 12), (0, 20), (0, 20), (1, 6))
    )
    room = size + before + after - dilation * (taps - 1) - 1
    if room >= 0:
        outputs = room // stride + 1
        node = Convolution(
            "n", np.ones((2, 3, taps, 1), np.float32), np.zeros(2, np.float32), (stride, 1),
            ((before, after), (0, 0)), (dilation, 1), 1, (3, size, 1), (2, outputs, 1),
        )  # fmt: skip
        met = [o * stride + tap * dilation - before for o in range(outputs) for tap in range(taps)]
        met = [at for at in met if 0 <= at < size]
        assert reached_pairs(node, 0) == len(met)
        assert operations(node) == len(met) * 6
        counted = [met.count(at) * 2 for at in range(size)]
        np.testing.assert_array_equal(fanout(node), np.array([counted] * 3)[..., None])
    before = min(before, taps - 1)
    outputs = (size + 2 * before - taps) // stride + 1
    if outputs >= 1:
        pool = Pooling("n", (1, taps), (1, stride), (0, before), 1.0, (2, 1, size), (2, 1, outputs))
        met = [o * stride + tap - before for o in range(outputs) for tap in range(taps)]
        assert operations(pool) == 2 * sum(0 <= at < size for at in met)


@pytest.mark.parametrize("batch", [1, 7])
def test_the_reference_takes_what_was_said(batch: int) -> None:
    model = plan(
        (2, 40, 36), conv(24, 2, (5, 5), 2), lif(), nir.SumPool2d(
            kernel_size=np.array([3, 3]), stride=np.array([2, 2]), padding=np.array([1, 1])
        ), scale(), conv(40, 24, (3, 3), 1), lif(), out=(40, 20, 18),
    )  # fmt: skip
    frames = np.ones((3, batch, 2, 40, 36), np.float32)
    tracemalloc.start()
    try:
        runner = Reference(model)
        runner.run_batch(frames)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = sum(row.bytes - row.weights for row in reference_memory(model, batch))
    outputs = 3 * batch * 40 * 20 * 18 * 4 * 2
    assert most - outputs <= said <= 2.5 * most


def test_a_batch_and_copies_keep_to_the_limit() -> None:
    model = plan((2, 40, 36), conv(24, 2, (5, 5), 2), lif(), out=(24, 40, 36))
    runners = (Engine(model, memory_limit=16 * MiB), Reference(model, memory_limit=16 * MiB))
    for runner in runners:
        copies = [runner]
        with pytest.raises(ModelError, match=r"copies take too much memory.*≤ 16 MiB"):  # noqa: PT012
            while len(copies) < 100:
                copies.append(runner.fork())
        assert len(copies) > 2
        del copies[1:]
        runner.fork()
    with pytest.raises(ModelError, match="too much memory"):
        Reference(model, memory_limit=8 * MiB).run_batch(np.zeros((1, 64, 2, 40, 36), np.float32))


def test_what_is_recorded_keeps_to_the_limit() -> None:
    model = plan((2, 40, 36), conv(24, 2, (5, 5), 2), lif(), out=(24, 40, 36))
    frames = np.broadcast_to(np.float32(0), (1000, 2, 40, 36))
    for runner in (Engine(model, memory_limit=8 * MiB), Reference(model, memory_limit=8 * MiB)):
        for call in (runner.run, runner.record, runner.record_membrane):
            with pytest.raises(UsageError, match=r"so many steps.*got \d+ MiB; expected ≤ 8 MiB"):
                call(frames)
        assert runner.run(frames[:4]).shape == (4, 24 * 40 * 36)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * MiB), ("2GiB", DEFAULT_LIMIT), ("1.5 g", 3 * (1 << 29)), ("4096", 4096),
        ("7kb", 7168), ("1T", 1 << 40),
    ],
)  # fmt: skip
def test_amounts_of_memory_are_read(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "much", "1e9", "nan", "2 GiBs", "9" * 400, "0.1"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an amount of memory"):
        parse_memory(text)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2GiB"])
def test_a_limit_is_a_number_of_bytes(limit: Any, model_file: Path) -> None:
    for engine in ("native", "reference"):
        with pytest.raises(UsageError, match="memory limit"):
            load(model_file, engine=engine, memory_limit=limit)  # type: ignore[arg-type]


def test_amounts_are_said_in_units() -> None:
    said = [memory_text(size) for size in (5, 2048, 5 * MiB + 4096, 1 << 31, 1 << 80)]
    assert said == ["5 bytes", "2 KiB", "5 MiB", "2 GiB", "1,099,511,627,776 TiB"]


def test_a_limit_around_holds_where_none_is_given(model_file: Path) -> None:
    with memory_limited(100):
        with pytest.raises(ModelError, match="≤ 100 bytes"):
            load(model_file)
        load(model_file, memory_limit=MiB)
    assert limit_or_default(None) == DEFAULT_LIMIT
    load(model_file)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_the_command_line_takes_a_limit(
    engine: str, mpsl: Callable[..., Any], model_file: Path, labelled_folder: Path
) -> None:
    words = ("run", model_file, labelled_folder / "Test", "--engine", engine, "--memory-limit")
    code, out, err = mpsl(*words, "1KiB")
    assert (code, out) == (2, "")
    assert "too much memory" in err
    assert "≤ 1 KiB (--memory-limit)" in err
    assert err.count("\n") == 1
    code, out, err = mpsl(*words, "lots")
    assert (code, out) == (2, "")
    assert "not an amount of memory" in err
    assert mpsl(*words, "64MiB")[0] == 0
    assert mpsl(*words[:-1])[0] == 0, "the limit of the call before is still there"


def test_a_file_that_describes_too_much_is_one_line(
    tmp_path: Path, mpsl: Callable[..., Any], labelled_folder: Path
) -> None:
    graph = chain((2, 2**13, 2**12), *[scale()] * 30, lif())
    graph.nodes["output"].output_type = {"output": np.array([2, 2**13, 2**12])}
    nir.write(str(tmp_path / "chain.nir"), graph)
    assert (tmp_path / "chain.nir").stat().st_size < 200_000
    assert isinstance(load_plan(tmp_path / "chain.nir", dt_s=1e-4).nodes[-1], Neuron)
    source = labelled_folder / "Test"
    options = ("--dt-s", "1e-4", "--steps", "5", "--step-us", "1000")
    for words in (
        ("run", tmp_path / "chain.nir", source, *options),
        ("bench", tmp_path / "chain.nir", "--dt-s", "1e-4"),
    ):
        begin = time.process_time()
        code, out, err = mpsl(*words)
        assert (code, out) == (2, "")
        assert "too much memory" in err
        assert err.count("\n") == 1
        assert time.process_time() - begin < 5
