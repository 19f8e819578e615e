"""The embedded data set: reproducible, plausible beside N-MNIST, and whole or not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError, OutputError, UsageError
from mpsl_runtime.events import binning, readers
from mpsl_runtime.events.events import Events
from mpsl_train.data import dvs_digits, saccades, staging

FIRST_RELEASE = "63f50a1bcafad86568f0049361aa03273f4ae3138998f58b6861156566568933"
HEAD = 24  # digits that most tests record: enough of every kind


def content(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def record(seed: int, indices: range) -> list[Events]:
    """Digits seen by one camera."""
    images, _ = dvs_digits.digits()
    rngs = [dvs_digits.sample_rng(seed, index) for index in indices]
    sensor = saccades.camera(np.random.default_rng(seed))
    return saccades.simulate_batch(images[indices.start : indices.stop], rngs, sensor)


@pytest.fixture(scope="module")
def recordings() -> list[Events]:
    """Recordings of the first digits."""
    return record(0, range(HEAD))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two samples a class and split, on disk."""
    root = tmp_path_factory.mktemp("data") / "dvs-digits"
    dvs_digits.make(root, seed=5, progress=False, limit=2)
    return root


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    dvs_digits.make(tmp_path / "again", seed=5, progress=False, limit=2)
    assert content(tmp_path / "again") == content(made)
    assert len(content(made)) == 2 * 2 * 10 + 1


def test_another_seed_gives_other_recordings_of_the_same_digits(made: Path, tmp_path: Path) -> None:
    dvs_digits.make(tmp_path / "other", seed=6, progress=False, limit=2)
    here, there = content(made), content(tmp_path / "other")
    assert here.keys() == there.keys()
    assert all(here[name] != there[name] for name in here)


def test_the_bytes_are_those_of_the_first_release(made: Path) -> None:
    """Whoever changes the simulation on purpose raises VERSION and puts the new hash here."""
    digest = hashlib.sha256()
    for name, data in content(made).items():
        if name.endswith(".bin"):
            digest.update(name.encode() + data)
    assert (dvs_digits.VERSION, digest.hexdigest()) == (1, FIRST_RELEASE)


def test_a_recording_does_not_depend_on_its_batch(recordings: list[Events]) -> None:
    for start, stop in ((3, 4), (7, 12)):
        for events, alone in zip(
            recordings[start:stop], record(0, range(start, stop)), strict=True
        ):
            for column in "txyp":
                np.testing.assert_array_equal(getattr(events, column), getattr(alone, column))


def test_events_are_on_the_sensor_in_time_order_with_both_polarities(
    recordings: list[Events],
) -> None:
    assert len(recordings) == HEAD
    for events in recordings:
        events.check(sensor_size=(34, 34))
        assert events.t[0] >= 0
        assert 290_000 < events.t[-1] <= 316_000
        assert 0.4 < events.p.mean() < 0.6


