"""Corruptions are exact and reproducible; curves are what they say."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from mpsl_runtime.cli import main
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import RunError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_train.experiments.corruptions import CORRUPTIONS, corrupt_events, corrupt_image
from mpsl_train.experiments.robustness import robustness
from mpsl_train.experiments.ways import Ways
from mpsl_train.recipe import find_recipe, load
from mpsl_train.training.training import train

IMAGES = [name for name, one in CORRUPTIONS.items() if one.fits("image")]
EVENTS = [name for name, one in CORRUPTIONS.items() if one.fits("events")]


def _recording(count: int = 400) -> Events:
    generator = np.random.default_rng(3)
    return Events.from_columns(
        np.sort(generator.integers(10_000, 300_000, count)),
        generator.integers(0, 34, count), generator.integers(0, 30, count),
        generator.integers(0, 2, count), sensor_size=(34, 30),
    )  # fmt: skip


def _columns(events: Events) -> list[list[int]]:
    return [column.tolist() for column in (events.t, events.x, events.y, events.p)]


def _rows(events: Events) -> set[tuple[int, ...]]:
    return set(zip(*_columns(events), strict=True))


@pytest.mark.parametrize("name", EVENTS)
def test_a_spoiled_recording_depends_on_seed_and_index_and_stays_a_recording(name: str) -> None:
    events = _recording()
    level = CORRUPTIONS[name].levels[-1]
    one, same, seed, index = (
        corrupt_events(name, events, level, seed=s, index=i)
        for s, i in ((1, 2), (1, 2), (2, 2), (1, 3))
    )
    one.check(where=name)
    assert (one.t.dtype, one.x.dtype, one.p.dtype) == (np.int64, np.uint16, np.uint8)
    assert _columns(one) == _columns(same)
    assert (_columns(one) != _columns(seed)) == CORRUPTIONS[name].random
    assert (_columns(one) != _columns(index)) == CORRUPTIONS[name].random
    assert _columns(corrupt_events(name, events, 0, seed=1, index=2)) == _columns(events)
    empty = Events.empty((34, 30))
    assert len(corrupt_events(name, empty, level, seed=1, index=2)) == 0


def test_dropped_and_added_events_are_exactly_as_many_as_said() -> None:
    events = _recording(401)
    dropped = corrupt_events("drop", events, 0.4, seed=0, index=0)
    assert len(dropped) == 401 - round(0.4 * 401)
    assert _rows(dropped) <= _rows(events)
    noisy = corrupt_events("noise", events, 0.5, seed=0, index=0)
    assert len(noisy) == 401 + round(0.5 * 401)
    assert _rows(events) <= _rows(noisy)
    assert (noisy.t[0], noisy.t[-1]) == (events.t[0], events.t[-1])


def test_jitter_moves_times_alone_by_as_much_as_said() -> None:
    count = 20_000
    events = Events.from_columns(
        np.sort(np.random.default_rng(0).integers(0, 10_000_000, count)), np.arange(count),
        np.zeros(count), np.zeros(count),
    )  # fmt: skip
    moved = corrupt_events("jitter", events, 20, seed=0, index=0)
    back = np.argsort(moved.x)
    shift = moved.t[back] - events.t
    assert np.array_equal(moved.x[back], events.x)
    assert shift.std() == pytest.approx(20_000, rel=0.02)
    assert np.all(np.diff(moved.t) >= 0)


def test_hot_pixels_are_the_same_in_every_recording_of_a_camera() -> None:
    def hot(seed: int, index: int) -> set[tuple[int, int, int]]:
        events = _recording()
        spoiled = corrupt_events("hot-pixels", events, 0.01, seed=seed, index=index)
        added = _rows(spoiled) - _rows(events)
        # 290 ms at 500 events/s.
        assert len(added) == pytest.approx(round(0.01 * 34 * 30) * 145, rel=0.03)
        return {row[1:] for row in added}

    assert len(hot(0, 0)) == round(0.01 * 34 * 30)
    assert hot(0, 0) == hot(0, 1)
    assert hot(0, 0) != hot(1, 0)


def test_a_crop_keeps_the_middle_of_images_and_recordings() -> None:
    image = np.full((3, 28, 28), 7, np.uint8)
    kept = corrupt_image("crop", image, 0.5, seed=0, index=0)
    assert np.array_equal(np.nonzero(kept[1].any(0))[0], np.arange(7, 21))
    assert np.array_equal(np.nonzero(kept[2].any(1))[0], np.arange(7, 21))
    events = corrupt_events("crop", _recording(4000), 0.5, seed=0, index=0)
    assert (events.x.min(), events.x.max()) == (8, 24)
    assert (events.y.min(), events.y.max()) == (7, 21)


@pytest.mark.parametrize("name", IMAGES)
def test_a_spoiled_image_depends_on_seed_and_index(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    before = image.copy()
    level = CORRUPTIONS[name].levels[-1]
    one, same, seed, index = (
        corrupt_image(name, image, level, seed=s, index=i)
        for s, i in ((1, 2), (1, 2), (2, 2), (1, 3))
    )
    assert (one.dtype, one.shape) == (np.uint8, image.shape)
    assert np.array_equal(image, before)
    assert not np.array_equal(one, image)
    assert np.array_equal(one, same)
    assert np.array_equal(one, seed) != CORRUPTIONS[name].random
    assert np.array_equal(one, index) != CORRUPTIONS[name].random
    assert np.array_equal(corrupt_image(name, image, 0, seed=1, index=2), image)


def test_noise_on_images_has_the_variance_and_the_amount_that_was_said() -> None:
    grey = np.full((1, 200, 200), 128, np.uint8)
    noisy = corrupt_image("gaussian", grey, 0.01, seed=0, index=0)
    assert (noisy / 255).var() == pytest.approx(0.01, rel=0.05)
    spoiled = corrupt_image("salt-pepper", grey, 0.1, seed=0, index=0)
    assert [(spoiled == value).sum() for value in (0, 255)] == [2000, 2000]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, small_data: Path, recipe_text: str
) -> dict[str, Path]:
    """Two seeds of one method, and one of another."""
    folder = tmp_path_factory.mktemp("robustness")
    (folder / "small.toml").write_text(recipe_text, encoding="utf-8")
    wanted = {"a0": ("adaptive", 0), "a1": ("adaptive", 1), "b0": ("stbp", 0)}
    for name, (method, seed) in wanted.items():
        overrides = [f"method={method}", f"seed={seed}", "training.epochs=2"]
        recipe = load(folder / "small.toml", overrides)
        train(recipe, folder / name, data=small_data, device="cpu")
    return {name: folder / name for name in wanted}


def test_runs_of_one_method_are_one_curve_and_the_clean_level_is_the_record(
    runs: dict[str, Path], small_data: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    out = tmp_path / "r.png"
    result = robustness(
        list(runs.values()), out, data=small_data, ways=Ways(adapt=True, align=True, modulate=0.1),
        corruptions=["drop", "crop"], seeds=2, batch=10, say=lines.append,
    )  # fmt: skip
    assert out.read_bytes().startswith(b"\x89PNG")
    assert json.loads(out.with_suffix(".json").read_text("utf-8")) == result
    curves = {curve["label"]: curve for curve in result["curves"]}
    assert sorted(curves) == sorted(
        ["adaptive, dropout", "adaptive, dropout, aligned", "adaptive, dropout, modulated",
         "adaptive, dropout, plastic", "stbp, dropout", "stbp, dropout, aligned",
         "stbp, dropout, modulated"]
    )  # fmt: skip
    with out.with_suffix(".csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    measured = 4 + 4 + 3  # ways of each run
    assert len(rows) == 2 * measured * sum(len(CORRUPTIONS[n].levels) for n in ("drop", "crop"))
    frozen = curves["adaptive, dropout"]
    assert (len(frozen["runs"]), frozen["sd_over"]) == (2, "runs")
    assert curves["stbp, dropout"]["sd_over"] == "corruption seeds"
    recorded = [json.loads((runs[name] / "report.json").read_text())["accuracy"]
                for name in ("a0", "a1")]  # fmt: skip
    clean = [values[0] for values in frozen["accuracy"]["drop"]]
    assert clean == [[accuracy] * 2 for accuracy in recorded]
    assert frozen["mean"]["drop"][0] == pytest.approx(np.mean(recorded))
    assert frozen["sd"]["drop"][0] == pytest.approx(np.std(recorded, ddof=1))
    assert np.array(frozen["accuracy"]["drop"]).shape == (2, len(CORRUPTIONS["drop"].levels), 2)
    # Level 0 is measured once, every other level of each corruption says a line.
    assert len(lines) == len(CORRUPTIONS["drop"].levels) + len(CORRUPTIONS["crop"].levels) - 1


def test_the_same_runs_give_the_same_curves(
    runs: dict[str, Path], small_data: Path, tmp_path: Path
) -> None:
    def measured(name: str) -> object:
        return robustness(
            [runs["a0"]], tmp_path / name, data=small_data, ways=Ways(adapt=True, modulate=0.3),
            corruptions=["noise"], seeds=2, batch=7,
        )["curves"]  # fmt: skip

    assert measured("a.png") == measured("b.png")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["b0", "--adapt"], "mpsl: no run has a local rule that could go on learning; got --adapt"),
        (["b0", "--corruption", "gaussian"], "mpsl: no such corruption of events; got 'gaussian'"),
        (["b0", "--modulate", "0"], "mpsl: Invalid value for '--modulate': "),
        (
            ["b0", "--align", "--batch", "1"],
            "mpsl: too few seeds or samples in a batch; got 5, 1; expected ≥ 1 and ≥ 2",
        ),
        (["b0", "--seeds", "0"], "mpsl: Invalid value for '--seeds': "),
        (["b0", "--out", "none/r.png"], "mpsl: no such folder; in none"),
    ],
)
def test_mistakes_are_one_line(
    runs: dict[str, Path], small_data: Path, tmp_path: Path, arguments: Sequence[str], line: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [str(runs.get(word, word)) for word in arguments]
    with pytest.raises(SystemExit) as exit_:
        main(["robustness", *words, "--data", str(small_data)])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))


def test_one_stream_learns_from_sample_to_sample(
    runs: dict[str, Path], small_data: Path, tmp_path: Path
) -> None:
    [frozen, plastic] = robustness(
        [runs["a0"]], tmp_path / "r.png", data=small_data, ways=Ways(adapt=True),
        corruptions=["noise"], seeds=1, batch=1,
    )["curves"]  # fmt: skip
    assert (frozen["variant"], plastic["variant"]) == ("frozen", "plastic")
    assert frozen["accuracy"]["noise"] != plastic["accuracy"]["noise"]


def test_runs_with_another_input_do_not_go_together(
    runs: dict[str, Path], small_data: Path, tmp_path: Path, small_recipe: Path
) -> None:
    other = load(small_recipe, ["training.epochs=1", "data.steps=2", "method=stbp"])
    train(other, tmp_path / "other", data=small_data, device="cpu")
    with pytest.raises(UsageError, match=r"runs differ in steps; got 2; expected 3"):
        robustness([runs["b0"], tmp_path / "other"], tmp_path / "r.png", data=small_data)


def test_settings_are_chosen_on_samples_that_were_held_out(
    runs: dict[str, Path], small_data: Path, tmp_path: Path
) -> None:
    result = robustness(
        [runs["a0"], runs["b0"]], tmp_path / "r.png", data=small_data, corruptions=["crop"],
        seeds=1, limit=0, validation=True,
    )  # fmt: skip
    recipe = load(runs["b0"] / "recipe.toml")
    split = datasets.open_split("nmnist", small_data, "train")
    _, held_out = stratified_split(split.labels, recipe.data.validation, recipe.seed)
    assert (result["split"], result["samples"]) == ("validation", len(held_out))
    recorded = json.loads((runs["b0"] / "report.json").read_text())["validation_accuracy"]
    clean = {curve["label"]: curve["mean"]["crop"][0] for curve in result["curves"]}
    assert clean["stbp, dropout"] == pytest.approx(recorded)
    with pytest.raises(UsageError, match="runs hold out different training samples"):
        robustness([runs["a0"], runs["a1"]], tmp_path / "s.png", data=small_data, validation=True)


def test_networks_with_other_steps_and_competing_neurons_stand_in_one_picture_of_images(
    small_images: Path, tmp_path: Path
) -> None:
    words = {"a": ["method=stbp"], "b": ["method=sbp"],
             "c": ["method=stdp", "network=40WTA", "data.steps=60"]}  # fmt: skip
    reports = {}
    for name, changes in words.items():
        recipe = load(find_recipe("mnist-small"), ["training.epochs=1", *changes])
        reports[name] = train(recipe, tmp_path / name, data=small_images, device="cpu").report
    folders = [tmp_path / name for name in words]
    result = robustness(
        folders,
        tmp_path / "r.png",
        data=small_images,
        ways=Ways(align=True),
        corruptions=["salt-pepper"],
        seeds=2,
    )
    curves = {curve["label"]: curve for curve in result["curves"]}
    assert list(curves) == ["stbp", "stbp, aligned", "sbp", "sbp, aligned", "stdp"]
    for name, label in (("a", "stbp"), ("b", "sbp")):
        assert curves[label]["mean"]["salt-pepper"][0] == pytest.approx(reports[name]["accuracy"])
    stdp = curves["stdp"]["mean"]["salt-pepper"]
    # Its input is drawn anew, so that it is the record but for a few samples.
    assert stdp[0] == pytest.approx(reports["c"]["accuracy"], abs=0.1)
    assert stdp[0] > stdp[-1]
    again = robustness(
        folders[2:], tmp_path / "s.png", data=small_images, corruptions=["salt-pepper"], seeds=2
    )
    assert again["curves"][0]["accuracy"] == curves["stdp"]["accuracy"]
    weights = load_file(tmp_path / "c" / "stdp.safetensors")
    save_file({**weights, "theta": weights["theta"][:7].clone()}, tmp_path / "c/stdp.safetensors")
    with pytest.raises(RunError, match=r"do not belong to the recipe; got theta \[7\]"):
        robustness(folders[2:], tmp_path / "s.png", data=small_images)
