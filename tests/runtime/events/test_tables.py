"""HDF5 and numpy files: layouts of the field are read, what lies about its size is refused."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import decode_events, read_chunks, read_events

Make = Callable[..., Events]


def same(one: Events, other: Events) -> bool:
    return all(np.array_equal(getattr(one, c), getattr(other, c)) for c in "txyp")


def table_of(events: Events, order: str) -> Any:
    return np.stack([getattr(events, c).astype(np.int64) for c in order], axis=1)


def structured(events: Events, *names: str) -> Any:
    kinds = {"t": "<i8", "x": "<i2", "y": "<i2", "p": "?"}
    table = np.zeros(len(events), [(name, kinds[name[0]]) for name in names])
    for name in names:
        table[name] = getattr(events, name[0])
    return table


def read_both(path: Path, options: ReadOptions | None = None) -> Events:
    """From the path, and from bytes as they would come through a pipe: the same."""
    events = read_events(path, options)
    assert same(decode_events(path.read_bytes(), "-", options), events)
    return events


@pytest.mark.parametrize(
    "layout", ["dsec", "esim", "v2e", "mvsec", "records", "lzf", "large-chunks", "prophesee"]
)
def test_hdf5_layouts_of_the_field_are_read(tmp_path: Path, some_events: Make, layout: str) -> None:
    events = some_events(1, 150_000 if layout == "large-chunks" else 70_000, 3_000_000)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        if layout == "dsec":
            group = file.create_group("events")
            for name in "txyp":
                column = getattr(events, name)
                first = events.t[0] if name == "t" else 0
                group.create_dataset(name, data=column - first, compression="gzip")
            file["t_offset"] = int(events.t[0])
        elif layout == "esim":
            for name in "txyp":
                scale = 1e-6 if name == "t" else 1
                file[f"events/{name}s"] = getattr(events, name) * scale
        elif layout == "v2e":
            file.create_dataset("events", data=table_of(events, "txyp"), chunks=(1000, 4))
        elif layout == "mvsec":
            data = table_of(events, "xytp").astype(np.float64)
            data[:, 2] *= 1e-6
            data[:, 3] = 2 * data[:, 3] - 1
            file["davis/left/events"] = data
        elif layout == "records":
            file["events"] = structured(events, "x", "y", "t", "p")
        elif layout == "lzf":
            file.create_dataset("events", data=table_of(events, "xypt"), compression="lzf")
        elif layout == "large-chunks":
            for name in "txyp":
                column = getattr(events, name)
                file.create_dataset(f"e/{name}", data=column, chunks=(100_000,), shuffle=True)
        else:
            file["CD/events"] = structured(events, "x", "y", "p", "t")
            file.attrs["geometry"] = "34x30"
    assert same(read_both(path), events)
    assert read_events(path).sensor_size == ((34, 30) if layout == "prophesee" else None)
    with read_chunks(path) as chunks:
        assert max(len(piece) for piece in chunks) <= 100_000


def test_several_streams_of_a_file_are_named_and_one_is_chosen(
    tmp_path: Path, some_events: Make
) -> None:
    left, right = some_events(2), some_events(3)
    path = tmp_path / "stereo.h5"
    with h5py.File(path, "w") as file:
        for name, events in (("left", left), ("right", right)):
            file[f"davis/{name}/events"] = table_of(events, "xytp")
    message = "several streams of events; got /davis/left/events, /davis/right/events; .*--stream"
    with pytest.raises(DataError, match=message):
        read_events(path)
    assert same(read_both(path, ReadOptions(stream="davis/right/events")), right)
    with pytest.raises(DataError, match="no such events; got 'up'"):
        read_events(path, ReadOptions(stream="up"))


def damage(kind: str, file: Any, events: Events) -> None:
    """Adds to an HDF5 file what a recording never has."""
    if kind == "declared":
        file.create_dataset("events", (1 << 40, 4), np.uint8, chunks=(1 << 20, 4))
    elif kind == "fill":
        file.create_dataset("events", (1 << 28, 4), np.uint8, chunks=(1 << 10, 4), fillvalue=1)
    elif kind == "chunk":
        data = np.zeros((1 << 17, 4), np.uint8)
        file.create_dataset("events", data=data, chunks=(1 << 27, 4), maxshape=(None, 4))
    elif kind == "elsewhere":
        file["events"] = h5py.ExternalLink("other.h5", "events")
    elif kind == "soft":
        file["a"] = h5py.SoftLink("/events/t")
    elif kind == "virtual":
        layout = h5py.VirtualLayout((10, 4), np.int64)
        layout[:] = h5py.VirtualSource("other.h5", "events", (10, 4))
        file.create_virtual_dataset("events", layout)
    elif kind == "text":
        file["events/t"] = file["events/x"] = file["events/y"] = [1, 2]
        file["events/p"] = ["on", "off"]
    elif kind == "items":
        for i in range(1100):
            file.create_group(f"g{i}")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("declared", "data set declares more than the file has"),
        ("fill", "data set declares more than the file has"),
        ("chunk", "chunks are too large"),
        ("elsewhere", "HDF5 file has no events"),
        ("soft", "HDF5 file has no events"),
        ("virtual", "data kept in another file is not read"),
        ("text", "data set has no numbers"),
        ("items", "too many items"),
    ],
)
def test_an_hdf5_file_that_is_no_honest_recording_is_one_line(
    tmp_path: Path, some_events: Make, kind: str, message: str
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        damage(kind, file, some_events(4))
    with pytest.raises(DataError, match=message) as caught:
        read_events(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [(b"\x8e\xcf", "packed with Prophesee's ECF"), (b"\x7d\x0f", "got HDF5 filter 32015 ")],
)
def test_packings_that_are_not_read_are_named(
    tmp_path: Path, some_events: Make, code: bytes, message: str
) -> None:
    """The number of LZF in the file is changed into that of the filter."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("events", data=table_of(some_events(5), "txyp"), compression="lzf")
    content = path.read_bytes()
    filter_lzf = struct.pack("<HH", 32000, 8)  # number, then the length of its name
    assert content.count(filter_lzf) == 1
    path.write_bytes(content.replace(filter_lzf, code[::-1] + struct.pack("<H", 8)))
    with pytest.raises(DataError, match=message):
        read_events(path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("records.npy", {}),
        ("table.npy", {}),
        ("floats.npy", {"time_unit": "us"}),
        ("seconds.npy", {}),
        ("ms.npy", {"time_unit": "ms"}),
        ("four-rows.npy", {}),
        ("columns.npz", {}),
        ("packed.npz", {}),
        ("one.npz", {}),
        ("named.npz", {"stream": "second"}),
    ],
)
def test_numpy_files_are_read(
    tmp_path: Path, some_events: Make, name: str, options: dict[str, Any]
) -> None:
    events = some_events(6, 70_000, 9_000_000)
    path = tmp_path / name
    table = table_of(events, "txyp")
    if name == "records.npy":
        np.save(path, structured(events, "x", "y", "t", "p"))
    elif name == "table.npy":
        np.save(path, table)
    elif name == "floats.npy":
        np.save(path, table_of(events, "xypt").astype(np.float64))
    elif name == "seconds.npy":
        np.save(path, table * [1e-6, 1, 1, 1])
    elif name == "ms.npy":
        np.save(path, (table * [1e-3, 1, 1, 1])[:, [1, 2, 3, 0]])
    elif name == "four-rows.npy":
        np.save(path, np.ascontiguousarray(table.T))
    elif name == "columns.npz":
        np.savez(path, **{c: getattr(events, c) for c in "txyp"})
    elif name == "packed.npz":
        np.savez_compressed(path, ts=events.t, x=events.x, y=events.y, polarity=events.p * 2 - 1.0)
    elif name == "one.npz":
        np.savez(path, label=np.int64(3), events=structured(events, "t", "x", "y", "p"))
    else:
        np.savez_compressed(path, first=table[:5], second=np.asfortranarray(table))
    assert same(read_both(path, ReadOptions(**options)), events)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.array([[5, 1, 1, 0], [6, 0, 1, 1]]), "columns of the table cannot be told"),
        (np.array([[5, 10, 20, 7]]), "columns of the table cannot be told"),
        (np.array([[5.0, 10, 20, 1], [9.0, 3, 4, 0]]), "unit of time cannot be told"),
        (np.array([[0.5, 10, 20, 1], [1.5, 3, 4, 0]]), "unit of time cannot be told"),
        (np.array([[1700000000000000000, 10, 20, 1]]), "times are too large for microseconds"),
        (np.zeros((3, 3)), "array is no table of events"),
        (np.zeros(3), "array is no table of events"),
        (np.zeros((1, 4000), np.float64), "array is no table of events"),
        (np.array([[1j, 2, 3, 1]]), "has no numbers"),
    ],
)
def test_a_table_that_cannot_be_told_asks_for_its_columns_or_unit(
    tmp_path: Path, table: Any, message: str
) -> None:
    np.save(tmp_path / "a.npy", table)
    with pytest.raises(DataError, match=message):
        read_events(tmp_path / "a.npy")


