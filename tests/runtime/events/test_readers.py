"""Recordings: files in, events out, and one clear error for whatever is wrong with a file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import (
    decode_events,
    encode_nmnist_bin,
    read_chunks,
    read_events,
    write_nmnist_bin,
)


def same(one: Events, other: Events) -> bool:
    return all(np.array_equal(getattr(one, c), getattr(other, c)) for c in "txyp")


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**23 - 1), st.integers(0, 255), st.integers(0, 239), st.integers(0, 1)
        ),
        min_size=1,
        max_size=60,
    )
)
@example([(0, 37, 0, 0)]).via("a % is not the header of a RAW file")
@example([(0, 37, 10, 1), (5, 37, 32, 1)]).via("nor is a line of it")
def test_nmnist_bytes_hold_every_event_that_fits_the_format(
    rows: list[tuple[int, int, int, int]],
) -> None:
    table = np.array(sorted(rows), np.int64).reshape(-1, 4)
    events = Events.from_columns(*table.T)
    data = encode_nmnist_bin(events)
    assert len(data) == 5 * len(rows)
    assert same(decode_events(data, "a.bin"), events)


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
        ("back.bin", bytes([0, 0, 0, 0, 9, 0, 0, 0, 0, 3]), "time falls; got 1 of 2 events late"),
        ("a.csv", b"t,x,y,p\n5,1,2,1\n3,3,4,0\n", "time falls"),
        ("a.csv", b"t,x,y\n5,1,2\n", "header of the text"),
        ("a.csv", b"5,1,2\n", "text has 3 columns where 4 are to be"),
        ("a.csv", b"5,1,2,x\n", "columns of the text are not t,x,y,p"),
        ("a.csv", b"5,1,2,7\n", "columns of the text are not t,x,y,p"),
        ("a.csv", b"5,-1,2,1\n", "columns of the text are not t,x,y,p"),
        ("a.csv", b"\xff\xfe\x00", "unknown format"),
        ("a.csv", b"", "empty recording"),
        ("a.raw", b"% evt 4.0\n\x00\x00", "RAW file of a format that is not read; got '4.0'"),
        ("a.raw", b"% Date 2020\n", "unknown format"),
        ("a.raw", b"\x00\x00\x80", "unknown format of recording; got bytes 00 00 80"),
        ("a.es", b"Event Stream\x01\x00\x00\x01", "version that is not read; got 1.0.0"),
        ("a.es", b"Event Stream\x02\x00\x00\x00", r"without changes .*type 0 \(generic\)"),
        ("a.es", b"Event Stream\x02\x00", "header of the Event Stream is not whole"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n\x00", "header of the AEDAT file is not whole"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n\x08\x00\x00\x00abcdefgh", "damaged header of the AEDAT"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n\xff\xff\xff\xff", "damaged header of the AEDAT"),
        ("a.dat", b"% Width 304\n\x0e\x08\x00\x00", "DAT file of events that are not read"),
        ("a.dat", b"% Width " + b"9" * 5000 + b"\n% Height 3\n\x0c\x08", "size of the sensor"),
        ("a.aedat", b"#!AER-DAT1.0\n", "AEDAT of a version that is not read; got '1.0'"),
        ("a.aedat", b"#!AER-DAT2.0\n# AEChip: x.Tmpdiff\n\0", "of a camera that is not known"),
        ("a.aedat", b"#!AER-DAT3.1\r\n", "header of the AEDAT file does not end"),
        ("a.aedat", b"#!AER-DAT3.1\r\n#Format: PNG\r\n#!END-HEADER\r\n", "packing .* got 'PNG'"),
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


@pytest.mark.parametrize(
    ("name", "content", "t", "said"),
    [
        ("a.bin", bytes([1, 2, 0, 0, 9, 3]), [9], "ends inside an event"),
        ("a.raw", b"% evt 3.0\n\x01\x80\x05\x00\x01\x28\x07", [4096], "ends inside a word"),
        (
            "a.raw",
            b"% evt 2.0\n% geometry 4x4\n" + struct.pack("<III", 1 << 11, 8 << 28 | 1, 9 << 11),
            [],
            "1 event before the clock, 1 event outside 4x4, no events",
        ),
        (
            "a.raw",
            b"% evt 3.0\n\x01\x80\x01\x28\x00\x90",
            [],
            "1 event before its row, 1 word of no",
        ),
        (
            "a.dat",
            b"% a\n\x00\x08" + struct.pack("<II", 7, 5)[:6],
            [],
            "inside an event, no events",
        ),
        ("a.aedat", b"#!AER-DAT2.0\n" + struct.pack(">II", 2, 3) + b"\0", [3], "inside an event"),
        (
            "a.aedat",
            b"#!AER-DAT3.1\r\n#!END-HEADER\r\n\x01\x00",
            [],
            "ends inside a packet, no events",
        ),
        (
            "a.es",
            b"Event Stream\x02\0\0\x01\x04\0\x04\0" + bytes([5, 1, 0, 9, 0, 5, 1, 0, 2, 0, 1]),
            [4],
            "1 event outside 4x4, ends inside an event",
        ),
        ("a.csv", b"t,x,y,p\n1,2,3,1\noops\n4,5,6,0\n", [1, 4], "1 line that is no event"),
        ("a.csv", b"1,2,3,1\n4,5,", [1], "ends inside a line"),
    ],
)
def test_what_is_whole_is_read_and_the_rest_is_said_or_refused(
    tmp_path: Path, name: str, content: bytes, t: list[int], said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{name}: .*{said}"):
        events = read_events(path)
    assert events.t.tolist() == t
    with pytest.raises(DataError, match=f"recording is not whole; got .*{name}"):
        read_events(path, ReadOptions(strict=True))


def test_dat_with_2d_events_is_read() -> None:
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


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), suffix=st.sampled_from([".bin", ".csv", ".dat", ".raw"]))
def test_arbitrary_bytes_are_events_or_a_data_error(data: bytes, suffix: str) -> None:
    heads = [b"% a\n\x00\x08", b"#!AER-DAT3.1\r\n#!END-HEADER\r\n", b"% evt 2.0\n", b"% evt 3.0\n"]
    for content in (data, *(head + data for head in heads)):
        try:
            events = decode_events(content, "a" + suffix, on_trouble=lambda _: None)
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
        ("aedat2/cam298_left_clamp_test1_alex.aedat", 323_902, (128, 128)),
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


def test_a_long_recording_comes_in_pieces_of_a_chunk(
    tmp_path: Path, encode: Callable[..., bytes], some_events: Callable[..., Events]
) -> None:
    events = some_events(8, 1000)
    body = encode("dat", events).partition(b"\x0c\x08")[2]
    path = tmp_path / "long.dat"
    path.write_bytes(b"% Width 34\n% Height 30\n\x0c\x08" + body[:8] * 400_000)
    with read_chunks(path) as chunks:
        sizes = [len(piece) for piece in chunks]
    assert sum(sizes) == 400_000
    assert max(sizes) <= (1 << 20) // 8 + 1
    assert chunks.decoder.sensor_size == (34, 30)


def test_time_that_falls_in_a_later_chunk_is_counted_to_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    rows = [(5 if i % 100_000 == 99_999 else i, 0) for i in range(400_000)]
    path.write_bytes(b"% a\n\x0c\x08" + np.array(rows, "<u4").tobytes())
    with pytest.raises(DataError, match=r"got 4 of 400,000 events late by up to 399\.993 ms"):
        read_events(path)
