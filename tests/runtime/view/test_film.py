"""`mpsl view --record`: a film of what is seen, whole or not at all."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.errors import MissingExtraError, OutputError, UsageError
from mpsl_runtime.view.composer import Composer
from mpsl_runtime.view.film import SIZE, Film
from mpsl_runtime.view.session import Session

Image = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
Make = Callable[..., Session]
HAS_FFMPEG = shutil.which("ffmpeg") or importlib.util.find_spec("imageio_ffmpeg")


def filmed(session: Session, path: Path) -> Film:
    """Plays a session once and closes the film of it."""
    film = Film(
        path,
        [channel.name for channel in session.channels],
        [tuple(channel.model.class_names) for channel in session.channels],
        say=session.said.append,  # type: ignore[attr-defined]
    )
    composer = Composer(session, film.see, lambda: True)
    film.start()
    try:
        session.start()
        composer.start()
        assert session.ended.wait(60)
    finally:
        composer.stop()
        film.close()
    return film


def lit(picture: Any) -> int:
    """Pixels of the camera's part that are not black."""
    return int((np.asarray(picture.convert("RGB"))[30:510, 30:510].max(axis=2) > 60).sum())


def test_a_recording_becomes_a_gif_at_its_own_pace(
    digit: Path, session_of: Make, tmp_path: Path
) -> None:
    session = session_of(digit, "dvs-digits", "nmnist8-small", speed=0.25, once=True)
    film = filmed(session, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as found:
        assert found.size == SIZE
        assert found.info["duration"] == 100
        # 315 ms at a quarter of their speed: 1.26 s; a crowded machine may take longer, not less.
        assert found.n_frames >= 11
        seen = []
        for number in range(found.n_frames):
            found.seek(number)
            seen.append(lit(found))
    assert max(seen) > 5000
    assert film.dropped >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.skipif(not HAS_FFMPEG, reason="neither ffmpeg nor imageio-ffmpeg is there")
def test_a_recording_becomes_an_mp4(digit: Path, session_of: Make, tmp_path: Path) -> None:
    filmed(session_of(digit, once=True), tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes()[4:8] == b"ftyp"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    digit: Path, session_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"film of an unknown kind; got a\.avi"):
        Film(tmp_path / "a.avi", [], [], say=print)
    with pytest.raises(OutputError, match="No such file or directory"):
        Film(tmp_path / "no" / "a.gif", [], [], say=print).start()
    film = Film(tmp_path / "a.gif", [], [], say=print)
    film.start()
    with pytest.raises(OutputError, match="film has no picture"):
        film.close()
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"mpsl-runtime\[images\]"):
        Film(tmp_path / "a.mp4", [], [], say=print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("false") is None, reason="no program that fails")
def test_an_encoder_that_fails_ends_no_thread_of_others(
    digit: Path, session_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpsl_runtime.view.film._encoder", lambda: str(shutil.which("false")))
    with pytest.raises(OutputError, match="film cannot be written; got ffmpeg ended with 1"):
        filmed(session_of(digit, once=True), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
