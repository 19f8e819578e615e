"""Any camera's pixels onto a model's: where each goes, and what a misfit proposes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime import Events
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.geometry import View, parse_crop, parse_size

SIDES = st.integers(1, 60)


def every_pixel(size: tuple[int, int]) -> Events:
    y, x = np.divmod(np.arange(size[0] * size[1]), size[0])
    return Events.from_columns(np.arange(len(x)), x, y, x % 2, sensor_size=size)


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_fit_takes_a_centred_window_and_sums_whole_pixels(
    camera: tuple[int, int], model: tuple[int, int]
) -> None:
    pixels = View(fit=True).onto(camera, model, "x")
    seen = pixels.apply(every_pixel(camera))
    seen.check(sensor_size=model)
    for axis, mapped in enumerate((pixels.columns, pixels.rows)):
        used = np.flatnonzero(mapped >= 0)
        assert len(used)
        assert (np.diff(used) == 1).all()  # one window
        left, right = used[0], camera[axis] - 1 - used[-1]
        counts = np.bincount(mapped[used], minlength=model[axis])
        assert abs(int(left) - int(right)) <= 1 or min(left, right) == 0  # in the middle
        inner = counts[counts > 0][1:-1]
        assert len(set(inner.tolist())) <= 1  # the same k everywhere but at the edge
        assert (np.diff(mapped[used]) >= 0).all()


def test_fit_of_known_cameras() -> None:
    for camera, model, k in (
        ((640, 480), (34, 34), 14),
        ((1280, 720), (128, 128), 6),
        ((128, 128), (34, 34), 4),
        ((346, 260), (128, 128), 2),
        ((34, 34), (34, 34), 1),
        ((34, 34), (128, 128), 1),
    ):
        pixels = View(fit=True).onto(camera, model, "x")
        counts = np.bincount(pixels.columns[pixels.columns >= 0])
        assert counts.max() == k, camera


def test_what_fits_already_stays_where_it_is() -> None:
    assert View().onto((12, 10), (12, 10), "x").is_identity
    assert View(fit=True).onto((12, 10), (12, 10), "x").is_identity
    assert not View(flip="h").onto((12, 10), (12, 10), "x").is_identity


def test_crop_downsample_and_flip_by_hand() -> None:
    pixels = View(crop=(2, 1, 6, 4), downsample=2, flip="hv").onto((12, 10), (3, 2), "x")
    events = Events.from_columns([0, 1, 2, 3], [2, 7, 1, 4], [1, 4, 1, 2], [0, 1, 1, 1])
    seen = pixels.apply(events)
    assert seen.x.tolist() == [2, 0, 1]
    assert seen.y.tolist() == [1, 0, 1]
    assert seen.p.tolist() == [0, 1, 1]
    assert pixels.apply(events, merge=True).p.tolist() == [1, 1, 1]


@settings(max_examples=60)
@given(st.sampled_from(["", "h", "v", "hv"]), st.integers(1, 4), st.data())
def test_every_event_goes_where_arithmetic_says(flip: str, k: int, data: st.DataObject) -> None:
    camera = data.draw(st.tuples(st.integers(8, 30), st.integers(8, 30)))
    width, height = (data.draw(st.integers(k, side)) for side in camera)
    left = data.draw(st.integers(0, camera[0] - width))
    top = data.draw(st.integers(0, camera[1] - height))
    model = (width // k, height // k)
    view = View(crop=(left, top, width, height), downsample=k, flip=flip)  # type: ignore[arg-type]
    events = every_pixel(camera)
    seen = view.onto(camera, model, "x").apply(events)
    wanted = []
    for t, x, y, p in zip(events.t, events.x, events.y, events.p, strict=True):
        u, v = (int(x) - left) // k, (int(y) - top) // k
        if 0 <= u < model[0] and 0 <= v < model[1]:
            u = model[0] - 1 - u if "h" in flip else u
            v = model[1] - 1 - v if "v" in flip else v
            wanted.append((int(t), u, v, int(p)))
    columns = (seen.t.tolist(), seen.x.tolist(), seen.y.tolist(), seen.p.tolist())
    assert list(zip(*columns, strict=True)) == wanted


def test_a_misfit_is_one_line_whose_proposals_fit() -> None:
    for camera, model in (((640, 480), (34, 34)), ((68, 68), (34, 34)), ((20, 20), (34, 34))):
        with pytest.raises(DataError) as error:
            View().onto(camera, model, "cam.raw")
        line = str(error.value)
        assert f"got {camera[0]}x{camera[1]} pixels; expected {model[0]}x{model[1]}" in line
        assert line.endswith("in cam.raw")
        assert "--fit" in line
        View(fit=True).onto(camera, model, "x")
        if "--crop" in line:
            crop = parse_crop(line.split("--crop ")[1].split(" ")[0])
            View(crop=crop).onto(camera, model, "x")
        assert ("--crop" in line) == (camera > model)
        if "--downsample" in line:
            k = int(line.split("--downsample ")[1].split(" ")[0])
            View(downsample=k).onto(camera, model, "x")


def test_a_window_outside_the_camera_is_one_line() -> None:
    with pytest.raises(DataError, match=r"crop lies outside the sensor; got 600,0,100,34"):
        View(crop=(600, 0, 100, 34)).onto((640, 480), (34, 34), "x")
    with pytest.raises(DataError, match="of which 320x240 are left"):
        View(downsample=2).onto((640, 480), (34, 34), "x")


@pytest.mark.parametrize(
    "words", ["", "1,2,3", "1,2,3,x", "-1,0,3,4", "1,2,3,4,5", "1e3,1,1,1", "9" * 30 + ",1,1,1"]
)
def test_words_that_are_no_window_are_refused(words: str) -> None:
    with pytest.raises(UsageError):
        parse_crop(words)


def test_sizes() -> None:
    assert parse_size("640x480") == (640, 480)
    for words in ("640", "640x", "0x3", "axb", "1x2x3"):
        with pytest.raises(UsageError):
            parse_size(words)


@pytest.mark.parametrize(
    "wrong",
    [{"flip": "x"}, {"downsample": 0}, {"fit": True, "downsample": 2}, {"crop": (0, 0, 0, 1)}],
)
def test_a_view_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        View(**wrong)  # type: ignore[arg-type]