def test_rows_that_are_no_events_are_counted(tmp_path: Path) -> None:
    table = np.array(
        [[1, 10, 20, 1], [2, -1, 20, 1], [3, 4, 70000, 0], [4, 5, 6, 7], [5, 6, 7, 0.5]]
    )
    np.save(tmp_path / "a.npy", np.vstack([table[:1], table]))
    with pytest.warns(UserWarning, match="4 rows that are no events"):
        events = read_events(tmp_path / "a.npy", ReadOptions(columns="t,x,y,p", time_unit="us"))
    assert events.t.tolist() == [1, 1]


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<i8', 'fortran_order': False, 'shape': (4, 4), }"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (4, 4), }"),
        npy("{'descr': '<i8', 'fortran_order': False, 'shape': (-1, 4), }"),
        npy("{'descr': '<i8', 'fortran_order': False, 'shape': (" + "9" * 5000 + ", 4), }"),
        npy("{'descr': [" + "('a', " * 3000 + "], }"),
        npy("__import__('os').system('true')"),
        npy("{'descr': '<i8', 'fortran_order': False, 'shape': (4, 0), }"),
        npy("[" * 9000),
        b"\x93NUMPY\x09\x00\xff\xff",
        b"PK\x03\x04" + bytes(40),
        zipped(t=b"", x=b"", y=b"", p=b""),
        zipped(other=npy("{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }", bytes(24))),
    ],
)
def test_a_numpy_file_that_is_no_honest_recording_is_one_line(content: bytes) -> None:
    try:
        events = decode_events(content, "a.npy", on_trouble=lambda _: None)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 500  # noqa: PT017
    else:
        assert len(events) == 0


