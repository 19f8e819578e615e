"""`tcp://host:port`: a server that sends the bytes of any format; we connect.

The suffix of the option `name` decides where bytes cannot: `tcp://host:port?name=x.bin`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from mpsl_runtime.errors import DataError
from mpsl_runtime.live.address import Address
from mpsl_runtime.live.byte_source import ByteSource
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.source import LONGEST_GAP_US

__all__ = ["Source"]

_CONNECT_S = 10.0
_RECEIVE_BUFFER_BYTES = 4 << 20


class Source(ByteSource):
    """Connects when it is opened."""

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        *,
        longest_gap_us: int = LONGEST_GAP_US,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(address, options, longest_gap_us=longest_gap_us, say=say)
        address.check_options("name")
        self._socket: socket.socket | None = None

    @property
    def file_name(self) -> str:
        return self._address.options.get("name", self.name)

    def open(self) -> None:
        if self._socket is not None:
            return
        place = (self._address.host, self._address.port)
        try:
            self._socket = socket.create_connection(place, timeout=_CONNECT_S)
        except (OSError, OverflowError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise DataError("cannot connect", got=why, where=self.name) from None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._socket.setblocking(False)

    def descriptor(self) -> int:
        if self._socket is None:
            raise DataError("not connected", where=self.name)
        return self._socket.fileno()

    def close(self) -> None:
        super().close()
        if self._socket is not None:
            self._socket.close()
