"""Reading recordings: files in, `Events` out. One function, whatever the camera wrote.

| suffix | format | decoded by |
|---|---|---|
| `.bin` | N-MNIST, 5 bytes an event (Orchard 2015) | this file |
| `.csv` | columns t, x, y, p with or without a header | this file |
| `.dat` | Prophesee DAT, 2D events | this file when its type is "2D", else faery |
| `.aedat` | jAER AEDAT 2.0 (DVS128) and 3.1 | `mpsl_runtime.events.aedat` |
| `.aedat4`, `.raw` (EVT2, EVT3), `.es` | cameras | faery, behind `_faery_events` |

CSV is ours because faery moves times that run backwards and takes a first event for a header,
without a word (0.7.1, measured). Everything that is wrong with a file is a `DataError`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import DataError, MissingExtraError
from mpsl_runtime.events.events import Events

__all__ = [
    "SUFFIXES",
    "decode_events",
    "decode_nmnist_bin",
    "encode_nmnist_bin",
    "is_trial",
    "read_bytes",
    "read_events",
    "write_nmnist_bin",
]

SUFFIXES = (".aedat", ".aedat4", ".bin", ".csv", ".dat", ".es", ".raw")
_NMNIST_LARGEST_T = (1 << 23) - 1
_UNKNOWN_SIZE = (65535, 65535)
_CSV_NAMES = {"t": "t", "x": "x", "y": "y", "p": "p", "on": "p", "polarity": "p"}


def is_trial(path: str | Path) -> bool:
    """True for formats whose files are one trial, with time counted from its start (N-MNIST)."""
    return Path(path).suffix.lower() == ".bin"


def read_bytes(path: Path) -> bytes:
    """The file's content; DataError when it is absent or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such file", where=path) from None
    except IsADirectoryError:
        raise DataError("a folder is not a recording", where=path) from None
    except OSError as error:
        raise DataError("file cannot be read", got=error.strerror or error, where=path) from error


def read_events(path: str | Path) -> Events:
    """Reads a recording; the suffix says which format it is (see the table of this module).

    Args:
        path: the file.

    Returns:
        Events with t in µs as the file counts it, `sensor_size` where the file states it.

    Raises:
        DataError: the file is absent, damaged, truncated or of no known format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise _unknown_format(path)
    if suffix in (".aedat4", ".es", ".raw"):
        if not path.is_file():
            read_bytes(path)  # says why
        return _faery_events(path, path)
    return decode_events(read_bytes(path), path)


def decode_events(data: bytes, name: str | Path) -> Events:
    """Decodes the content of a recording, for example a member of a zip.

    Args:
        data: the whole file.
        name: its name; the suffix says which format it is, and errors name it.

    Raises:
        DataError: see `read_events`.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".bin":
        if not data:
            # What an interrupted copy leaves; a network would answer it from its biases alone.
            raise DataError("empty recording", got="0 bytes", expected="events", where=name)
        return decode_nmnist_bin(data, name)
    if suffix == ".csv":
        return _decode_csv(data, name)
    if suffix == ".aedat":
        from mpsl_runtime.events.aedat import decode_aedat

        return decode_aedat(data, name)
    if suffix == ".dat":
        events = _decode_dat(data, name)
        if events is not None:
            return events
    if suffix not in SUFFIXES:
        raise _unknown_format(name)
    with tempfile.NamedTemporaryFile(suffix=suffix) as copy:  # faery reads paths only
        copy.write(data)
        copy.flush()
        return _faery_events(Path(copy.name), name)


def decode_nmnist_bin(data: bytes, where: object) -> Events:
    """N-MNIST: x, y, then 24 bits big-endian: bit 23 polarity, bits 22…0 time in µs.

    Raises:
        DataError: the size is not a multiple of 5 (a truncated file), or time runs backwards.
    """
    if len(data) % 5:
        raise DataError(
            "truncated recording",
            got=f"{len(data)} bytes",
            expected="5 bytes an event",
            where=where,
        )
    raw = np.frombuffer(data, np.uint8).reshape(-1, 5)
    high = raw[:, 2].astype(np.int64)
    t = (high & 0x7F) << 16 | raw[:, 3].astype(np.int64) << 8 | raw[:, 4]
    return Events.from_columns(t, raw[:, 0], raw[:, 1], raw[:, 2] >> 7, where=where)


def encode_nmnist_bin(events: Events, *, where: object | None = None) -> bytes:
    """The content of an N-MNIST .bin.

    Raises:
        DataError: a coordinate over 255 or a time outside 0…2^23−1 µs; the format has no room.
    """
    limits = (("x", events.x, 255), ("y", events.y, 255), ("t", events.t, _NMNIST_LARGEST_T))
    for name, column, largest in limits:
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) <= largest:
            raise DataError(
                f"event column {name} does not fit the N-MNIST format",
                got=f"{int(column.min())}…{int(column.max())}",
                expected=f"0…{largest}",
                where=where,
            )
    raw = np.empty((len(events), 5), np.uint8)
    raw[:, 0], raw[:, 1] = events.x, events.y
    raw[:, 2] = events.p << 7 | (events.t >> 16).astype(np.uint8)
    raw[:, 3], raw[:, 4] = events.t >> 8 & 0xFF, events.t & 0xFF
    return raw.tobytes()


