"""Bytes that arrive, of any format that files have: pipes, sockets, DV's stream."""

from __future__ import annotations

import os
import select
import time
from abc import abstractmethod
from collections.abc import Iterator

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.decoder import Decoder
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.live.source import LiveSource

__all__ = ["ByteSource"]

_LOOK_AGAIN_S = 0.2
_PIECE_BYTES = 1 << 18


class ByteSource(LiveSource):
    """One recording, decoded as its bytes come. The sender waits when the network is slow: nothing
    is dropped.

    Attributes:
        begin: bytes that the format has at its beginning and the stream has not.
        file_name: for the decoder, whose suffix decides where bytes cannot.
    """

    begin = b""

    @property
    def file_name(self) -> str:
        """What the decoder calls the recording."""
        return self.name

    @abstractmethod
    def descriptor(self) -> int:
        """The open file descriptor that is read."""

    def recordings(self) -> Iterator[Recording]:
        with self:
            yield Recording(self.name, self._chunks(), None, trial=False)

    def _chunks(self) -> Iterator[Chunk]:
        decoder = Decoder(self.file_name, self.options.read)
        pieces = self._pieces()
        if self.begin:
            decoder.feed(self.begin)
        received = 0
        for piece in pieces:
            received += len(piece)
            events = decoder.feed(piece)
            if self.sensor_size is None:
                self.sensor_size = decoder.sensor_size
            if len(events):
                yield Chunk(events)
        if not received:
            raise DataError("nothing came", got="0 bytes", expected="events", where=self.name)
        yield Chunk(decoder.finish())
        if decoder.trouble:
            self.note(str(decoder.trouble))

    def _pieces(self) -> Iterator[bytes]:
        """The bytes as they come, until the end, `stop` or the timeout."""
        descriptor = self.descriptor()
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
        heard_s = time.monotonic()
        timeout_s = self.options.timeout_s
        while not self._stop.is_set():
            self.awake_s = time.monotonic()
            if not waiting.poll(_LOOK_AGAIN_S * 1000):
                if timeout_s is not None and time.monotonic() - heard_s > timeout_s:
                    self.note(f"nothing came for {timeout_s:g} s")
                    return
                continue
            try:
                piece = os.read(descriptor, _PIECE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self.note(f"the connection broke: {error.strerror or error}")
                return
            if not piece:
                return
            heard_s = time.monotonic()
            yield piece
