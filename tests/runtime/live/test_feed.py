"""What a model is shown of any source: cut, summed, filtered, held; and what is counted of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import Events, Prediction, Step
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.binning import Binning, sparse_steps
from mpsl_runtime.events.readers import read_events
from mpsl_runtime.events.steps import Ceiling, Chunk, Recording, StepInput, cut
from mpsl_runtime.live.feed import Feed
from mpsl_runtime.live.options import source_options
from mpsl_runtime.run.opening import load

RECORDINGS = Path(__file__).parents[2] / "recordings"
REAL = Path(__file__).parents[4] / "shared" / "data" / "events"
MakeEvents = Callable[..., Events]
BINNING = Binning(sensor_width=12, sensor_height=10, step_us=1000, steps=5)
CAMERA_FILES = (
    "gesture-aedat2.aedat", "gesture-evt2.raw", "gesture-evt3.raw", "gesture-lz4.aedat4",
    "gesture-zstd.aedat4", "gesture.dat", "gesture-nosize.dat", "gesture.es", "gesture.csv",
)  # fmt: skip
ZOO = ("nmnist8-small", "nmnist-small", "dvs-gesture-small")


def shown(feed: Feed) -> Events:
    events = [chunk.events for recording in feed for chunk in recording.chunks]
    return Events(*(np.concatenate([getattr(e, n) for e in events]) for n in "txyp"))


@pytest.mark.parametrize("name", CAMERA_FILES)
@pytest.mark.parametrize("zoo", ZOO)
def test_every_event_model_of_the_zoo_runs_every_camera_file_with_fit(name: str, zoo: str) -> None:
    model = load(zoo, fit=True)
    stream = model.stream(model.feed([RECORDINGS / name], say=lambda _: None), "tumbling")
    summary = stream.run()
    number = len(read_events(RECORDINGS / name, on_trouble=lambda _: None))
    left = summary.truncated + summary.dropped + sum(summary.left_out.values())
    assert summary.events + left == number
    assert summary.events > number // 2
    assert summary.samples >= 1


@pytest.mark.skipif(not REAL.is_dir(), reason="the cameras' own recordings are not here")
@pytest.mark.parametrize("zoo", ZOO[::2])
def test_every_camera_runs_with_fit(zoo: str) -> None:
    model = load(zoo)
    files = sorted(path for path in REAL.glob("*/*") if path.suffix != ".csv")
    assert len(files) >= 10
    for path in files:
        feed = model.feed([path], say=lambda _: None, fit=True)
        summary = model.stream(feed, "tumbling").run()
        assert summary.events > 0, path


def test_options_of_load_hold_for_every_stream_and_those_of_a_stream_win() -> None:
    path = RECORDINGS / "gesture.es"
    model = load("nmnist8-small", crop="0,0,34,34")
    cropped = model.stream(path, "tumbling").run()
    whole = model.stream(path, "tumbling", crop=None, fit=True).run()
    assert 0 < cropped.events < whole.events
    assert cropped.left_out["outside the view"] > whole.left_out.get("outside the view", 0)


def test_filters_say_what_they_take_and_the_sum_is_kept(make_events: MakeEvents) -> None:
    events = replace(make_events(1, 3000, last_us=60_000), sensor_size=(12, 10))
    options = source_options(
        {"refractory_us": 2000, "background_us": 3000, "polarity": "merge", "flip": "h"}
    )
    feed = Feed([events], BINNING, "abc", options)
    passed = shown(feed)
    assert set(feed.taken) == {"refractory", "background"}
    assert len(passed) + feed.taken.total() == 3000
    assert passed.p.tolist() == [1] * len(passed)
    assert feed.counts()["events left out"] == dict(feed.taken)


def test_filters_do_not_depend_on_the_pieces(make_events: MakeEvents) -> None:
    events = replace(make_events(2, 2000, last_us=60_000), sensor_size=(12, 10))
    pieces = [events.slice(k, k + 37) for k in range(0, 2000, 37)]
    options = source_options({"refractory_us": 900, "background_us": 700, "hot_pixels": "auto"})
    one, many = (Feed([s], BINNING, "abc", options) for s in (events, iter(pieces)))
    assert shown(one).t.tolist() == shown(many).t.tolist()
    assert one.taken == many.taken


def test_time_goes_on_where_everything_is_left_out() -> None:
    events = Events.from_columns(
        np.arange(0, 20_000, 100), np.full(200, 20), np.zeros(200), np.zeros(200),
        sensor_size=(24, 20),
    )  # fmt: skip
    pieces = [events.slice(k, k + 20) for k in range(0, 200, 20)]
    feed = Feed([iter(pieces)], BINNING, "abc", source_options({"crop": "0,0,12,10"}))
    (recording,) = feed
    recording = replace(recording, origin_us=0)
    steps = [item for item in cut(recording, BINNING, "continuous") if isinstance(item, StepInput)]
    assert len(steps) == 19
    assert feed.taken == {"outside the view": 200}


def test_a_sensor_that_nobody_says_is_measured_in_files_and_asked_for_elsewhere(
    tmp_path: Path, make_events: MakeEvents
) -> None:
    rows = "".join(f"{t},{t // 3 % 60},{t // 3 % 50},1\n" for t in range(0, 9000, 3))
    (tmp_path / "cam.csv").write_text("t,x,y,p\n" + rows)
    said: list[str] = []
    feed = Feed(
        [tmp_path / "cam.csv"], BINNING, "abc", source_options({"fit": True}), say=said.append
    )
    assert len(shown(feed)) > 2000
    assert said == [
        f"{tmp_path / 'cam.csv'}: does not say its sensor; taken for 60x50, as far as its events go"
    ]
    given = source_options({"fit": True, "sensor_size": "60x50"})
    assert len(shown(Feed([tmp_path / "cam.csv"], BINNING, "abc", given))) > 2000
    with pytest.raises(DataError, match=r"how large its sensor is.*expected --sensor WIDTHxHEIGHT"):
        shown(Feed([iter([make_events(1)])], BINNING, "abc", source_options({"fit": True})))
    with pytest.raises(DataError, match=r"events up to x=59 y=49; expected 12x10: --fit takes"):
        shown(Feed([tmp_path / "cam.csv"], BINNING, "abc"))


def test_inputs_are_held_at_the_largest_that_a_model_takes_and_counted() -> None:
    events = Events.from_columns([1, 2, 3, 4, 1500, 1501], [5] * 6, [5] * 6, [1] * 6)
    ceiling = Ceiling(3)
    recording = Recording("a", [Chunk(events)], 0, trial=True, ceiling=ceiling)
    steps = [item for item in cut(recording, BINNING, "tumbling") if isinstance(item, StepInput)]
    assert [item.value.tolist() for item in steps] == [[3.0], [2.0], [], [], []]
    assert [(item.events, item.dropped) for item in steps[:2]] == [(3, 1), (2, 0)]
    assert ceiling.held == 1
    sparse = sparse_steps(events, BINNING)
    value, above = Ceiling(1).hold(sparse)
    assert (value.tolist(), above.tolist()) == ([1.0, 1.0], [3, 1, 0, 0, 0])


def test_an_int8_model_refuses_a_file_beyond_its_proof_and_holds_what_is_moved(
    write_model: Callable[..., Path],
) -> None:
    events = Events.from_columns([0, 1, 2, 3, 4], [5] * 5, [5] * 5, [1] * 5, sensor_size=(12, 10))
    model = load(write_model())
    seen = model.metadata
    assert seen is not None
    object.__setattr__(model, "metadata", replace(seen, weights="int8", input_max=3))
    held = model.stream(events, flip="h").run()
    assert (held.events, held.dropped) == (3, 2)
    assert held.lost == {"more than the model takes at one input": 2}
    plain = model.feed([events])
    assert [recording.ceiling for recording in plain] == [None]


def test_a_live_source_stands_alone(model_file: Path) -> None:
    with pytest.raises(UsageError, match="stands alone"):
        load(model_file).feed(["udp://127.0.0.1:0", "a.bin"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"fits": True}, {"crop": "1,2"}, {"flip": "x"}, {"polarity": "swap"}, {"reorder_ms": -1},
        {"timeout_s": float("nan")}, {"largest_queue": 0}, {"sensor_size": "1"},
        {"background_us": "x"}, {"reorder_ms": float("inf")},
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_one_line(model_file: Path, wrong: dict[str, Any]) -> None:
    for call in (lambda: load(model_file, **wrong), lambda: source_options(wrong)):
        with pytest.raises(UsageError) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_model_of_images_takes_no_options_of_events() -> None:
    with pytest.raises(UsageError, match="option means nothing for images; got fit"):
        load("mnist-small").stream(np.zeros((1, 28, 28), np.uint8), fit=True)


def test_steps_and_predictions_are_called_back(make_events: MakeEvents, model_file: Path) -> None:
    steps: list[Step] = []
    predictions: list[Prediction] = []
    stream = load(model_file).stream(
        make_events(1), on_step=steps.append, on_prediction=predictions.append
    )
    summary = stream.run()
    assert (len(steps), len(predictions)) == (summary.steps, summary.samples) == (5, 1)
