"""Recordings: files in, events out, and one clear error for whatever is wrong with a file."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime.errors import DataError, MissingExtraError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import (
    decode_events,
    decode_nmnist_bin,
    encode_nmnist_bin,
    read_events,
    write_nmnist_bin,
)


def same(one: Events, other: Events) -> bool:
    return all(np.array_equal(getattr(one, c), getattr(other, c)) for c in "txyp")


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**23 - 1), st.integers(0, 255), st.integers(0, 255), st.integers(0, 1)
        ),
        max_size=60,
    )
)
def test_nmnist_bytes_hold_every_event_that_fits_the_format(
    rows: list[tuple[int, int, int, int]],
) -> None:
    table = np.array(sorted(rows), np.int64).reshape(-1, 4)
    events = Events.from_columns(*table.T)
    data = encode_nmnist_bin(events)
    assert len(data) == 5 * len(rows)
    assert same(decode_nmnist_bin(data, "test"), events)


def test_nmnist_bin_is_laid_out_as_published(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_nmnist_bin(path, Events.from_columns([0x012345, 0x7FFFFF], [3, 33], [4, 0], [0, 1]))
    assert path.read_bytes() == bytes([3, 4, 0x01, 0x23, 0x45, 33, 0, 0xFF, 0xFF, 0xFF])
    assert same(
        read_events(path), Events.from_columns([0x012345, 0x7FFFFF], [3, 33], [4, 0], [0, 1])
    )


@pytest.mark.parametrize(
    ("t", "x", "what"),
    [([2**23], [0], "column t"), ([-1], [0], "column t"), ([0], [256], "column x")],
)
def test_an_event_without_room_in_the_nmnist_format_is_refused_and_nothing_is_written(
    tmp_path: Path, t: list[int], x: list[int], what: str
) -> None:
    with pytest.raises(DataError, match=what):
        write_nmnist_bin(tmp_path / "a.bin", Events.from_columns(t, x, [0], [0]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("cut.bin", b"\x01\x02\x03\x04\x05\x06", "truncated recording; got 6 bytes"),
        ("back.bin", bytes([0, 0, 0, 0, 9, 0, 0, 0, 0, 3]), "time runs backwards at event 1"),
        ("a.csv", b"t,x,y,p\n5,1,2,1\n3,3,4,0\n", "time runs backwards"),
        ("a.csv", b"t,x,y\n5,1,2\n", "header of the CSV"),
        ("a.csv", b"5,1,2\n", "another number of columns"),
        ("a.csv", b"5,1,2,x\n", "CSV cannot be read"),
        ("a.csv", b"5,1,2,7\n", "column p is out of range"),
        ("a.csv", b"5,-1,2,1\n", "column x is out of range"),
        ("a.csv", b"\xff\xfe\x00", "not a text file"),
        ("a.csv", b"", "no events and no header"),
        ("a.raw", b"hello world, this is text\n", "not an EVT2 or EVT3"),
        ("a.raw", b"% evt 3.0\n\x00\x00\x00", "truncated recording"),
        ("a.es", b"hello world, this is text\n", "recording cannot be read"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n\x00", "recording cannot be read"),
        ("a.dat", b"nothing", "not a DAT file"),
        ("a.dat", b"% Width 304\n\x00\x08\x00\x00", "truncated DAT"),
        ("a.aedat", b"#!AER-DAT1.0\n", "not an AEDAT 2.0 or 3.1"),
        ("a.aedat", b"#!AER-DAT2.0\n\x00\x00\x00", "truncated recording"),
        ("a.aedat", b"#!AER-DAT2.0\n# AEChip: x.DAVIS240C\n", "AEDAT 2.0 of another camera"),
        ("a.aedat", b"#!AER-DAT3.1\r\n", "header of the AEDAT file does not end"),
        ("a.aedat", b"#!AER-DAT3.1\r\n#!END-HEADER\r\n\x01\x00", "truncated recording"),
        ("a.txt", b"", "unknown format"),
    ],
)
def test_a_damaged_recording_is_one_line_that_names_the_file(
    tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=what) as caught:
        read_events(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_recording_and_a_folder_are_said_to_be_just_that(tmp_path: Path) -> None:
    for name in ("a.bin", "a.es"):
        with pytest.raises(DataError, match="no such file"):
            read_events(tmp_path / name)
    (tmp_path / "b.bin").mkdir()
    with pytest.raises(DataError, match="a folder is not a recording"):
        read_events(tmp_path / "b.bin")


def test_csv_goes_by_its_header_and_keeps_a_first_event_without_one(tmp_path: Path) -> None:
    expected = Events.from_columns([0, 5], [1, 3], [2, 4], [1, 0])
    (tmp_path / "plain.csv").write_text("0,1,2,1\n5,3,4,0\n")
    (tmp_path / "named.csv").write_text("x, y, on, t\n1,2,1,0\n3,4,0,5\n")
    assert same(read_events(tmp_path / "plain.csv"), expected)
    assert same(read_events(tmp_path / "named.csv"), expected)


def test_dat_with_2d_events_is_read_where_faery_refuses_it() -> None:
    data = b"% Data file\n% Width 304\n% Height 240\n\x00\x08"
    data += struct.pack("<II", 7, 5 | 6 << 14 | 1 << 28) + struct.pack("<II", 9, 303 | 239 << 14)
    events = decode_events(data, "a.dat")
    assert same(events, Events.from_columns([7, 9], [5, 303], [6, 239], [1, 0]))
    assert events.sensor_size == (304, 240)


def test_aedat2_turns_the_dvs128_the_right_way_up_and_unwraps_its_clock() -> None:
    first = struct.pack(">II", 1 << 8 | 2 << 1 | 1, 2**32 - 5)  # x 2 from the right, y 1 from below
    special = struct.pack(">II", 0x8000, 2**32 - 4)
    second = struct.pack(">II", 127 << 8 | 127 << 1, 3)
    events = decode_events(b"#!AER-DAT2.0\r\n" + first + special + second, "a.aedat")
    assert same(events, Events.from_columns([2**32 - 5, 2**32 + 3], [125, 0], [126, 0], [0, 1]))
    assert events.sensor_size == (128, 128)


def test_aedat3_reads_polarity_packets_and_passes_over_others() -> None:
    def packet(kind: int, body: bytes, number: int, size: int = 8) -> bytes:
        return struct.pack("<hhiiiiii", kind, 1, size, 4, 1, number, number, 1) + body

    event = struct.pack("<Ii", 9 << 17 | 8 << 2 | 1 << 1 | 1, 100)
    invalid = struct.pack("<Ii", 9 << 17 | 8 << 2, 101)
    data = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    data += packet(0, b"12345678", 1) + packet(1, event + invalid, 2)
    events = decode_events(data, "a.aedat")
    assert same(events, Events.from_columns([2**31 + 100], [9], [8], [1]))


def test_without_faery_a_camera_file_says_what_to_install_and_bin_files_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faery", None)
    (tmp_path / "a.es").write_bytes(b"Event Stream")
    with pytest.raises(MissingExtraError, match="faery"):
        read_events(tmp_path / "a.es")
    (tmp_path / "a.bin").write_bytes(bytes(5))
    assert len(read_events(tmp_path / "a.bin")) == 1


def test_a_panic_in_faery_becomes_a_data_error_and_prints_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class PanicException(BaseException):
        pass

    def panics(*_: object, **__: object) -> None:
        os.write(2, b"thread panicked at src/x.rs")
        raise PanicException("index out of bounds")

    monkeypatch.setattr("faery.events_stream_from_file", panics)
    (tmp_path / "a.es").write_bytes(b"Event Stream")
    with pytest.raises(DataError, match="index out of bounds"):
        read_events(tmp_path / "a.es")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), suffix=st.sampled_from([".bin", ".csv", ".dat", ".aedat"]))
def test_arbitrary_bytes_are_events_or_a_data_error(data: bytes, suffix: str) -> None:
    heads = {".dat": b"% a\n\x00\x08", ".aedat": b"#!AER-DAT3.1\r\n#!END-HEADER\r\n"}
    for content in (data, heads.get(suffix, b"") + data):
        try:
            events = decode_events(content, "a" + suffix)
        except DataError:
            continue
        assert np.all(np.diff(events.t) >= 0)


@pytest.mark.parametrize(
    ("name", "number", "sensor"),
    [
        ("aedat2/mnist_0_scale04_0002.aedat", 16_738, (128, 128)),
        ("aedat3/aedat3_for_testing.aedat", 5, None),
        ("aedat4/sample.aedat4", 111_954, (320, 240)),
        ("dat/ncars.dat", 2_009, None),
        ("es/dvs.es", 473_225, (320, 240)),
        ("evt2/street_gen3.raw", 521_252, None),
        ("evt3/street_gen41.raw", 219_596, None),
    ],
)
def test_recordings_of_real_cameras_are_read_whole(
    shared_data: Path, name: str, number: int, sensor: tuple[int, int] | None
) -> None:
    events = read_events(shared_data / "events" / name)
    assert len(events) == number
    assert events.sensor_size == sensor
    assert set(np.unique(events.p)) == {0, 1}


def test_every_real_nmnist_recording_fits_its_sensor(shared_data: Path) -> None:
    from mpsl_runtime.data import datasets

    split = datasets.open_split("nmnist", datasets.find("nmnist", shared_data / "nmnist"), "test")
    assert len(split) == 100
    last_us = [int(split.events(i).t[-1]) for i in range(len(split))]
    assert 300_000 < min(last_us) < max(last_us) < 340_000


def test_events_survive_the_disk_whatever_made_them(
    tmp_path: Path, make_events: Callable[..., Events]
) -> None:
    events = make_events(3)
    write_nmnist_bin(tmp_path / "a.bin", events)
    assert same(read_events(tmp_path / "a.bin"), events)
