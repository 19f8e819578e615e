"""A decoder with state: bytes of a recording in, in pieces of any size, events out.

A file, a pipe, a socket and a file that grows are one thing to it. What format the bytes are of is
decided by the bytes (`mpsl_runtime.events.formats`); what is whole is given, what is not is counted
in `trouble` and, where the options say `strict`, an error.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.formats import recognise
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.order import Columns, Order, concatenated
from mpsl_runtime.events.parser import Parser
from mpsl_runtime.events.table import Table
from mpsl_runtime.events.trouble import Trouble
from mpsl_runtime.events.whole import AttachedTable, OpenTable

__all__ = ["Decoder", "open_decoder"]


class Decoder:
    """Decodes one recording. Made by `open_decoder`.

    Attributes:
        name: the recording, in messages.
        trouble: what was not whole so far, counted by kind; its text is one line.
    """

    def __init__(self, name: str | Path, options: ReadOptions | None = None) -> None:
        self.name = name
        self.trouble = Trouble()
        self._options = options or ReadOptions()
        self._order = Order(self._options.sort_window_us)
        self._parser: Parser | None = None
        self._begin = b""
        self._given = 0
        self._is_finished = False

    @property
    def format(self) -> str | None:
        """Name of the format; None until enough bytes have come to see it."""
        return None if self._parser is None else self._parser.format

    @property
    def sensor_size(self) -> tuple[int, int] | None:
        """(width, height) in pixels; None until, or unless, the recording says it."""
        return None if self._parser is None else self._parser.sensor_size

    @property
    def has_fallen(self) -> bool:
        """Whether time has fallen by more than is sorted; `count` goes on from there."""
        return self._order.late > 0

    def feed(self, data: bytes) -> Events:
        """Takes the next bytes in.

        Args:
            data: of any length; an event may begin in one call and end in another.

        Returns:
            The events that are certain now, in time order, none before those given earlier. With a
            sort window, later ones wait for their place.

        Raises:
            DataError: the bytes are of no known format, or nothing sensible can follow; time falls;
                or, with `strict`, anything is not whole.
        """
        return self.take(self._parse(bytes(data)))

    def take(self, columns: Columns) -> Events:
        """Like `feed`, for events that need no decoding; see `attach`."""
        return self._give(self._order.take(self._inside(columns)))

    def attach(self, path: Path, opener: OpenTable) -> Table:
        """Opens a file that is no stream of bytes; its pieces are to be given to `take`.

        Raises:
            DataError: it is damaged or has no events.
        """
        table = opener(path, self._options, self.trouble, self.name)
        self._parser = AttachedTable(table)
        return table

    def finish(self) -> Events:
        """The events that the end of the recording completes; nothing may be fed after it.

        Raises:
            DataError: see `feed`.
        """
        if self._is_finished:
            return Events.empty(self.sensor_size)
        self._is_finished = True
        pieces = [self._parse(b"", is_whole=True)]
        if self._parser is not None:
            pieces.append(self._parser.finish())
        columns = self._order.take(self._inside(concatenated(pieces)))
        columns = concatenated([columns, self._order.flush()])
        if not self._given and not len(columns[0]) and not self.has_fallen:
            self.trouble.add("empty")
        return self._give(columns)

    def count(self, data: bytes) -> None:
        """Goes on after time has fallen, only to count how many events come late."""
        self.count_columns(self._parse(data))

    def count_columns(self, columns: Columns) -> None:
        """Like `count`, beside `take`."""
        self._order.take(self._inside(columns))

    def fall_error(self) -> DataError:
        """What is known of the falls of time so far, as one line."""
        return self._order.error(self.name)

    def _parse(self, data: bytes, *, is_whole: bool = False) -> Columns:
        if self._parser is None:
            self._begin += data
            self._parser = recognise(
                self._begin, self.name, self._options, self.trouble, is_whole=is_whole
            )
            if self._parser is None:
                return concatenated([])
            data, self._begin = self._begin, b""
        return self._parser.feed(data)

    def _inside(self, columns: Columns) -> Columns:
        """Without the events that the recording's own sensor cannot have seen."""
        size = self.sensor_size
        _, x, y, _ = columns
        if size is None or not len(x) or (int(x.max()) < size[0] and int(y.max()) < size[1]):
            return columns
        inside = (x < size[0]) & (y < size[1])
        self.trouble.add("outside", int(np.sum(~inside)), f"{size[0]}x{size[1]}")
        t, x, y, p = columns
        return t[inside], x[inside], y[inside], p[inside]

    def _give(self, columns: Columns) -> Events:
        if self._order.sorted:
            self.trouble.set("sorted", self._order.sorted)
        if self.has_fallen:
            raise self.fall_error()
        options = self._options
        if options.strict and self.trouble.is_fault(may_be_empty=options.may_be_empty):
            raise DataError("recording is not whole", got=self.trouble, where=self.name)
        self._given += len(columns[0])
        return Events(*columns, sensor_size=self.sensor_size)


def open_decoder(
    first_bytes: bytes = b"", name: str | Path = "", options: ReadOptions | None = None
) -> Decoder:
    """A decoder for a recording that begins with these bytes.

    Args:
        first_bytes: looked at, not taken in: feed them too. With few or none, the decoder decides
            when enough have been fed.
        name: a path or an address, for messages; its suffix decides where bytes cannot (N-MNIST's
            `.bin` has no mark).
        options: see `ReadOptions`.

    Raises:
        DataError: the bytes are of no known format.
    """
    decoder = Decoder(name, options)
    recognise(first_bytes, name, decoder._options, Trouble(), is_whole=False)
    return decoder