def test_three_saccades_show_as_three_bursts(recordings: list[Events]) -> None:
    rate = sum(np.bincount(events.t // 5_000, minlength=64) for events in recordings)
    bursts = [int(rate[start : start + 9].sum()) for start in (5, 26, 47)]  # 25–70 ms of each
    pauses = [int(rate[start : start + 3].sum()) for start in (18, 39)]  # 90–105 ms of each
    assert min(bursts) / 9 > 10 * max(pauses) / 3


def test_the_digit_moves_along_the_triangle(recordings: list[Events]) -> None:
    """First down and to the right, then up and to the right, then back to the left."""
    corners = []
    for begin, end in ((0, 25), (75, 130), (180, 235), (290, 316)):
        inside = [
            (np.mean(events.x[window]), np.mean(events.y[window]))
            for events in recordings
            for window in [(events.t >= begin * 1000) & (events.t < end * 1000)]
            if window.sum() > 20
        ]
        assert len(inside) > HEAD // 2
        corners.append(np.mean(inside, axis=0))
    first, second, third, last = corners
    assert second[1] > first[1] + 2
    assert third[1] < second[1] - 2
    assert third[0] > second[0] + 1
    assert last[0] < third[0] - 2


def test_the_leading_edge_of_ink_gives_off_events() -> None:
    image = np.zeros((8, 8))
    image[:, 3:5] = 1  # an upright stroke; the third saccade moves it to the left
    events = saccades.simulate(image, np.random.default_rng(0))
    moving = (events.t > 230_000) & (events.t < 270_000) & (abs(events.y.astype(int) - 15) < 8)
    left_of_middle = events.x[moving & (events.p == 0)].mean()
    assert left_of_middle < events.x[moving & (events.p == 1)].mean() - 2


def test_a_pixel_keeps_its_refractory_period() -> None:
    """Noise aside, which comes from elsewhere in the pixel."""
    log = np.cumsum(np.full((40, 1, 34 * 34), 2.0), axis=0)
    sensor = saccades.camera(np.random.default_rng(0))
    t, cell, p = saccades._crossings(log, np.full((1, 34 * 34), 0.5), sensor)
    order = np.lexsort((t, cell))
    same_pixel = np.diff(cell[order]) == 0
    assert same_pixel.sum() > 34 * 34
    assert np.diff(t[order])[same_pixel].min() >= 1_000
    assert np.all(p == 1)


def test_times_are_interpolated_between_frames() -> None:
    """Intensity that rises evenly by a third of a threshold a frame fires every third frame."""
    sensor = saccades.Camera(np.full(34 * 34, 0.3), np.full(34 * 34, 0.3))
    log = np.arange(100)[:, None, None] * np.full((1, 1, 34 * 34), 0.07)
    t, cell, _ = saccades._crossings(log, np.full((1, 34 * 34), 0.5), sensor)
    own = t[cell == 0]
    expected = 0.3 / 0.07 * 2_000
    assert len(own) > 15
    np.testing.assert_allclose(np.diff(own), expected, rtol=0.002)  # the leak adds 0.1 %
    assert np.any(own % 2_000 != 0)


def test_a_blank_page_gives_noise_alone() -> None:
    counts = [
        len(saccades.simulate(np.zeros((8, 8)), np.random.default_rng(seed))) for seed in range(20)
    ]
    expected = (0.15 + 0.1) * 34 * 34 * 0.316  # shot noise and leak
    assert 0.7 * expected < np.mean(counts) < 1.3 * expected


def test_statistics_are_those_of_nmnist(recordings: list[Events], shared_data: Path) -> None:
    root = datasets.find("nmnist", shared_data)
    split = datasets.open_split("nmnist", root, "train")
    real = [split.events(index) for index in range(0, len(split), 25)]

    def facts(some: list[Events]) -> tuple[float, float, float]:
        pixels = [np.bincount(e.y.astype(int) * 34 + e.x, minlength=34 * 34) for e in some]
        active = float(np.mean([(count > 3).sum() for count in pixels]))
        per_pixel = float(np.mean([count[count > 3].mean() for count in pixels]))
        return float(np.mean([len(e) for e in some])), active, per_pixel

    for ours, theirs in zip(facts(recordings), facts(real), strict=True):
        assert 0.75 < ours / theirs < 1.33


def test_a_recording_survives_the_disk(recordings: list[Events], tmp_path: Path) -> None:
    path = tmp_path / "00000.bin"
    readers.write_nmnist_bin(path, recordings[0])
    back = readers.read_events(path)
    assert len(back) > 1_000
    for column in "txyp":
        np.testing.assert_array_equal(getattr(back, column), getattr(recordings[0], column))


def test_the_data_set_opens_like_a_real_one(made: Path) -> None:
    images, labels = dvs_digits.digits()
    for split_name in ("train", "test"):
        split = datasets.open_split("dvs-digits", datasets.find("dvs-digits", made), split_name)
        assert split.labels.tolist() == [label for label in range(10) for _ in range(2)]
        for index, sample in enumerate(split.ids):
            number = int(sample.split("/")[1].removesuffix(".bin"))
            assert labels[number] == split.labels[index]
            frames = binning.frames(split.events(index), binning.Binning(34, 34, 40_000, 8))
            # Where the ink is, there are the events.
            ink = np.kron(images[number], np.ones((3, 3)))
            seen = frames.sum(axis=(0, 1))[5:29, 5:29]
            assert np.corrcoef(ink.ravel(), seen.ravel())[0, 1] > 0.3


def test_the_split_is_disjoint_complete_and_stratified() -> None:
    _, labels = dvs_digits.digits()
    train = dvs_digits.split_indices(labels, "train")
    test = dvs_digits.split_indices(labels, "test")
    assert (len(train), len(test)) == (1437, 360)
    assert sorted([*train, *test]) == list(range(1797))
    share = np.bincount(labels[test]) / np.bincount(labels)
    assert np.all(np.abs(share - 0.2) < 0.006)


def test_making_it_again_changes_nothing(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    dvs_digits.make(made, seed=5, progress=False, limit=2)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_a_set_of_another_seed_is_not_taken_for_this_one(made: Path) -> None:
    with pytest.raises(DataError, match="made otherwise"):
        dvs_digits.make(made, seed=0, progress=False, limit=2)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="something else"):
        dvs_digits.make(tmp_path, progress=False, limit=1)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    dvs_digits.make(tmp_path / "empty", seed=5, progress=False, limit=1)
    (tmp_path / "there").mkdir()
    dvs_digits.make(tmp_path / "there", seed=5, progress=False, limit=1)
    assert content(tmp_path / "there") == content(tmp_path / "empty")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_interrupted_making_leaves_nothing(
    stop: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def encode(events: Events, *, where: object) -> bytes:
        written.append(where)
        if len(written) == 5:
            raise stop
        return readers.encode_nmnist_bin(events)

    monkeypatch.setattr(dvs_digits, "encode_nmnist_bin", encode)
    with pytest.raises(stop):
        dvs_digits.make(tmp_path / "data" / "dvs-digits", progress=False, limit=1)
    assert len(written) == 5
    assert list((tmp_path / "data").iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        dvs_digits.make(tmp_path / "dvs-digits", progress=False, limit=1)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        dvs_digits.make(tmp_path / "file" / "dvs-digits", progress=False, limit=1)


def test_of_two_that_make_it_at_once_both_are_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "dvs-digits"
    ready = staging.staged

    def overtaken(place: Path) -> object:
        monkeypatch.setattr(dvs_digits, "staged", ready)
        context = ready(place)
        stage = context.__enter__()
        dvs_digits.make(root, seed=5, progress=False, limit=1)  # the other process is quicker
        context.__exit__(None, None, None)
        raise AssertionError(f"{stage} took the place of a complete data set")

    monkeypatch.setattr(dvs_digits, "staged", overtaken)
    dvs_digits.make(root, seed=5, progress=False, limit=1)
    assert len(content(root)) == 2 * 10 + 1
    assert [path.name for path in tmp_path.iterdir()] == ["dvs-digits"]


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"limit": 0}])
def test_impossible_arguments_are_refused(arguments: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        dvs_digits.make(tmp_path / "dvs-digits", progress=False, **arguments)


@pytest.mark.parametrize(
    "image", [np.zeros((28, 28)), np.full((8, 8), 16.0), np.full((8, 8), np.nan)]
)
def test_an_image_that_is_no_digit_is_refused(image: np.ndarray) -> None:
    with pytest.raises(UsageError):
        saccades.simulate(image, np.random.default_rng(0))


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dvs_digits.make(tmp_path / "dvs-digits", seed=5, limit=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == "dvs-digits: 20/20 recordings"
