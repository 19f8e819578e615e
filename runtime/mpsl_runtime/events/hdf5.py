"""Events in HDF5 files, as the field writes them.

| where | layout |
|---|---|
| `events/{x,y,t,p}`, `t_offset`, `ms_to_idx` | DSEC, evutils |
| `events` [N, 4] | v2e (t, x, y, p), MVSEC (x, y, t, p) |
| `CD/events`, records with names | Prophesee's, without its ECF packing |
| `events/{xs,ys,ts,ps}` and any other group or records with such names | ESIM, E2VID and others |

HDF5 can do much that a recording never needs: arrays declared far larger than the file, data in
other files, groups that contain themselves. Sizes are held against the file before anything is
read, and nothing outside the file is opened. Packed by deflate and what else HDF5 has built in, or
by Blosc (`blosc.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.blosc import unpack_blosc
from mpsl_runtime.events.compression import PackedError
from mpsl_runtime.events.names import Naming, naming_of
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.order import Columns
from mpsl_runtime.events.table import ROWS, Conversion, order_of
from mpsl_runtime.events.trouble import Trouble

__all__ = ["Hdf5Table"]

_MOST_ITEMS = 1000
_DEEPEST_GROUP = 4
_MOST_TIMES_PACKED = 1000
_LARGEST_CHUNK_BYTES = 1 << 28
_LARGEST_SEARCH_BYTES = 1 << 28
_BLOSC, _ECF = 32001, 0x8ECF
_HEAP = re.compile(rb"GCOL\x01\0\0\0")


@dataclass
class _Stream:
    """A place in the file that holds events: data sets by letter, or one with all of them."""

    name: str
    parts: dict[str, Any] = field(default_factory=dict)
    whole: Any = None
    naming: Naming | None = None


class Hdf5Table:
    """See `table.Table`.

    Raises:
        DataError: damaged, no events or several streams of them, a packing that is not read, data
            elsewhere or larger than it can be.
    """

    format = "HDF5"

    def __init__(self, path: Path, options: ReadOptions, trouble: Trouble, where: object) -> None:
        import h5py

        self._path, self._options, self._trouble, self._where = path, options, trouble, where
        self.sensor_size: tuple[int, int] | None = None
        try:
            self._file = h5py.File(path, "r")
        except Exception as error:  # h5py answers damage with errors of every kind
            raise self._damaged(error) from None
        try:
            self._stream = self._chosen(list(self._streams(self._file, 0, [0])))
            self._offset_us = self._time_offset()
            self.sensor_size = self._sensor()
        except Exception as error:
            self.close()
            raise error if isinstance(error, DataError) else self._damaged(error) from None

    def close(self) -> None:
        """See `Table`."""
        self._file.close()

    def pieces(self) -> Iterator[Columns]:
        """See `Table`."""
        stream = self._stream
        unit = stream.naming.unit if stream.naming else None
        conversion = Conversion(
            self._options,
            self._trouble,
            self._where,
            named=unit,
            offset_us=self._offset_us,
            has_names=stream.naming is not None,
        )
        try:
            if stream.whole is None:
                yield from self._of_columns(stream, conversion)
            else:
                yield from self._of_records(stream, conversion)
        except (DataError, GeneratorExit):
            raise
        except Exception as error:
            raise self._damaged(error) from None

    def _of_columns(self, stream: _Stream, conversion: Conversion) -> Iterator[Columns]:
        readers = {letter: self._reader(part) for letter, part in stream.parts.items()}
        lengths = {letter: len(part) for letter, part in stream.parts.items()}
        number = min(lengths.values())
        if max(lengths.values()) > number:
            self._trouble.add("cut", 1, "an event")
        for start in range(0, number, ROWS):
            stop = min(start + ROWS, number)
            yield conversion.columns(*(readers[letter](start, stop) for letter in "txyp"))

    def _of_records(self, stream: _Stream, conversion: Conversion) -> Iterator[Columns]:
        data = stream.whole
        read = self._reader(data)
        order = "".join(self._options.column_names) or None
        for start in range(0, len(data), ROWS):
            rows = read(start, min(start + ROWS, len(data)))
            if stream.naming is not None:
                letters, names = stream.naming.letters, rows.dtype.names or ()
                fields = [rows[names[letters.index(letter)]] for letter in "txyp"]
            else:
                order = order or order_of(rows, self._where)
                if len(order) != rows.shape[1]:
                    raise DataError(
                        "table has another number of columns",
                        got=rows.shape[1],
                        expected=len(order),
                        where=self._where,
                    )
                fields = [rows[:, order.index(letter)] for letter in "txyp"]
            yield conversion.columns(*fields)

    def _streams(self, group: Any, depth: int, seen: list[int]) -> Iterator[_Stream]:
        """Everything below a group that can be events."""
        import h5py

        names = []
        for name in group:
            seen[0] += 1
            if seen[0] > _MOST_ITEMS:
                raise DataError(
                    "HDF5 file has too many items", expected=f"≤ {_MOST_ITEMS}", where=self._where
                )
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                names.append(name)
        classes = {name: group.get(name, getclass=True) for name in names}
        sets = {name: group[name] for name in names if classes[name] is h5py.Dataset}
        numbers = {
            name: data
            for name, data in sets.items()
            if data.shape and len(data.shape) == 1 and data.dtype.names is None
        }
        naming = naming_of(list(numbers))
        if naming is not None:
            letters = zip(naming.letters, numbers.values(), strict=True)
            parts = {letter: data for letter, data in letters if letter != "-"}
            yield _Stream(group.name, parts, naming=naming)
        for data in sets.values():
            if data.shape is None:
                continue
            fields = naming_of(data.dtype.names or ())
            if len(data.shape) == 1 and fields is not None:
                yield _Stream(data.name, whole=data, naming=fields)
            elif len(data.shape) == 2 and data.shape[1] == 4 and "event" in data.name.lower():
                yield _Stream(data.name, whole=data)
        if depth < _DEEPEST_GROUP:
            for name in names:
                if classes[name] is h5py.Group:
                    yield from self._streams(group[name], depth + 1, seen)

    def _chosen(self, streams: list[_Stream]) -> _Stream:
        wanted = self._options.stream
        names = ", ".join(stream.name for stream in streams)
        if wanted is not None:
            streams = [s for s in streams if s.name.strip("/") == wanted.strip("/")]
        if not streams:
            raise DataError(
                "HDF5 file has no such events" if wanted else "HDF5 file has no events",
                got=repr(wanted) if wanted else ", ".join(list(self._file)[:8]) or "nothing",
                expected=names or "events/{t,x,y,p}, events [N, 4] or CD/events",
                where=self._where,
            )
        if len(streams) > 1:
            raise DataError(
                "recording has several streams of events",
                got=names,
                expected="one of them by --stream",
                where=self._where,
            )
        chosen = streams[0]
        for data in [chosen.whole] if chosen.whole is not None else chosen.parts.values():
            self._check(data)
        return chosen

    def _check(self, data: Any) -> None:
        """Holds what a data set declares against what the file has of it."""
        where = f"{data.name} of {self._where}"
        if data.is_virtual or data.external:
            raise DataError("data kept in another file is not read", where=where)
        if data.dtype.kind not in "iufbV" or (data.dtype.kind == "V" and not data.dtype.names):
            raise DataError("data set has no numbers", got=data.dtype, where=where)
        declared = data.size * data.dtype.itemsize
        stored = data.id.get_storage_size()
        if stored > self._path.stat().st_size or declared > stored * _MOST_TIMES_PACKED:
            raise DataError(
                "data set declares more than the file has",
                got=f"{declared:,} bytes from {stored:,}",
                where=where,
            )
        chunk = data.chunks
        if chunk is not None:
            size = int(np.prod(chunk, dtype=np.float64)) * data.dtype.itemsize
            if size > _LARGEST_CHUNK_BYTES:
                raise DataError("chunks are too large", got=f"{size:,} bytes", where=where)
        self._check_filters(data, where)

    def _check_filters(self, data: Any, where: str) -> None:
        import h5py

        for code, name in _filters(data):
            if code == _BLOSC or h5py.h5z.filter_avail(code):
                continue
            if code == _ECF:
                raise DataError(
                    "events are packed with Prophesee's ECF, which is not read",
                    expected="HDF5 without ECF, or the RAW file",
                    where=where,
                )
            raise DataError(
                "data set is packed in a way that is not read",
                got=f"HDF5 filter {code} ({name})",
                expected="deflate, LZF or Blosc",
                where=where,
            )

    def _reader(self, data: Any) -> Callable[[int, int], NDArray[Any]]:
        """`read(start, stop)` → rows; a chunk is unpacked once, however many times it is cut."""
        codes = [code for code, _ in _filters(data)]
        chunk = data.chunks
        if chunk is None or (_BLOSC not in codes and chunk[0] <= ROWS):
            return lambda start, stop: data[start:stop]
        if _BLOSC in codes and (codes != [_BLOSC] or chunk[1:] != data.shape[1:]):
            raise DataError(
                "Blosc beside another packing is not read", where=f"{data.name} of {self._where}"
            )
        size = chunk[0]
        held: tuple[int, NDArray[Any]] = (-1, np.empty(0))

        def chunk_of(index: int) -> NDArray[Any]:
            if _BLOSC not in codes:
                rows: NDArray[Any] = data[index * size : (index + 1) * size]
                return rows
            place = (index * size, *(0,) * (len(chunk) - 1))
            skipped, packed = data.id.read_direct_chunk(place)
            expected = int(np.prod(chunk)) * data.dtype.itemsize
            content = packed if skipped else unpack_blosc(packed, expected)
            if len(content) != expected:
                raise PackedError("a chunk of another size")
            return np.frombuffer(content, data.dtype).reshape(chunk)

        def read(start: int, stop: int) -> NDArray[Any]:
            nonlocal held
            parts = []
            while start < stop:
                index = start // size
                if held[0] != index:
                    held = index, chunk_of(index)
                end = min(stop, (index + 1) * size)
                parts.append(held[1][start - index * size : end - index * size])
                start = end
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        return read

    def _time_offset(self) -> int:
        """DSEC counts its times from `t_offset`."""
        import h5py

        name = "t_offset"
        if name not in self._file or not isinstance(
            self._file.get(name, getlink=True), h5py.HardLink
        ):
            return 0
        data = self._file[name]
        if not isinstance(data, h5py.Dataset) or data.shape not in ((), (1,)):
            return 0
        if data.dtype.kind not in "iu" or data.is_virtual or data.external:
            return 0
        return int(np.asarray(data[()]).reshape(-1)[0])

    def _sensor(self) -> tuple[int, int] | None:
        """What attributes say: `width` and `height`, or Prophesee's `geometry`, as 1280x720."""
        words = [self._attribute("width"), self._attribute("height")]
        geometry = self._attribute("geometry")
        if geometry is not None and None in words:
            words = list(geometry.lower().partition("x")[::2])
        if not all(word and re.fullmatch(r"\d{1,5}", word) for word in words):
            return None
        return int(words[0] or 0), int(words[1] or 0)

    def _attribute(self, name: str) -> str | None:
        """An attribute of the file as text, where it is a number or a short text."""
        import h5py

        attributes = self._file.attrs
        if name not in attributes:
            return None
        attribute = h5py.h5a.open(self._file.id, name.encode())
        kind = attribute.get_type()
        if attribute.shape not in ((), (1,)) or attribute.get_storage_size() > 256:
            return None
        if isinstance(kind, h5py.h5t.TypeStringID):
            if kind.is_variable_str() and not self._heaps_end():
                return None
        elif not isinstance(kind, h5py.h5t.TypeIntegerID):
            return None
        value = np.asarray(attributes[name]).reshape(-1)[0]
        return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)

    def _heaps_end(self) -> bool:
        """Whether the heaps that hold text can be walked to their end: HDF5 2.0 does not come back
        from one whose damaged object has no size."""
        if self._path.stat().st_size > _LARGEST_SEARCH_BYTES:
            return False
        with self._path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            for match in _HEAP.finditer(content):
                at = match.start()
                end = min(at + int.from_bytes(content[at + 8 : at + 16], "little"), len(content))
                at += 16
                while at + 16 <= end:
                    is_object = content[at : at + 2] != b"\0\0"  # else the free space to the end
                    length = int.from_bytes(content[at + 8 : at + 16], "little")
                    need = 16 + (length + 7) // 8 * 8 if is_object else length
                    if need == 0 or need > end - at:
                        return False
                    at += need
        return True

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            "damaged HDF5 file", got=" ".join(str(error).split())[:200], where=self._where
        )


def _filters(data: Any) -> list[tuple[int, str]]:
    """(code, name) of what a data set is packed with."""
    plan = data.id.get_create_plist()
    found = [plan.get_filter(index) for index in range(plan.get_nfilters())]
    return [(int(code), name.decode("ascii", "replace")[:40]) for code, _, _, name in found]