def write_nmnist_bin(path: str | Path, events: Events) -> None:
    """Writes an N-MNIST .bin, whole or not at all.

    Raises:
        DataError: see `encode_nmnist_bin`. OutputError: the file cannot be written.
    """
    data = encode_nmnist_bin(events, where=path)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(data)


def _unknown_format(name: str | Path) -> DataError:
    return DataError(
        "unknown format of recording",
        got=f"suffix {Path(name).suffix!r}",
        expected=" ".join(SUFFIXES),
        where=name,
    )


def _decode_csv(data: bytes, where: object) -> Events:
    """One event a line, integers t,x,y,p (p 0 or 1); a first line of names may reorder them."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError("not a text file", expected="columns t,x,y,p", where=where) from None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise DataError("recording has no events and no header", where=where)
    order = ["t", "x", "y", "p"]
    if not lines[0].lstrip()[:1].isdigit() and not lines[0].lstrip().startswith("-"):
        order = [_CSV_NAMES.get(name.strip().lower(), "") for name in lines.pop(0).split(",")]
        if sorted(name for name in order if name) != ["p", "t", "x", "y"]:
            raise DataError(
                "header of the CSV is not that of events", expected="names t,x,y,p", where=where
            )
    if not lines:
        return Events.empty()
    try:
        table = np.loadtxt(lines, dtype=np.int64, delimiter=",", ndmin=2)
    except ValueError as error:
        raise DataError(
            "CSV cannot be read", got=str(error)[:120], expected="integers t,x,y,p", where=where
        ) from None
    if table.shape[1] != len(order):
        raise DataError(
            "CSV has another number of columns",
            got=table.shape[1],
            expected=len(order),
            where=where,
        )
    return Events.from_columns(*(table[:, order.index(name)] for name in "txyp"), where=where)


def _decode_dat(data: bytes, where: object) -> Events | None:
    """Prophesee DAT with 2D events, which faery refuses; None when the type is one of faery's.

    Lines that start with % are the header, then one byte type, one byte size (8), then per event
    uint32 time in µs and uint32 x:14 | y:14 | polarity:4 (Prophesee, "DAT file format").
    """
    start = 0
    size: dict[str, int] = {}
    while data[start : start + 1] == b"%":
        end = data.find(b"\n", start)
        if end < 0:
            raise DataError("header of the DAT file does not end", where=where)
        words = data[start + 1 : end].split()
        if len(words) == 2 and words[0] in (b"Width", b"Height") and words[1].isdigit():
            size[words[0].decode()] = int(words[1])
        start = end + 1
    if start == 0 or len(data) < start + 2:
        raise DataError("not a DAT file", expected="a header of % lines", where=where)
    if data[start] != 0:
        return None
    body = data[start + 2 :]
    if data[start + 1] != 8 or len(body) % 8:
        raise DataError(
            "truncated DAT file", got=f"{len(body)} bytes", expected="8 an event", where=where
        )
    words32: NDArray[np.uint32] = np.frombuffer(body, "<u4").reshape(-1, 2)
    packed = words32[:, 1]
    known = (size["Width"], size["Height"]) if len(size) == 2 else None
    return Events.from_columns(
        words32[:, 0],
        packed & 0x3FFF,
        packed >> 14 & 0x3FFF,
        (packed >> 28 & 0xF) > 0,
        sensor_size=known,
        where=where,
    )


def _check_evt_header(path: Path, where: object) -> None:
    """faery decodes any text named .raw as EVT3, and a cut last word not at all; so look first."""
    with path.open("rb") as stream:
        start = stream.read(65536)
    position, width = 0, 0
    while start[position : position + 2] == b"% ":
        line = start[position : start.find(b"\n", position)].lower()
        for mark, bytes_per_word in ((b"evt 2.0", 4), (b"evt 3.0", 2), (b"evt2", 4), (b"evt3", 2)):
            if mark in line:
                width = bytes_per_word
        end = start.find(b"\n", position)
        if end < 0:
            break
        position = end + 1
    if not width:
        raise DataError(
            "not an EVT2 or EVT3 recording", expected="a header '% evt 2.0' or '3.0'", where=where
        )
    size = path.stat().st_size - position
    if size % width:
        raise DataError(
            "truncated recording",
            got=f"{size} bytes of events",
            expected=f"a multiple of {width}",
            where=where,
        )


@contextmanager
def _rust_kept_quiet() -> Iterator[None]:
    """A panic prints a page to the process's stderr before it becomes an exception; the exception
    says all that a user needs."""
    try:
        kept = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _faery_events(path: Path, where: object) -> Events:
    """The only place that knows faery."""
    try:
        import faery
    except ImportError:
        raise MissingExtraError(f"faery, which reads {path.suffix},", "faery") from None
    try:
        if path.suffix.lower() == ".raw":
            _check_evt_header(path, where)
        with _rust_kept_quiet():
            stream = faery.events_stream_from_file(path, dimensions_fallback=_UNKNOWN_SIZE)
            size: tuple[int, int] = stream.dimensions()
            array: Any = stream.to_array()
    except (DataError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic in Rust arrives as a BaseException
        lines = str(error).strip().splitlines()
        raise DataError(
            "recording cannot be read", got=lines[0] if lines else type(error).__name__, where=where
        ) from None
    return Events.from_columns(
        array["t"],
        array["x"],
        array["y"],
        array["p"],
        sensor_size=None if size == _UNKNOWN_SIZE else (int(size[0]), int(size[1])),
        where=where,
    )
