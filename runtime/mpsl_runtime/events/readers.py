"""Reading recordings: files in, `Events` out, whole or piece by piece, whatever the camera wrote.

What a file is of is decided by its first bytes (`mpsl_runtime.events.formats`). What is whole is
read; what is not is counted and said in one line, or is an error for a strict reader.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np

from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import DataError
from mpsl_runtime.events.decoder import Decoder
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.formats import unpacked_name
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.order import Columns, concatenated
from mpsl_runtime.events.whole import LONGEST_TABLE_MARK, table_opener

__all__ = [
    "SUFFIXES",
    "Chunks",
    "decode_events",
    "encode_nmnist_bin",
    "is_trial",
    "read_bytes",
    "read_chunks",
    "read_events",
    "write_nmnist_bin",
]

SUFFIXES = (
    ".aedat",
    ".aedat4",
    ".bag",
    ".bin",
    ".csv",
    ".dat",
    ".es",
    ".gz",
    ".h5",
    ".hdf5",
    ".npy",
    ".npz",
    ".raw",
    ".zst",
)
"""Of the files of a folder that are taken for recordings; a file that is named may have any."""

CHUNK_BYTES = 1 << 20
_NMNIST_LARGEST_T = (1 << 23) - 1
Piece = TypeVar("Piece", bytes, Columns)


def is_trial(path: str | Path) -> bool:
    """True for formats whose files are one trial, with time counted from its start (N-MNIST)."""
    return unpacked_name(path).suffix.lower() == ".bin"


def read_bytes(path: Path) -> bytes:
    """The file's content; DataError when it is absent or cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


class Chunks(Iterator[Events]):
    """A recording, piece by piece: about a MiB of the file at a time is held.

    Iterating gives Events, each in time order and after those before. Errors come while iterating:
    DataError as `Decoder.feed` has them. Closed at its end, by `close`, or by leaving a `with`.
    """

    def __init__(
        self, path: Path, options: ReadOptions | None, on_trouble: Callable[[str], None] | None
    ) -> None:
        self.decoder = Decoder(path, options)
        self._on_trouble = on_trouble
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise _unreadable(path, error) from None
        self._path = path
        self._items = self._run()

    def __next__(self) -> Events:
        return next(self._items)

    def __enter__(self) -> Chunks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the file go."""
        self._items.close()
        self._file.close()

    def _read(self) -> bytes:
        """What is there, at most a chunk: a pipe is not waited for until one is full."""
        try:
            return self._file.read(CHUNK_BYTES) or b""
        except OSError as error:
            raise _unreadable(self._path, error) from None

    def _bytes(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            yield piece
            piece = self._read()

    def _run(self) -> Generator[Events, None, None]:
        decoder = self.decoder
        try:
            begin = self._read()
            while 0 < len(begin) < LONGEST_TABLE_MARK and (more := self._read()):
                begin += more
            found = table_opener(begin)
            if found is None:
                yield from self._decoded(self._bytes(begin), decoder.feed, decoder.count)
            else:
                _, opener = found
                with closing(decoder.attach(self._path, opener)) as table:
                    yield from self._decoded(table.pieces(), decoder.take, decoder.count_columns)
        finally:
            self._file.close()

    def _decoded(
        self,
        pieces: Iterator[Piece],
        decode: Callable[[Piece], Events],
        count: Callable[[Piece], None],
    ) -> Iterator[Events]:
        try:
            for piece in pieces:
                events = decode(piece)
                if len(events):
                    yield events
            yield self.decoder.finish()
            _say(self.decoder, self._on_trouble)
        except DataError:
            if not self.decoder.has_fallen:
                raise
            for piece in pieces:
                count(piece)
            raise self.decoder.fall_error() from None


def read_chunks(
    path: str | Path,
    options: ReadOptions | None = None,
    *,
    on_trouble: Callable[[str], None] | None = None,
) -> Chunks:
    """Reads a recording piece by piece, with memory that does not grow with its length.

    Args:
        path: the file.
        options: see `ReadOptions`.
        on_trouble: called at the end with one line when something is not whole; by default a
            warning.

    Returns:
        An iterator of Events, the last of which may be empty; its `decoder` knows the sensor and
        the trouble so far.

    Raises:
        DataError: the file is absent or cannot be read. While iterating: see `Decoder.feed`.
    """
    return Chunks(Path(path), options, on_trouble)


def read_events(
    path: str | Path,
    options: ReadOptions | None = None,
    *,
    on_trouble: Callable[[str], None] | None = None,
) -> Events:
    """Reads a recording as a whole.

    Args:
        path: the file.
        options: see `ReadOptions`.
        on_trouble: as for `read_chunks`.

    Returns:
        Events with t in µs as the file counts it, `sensor_size` where the file states it.

    Raises:
        DataError: the file is absent, of no known format or cannot be decoded, or its time falls.
    """
    # Piece by piece too: longer ones leave the processor's cache, and reading is slower.
    with read_chunks(path, options, on_trouble=on_trouble) as chunks:
        return _joined(list(chunks), chunks.decoder)


def decode_events(
    data: bytes,
    name: str | Path,
    options: ReadOptions | None = None,
    *,
    on_trouble: Callable[[str], None] | None = None,
) -> Events:
    """Decodes the content of a recording, for example a member of a zip.

    Args:
        data: the whole file.
        name: its name, for messages and for its suffix.
        options, on_trouble: as for `read_events`.

    Raises:
        DataError: see `read_events`.
    """
    decoder = Decoder(name, options)
    events = _joined([decoder.feed(data), decoder.finish()], decoder)
    _say(decoder, on_trouble)
    return events


def _joined(pieces: list[Events], decoder: Decoder) -> Events:
    columns = [(piece.t, piece.x, piece.y, piece.p) for piece in pieces if len(piece)]
    return Events(*concatenated(columns), sensor_size=decoder.sensor_size)


def _say(decoder: Decoder, on_trouble: Callable[[str], None] | None) -> None:
    if not decoder.trouble:
        return
    line = f"{decoder.name}: {decoder.trouble}"
    if on_trouble is None:
        warnings.warn(line, stacklevel=2)
    else:
        on_trouble(line)


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError("no such file", where=path)
    if isinstance(error, IsADirectoryError):
        return DataError("a folder is not a recording", where=path)
    return DataError("file cannot be read", got=error.strerror or error, where=path)


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
