"""Recordings that were once read wrongly, with what is right, where `../shared/cases` is there.

The same kinds are made from bytes in test_readers.py, test_text.py and test_tables.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import read_events

SHARED = Path(__file__).resolve().parents[4] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/cases here")


@pytest.fixture
def cases() -> Path:
    return SHARED / "events"


@pytest.fixture
def seed(cases: Path) -> Events:
    """The 5,000 events from which most of the files were made."""
    with np.load(cases / "keys.npz") as columns:
        return Events.from_columns(*(columns[name] for name in "txyp"))


def read(path: Path, **options: object) -> tuple[Events, str]:
    said: list[str] = []
    events = read_events(path, ReadOptions(**options), on_trouble=said.append)  # type: ignore[arg-type]
    return events, " ".join(said).removeprefix(f"{path}: ")


def assert_same(events: Events, expected: Events, number: int | None = None) -> None:
    for column in "txyp":
        np.testing.assert_array_equal(getattr(events, column), getattr(expected, column)[:number])


@pytest.mark.parametrize(
    "name",
    ["UPPER.RAW", "c_head.csv.gz", "dsec.h5", "dvs.bag", "evutils.h5", "keys.npz", "v2e.h5"],
)
def test_the_same_5000_events_come_from_every_format(cases: Path, seed: Events, name: str) -> None:
    events, said = read(cases / name)
    assert_same(events, seed)
    assert not said


@pytest.mark.parametrize(
    "name",
    [
        "c_bool.csv",
        "c_float_us.csv",
        "c_head_dv.csv",
        "c_head_long.csv",
        "c_head_quoted.csv",
        "c_percent.csv",
        "c_pm1.csv",
        "c_seconds.csv",
        "c_tab.csv",
        "faery.csv",
        "rpg_events.txt",
    ],
)
def test_every_dialect_of_text_gives_the_first_events(cases: Path, seed: Events, name: str) -> None:
    events, said = read(cases / name)
    assert_same(events, seed, 200 if name == "rpg_events.txt" else 59)
    assert not said
    assert len(read(cases / "csv_trailing_comma.csv")[0]) == 1


@pytest.mark.parametrize("name", ["evt21_by_evutils", "evt3_sparse_20s_evutils"])
def test_what_evutils_writes_is_read_as_independent_decoders_read_it(
    cases: Path, name: str
) -> None:
    events, said = read(cases / f"{name}.raw")
    with np.load(cases / f"{name}.want.npz") as want:
        assert_same(events, Events.from_columns(*(want[column] for column in "txyp")))
    assert not said


@pytest.mark.parametrize(
    "name", ["aedat4_named_aedat.aedat", "meta_bool.aedat4", "with_pose_bbox.aedat4"]
)
def test_aedat4_is_read_whatever_its_name_and_its_other_streams(
    cases: Path, seed: Events, name: str
) -> None:
    events, said = read(cases / name)
    np.testing.assert_array_equal(events.t - events.t[0], seed.t - seed.t[0])
    for column in "xyp":
        np.testing.assert_array_equal(getattr(events, column), getattr(seed, column))
    assert events.sensor_size == (34, 34)
    assert not said


@pytest.mark.parametrize(
    ("name", "t", "said"),
    [
        ("evt3_starts_at_4095.raw", [16773220, 16776120, 16777226, 16779216, 16781317], ""),
        ("evt3_events_before_time.raw", [12288010, 12288020], "3 events before the clock"),
        ("evt2_before_time.raw", [64000005], "2 events before the clock"),
        ("evt3_half_word.raw", [4106], "ends inside a word"),
        ("evt2_truncated.raw", [645], "ends inside a word"),
        ("aedat3_trunc_packet.aedat", [100, 110], "ends inside a packet"),
        ("dat2d_wrap.dat", [4294967291, 4294967299, 4294967305], ""),
        ("nmnist_y240.bin", [100, 8242], ""),
    ],
)
def test_times_are_those_of_the_file_and_what_is_not_whole_is_said(
    cases: Path, name: str, t: list[int], said: str
) -> None:
    events, line = read(cases / name)
    assert events.t.tolist() == t
    assert line == said
    if said:
        with pytest.raises(DataError, match=f"recording is not whole; got {said}"):
            read(cases / name, strict=True)


def test_a_recording_whose_writer_was_killed_gives_its_whole_packets(cases: Path) -> None:
    events, said = read(cases / "killed.aedat4")
    assert len(events) == 8000
    assert said == "ends inside a packet"


@pytest.mark.parametrize(
    ("name", "falls", "t"),
    [
        ("evt3_time_low_back.raw", "1 of 3", [11719456, 11719467, 11719471]),
        ("evt2_high_jitter_34.raw", "1 of 4", [64005, 64060, 64069, 64133]),
        ("aedat2_back1.aedat", "1 of 3", [99, 100, 120]),
        ("reset.aedat4", "2,500 of 5,000", None),
    ],
)
def test_time_that_falls_is_an_error_or_sorted_and_never_invented(
    cases: Path, name: str, falls: str, t: list[int] | None
) -> None:
    with pytest.raises(DataError, match=f"time falls; got {falls} events late by"):
        read(cases / name)
    if t is not None:
        events, said = read(cases / name, sort_window_ms=1)
        assert events.t.tolist() == t
        assert said == "1 late event put in its place"


def test_evt3_without_the_high_part_of_its_clock_is_refused(cases: Path) -> None:
    with pytest.raises(DataError, match=r"clock of the EVT3 .* anew 73 times without a TIME_HIGH"):
        read(cases / "evt3_by_expelliarmus.raw")


def test_the_events_of_a_davis_are_told_from_its_pictures(cases: Path, seed: Events) -> None:
    events, said = read(cases / "davis240c_jaer.aedat")
    assert events.sensor_size == (240, 180)
    np.testing.assert_array_equal(events.t, seed.t)
    np.testing.assert_array_equal(239 - events.x, seed.x)  # jAER counts from the right
    np.testing.assert_array_equal(179 - events.y, seed.y)  # and from the bottom
    np.testing.assert_array_equal(events.p, seed.p)
    assert not said


def test_a_damaged_aedat4_is_one_line_or_its_whole_packets(cases: Path) -> None:
    with pytest.raises(DataError, match="damaged header of the AEDAT file"):
        read(cases / "aedat4_abort.aedat4")
    hostile = SHARED / "hostile"
    whole = {"rec_24962.aedat4": 50, "rec_53567.es": 50, "aedat4_bitflip_hang.aedat4": 50}
    found: dict[str, int] = {}
    for path in sorted([*hostile.glob("*.aedat4"), *hostile.glob("*.es")]):
        try:
            events, said = read(path)
        except DataError as error:
            found[path.name] = -str(error).count("\n")
        else:
            found[path.name] = len(events)
            assert said or whole[path.name]
    assert {name: number for name, number in found.items() if number} == whole
    assert len(found) == 7
    with pytest.raises(DataError, match="size of the sensor cannot be"):
        read(hostile / "dat_width_digits.dat")
