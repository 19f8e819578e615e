"""Which format a recording is of: its first bytes decide; a suffix only where they cannot.

| begins with | format |
|---|---|
| `% evt 2.0`, `% format EVT3;…` | Prophesee RAW: EVT2, EVT2.1, EVT3 |
| other lines with %, then a type and a size | Prophesee DAT |
| `#!AER-DAT2.0`, `3.1`, `4.0` | AEDAT |
| `Event Stream` | ES |
| `#ROSBAG V2.0` | bags of ROS 1 |
| nothing that is known, and a name that ends with `.bin` | N-MNIST, 5 bytes an event |
| text | CSV and columns |
| the marks of HDF5, `.npy`, `.npz` | tables of numbers |
| the marks of gzip, Zstandard, LZ4 | any of these, packed |
"""

from __future__ import annotations

from pathlib import Path

from mpsl_runtime import _native
from mpsl_runtime.errors import DataError
from mpsl_runtime.events import aedat, evt, rosbag
from mpsl_runtime.events.aedat4 import Aedat4Parser
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.packed import PACKINGS, PackedParser
from mpsl_runtime.events.parser import Parser, WordParser, is_text
from mpsl_runtime.events.rosbag import RosbagParser
from mpsl_runtime.events.text import TextParser
from mpsl_runtime.events.trouble import Trouble
from mpsl_runtime.events.whole import TABLE_MARKS, WholeParser, table_opener

__all__ = ["recognise", "unpacked_name"]

_LARGEST_HEADER = 1 << 20
_TEXT_LOOKED_AT = 512
_BOM = b"\xef\xbb\xbf"


def recognise(
    begin: bytes, name: str | Path, options: ReadOptions, trouble: Trouble, *, is_whole: bool
) -> Parser | None:
    """A parser for a recording that begins so; None when more bytes are needed to say.

    Args:
        begin: the first bytes; the parser is to be fed with them too.
        name: for messages, and for its suffix.
        trouble: where the parser counts.
        is_whole: nothing follows these bytes.

    Raises:
        DataError: no known format, a version that is not read, or a damaged header.
    """
    if not begin:
        if is_whole:
            raise DataError("empty recording", got="0 bytes", expected="events", where=name)
        return None
    packing = next((PACKINGS[mark] for mark in PACKINGS if begin.startswith(mark)), None)
    if packing is not None:

        def inside(first: bytes, is_all: bool) -> Parser | None:
            return recognise(first, unpacked_name(name), options, trouble, is_whole=is_all)

        return PackedParser(packing, inside, trouble, name)
    table = table_opener(begin)
    if table is not None:
        return WholeParser(*table, options, trouble, name)
    if not is_whole and any(mark.startswith(begin) for mark in _LATER_MARKS):
        return None
    for mark, parser_of in _MARKS.items():
        if begin.startswith(mark):
            return parser_of(begin, options, trouble, name, is_whole)
        if mark.startswith(begin) and not is_whole:
            return None
    is_bin = unpacked_name(name).suffix.lower() == ".bin"
    # An N-MNIST event at x = 37 begins with % too, but its time is not text in the first 2 s.
    if begin.startswith(b"%") and (not is_bin or is_text(begin[:5])):
        return _percent(begin, options, trouble, name, is_whole)
    if is_bin:
        return WordParser(
            "N-MNIST", _native.Nmnist(), trouble, name, header_bytes=0, unit="an event"
        )
    if len(begin) < _TEXT_LOOKED_AT and not is_whole and is_text(begin.removeprefix(_BOM)):
        return None
    if is_text(begin[:_TEXT_LOOKED_AT].removeprefix(_BOM)):
        return TextParser(options, trouble, name)
    raise _unknown(begin, name)


def _percent(
    begin: bytes, options: ReadOptions, trouble: Trouble, name: str | Path, is_whole: bool
) -> Parser | None:
    header = evt.read_percent_header(begin, is_whole=is_whole)
    if header is None:
        if len(begin) > _LARGEST_HEADER:
            raise DataError("header does not end", got=f"{len(begin)} bytes", where=name)
        return None
    parser = evt.raw_parser(header, trouble, name)
    if parser is not None:
        return parser
    rest = begin[header.size : header.size + 2]
    if len(rest) < 2 and not is_whole:
        return None
    if len(rest) == 2 and rest[0] < 0x20 and rest[0] not in b"\t\r\n":
        return evt.dat_parser(header, begin, trouble, name)
    if rest and is_text(rest):
        return TextParser(options, trouble, name)
    raise _unknown(begin, name)


def _aedat(
    begin: bytes, options: ReadOptions, trouble: Trouble, name: str | Path, is_whole: bool
) -> Parser | None:
    version = begin[9:12]
    if len(version) < 3 and not is_whole:
        return None
    if version == b"2.0":
        return aedat.aedat2_parser(begin, trouble, name, is_whole=is_whole)
    if version == b"3.1":
        return aedat.aedat3_parser(begin, trouble, name, is_whole=is_whole)
    if version == b"4.0":
        return Aedat4Parser(options, trouble, name)
    raise DataError(
        "AEDAT of a version that is not read",
        got=repr(version.decode("latin-1")),
        expected="2.0, 3.1 or 4.0",
        where=name,
    )


def _event_stream(
    begin: bytes, options: ReadOptions, trouble: Trouble, name: str | Path, is_whole: bool
) -> Parser | None:
    """Event Stream 2.x: 12 bytes, three of the version, the type, width and height (uint16)."""
    if len(begin) >= 13 and begin[12] != 2:
        raise DataError(
            "Event Stream of a version that is not read",
            got=".".join(str(part) for part in begin[12:15]),
            expected="2.x",
            where=name,
        )
    if len(begin) >= 16 and begin[15] not in (1, 2):
        kinds = {0: "generic", 3: "display", 4: "color", 5: "liquid"}
        raise DataError(
            "Event Stream without changes of brightness",
            got=f"type {begin[15]} ({kinds.get(begin[15], 'unknown')})",
            expected="1 (DVS) or 2 (ATIS)",
            where=name,
        )
    if len(begin) < 20:
        if is_whole:
            raise DataError("header of the Event Stream is not whole", where=name)
        return None
    size = int.from_bytes(begin[16:18], "little"), int.from_bytes(begin[18:20], "little")
    return WordParser(
        "Event Stream",
        _native.EventStream(is_atis=begin[15] == 2, height=size[1]),
        trouble,
        name,
        header_bytes=20,
        unit="an event",
        sensor_size=size,
    )


def unpacked_name(name: str | Path) -> Path:
    """The name of what is inside a packed file: `a.csv` of `a.csv.gz`."""
    path = Path(name)
    return path.with_suffix("") if path.suffix.lower() in (".gz", ".zst", ".lz4") else path


def _rosbag(
    begin: bytes, options: ReadOptions, trouble: Trouble, name: str | Path, is_whole: bool
) -> Parser | None:
    return RosbagParser(options, trouble, name)


_MARKS = {rosbag.MARK: _rosbag, b"#!AER-DAT": _aedat, b"Event Stream": _event_stream}


_LATER_MARKS = (*PACKINGS, *TABLE_MARKS)


def _unknown(begin: bytes, name: str | Path) -> DataError:
    return DataError(
        "unknown format of recording",
        got=f"bytes {begin[:8].hex(' ')}",
        expected="RAW (EVT2, EVT2.1, EVT3), DAT, AEDAT, ES, HDF5, npy, npz, CSV or N-MNIST .bin",
        where=name,
    )
