"""A stream that is kept at any point and goes on elsewhere gives what it would have given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import Events, Prediction, Step
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.kept import from_bytes, to_bytes
from mpsl_runtime.run.answers import AnswerRule
from mpsl_runtime.run.onset import Onset
from mpsl_runtime.run.opening import load
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.run.stream import Stream

RECORDINGS = Path(__file__).parents[2] / "recordings"
RULE = AnswerRule(least_events=5, early_margin=1.0, hold_us=3_000)
POLICIES = {
    "tumbling": Policy("tumbling", rule=RULE),
    "continuous": Policy("continuous", rule=RULE),
    "sliding": Policy("sliding", every=2, rule=RULE),
    "onset": Policy("onset", onset=Onset.parse("12/1"), rule=RULE),
    "auto": Policy("onset", onset=Onset(12, 1000), rule=RULE),
}
Made = Callable[[], Stream]


def seen(item: Step | Prediction) -> dict[str, Any]:
    mapping = item.to_mapping()
    mapping.pop("compute_us", None)
    return mapping


def totals(stream: Stream) -> dict[str, Any]:
    found = stream.summary.to_mapping()["summary"]
    for clock in ("events_per_s", "latency_us", "real_time_factor"):
        del found[clock]
    return {**found, "fired": stream.totals.fired, "answers": dict(stream.totals.answers)}


def assert_goes_on(made: Made, every: int = 1) -> int:
    """Runs it, and from each state (or each so many) once more to the end; returns their number."""
    stream = made()
    items: list[dict[str, Any]] = []
    states: list[tuple[int, bytes]] = []
    stream.keep = lambda kept, _: states.append((len(items), to_bytes(kept.kept())))
    for item in stream:
        items.append(seen(item))
    assert any("prediction" in item for item in items)
    for number, state in states[::every]:
        other = made()
        other.restore(from_bytes(state, "memory"))
        assert [seen(item) for item in other] == items[number:]
        assert totals(other) == totals(stream)
    return len(states)


def bursts(seed: int) -> Events:
    """Noise and three bursts on 12x10 pixels, in 40 ms."""
    random = np.random.default_rng(seed)
    t = np.concatenate(
        [random.integers(0, 40_000, 100)]
        + [begin + random.integers(0, 4_000, 150) for begin in (3_000, 15_500, 31_000)]
    )
    columns = (random.integers(0, high, len(t)) for high in (12, 10, 2))
    return Events.from_columns(np.sort(t), *columns)


def pieces(events: Events, size: int) -> Iterator[Chunk]:
    for begin in range(0, len(events), size):
        part = events.slice(begin, begin + size)
        yield Chunk(part, int(part.t[-1]), dropped=begin % 3)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("size", [7, 200])
def test_recordings_in_memory_go_on_under_every_policy(
    name: str, size: int, model_file: Path
) -> None:
    events = [bursts(seed) for seed in (1, 2)]

    def made(recordings: Iterable[Recording]) -> Stream:
        stream = load(model_file).stream(iter(recordings), POLICIES[name])
        assert isinstance(stream, Stream)
        return stream

    def counted(k: int, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for n, chunk in enumerate(chunks):
            taken.append((k, n))
            yield chunk

    taken: list[tuple[int, int]] = []
    items: list[dict[str, Any]] = []
    states: list[tuple[int, int, bytes]] = []
    stream = made(
        Recording(str(k), counted(k, pieces(e, size)), None, False) for k, e in enumerate(events)
    )
    stream.keep = lambda kept, _: states.append((len(items), len(taken), to_bytes(kept.kept())))
    for item in stream:
        items.append(seen(item))
    places = [(k, n) for k, e in enumerate(events) for n in range(-(-len(e) // size))]
    assert places == taken
    assert len(states) > 15
    for number, begin, state in states[:: 4 if size > 100 else 21]:
        kept = from_bytes(state, "memory")
        inside = kept.is_there("place")
        rest: list[Recording] = []
        for k, e in enumerate(events):
            left = [n for which, n in places[begin:] if which == k]
            is_current = inside and kept.inner("place").text("file") == str(k)
            if left or is_current:
                chunks = [*pieces(e, size)][left[0] :] if left else []
                rest.append(Recording(str(k), chunks, None, False))
        other = made(rest)
        other.restore(kept)
        assert [seen(item) for item in other] == items[number:]
        assert totals(other) == totals(stream)


@pytest.mark.parametrize("name", POLICIES)
def test_files_go_on_with_filters_and_a_view(name: str, model_file: Path) -> None:
    policy = replace(POLICIES[name], onset=Onset(3, 20_000, automatic=name == "auto"))

    def made() -> Stream:
        model = load(model_file, step_us=5_000, engine="native")
        feed = model.feed(
            [RECORDINGS / "gesture.es", RECORDINGS / "gesture.es"],
            fit=True, hot_pixels="auto", background_us=5_000, refractory_us=500,
        )  # fmt: skip
        stream = model.stream(feed, policy)
        assert isinstance(stream, Stream)
        return stream

    assert assert_goes_on(made, every=13) > 30


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_labelled_recordings_go_on(engine: str, model_file: Path, labelled_folder: Path) -> None:
    def made() -> Stream:
        model = load(model_file, engine=engine)  # type: ignore[arg-type]
        stream = model.stream(labelled_folder)
        assert isinstance(stream, Stream)
        return stream

    assert assert_goes_on(made, every=5) > 30


def test_a_membrane_read_out_goes_on(write_model: Callable[..., Path]) -> None:
    path = write_model(readout="membrane")

    def made() -> Stream:
        model = load(path, fit=True, step_us=20_000)
        stream = model.stream(RECORDINGS / "gesture.es", Policy("sliding", every=3))
        assert isinstance(stream, Stream)
        return stream

    assert assert_goes_on(made, every=3) > 10


def test_a_stream_that_is_suspended_ends_behind_its_step_and_no_window_is_brought_to_an_end(
    model_file: Path,
) -> None:
    def made() -> Stream:
        model = load(model_file, fit=True, step_us=5_000)
        stream = model.stream(RECORDINGS / "gesture.es", "tumbling")
        assert isinstance(stream, Stream)
        return stream

    states: list[bytes] = []
    whole = [seen(item) for item in made()]
    first = made()
    first.keep = lambda kept, _: states.append(to_bytes(kept.kept()))
    items = []
    for item in first:
        items.append(seen(item))
        if len(items) == 9:
            first.suspend()
    assert items == whole[:9]
    second = made()
    second.restore(from_bytes(states[-1], "memory"))
    assert [seen(item) for item in second] == whole[9:]


def test_the_state_of_another_network_policy_or_source_is_refused(
    model_file: Path, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    states: list[bytes] = []
    first = load(model_file, fit=True, step_us=5_000).stream(RECORDINGS / "gesture.es", "tumbling")
    assert isinstance(first, Stream)
    first.keep = lambda kept, _: states.append(to_bytes(kept.kept()))
    for _ in range(7):
        next(first)
    kept = from_bytes(states[-1], "s")

    def resumed(path: Path, file: str = "gesture.es", policy: str = "tumbling") -> Stream:
        other = load(path, fit=True, step_us=5_000).stream(RECORDINGS / file, policy)
        assert isinstance(other, Stream)
        other.restore(kept)
        return other

    assert len([*resumed(model_file)]) > 10
    with pytest.raises(DataError, match="state of another source"):
        [*resumed(model_file, "gesture.dat")]
    with pytest.raises(DataError, match="state of another policy"):
        [*resumed(model_file, policy="onset")]
    with pytest.raises(DataError, match="state of another policy"):
        resumed(model_file, policy="sliding")
    with pytest.raises(DataError, match="state of another network"):
        resumed(write_model("other.nir", sensor_width=10))
