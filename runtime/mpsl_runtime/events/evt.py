"""Prophesee's files: RAW (EVT 2.0, 2.1, 3.0) and DAT. Their headers; the words are native.

A header is lines that begin with %. RAW says its format as `% evt 3.0` or, newer, as
`% format EVT3;height=720;width=1280`, and `% end` may close it. DAT goes on with a byte for the
type of its events and one for their size (Metavision docs, "RAW file format", "DAT file format").
"""

from __future__ import annotations

from mpsl_runtime import _native
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.parser import Parser, WordParser, is_text
from mpsl_runtime.events.trouble import Trouble

__all__ = ["PercentHeader", "dat_parser", "raw_parser", "read_percent_header"]

_LARGEST_SENSOR = 1 << 16
_VERSIONS = {"2.0": "EVT2", "2.1": "EVT21", "3.0": "EVT3"}
_CHANGES_OF_BRIGHTNESS = (0x00, 0x0C)  # Event2D and EventCD, of one layout


class PercentHeader:
    """The lines that begin with %, without the %.

    Attributes:
        lines: stripped; size: bytes that they take.
        is_closed: `% end` was there.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.size = 0
        self.is_closed = False

    def value(self, *names: str) -> str | None:
        """What stands after one of the names, as `name value` or `name:value`."""
        for line in self.lines:
            word, _, rest = line.replace(":", " ", 1).partition(" ")
            if word.lower() in names and rest.strip():
                return rest.strip()
        return None


def read_percent_header(begin: bytes, *, is_whole: bool) -> PercentHeader | None:
    """The header at the beginning; None when more bytes are needed to see its end."""
    header = PercentHeader()
    while not header.is_closed:
        if header.size == len(begin):
            return header if is_whole else None
        if begin[header.size : header.size + 1] != b"%":
            return header
        end = begin.find(b"\n", header.size)
        if end < 0:
            return header if is_whole else None
        line = begin[header.size + 1 : end]
        if not is_text(line):
            return header  # words that happen to look like a line
        text = line.decode("ascii").strip()
        header.lines.append(text)
        header.size = end + 1
        header.is_closed = text.lower() == "end"
    return header


def raw_parser(header: PercentHeader, trouble: Trouble, where: object) -> Parser | None:
    """The parser of a RAW file; None when the header is not one.

    Raises:
        DataError: a format that is not read here.
    """
    said = (header.value("format") or "").split(";")
    options = dict(part.lower().partition("=")[::2] for part in said[1:])
    name = said[0].strip().upper()
    version = header.value("evt")
    if not name:
        for line in header.lines:  # as some writers have it: % evt3
            name = name or {"evt2": "EVT2", "evt3": "EVT3"}.get(line.lower(), "")
    if not name and version is None:
        return None
    name = name or _VERSIONS.get(version or "", "")
    size = _size(options.get("width"), options.get("height"), where)
    geometry = header.value("geometry")
    if size is None and geometry is not None:
        width, _, height = geometry.lower().partition("x")
        size = _size(width, height, where)
    if name == "EVT2":
        decoder: _native.EventDecoder = _native.Evt2()
    elif name == "EVT21":
        endianness = options.get("endianness") or header.value("endianness") or "little"
        decoder = _native.Evt21(swapped=endianness.lower() == "legacy")
    elif name == "EVT3":
        decoder = _native.Evt3()
    else:
        raise DataError(
            "RAW file of a format that is not read",
            got=repr((said[0] or version or "")[:40]),
            expected="EVT2, EVT21 or EVT3 (evt 2.0, 2.1, 3.0)",
            where=where,
        )
    parser = WordParser(
        name, decoder, trouble, where, header_bytes=header.size, unit="a word", sensor_size=size
    )
    parser.add_us = _origin(header)
    return parser


def dat_parser(header: PercentHeader, begin: bytes, trouble: Trouble, where: object) -> Parser:
    """The parser of a DAT file; `begin` has at least two bytes after the header.

    Raises:
        DataError: events that are no changes of brightness, or sizes that cannot be.
    """
    kind, size = begin[header.size], begin[header.size + 1]
    if kind not in _CHANGES_OF_BRIGHTNESS or size != 8:
        raise DataError(
            "DAT file of events that are not read",
            got=f"type 0x{kind:02X} of {size} bytes",
            expected="type 0x00 (2D) or 0x0C (CD) of 8 bytes",
            where=where,
        )
    if (header.value("version") or "2").strip() == "1":
        decoder = _native.Addresses(
            x_shift=0, x_mask=0x1FF, y_shift=9, y_mask=0xFF, p_shift=17, p_mask=1
        )
    else:
        decoder = _native.Addresses(
            x_shift=0, x_mask=0x3FFF, y_shift=14, y_mask=0x3FFF, p_shift=28, p_mask=0xF
        )
    return WordParser(
        "DAT",
        decoder,
        trouble,
        where,
        header_bytes=header.size + 2,
        unit="an event",
        sensor_size=_size(header.value("width"), header.value("height"), where),
    )


def _origin(header: PercentHeader) -> int:
    """What faery has taken from all times of a RAW file that it wrote: `% t0 1057`, in µs."""
    text = header.value("t0") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0


def _size(width: str | None, height: str | None, where: object) -> tuple[int, int] | None:
    """(width, height), None where one is not said."""
    if width is None or height is None:
        return None
    numbers = []
    for word in (width, height):
        text = word.strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0
        if not 0 < number <= _LARGEST_SENSOR:
            raise DataError(
                "size of the sensor cannot be",
                got=repr(text[:40]),
                expected=f"1…{_LARGEST_SENSOR} pixels",
                where=where,
            )
        numbers.append(number)
    return numbers[0], numbers[1]
