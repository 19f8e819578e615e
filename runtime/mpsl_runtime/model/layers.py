"""One NIR node -> one node of the plan: sizes and weights, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.metadata import weight_grid
from mpsl_runtime.model.neurons import NEURON_TYPES, neuron_of
from mpsl_runtime.model.plan import (
    Convolution,
    Delay,
    Dense,
    Flatten,
    Node,
    Pooling,
    Scaling,
    Shape,
)
from mpsl_runtime.model.shapes import LARGEST_SIGNAL, sizes_of, spread, without_ones

__all__ = ["NodeBuilder"]


@dataclass(frozen=True)
class NodeBuilder:
    """Builds the plan's node for `node`.

    Attributes:
        name: of the node; where: node and file, for messages.
        shape: of its input.
        dt_s: seconds that one step stands for, or None where nobody said.
        following: the nodes that see this one.
        notes: takes one more line where the node is not taken at its word.
    """

    name: str
    node: nir.NIRNode
    shape: Shape
    where: str
    dt_s: float | None
    following: tuple[nir.NIRNode, ...] = ()
    notes: list[str] = field(default_factory=list)

    def build(self) -> Node:
        """The node; raises ModelError, naming it, for anything that cannot run."""
        if isinstance(self.node, NEURON_TYPES):
            neuron = neuron_of(self.name, self.node, self.shape, dt_s=self.dt_s, where=self.where)
            if neuron.kind == "spiking" and neuron.threshold.min() <= 0:
                self.notes.append(f"a threshold of {self.name!r} is ≤ 0: it fires at every step")
            return neuron
        builders: dict[type, Callable[[], Node]] = {
            nir.Conv1d: self._convolution,
            nir.Conv2d: self._convolution,
            nir.Delay: self._delay,
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
        is_1d = isinstance(self.node, nir.Conv1d)
        weight = self._array("weight", 3 if is_1d else 4)
        if is_1d:
            if rows != 1:
                raise self._error("Conv1d needs a row", self.shape, "[channels, length]")
            weight = weight[:, :, None]
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
        if self.node.bias is None:
            self.notes.append(f"{self.name!r} has no bias: 0")
            bias = np.zeros(filters, np.float32)
        else:
            bias = self._array("bias", 1)
        if bias.shape != (filters,):
            raise self._error("bias does not fit the weight", bias.shape, (filters,))
        stated = self.node.input_shape
        size = (columns,) if is_1d else (rows, columns)
        if stated is not None and sizes_of(stated, "input_shape", self.where) != size:
            raise self._error("input_shape does not fit the input", stated, size)
        stride, dilation = self._pair("stride", 1), self._pair("dilation", 1)
        if is_1d:
            stride, dilation = (1, stride[1]), (1, dilation[1])
        padding = self._padding((kernel[0], kernel[1]), stride, dilation)
        if is_1d:
            padding = (0, 0), padding[1]
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
            raise self._error(
                "padding 'same' is not defined with a stride" if padding == "same"
                else "padding is not known",
                f"{padding!r}, stride {stride}",
                "numbers of rows and columns",
            )  # fmt: skip
        # As torch does: the odd one goes to the bottom and the right.
        total = [dilate * (taps - 1) for dilate, taps in zip(dilation, kernel, strict=True)]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)

    def _dense(self) -> Dense:
        weight = self._array("weight", 2)
        if without_ones(self.shape) != without_ones((weight.shape[1],)):
            raise self._error(
                "weight does not fit the input", f"shape {weight.shape}", f"[out, {self.shape}]"
            )
        bias = np.zeros(weight.shape[0], np.float32)
        if isinstance(self.node, nir.Affine):
            bias = self._array("bias", 1)
            if bias.shape != (weight.shape[0],):
                raise self._error("bias does not fit the weight", bias.shape, (weight.shape[0],))
        grid = weight_grid(self.node.metadata, self.where)
        return Dense(self.name, weight, bias, (weight.shape[1],), (weight.shape[0],), grid)

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
        start, end = (int(np.asarray(getattr(self.node, k))) for k in ("start_dim", "end_dim"))
        stated: Any = self.node.input_type["input"]
        dimensions = len(self.shape)
        if stated is not None:
            sizes = sizes_of(stated, "input_type", self.where)
            dimensions = len(sizes)
            if without_ones(sizes) != without_ones(self.shape):
                raise self._error("input_type does not fit the input", stated, self.shape)
        start, end = (dim + dimensions if dim < 0 else dim for dim in (start, end))
        flat = Flatten(self.name, self.shape, (math.prod(self.shape),))
        if len(self.shape) == 1 or (start, end) == (0, dimensions - 1):
            return flat
        if start == end < dimensions:
            self.notes.append(f"{self.name!r} flattens nothing")
            return Flatten(self.name, self.shape, self.shape)
        if (start, end) == (1, dimensions - 1) and (
            dimensions > len(self.shape) or self._feeds_vectors()
        ):
            self.notes.append(
                f"{self.name!r} takes its first dimension for the batch: flattens all"
            )
            return flat
        raise self._error(
            "only flattening to one dimension is supported",
            f"start_dim {self.node.start_dim}, end_dim {self.node.end_dim}",
            "start_dim 0, end_dim -1",
        )

    def _feeds_vectors(self) -> bool:
        """Whether the weights behind it take all of the input at once."""
        size = math.prod(self.shape)
        return bool(self.following) and all(
            isinstance(node, nir.Linear | nir.Affine) and np.shape(node.weight)[1:] == (size,)
            for node in self.following
        )

    def _delay(self) -> Delay:
        if self.dt_s is None:
            raise ModelError(
                "Delay needs the length of a step, and the model does not say it",
                expected="--dt-s SECONDS (dt_s)",
                where=self.where,
            )
        delay = np.asarray(self.node.delay)
        seconds = self._array("delay", delay.ndim).astype(np.float64)
        steps = np.rint(seconds / self.dt_s)
        if (seconds < 0).any() or steps.max() * math.prod(self.shape) > LARGEST_SIGNAL:
            raise self._error(
                "delay is out of range",
                f"{seconds.min():g} … {seconds.max():g} s",
                f"0 … {LARGEST_SIGNAL // math.prod(self.shape)} steps of {self.dt_s:g} s",
            )
        if (np.abs(seconds / self.dt_s - steps) > 1e-3).any():
            self.notes.append(f"{self.name!r} delays by no whole number of steps: the nearest")
        full = spread(steps.astype(np.int64), self.shape)
        if full is None:
            raise self._error("delay does not fit the input", delay.shape, self.shape)
        return Delay(self.name, full, self.shape, self.shape)

    def _scaling(self) -> Scaling:
        value = np.asarray(self.node.scale)
        full = spread(self._array("scale", value.ndim), self.shape)
        if full is None:
            raise self._error("scale does not fit the input", value.shape, self.shape)
        return Scaling(self.name, full, self.shape, self.shape)


def _windows(size: int, padding: int, extent: int, stride: int) -> int:
    """Windows of `extent` that fit `size` + `padding`."""
    return (size + padding - extent) // stride + 1
