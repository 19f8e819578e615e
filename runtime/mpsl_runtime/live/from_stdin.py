"""`-`: standard input, the bytes of any format.

The suffix of the option `name` decides where bytes cannot: `stdin://?name=x.bin`.
"""

from __future__ import annotations

from mpsl_runtime.errors import DataError
from mpsl_runtime.live.byte_source import ByteSource

__all__ = ["Source"]

_DESCRIPTOR = 0


class Source(ByteSource):
    """Reads descriptor 0, which it leaves open."""

    @property
    def file_name(self) -> str:
        return self._address.options.get("name", "standard input")

    def open(self) -> None:
        import os
        import sys

        self._address.check_options("name")
        try:
            os.fstat(_DESCRIPTOR)
        except OSError:
            raise DataError("standard input is closed", where=self.name) from None
        if sys.stdin is not None and sys.stdin.isatty():
            raise DataError("standard input is a terminal", expected="a pipe or a file")

    def descriptor(self) -> int:
        return _DESCRIPTOR
