"""A data set as numbers or text; text of any length lies in heaps of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.hdf5.datatypes import datatype_of
from mpsl_runtime.hdf5.heaps import text_heap
from mpsl_runtime.hdf5.layout import data_of
from mpsl_runtime.hdf5.objects import DATASPACE, DATATYPE, EXTERNAL_FILES, LAYOUT
from mpsl_runtime.hdf5.source import Cursor, Source

__all__ = ["Value", "Values"]

Value = NDArray[Any] | np.generic | str
"""Numbers in this machine's byte order, or text; lists of text are arrays of Python strings."""

_MOST_DIMENSIONS = 8
_REFERENCE = np.dtype([("bytes", "<u4"), ("heap", "<u8"), ("index", "<u4")])


class Values:
    """Reads data sets of one file; keeps the heaps of text that it has met."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._heaps: dict[int, dict[int, bytes]] = {}

    def read(self, messages: dict[int, bytes], where: str) -> Value:
        """The values of a data set.

        Args:
            messages: of its object header. where: its name, for messages.

        Raises:
            MpslError: damaged, beyond a limit, never written, in another file, or of a type or
                form that is not read.
        """
        source = self.source
        if EXTERNAL_FILES in messages:
            raise source.refused("data kept in another file is not read", where=where)
        if not {DATASPACE, DATATYPE, LAYOUT} <= messages.keys():
            raise source.refused("neither group nor data set", where=where)
        datatype = datatype_of(source, messages[DATATYPE], where)
        shape = self._shape(messages[DATASPACE], where)
        source.spend("data_bytes", math.prod(shape) * datatype.size, where)
        data = data_of(source, messages, shape, datatype.size, where)
        if datatype.number is not None:
            numbers = data.view(datatype.number).reshape(shape)
            return _plain(numbers.astype(numbers.dtype.newbyteorder("="), copy=False))
        if datatype.kind == "truth":
            return _plain((data != 0).reshape(shape))
        if datatype.kind == "text":
            texts = self._fixed_texts(data, datatype.size, where)
        else:
            texts = self._texts(data, where)
        if shape == ():
            return texts[0]
        result = np.empty(len(texts), object)
        result[:] = texts
        return result.reshape(shape)

    def _shape(self, message: bytes, where: str) -> tuple[int, ...]:
        part = Cursor(message, self.source, "dataspace")
        version, rank, _, kind = (part.number(1) for _ in range(4))
        if version == 1:
            part.take(4)
        elif version != 2:
            raise self.source.damaged(f"dataspace of version {version}", where)
        elif kind == 2:
            raise self.source.refused("empty data set", where=where)
        if rank > _MOST_DIMENSIONS:
            raise self.source.refused(
                "too many dimensions", got=rank, expected=f"≤ {_MOST_DIMENSIONS}", where=where
            )
        return tuple(part.number(8) for _ in range(rank))

    def _fixed_texts(self, data: NDArray[np.uint8], size: int, where: str) -> list[str]:
        self.source.spend("text_bytes", data.size, where)
        raw = data.tobytes()
        pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
        return [self._text(piece.split(b"\0")[0].rstrip(b" "), where) for piece in pieces]

    def _texts(self, data: NDArray[np.uint8], where: str) -> list[str]:
        """The texts that references point to; a text counts as often as it is named."""
        found = []
        for length, heap, index in data.view(_REFERENCE).tolist():
            self.source.spend("text_bytes", 1 + length, where)
            if length == 0:
                found.append("")
                continue
            if heap not in self._heaps:
                self._heaps[heap] = text_heap(self.source, heap)
            stored = self._heaps[heap].get(index)
            if stored is None or len(stored) < length:
                raise self.source.damaged(f"text {index} that is not in its heap", where)
            # Some libraries write the end of the text, others do not.
            found.append(self._text(stored[:length].split(b"\0")[0], where))
        return found

    def _text(self, raw: bytes, where: str) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.source.damaged(f"text that is not UTF-8: {raw[:40]!r}", where) from error


def _plain(numbers: NDArray[Any]) -> Value:
    """A single number as numpy's scalar."""
    scalar: Value = numbers[()]
    return scalar
