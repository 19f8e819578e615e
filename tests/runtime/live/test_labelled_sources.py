"""Labelled recordings that are run: one without events is answered `none`, counted and said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mpsl_runtime import Prediction
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.aedat import encode_aedat3
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import read_events
from mpsl_runtime.run.opening import load

HEAD = "class,startTime_usec,endTime_usec\n"


def empty(folder: Path, name: str) -> None:
    """A recording of the test split that is whole and has no events."""
    (folder / "Test" / name).write_bytes(encode_aedat3(Events.empty()))


@pytest.mark.parametrize("fit", [False, True])
def test_a_trial_without_events_is_answered_none(
    tmp_path: Path, recordings_folder: Path, fit: bool
) -> None:
    shutil.copy(recordings_folder / "gesture-aedat31.aedat", tmp_path / "user01_made.aedat")
    first = int(read_events(tmp_path / "user01_made.aedat").t[0])
    rows = f"3,{first - 2},{first - 1}\n5,{first},{first + 1_000_000}\n"
    (tmp_path / "user01_made_labels.csv").write_text(HEAD + rows)
    said: list[str] = []
    model = load("dvs-gesture-small")
    stream = model.stream(model.feed([tmp_path / "user01_made.aedat"], say=said.append, fit=fit))
    answers = [item for item in stream if isinstance(item, Prediction)]
    assert [(one.class_name == "none", one.target) for one in answers] == [(True, 2), (False, 4)]
    assert answers[0].events == 0 < answers[1].events
    assert said == ["1 of 2 labelled recordings without events, the first is user01_made/00"]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_labelled_file_without_events_is_answered_none(
    labelled_folder: Path, model_file: Path, zipped: bool
) -> None:
    empty(labelled_folder, "0/00002.aedat")
    empty(labelled_folder, "2/00000.aedat")
    source = labelled_folder
    if zipped:
        source = Path(shutil.make_archive(str(labelled_folder), "zip", labelled_folder))
    said: list[str] = []
    model = load(model_file)
    stream = model.stream(model.feed([source], say=said.append))
    answers = [item for item in stream if isinstance(item, Prediction)]
    names = [one.file for one in answers if one.label is None]
    assert names == ["0/00002.aedat", "2/00000.aedat"]
    assert said == ["2 of 8 labelled recordings without events, the first is 0/00002.aedat"]
    assert stream.summary.samples == 8
    assert stream.summary.accuracy == sum(one.label == one.target for one in answers) / 8


def test_a_labelled_file_that_is_damaged_is_refused_as_before(
    labelled_folder: Path, model_file: Path
) -> None:
    path = labelled_folder / "Test" / "1" / "00001.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="recording is not whole; got ends inside"):
        load(model_file).stream(labelled_folder).run()


def test_the_program_says_how_many_and_goes_on(
    mpsl: Callable[..., tuple[int, str, str]], labelled_folder: Path, model_file: Path
) -> None:
    empty(labelled_folder, "1/00000.aedat")
    code, out, err = mpsl("run", model_file, labelled_folder)
    assert code == 0
    assert "1/00000.aedat: none  wrong, it is 1\n" in out
    assert err == "mpsl: 1 of 7 labelled recordings without events, the first is 1/00000.aedat\n"
