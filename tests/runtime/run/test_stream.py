"""The stream loop: the same decisions however the events arrive, windows, policies, totals."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpsl_runtime
from mpsl_runtime import Events, Prediction, Step
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError, ModelError, UsageError
from mpsl_runtime.events.binning import Binning, frames
from mpsl_runtime.events.steps import Chunk, Recording, Rest, StepInput, cut
from mpsl_runtime.model.filling import Filling
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.opening import load
from mpsl_runtime.run.reference import Reference

BINNING = Binning(sensor_width=12, sensor_height=10, step_us=1000, steps=5)
MakeEvents = Callable[..., Events]


@pytest.fixture(params=["native", "reference"])
def model(request: pytest.FixtureRequest, model_file: Path) -> Model:
    return load(model_file, engine=request.param)


def dense(items: list[StepInput], binning: Binning) -> np.ndarray:
    out = np.zeros((len(items), *binning.shape), np.float32)
    for i, item in enumerate(items):
        out[i].reshape(-1)[item.address] = item.value
    return out


def cut_all(recording: Recording, policy: str = "tumbling") -> tuple[list[StepInput], Rest]:
    *items, rest = cut(recording, BINNING, policy)  # type: ignore[arg-type]
    assert isinstance(rest, Rest)
    return [item for item in items if isinstance(item, StepInput)], rest


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 12_000), min_size=1, max_size=40),
    pieces=st.lists(st.integers(0, 40), max_size=6),
    trial=st.booleans(),
)
def test_steps_do_not_depend_on_the_pieces_in_which_events_arrive(
    times: list[int], pieces: list[int], trial: bool
) -> None:
    number = len(times)
    column = np.arange(number)
    whole = Events.from_columns(np.sort(times), column % 12, column % 10, column % 2)
    edges = [0, *sorted(min(p, number) for p in pieces), number]
    chunks = [
        Chunk(whole.slice(a, b), int(whole.t[b - 1]) if b else None) for a, b in pairwise(edges)
    ]
    origin = 0 if trial else None
    one, rest_one = cut_all(Recording("one", [Chunk(whole)], origin, trial))
    many, rest_many = cut_all(Recording("many", chunks, origin, trial))
    assert np.array_equal(dense(one, BINNING), dense(many, BINNING))
    assert [i.t_us for i in one] == [i.t_us for i in many]
    assert sum(i.events for i in one) + rest_one.truncated == number
    assert rest_one == rest_many
    assert len(one) % 5 == 0


def test_a_trial_is_exactly_t_steps_and_what_follows_is_truncated(make_events: MakeEvents) -> None:
    events = make_events(1, 400, last_us=8_000)
    steps, rest = cut_all(Recording("a", [Chunk(events)], 0, trial=True))
    assert len(steps) == 5
    assert rest.truncated == int((events.t >= 5_000).sum()) > 0
    assert np.array_equal(dense(steps, BINNING), frames(events, BINNING))


def test_missing_steps_are_empty(make_events: MakeEvents) -> None:
    for events in (Events.empty(), make_events(1, 50, last_us=900)):
        steps, _ = cut_all(Recording("a", [Chunk(events)], 0, trial=True))
        assert [step.events for step in steps] == [len(events), 0, 0, 0, 0]


def test_a_stream_begins_at_its_first_event_and_fills_up_its_last_window(
    make_events: MakeEvents,
) -> None:
    later = make_events(2, 400, last_us=7_300)
    events = Events(later.t + 10**15, later.x, later.y, later.p)
    steps, rest = cut_all(Recording("a", [Chunk(events)], None, trial=False))
    assert len(steps) == 10
    assert rest.truncated == 0
    assert steps[0].t_us == int(events.t[0])
    assert sum(step.events for step in steps) == len(events)
    running, _ = cut_all(Recording("a", [Chunk(events)], None, trial=False), "continuous")
    assert len(running) == (int(events.t[-1]) - int(events.t[0])) // 1000 + 1


def test_time_without_events_moves_on_by_the_sources_clock() -> None:
    one = Events.from_columns([100], [0], [0], [1])
    seen: list[int] = []

    def chunks() -> object:
        yield Chunk(one)
        seen.append(len(taken))
        yield Chunk(Events.empty(), reached_us=3_100)
        seen.append(len(taken))

    taken: list[object] = []
    for item in cut(Recording("a", chunks(), 100, trial=False), BINNING, "tumbling"):  # type: ignore[arg-type]
        taken.append(item)
    assert seen == [0, 3]


@pytest.mark.parametrize(
    ("second", "what"),
    [(50, "event before those already given"), (10**12, "gap in the recording's time")],
)
def test_a_clock_that_jumps_is_refused(second: int, what: str) -> None:
    pieces = [Chunk(Events.from_columns([t], [0], [0], [0])) for t in (100, second)]
    with pytest.raises(DataError, match=what):
        cut_all(Recording("cam", pieces, 0, trial=False))


def test_run_stream_and_step_by_step_agree(model: Model, make_events: MakeEvents) -> None:
    events = make_events(5)
    result = model.run(frames(events, model.binning))
    assert 0 < result.spikes.sum() < result.spikes.size
    items = list(model.stream(events))
    steps = [item for item in items if isinstance(item, Step)]
    (prediction,) = [item for item in items if isinstance(item, Prediction)]
    assert np.array_equal([step.spikes for step in steps], result.spikes)
    assert np.array_equal(prediction.scores, result.scores)
    assert prediction.label == result.label == steps[-1].label
    model.reset()
    for number, step in enumerate(steps):
        inside = events.t // 1000 == number
        part = Events(events.t[inside], events.x[inside], events.y[inside], events.p[inside])
        assert np.array_equal(model.step(part).scores, step.scores)
    assert model.synops == result.synops > 0


def test_tumbling_windows_of_a_stream_are_trials_of_their_own(
    model: Model, make_events: MakeEvents
) -> None:
    events = make_events(6, 900, last_us=14_999)
    first = int(events.t[0])
    stream = model.stream([events])
    predictions = [item for item in stream if isinstance(item, Prediction)]
    assert len(predictions) == 3
    for window, prediction in enumerate(predictions):
        start = first + window * 5_000
        inside = (events.t >= start) & (events.t < start + 5_000)
        part = Events(
            events.t[inside] - start, events.x[inside], events.y[inside], events.p[inside]
        )
        assert np.array_equal(prediction.scores, model.run(frames(part, model.binning)).scores)
    assert stream.summary.samples == 3


def test_continuous_scores_are_the_spikes_of_the_last_t_steps_of_a_state_that_runs_on(
    model: Model, make_events: MakeEvents
) -> None:
    events = make_events(7, 900, last_us=13_500)
    items = list(model.stream(events, policy="continuous"))
    steps = [item for item in items if isinstance(item, Step)]
    assert len(steps) == 14
    long = Binning(sensor_width=12, sensor_height=10, step_us=1000, steps=14)
    spikes = model.run(frames(events, long)).spikes
    for number, step in enumerate(steps):
        assert np.array_equal(step.scores, spikes[max(0, number - 4) : number + 1].sum(axis=0))
    assert isinstance(items[-1], Prediction)
    assert np.array_equal(items[-1].scores, steps[-1].scores)
    assert len(items) == 15


def test_the_state_is_reset_between_recordings(model: Model, make_events: MakeEvents) -> None:
    alone = [item.scores for item in model.stream(make_events(8)) if isinstance(item, Prediction)]
    recordings = [
        Recording(name, [Chunk(make_events(seed))], 0, True) for name, seed in (("a", 9), ("b", 8))
    ]
    for policy in ("tumbling", "continuous"):
        both = [i.scores for i in model.stream(recordings, policy) if isinstance(i, Prediction)]
        assert np.array_equal(both[1], alone[0])
        assert not np.array_equal(both[0], both[1])


def test_the_summary_adds_up(model: Model, labelled_folder: Path) -> None:
    stream = model.stream(labelled_folder)
    items = list(stream)
    steps = [item for item in items if isinstance(item, Step)]
    predictions = [item for item in items if isinstance(item, Prediction)]
    summary = stream.summary
    assert [p.file for p in predictions] == [f"{k}/0000{n}.bin" for k in range(3) for n in (0, 1)]
    assert [p.target for p in predictions] == [0, 0, 1, 1, 2, 2]
    right = sum(p.label == p.target for p in predictions)
    assert summary.accuracy == right / 6
    assert (summary.samples, summary.steps, summary.truncated, summary.dropped) == (6, 30, 0, 0)
    assert summary.events == sum(step.events for step in steps) == 1800
    assert summary.latency_us["max"] >= summary.latency_us["p50"] > 0
    compute_s = sum(step.compute_us for step in steps) / 1e6
    assert summary.real_time_factor == pytest.approx(0.03 / compute_s, rel=0.01)
    total = 0
    for index in range(6):
        events = mpsl_runtime.read_events(labelled_folder / "Test" / predictions[index].file)
        total += model.run(frames(events, model.binning)).synops
    assert summary.synops == total


def test_a_policy_that_is_not_there_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="unknown policy"):
        model.stream(Events.empty(), policy="hopping")


def test_events_from_another_sensor_are_refused_before_they_are_run(model: Model) -> None:
    events = Events.from_columns([0], [0], [0], [0], sensor_size=(320, 240))
    with pytest.raises(DataError, match="another sensor; got 320x240 pixels; expected 12x10"):
        list(model.stream(events))
    with pytest.raises(DataError, match="outside the sensor"):
        model.step(Events.from_columns([0], [12], [0], [0]))


def test_an_image_model_takes_frames_and_says_so(write_model: Callable[..., Path]) -> None:
    model = load(write_model(input_kind="image"))
    result = model.run(np.full((5, 1, 28, 28), 0.25, np.float32))
    assert result.spikes.shape == (5, 3)
    for call in (lambda: model.step(Events.empty()), lambda: model.stream(Events.empty())):
        with pytest.raises(UsageError, match="takes frames, not events"):
            call()


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((5, 2, 10, 11), np.float32),
        np.zeros((2, 10, 12), np.float32),
        np.zeros(5, np.float32),
        np.float32(1),
        np.full((5, 2, 10, 12), "1"),
        np.full((5, 2, 10, 12), np.nan, np.float32),
        np.full((5, 2, 10, 12), 1e300),
    ],
    ids=lambda frames: f"{frames.dtype}{list(frames.shape)}",
)
def test_frames_that_do_not_fit_are_one_error_from_model_engine_and_reference(
    model: Model, frames: np.ndarray[Any, Any]
) -> None:
    expected = None
    for run in (model.run, Engine(model.plan).run, Reference(model.plan).run):
        with pytest.raises(UsageError) as caught:
            run(frames)
        said = re.sub("; in .*|, T ≥ 1", "", str(caught.value))
        assert said.startswith(("input does not fit the model; got", "input is not finite"))
        assert expected in (None, said)
        expected = said


def test_a_model_needs_a_step_to_decide_on(model: Model) -> None:
    with pytest.raises(UsageError, match=r"got float32 \(0, 2, 10, 12\); expected.*T ≥ 1"):
        model.run(np.zeros((0, 2, 10, 12), np.float32))


def test_the_steps_of_a_labelled_recording_know_its_class(
    model: Model, labelled_folder: Path, make_events: MakeEvents
) -> None:
    steps = [item for item in model.stream(labelled_folder) if isinstance(item, Step)]
    assert [step.target for step in steps] == [0] * 10 + [1] * 10 + [2] * 10
    assert "target" not in steps[0].to_mapping()
    assert {item.target for item in model.stream(make_events(1))} == {None}


def test_a_plan_alone_gives_the_binning_the_readout_and_the_names(model: Model) -> None:
    plan = model.plan
    assert plan.binning() == model.binning
    longer = plan.binning(steps=9, step_us=500)
    assert longer is not None
    assert (longer.steps, longer.step_us) == (9, 500)
    with pytest.raises(UsageError, match="steps must be positive"):
        plan.binning(steps=0)
    assert plan.metadata is not None
    other = replace(plan, metadata=replace(plan.metadata, sensor_width=13))
    with pytest.raises(ModelError, match="metadata does not fit the graph; got events binned"):
        Model(other, Reference(plan))
    foreign = replace(plan, metadata=None)
    assert foreign.binning() is None
    assert foreign.binning(steps=3, step_us=10) == Binning(12, 10, 10, 3)
    assert (foreign.readout, foreign.class_names) == ("count", ("0", "1", "2"))


def test_a_foreign_file_needs_its_time_steps_from_the_caller(
    write_model: Callable[..., Path], make_events: MakeEvents
) -> None:
    path = write_model(foreign=True)
    with pytest.raises(UsageError, match=r"--steps T and --step-us N"):
        _ = load(path, filling=Filling("nir", dt_s=1e-4)).binning
    with pytest.raises(UsageError, match=r"expected --from nir\|snntorch"):
        load(path, dt_s=1e-4)
    model = load(path, filling=Filling("nir"), dt_s=1e-4, steps=5, step_us=1000)
    items = list(model.stream(make_events(5)))
    assert len(items) == 6


def test_steps_and_step_us_can_be_overruled(model_file: Path, make_events: MakeEvents) -> None:
    model = load(model_file, steps=2, step_us=2500)
    assert [i.events for i in model.stream(make_events(5)) if isinstance(i, Step)] == [
        int((make_events(5).t < 2500).sum()),
        int((make_events(5).t >= 2500).sum()),
    ]


def test_membrane_models_read_the_potential_of_the_last_step(
    write_model: Callable[..., Path], make_events: MakeEvents
) -> None:
    model = load(write_model(readout="membrane"))
    prediction = [i for i in model.stream(make_events(5)) if isinstance(i, Prediction)][-1]
    result = model.run(frames(make_events(5), model.binning))
    assert np.array_equal(prediction.scores, result.scores)
    assert not np.array_equal(result.scores, np.rint(result.scores))


@pytest.fixture(params=["made", "real"])
def nmnist(request: pytest.FixtureRequest, tmp_path: Path, recordings_folder: Path) -> Path:
    """A data set in N-MNIST's layout: the real one, or parts of a made digit."""
    if request.param == "real":
        root: Path = request.getfixturevalue("shared_data")
        return datasets.find("nmnist", root / "nmnist")
    digit = np.fromfile(recordings_folder / "digit.bin", np.uint8).reshape(-1, 5)
    with zipfile.ZipFile(tmp_path / "test.zip", "w") as packed:
        for number in range(30):
            part = digit[number :: 30 + number]
            part[:, 0] = (part[:, 0] + number) % 34
            packed.writestr(f"Test/{number % 10}/{number:05d}.bin", part.tobytes())
    return tmp_path


def test_raw_event_files_give_the_decisions_of_the_binned_data_set(
    nmnist: Path, write_model: Callable[..., Path]
) -> None:
    """No skew between what training sees (`Split.input`) and what `mpsl run` does with files."""
    model = load(
        write_model(
            classes="0,1,2,3,4,5,6,7,8,9",
            sensor_width=34,
            sensor_height=34,
            steps=10,
            step_us=30_000,
        )
    )
    assert model.metadata is not None
    split = datasets.open_split("nmnist", nmnist, "test")
    stream = model.stream(nmnist / "test.zip")
    predictions = [item for item in stream if isinstance(item, Prediction)]
    assert [p.file for p in predictions] == split.ids
    assert [p.target for p in predictions] == split.labels.tolist()
    assert stream.summary.truncated > 0
    for index, prediction in enumerate(predictions):
        expected = model.run(split.input(index, model.metadata))
        assert np.array_equal(prediction.scores, expected.scores)
    assert len({p.scores.tobytes() for p in predictions}) > 20
