"""Blosc 1, the packing of DSEC's files: blocks of bytes, sorted by their place in a number.

Source: "Blosc Header Format" and "Blosc Chunk Format" (c-blosc). HDF5 needs a plug-in for it,
20 MB of C; of the packers inside it this reads those that the runtime has: LZ4, Zstandard, zlib.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from mpsl_runtime.events.compression import PackedError, errors, unpack

__all__ = ["unpack_blosc"]

_HEADER = struct.Struct("<BBBBIII")
_BYTE_SHUFFLE, _COPY, _BIT_SHUFFLE, _ONE_STREAM = 0x1, 0x2, 0x4, 0x10
_PACKERS = {0: "BloscLZ", 1: "LZ4", 2: "Snappy", 3: "zlib", 4: "Zstandard"}
_SHORTEST_STREAM = 128
_MOST_STREAMS = 16


def unpack_blosc(data: bytes, largest: int) -> bytes:
    """One chunk.

    Args:
        largest: bytes that it may unpack to.

    Raises:
        PackedError: it is damaged, larger, or packed by something else.
    """
    if len(data) < _HEADER.size:
        raise PackedError("Blosc: no header")
    _, _, flags, type_bytes, size, block_bytes, packed_bytes = _HEADER.unpack_from(data)
    if size > largest or packed_bytes > len(data) or (size and not block_bytes) or not type_bytes:
        raise PackedError("Blosc: damaged header")
    if flags & _COPY:
        if len(data) < _HEADER.size + size:
            raise PackedError("Blosc: not whole")
        return data[_HEADER.size : _HEADER.size + size]
    number = -(-size // block_bytes) if size else 0
    if _HEADER.size + 4 * number > len(data):
        raise PackedError("Blosc: damaged header")
    starts = struct.unpack_from(f"<{number}I", data, _HEADER.size)
    blocks = []
    for index, start in enumerate(starts):
        length = min(block_bytes, size - index * block_bytes)
        is_split = (
            not flags & _ONE_STREAM
            and length == block_bytes
            and type_bytes <= _MOST_STREAMS
            and length // type_bytes >= _SHORTEST_STREAM
        )
        streams = type_bytes if is_split else 1
        block = _block(data, start, length, streams, flags >> 5)
        blocks.append(_in_order(block, type_bytes, flags))
    return b"".join(blocks)


def _block(data: bytes, at: int, length: int, streams: int, packer: int) -> bytes:
    parts = []
    share = length // streams
    for _ in range(streams):
        if at + 4 > len(data):
            raise PackedError("Blosc: not whole")
        packed = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if packed > len(data) - at:
            raise PackedError("Blosc: not whole")
        part = data[at : at + packed]
        parts.append(part if packed == share else _unpacked(part, share, packer))
        at += packed
    return b"".join(parts)


def _unpacked(data: bytes, size: int, packer: int) -> bytes:
    try:
        if packer == 1:
            import lz4.block

            found: bytes = lz4.block.decompress(data, uncompressed_size=size)
        elif packer == 3:
            found = zlib.decompressobj().decompress(data, size)
        elif packer == 4:
            found = unpack("zstd", data, size)
        else:
            raise PackedError(f"Blosc with {_PACKERS.get(packer, packer)}, which is not read")
    except errors() as error:
        raise PackedError(f"Blosc: {error}") from error
    if len(found) != size:
        raise PackedError("Blosc: another size")
    return found


def _in_order(block: bytes, type_bytes: int, flags: int) -> bytes:
    """Undoes the sorting of the bytes, or of the bits, of numbers."""
    whole = len(block) // type_bytes * type_bytes
    if flags & _BYTE_SHUFFLE and type_bytes > 1:
        bytes_ = np.frombuffer(block, np.uint8, whole).reshape(type_bytes, -1)
        return bytes_.T.tobytes() + block[whole:]
    if flags & _BIT_SHUFFLE:
        whole = len(block) // (8 * type_bytes) * 8 * type_bytes
        bits = np.unpackbits(np.frombuffer(block, np.uint8, whole), bitorder="little")
        sorted_bits = bits.reshape(8 * type_bytes, -1).T
        return np.packbits(sorted_bits, bitorder="little").tobytes() + block[whole:]
    return block