def test_an_array_that_is_cut_gives_its_whole_rows(tmp_path: Path, some_events: Make) -> None:
    events = some_events(7)
    np.save(tmp_path / "a.npy", table_of(events, "txyp"))
    content = (tmp_path / "a.npy").read_bytes()
    with pytest.warns(UserWarning, match="ends inside the array"):
        cut = decode_events(content[:-40], "a.npy")
    assert cut.t.tolist() == events.t[:-2].tolist()


def blosc(data: bytes, packer: str, order: str, type_bytes: int, *, split: bool) -> bytes:
    """A chunk of Blosc 1 with two blocks, the last of them short."""
    import zlib

    import lz4.block

    from mpsl_runtime.events.compression import zstandard

    pack = {
        "lz4": lambda part: lz4.block.compress(part, store_size=False),
        "zlib": zlib.compress,
        "zstd": zstandard().compress,
    }
    code = {"copy": 1, "lz4": 1, "zlib": 3, "zstd": 4}[packer]
    flags = code << 5 | {"plain": 0, "bytes": 1, "bits": 4}[order] | (0 if split else 0x10)
    block_bytes = len(data) * 2 // 3 // (8 * type_bytes) * 8 * type_bytes
    if packer == "copy":
        head = struct.pack("<BBBBIII", 2, 1, 2, type_bytes, len(data), block_bytes, 16 + len(data))
        return head + data
    blocks = b""
    starts = []
    for at in range(0, len(data), block_bytes):
        part = data[at : at + block_bytes]
        if order == "bytes":
            part = np.frombuffer(part, np.uint8).reshape(-1, type_bytes).T.tobytes()
        elif order == "bits":
            bits = np.unpackbits(np.frombuffer(part, np.uint8), bitorder="little")
            part = np.packbits(bits.reshape(-1, 8 * type_bytes).T, bitorder="little").tobytes()
        starts.append(16 + 4 * -(-len(data) // block_bytes) + len(blocks))
        streams = type_bytes if split and len(part) == block_bytes else 1
        share = len(part) // streams
        for i in range(streams):
            stream = part[i * share : (i + 1) * share]
            packed = pack[packer](stream)
            packed = stream if len(packed) >= len(stream) else packed
            blocks += struct.pack("<I", len(packed)) + packed
    size = starts[0] + len(blocks)
    head = struct.pack("<BBBBIII", 2, 1, flags, type_bytes, len(data), block_bytes, size)
    return head + struct.pack(f"<{len(starts)}I", *starts) + blocks


@pytest.mark.parametrize("packer", ["lz4", "zlib", "zstd", "copy"])
@pytest.mark.parametrize("order", ["plain", "bytes", "bits"])
@pytest.mark.parametrize("split", [False, True])
def test_blosc_is_unpacked_whatever_is_inside(packer: str, order: str, split: bool) -> None:
    from mpsl_runtime.events.blosc import unpack_blosc

    for type_bytes, dtype in ((1, np.uint8), (2, np.uint16), (8, np.int64)):
        data = np.sort(np.random.default_rng(3).integers(0, 200, 2_400)).astype(dtype).tobytes()
        packed = blosc(data, packer, order, type_bytes, split=split)
        assert unpack_blosc(packed, len(data)) == data


def test_hdf5_packed_by_blosc_is_read_and_its_damage_is_one_line(
    tmp_path: Path, some_events: Make
) -> None:
    events = some_events(11, 5000, 300_000)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in "txyp":
            column = getattr(events, name)
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((2000,))
            plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, column.itemsize, 2000, 5, 1, 5))
            kind, space = h5py.h5t.py_create(column.dtype), h5py.h5s.create_simple((5000,))
            data = h5py.h5d.create(file.id, name.encode(), kind, space, plan)
            for at in range(0, 5000, 2000):
                part = np.zeros(2000, column.dtype)
                part[: len(column[at : at + 2000])] = column[at : at + 2000]
                chunk = blosc(part.tobytes(), "zstd", "bytes", column.itemsize, split=False)
                data.write_direct_chunk((at,), chunk)
    assert same(read_both(path), events)
    content = path.read_bytes()
    damaged = content.replace(b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfe")
    assert damaged != content
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"damaged HDF5 file; got .*decompress"):
        read_events(path)


def test_a_damaged_heap_of_text_is_not_walked_for_ever(tmp_path: Path, some_events: Make) -> None:
    events = some_events(12)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["CD/events"] = structured(events, "x", "y", "p", "t")
        file.attrs["geometry"] = "34x30"
    assert read_events(path).sensor_size == (34, 30)
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 24 : heap + 32] = (2**64 - 16).to_bytes(8, "little")
    path.write_bytes(content)
    read = read_events(path)
    assert same(read, events)
    assert read.sensor_size is None
