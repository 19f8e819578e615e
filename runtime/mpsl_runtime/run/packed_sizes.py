"""Sizes of what the native module packs and lists for one connection, as runtime/src has them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mpsl_runtime.model.plan import Convolution
from mpsl_runtime.run.memory import reached_pairs

__all__ = [
    "FLOAT_NARROWEST",
    "INT8_NARROWEST",
    "LINE",
    "RANGE",
    "Layout",
    "blocks_at_once",
    "blocks_of_task",
    "buffer_bytes",
    "packed_bytes",
    "padded_image",
    "reached_bytes",
]

LINE = 64
"""Bytes of a cache line (buffer.hpp)."""

FLOAT_NARROWEST = 16
INT8_NARROWEST = 32
"""The narrowest block of channels (kernels.hpp)."""

RANGE = 8
"""Bytes of a range (sizes of structs)."""

_HUGE_PAGE = 2 << 20  # buffer.hpp
_ROW_BLOCKS = 4  # kernels.hpp
_SHARED_WEIGHTS = 1 << 18  # dense.cpp
_REACH = 12


def buffer_bytes(size: int) -> int:
    """Bytes that a Buffer of `size` bytes takes."""
    unit = _HUGE_PAGE if size >= _HUGE_PAGE else LINE
    return -(-size // unit) * unit


@dataclass(frozen=True)
class Layout:
    """BlockLayout of geometry.hpp."""

    extent: tuple[int, int, int]
    narrowest: int = FLOAT_NARROWEST

    @property
    def width(self) -> int:
        channels = self.extent[0]
        if channels <= 16 and self.narrowest <= 16:
            return 16
        return 32 if channels <= 32 else 64

    @property
    def blocks(self) -> int:
        return -(-self.extent[0] // self.width)

    @property
    def pixels(self) -> int:
        return self.extent[1] * self.extent[2]

    @property
    def block_size(self) -> int:
        return self.pixels * self.width

    @property
    def size(self) -> int:
        return self.block_size * self.blocks


def blocks_at_once(blocks: int) -> int:
    """Int8Convolution::at_once."""
    return next(count for count in (_ROW_BLOCKS, 2, 1) if blocks % count == 0)


def blocks_of_task(inputs: int, layout: Layout, threads: int) -> int:
    """Dense::blocks_of_task."""
    is_shared = inputs * layout.size >= _SHARED_WEIGHTS
    return -(-layout.blocks // threads) if is_shared else layout.blocks


def packed_bytes(node: Convolution, layout: Layout, whole: bool, at_once: int) -> int:
    """Weights [block][tap][channel][width]; of groups, all channels that a block sees."""
    taps = math.prod(node.weight.shape[2:])
    channels, width = node.input_shape[0], layout.width * at_once
    if whole:
        return layout.blocks // at_once * buffer_bytes(taps * channels * width)
    if node.groups == 1:
        return layout.blocks * (RANGE + buffer_bytes(4 * taps * channels * width))
    filters = node.output_shape[0]
    own, outputs = channels // node.groups, filters // node.groups
    first = np.arange(layout.blocks, dtype=np.int64) * width
    last = np.minimum(first + width, filters) - 1
    groups, number = np.unique(last // outputs - first // outputs + 1, return_counts=True)
    return sum(
        int(count) * (RANGE + buffer_bytes(4 * taps * int(group) * own * width))
        for group, count in zip(groups, number, strict=True)
    )


def reached_bytes(node: Convolution, layout: Layout) -> int:
    """EventConvolution: targets of each position of an axis, and what a step of events reaches."""
    lists, pairs = buffer_bytes(4 * (layout.pixels + 2)), node.input_shape[0]
    for axis in (0, 1):
        found = reached_pairs(node, axis)
        pairs *= found
        lists += buffer_bytes(4 * (node.input_shape[1 + axis] + 1)) + buffer_bytes(8 * found)
    return lists + _REACH * pairs


def padded_image(node: Convolution) -> int:
    """Pixels of DenseInput."""
    sizes = []
    for axis in (0, 1):
        outputs, taps = node.output_shape[1 + axis], node.weight.shape[2 + axis]
        stride = node.stride[axis] if outputs > 1 else 1
        seen = (outputs - 1) * stride + (taps - 1) * node.dilation[axis] + 1
        sizes.append(int(max(seen, node.padding[axis][0] + node.input_shape[1 + axis])))
    return math.prod(sizes)
