"""One NIR node -> one node of the plan: sizes and weights, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.metadata import weight_grid
from mpsl_runtime.model.neurons import NEURON_TYPES, neuron_of
from mpsl_runtime.model.plan import Convolution, Dense, Flatten, Node, Pooling, Scaling, Shape

__all__ = ["LARGEST_SIGNAL", "NodeBuilder", "sizes_of"]

LARGEST_SIGNAL = 1 << 27
"""The most values between two nodes: half a GiB of float32."""


def sizes_of(value: object, what: str, where: str) -> Shape:
    """A shape as NIR stores it: a vector of whole numbers ≥ 1."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.ndim != 1 or not array.size or (array < 1).any():
        raise ModelError(f"{what} is not a shape", got=value, expected="sizes ≥ 1", where=where)
    return tuple(int(size) for size in array)


@dataclass(frozen=True)
class NodeBuilder:
    """Builds the plan's node for `node`.

    Attributes:
        name: of the node; where: node and file, for messages.
        shape: of its input.
        dt_s: seconds that one step stands for, or None where nobody said.
    """

    name: str
    node: nir.NIRNode
    shape: Shape
    where: str
    dt_s: float | None

    def build(self) -> Node:
        """The node; raises ModelError, naming it, for anything that cannot run."""
        if isinstance(self.node, NEURON_TYPES):
            return neuron_of(self.name, self.node, self.shape, dt_s=self.dt_s, where=self.where)
        builders: dict[type, Callable[[], Node]] = {
            nir.Conv2d: self._convolution,
            nir.Linear: self._dense,
            nir.Affine: self._dense,
            nir.SumPool2d: self._pooling,
            nir.AvgPool2d: self._pooling,
            nir.Flatten: self._flatten,
            nir.Scale: self._scaling,
        }
        builder = builders.get(type(self.node))
        if builder is None:
            raise ModelError(
                "node type is not supported", got=type(self.node).__name__, where=self.where
            )
        return builder()

    def _error(self, what: str, got: object, expected: object) -> ModelError:
        return ModelError(what, got=got, expected=expected, where=self.where)

    def _array(self, key: str, dimensions: int) -> NDArray[np.float32]:
        value = np.asarray(getattr(self.node, key))
        if value.dtype.kind not in "biuf" or value.ndim != dimensions or not value.size:
            raise self._error(
                f"{key} has the wrong form",
                f"{value.dtype} {value.shape}",
                f"numbers in {dimensions} dimensions",
            )
        with np.errstate(over="ignore"):
            result = np.ascontiguousarray(value, dtype=np.float32)
        if not np.isfinite(result).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(result))[0])
            found = value.reshape(result.shape)[index]  # a single number has become a list
            raise self._error(f"{key} is not finite", f"{found} at {index}", "finite numbers")
        return result

    def _pair(self, key: str, smallest: int) -> tuple[int, int]:
        value = np.asarray(getattr(self.node, key))
        if value.dtype.kind not in "iuf" or value.size not in (1, 2) or (value % 1 != 0).any():
            raise self._error(f"{key} is not a pair of whole numbers", value, f"≥ {smallest}")
        rows, columns = (int(part) for part in np.broadcast_to(value.reshape(-1), (2,)))
        if min(rows, columns) < smallest or max(rows, columns) > LARGEST_SIGNAL:
            raise self._error(f"{key} is out of range", (rows, columns), f"≥ {smallest}")
        return rows, columns

    def _image(self) -> tuple[int, int, int]:
        if len(self.shape) != 3:
            raise self._error(
                f"{type(self.node).__name__} needs an image",
                self.shape,
                "[channels, rows, columns]",
            )
        return self.shape[0], self.shape[1], self.shape[2]

    def _convolution(self) -> Convolution:
        channels, rows, columns = self._image()
        weight = self._array("weight", 4)
        filters, per_group, kernel = weight.shape[0], weight.shape[1], weight.shape[2:]
        groups = np.asarray(self.node.groups)
        if groups.dtype.kind not in "iu" or groups.size != 1 or groups.item() < 1:
            raise self._error("groups is not a whole number", self.node.groups, "≥ 1")
        group_count = int(groups.item())
        if per_group * group_count != channels or filters % group_count:
            raise self._error(
                "weight does not fit the input",
                f"shape {weight.shape} in {group_count} groups",
                f"{channels} input channels",
            )
        bias = np.zeros(filters, np.float32) if self.node.bias is None else self._array("bias", 1)
        if bias.shape != (filters,):
            raise self._error("bias does not fit the weight", bias.shape, (filters,))
        stated = self.node.input_shape
        if stated is not None and sizes_of(stated, "input_shape", self.where) != (rows, columns):
            raise self._error("input_shape does not fit the input", stated, (rows, columns))
        stride, dilation = self._pair("stride", 1), self._pair("dilation", 1)
        padding = self._padding((kernel[0], kernel[1]), stride, dilation)
        out = tuple(
            _windows(size, before + after, dilate * (taps - 1) + 1, step)
            for size, (before, after), dilate, taps, step in zip(
                (rows, columns), padding, dilation, kernel, stride, strict=True
            )
        )
        if min(out) < 1:
            raise self._error("kernel is larger than the input", kernel, (rows, columns))
        return Convolution(
            name=self.name,
            weight=weight,
            bias=bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=group_count,
            input_shape=self.shape,
            output_shape=(filters, *out),
            weight_grid=weight_grid(self.node.metadata, self.where),
        )

    def _padding(
        self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        padding = self.node.padding
        if not isinstance(padding, str):
            rows, columns = self._pair("padding", 0)
            return (rows, rows), (columns, columns)
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding != "same" or stride != (1, 1):
            raise self._error("padding is not known", f"{padding!r}, stride {stride}", "a number")
        # As torch does: the odd one goes to the bottom and the right.
        total = [dilate * (taps - 1) for dilate, taps in zip(dilation, kernel, strict=True)]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)

    def _dense(self) -> Dense:
        weight = self._array("weight", 2)
        if self.shape != (weight.shape[1],):
            raise self._error(
                "weight does not fit the input", f"shape {weight.shape}", f"[out, {self.shape}]"
            )
        bias = np.zeros(weight.shape[0], np.float32)
        if isinstance(self.node, nir.Affine):
            bias = self._array("bias", 1)
            if bias.shape != (weight.shape[0],):
                raise self._error("bias does not fit the weight", bias.shape, (weight.shape[0],))
        grid = weight_grid(self.node.metadata, self.where)
        return Dense(self.name, weight, bias, self.shape, (weight.shape[0],), grid)

    def _pooling(self) -> Pooling:
        channels, rows, columns = self._image()
        kernel, stride = self._pair("kernel_size", 1), self._pair("stride", 1)
        padding = self._pair("padding", 0)
        if padding[0] >= kernel[0] or padding[1] >= kernel[1]:
            raise self._error("padding is larger than the window", padding, f"< {kernel}")
        out = tuple(
            _windows(size, 2 * pad, window, step)
            for size, pad, window, step in zip(
                (rows, columns), padding, kernel, stride, strict=True
            )
        )
        if min(out) < 1:
            raise self._error("window is larger than the input", kernel, (rows, columns))
        scale = 1.0 / (kernel[0] * kernel[1]) if isinstance(self.node, nir.AvgPool2d) else 1.0
        return Pooling(self.name, kernel, stride, padding, scale, self.shape, (channels, *out))

    def _flatten(self) -> Flatten:
        dimensions = len(self.shape)
        start, end = (int(np.asarray(getattr(self.node, k))) for k in ("start_dim", "end_dim"))
        start, end = (dim + dimensions if dim < 0 else dim for dim in (start, end))
        stated: Any = self.node.input_type["input"]
        if stated is not None and sizes_of(stated, "input_type", self.where) != self.shape:
            raise self._error("input_type does not fit the input", stated, self.shape)
        if dimensions > 1 and (start, end) != (0, dimensions - 1):
            raise self._error(
                "only flattening to one dimension is supported",
                f"start_dim {self.node.start_dim}, end_dim {self.node.end_dim}",
                "start_dim 0, end_dim -1",
            )
        return Flatten(self.name, self.shape, (math.prod(self.shape),))

    def _scaling(self) -> Scaling:
        value = np.asarray(self.node.scale)
        scale = self._array("scale", value.ndim)
        if scale.size != 1 and scale.shape != self.shape:
            raise self._error("scale does not fit the input", scale.shape, self.shape)
        full = scale.reshape(()) if scale.size == 1 else scale
        return Scaling(
            self.name,
            np.ascontiguousarray(np.broadcast_to(full, self.shape)),
            self.shape,
            self.shape,
        )


def _windows(size: int, padding: int, extent: int, stride: int) -> int:
    """Windows of `extent` that fit `size` + `padding`."""
    return (size + padding - extent) // stride + 1
