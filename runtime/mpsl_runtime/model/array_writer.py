"""Numbers -> a data set of a `.nir` file that is small where that costs no time to read.

Inflating the weights of a network takes longer than all else from its file to its first step. So
an array is compressed only where that takes little away from the reader:

- values that are all alike, such as the time constants of a layer: gzip, as the nir package has it;
- weights on a grid, such as those of an int8 model: half of their bytes are 0. The bytes are sorted
  by their place in a number (HDF5's shuffle), and of a chunk's four planes those are deflated that
  become much smaller. The others follow as blocks that are stored, which inflate at the speed of
  memory. It is gzip's format: every HDF5 reads it.

All else lies in one piece: trained float32 weights would get a tenth smaller, and reading them take
four times as long.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["write_array"]

# Bytes of an array that is not worth the 2 kB which HDF5 spends on the index of a compressed one.
_SMALL = 4096
# Bytes of a chunk that stays in the cache while it is inflated and sorted, in memory that need not
# be asked for anew each time.
_CHUNK = 1 << 17
# Of one that needs no sorting.
_LARGE_CHUNK = 1 << 24
_SAMPLE = 1 << 15
_ALIKE, _MUCH_SMALLER, _WORTH_IT = 0.01, 0.25, 0.6
_HEAD = b"\x78\x01"  # of zlib's format: a window of 32 KiB, the fastest level


def write_array(group: Any, name: str, array: NDArray[Any]) -> None:
    """Writes a data set; the same array always gives the same bytes.

    Args:
        group: of an h5py file that is written.
    """
    if array.nbytes >= _SMALL and array.dtype.kind in "biuf":
        sample = _sample(array)
        if len(zlib.compress(sample.tobytes(), 1)) < _ALIKE * sample.nbytes:
            chunks = _chunk(array, _LARGE_CHUNK)
            group.create_dataset(name, data=array, chunks=chunks, compression=1)
            return
        if len(_deflated(sample)) < _WORTH_IT * sample.nbytes:
            _write_shuffled(group, name, array)
            return
    group.create_dataset(name, data=array)


def _write_shuffled(group: Any, name: str, array: NDArray[Any]) -> None:
    chunk = _chunk(array, _CHUNK)
    data = group.create_dataset(
        name, array.shape, array.dtype, chunks=chunk, compression="gzip", shuffle=True
    )
    for place in np.ndindex(
        *(-(-size // one) for size, one in zip(array.shape, chunk, strict=True))
    ):
        start = tuple(at * one for at, one in zip(place, chunk, strict=True))
        part = array[tuple(slice(at, at + one) for at, one in zip(start, chunk, strict=True))]
        whole = np.zeros(chunk, array.dtype)  # the last one of a row or column reaches beyond it
        whole[tuple(slice(size) for size in part.shape)] = part
        data.id.write_direct_chunk(start, _deflated(whole))


def _sample(array: NDArray[Any]) -> NDArray[Any]:
    """Its beginning, middle and end."""
    flat = array.reshape(-1)
    count = _SAMPLE // array.itemsize
    starts = (0, max(0, (len(flat) - count) // 2), max(0, len(flat) - count))
    return np.concatenate([flat[start : start + count] for start in starts])


def _chunk(array: NDArray[Any], most: int) -> tuple[int, ...]:
    """The shape of a chunk: as many rows as fit; where one is too large, as many of its rows."""
    shape = [1] * array.ndim
    for axis, size in enumerate(array.shape):
        row = math.prod(array.shape[axis + 1 :]) * array.itemsize
        shape[axis] = min(size, max(1, most // row))
        if row <= most:
            return (*shape[: axis + 1], *array.shape[axis + 1 :])
    return tuple(shape)


def _deflated(chunk: NDArray[Any]) -> bytes:
    """A chunk, shuffled, in zlib's format: each plane deflated for itself, or stored."""
    planes = chunk.reshape(-1).view(np.uint8).reshape(-1, chunk.itemsize).T
    content, pieces, check = [_HEAD], list(map(bytes, planes)), 1
    for number, piece in enumerate(pieces):
        check = zlib.adler32(piece, check)
        end = zlib.Z_FINISH if number == len(pieces) - 1 else zlib.Z_FULL_FLUSH
        deflated = _blocks(piece, 1, end)
        is_much_smaller = len(deflated) < _MUCH_SMALLER * len(piece)
        content.append(deflated if is_much_smaller else _blocks(piece, 0, end))
    return b"".join((*content, check.to_bytes(4, "big")))


def _blocks(data: bytes, level: int, end: int) -> bytes:
    """Blocks of deflate that refer to nothing before them."""
    deflater = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush(end)
