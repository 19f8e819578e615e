"""The paper's notation for networks: `128C3-AP2-256C3-AP2-512FC-10` becomes a list of layers.

| word      | meaning                                                                              |
|-----------|--------------------------------------------------------------------------------------|
| `64C3`    | convolution, 64 channels, 3x3, padded by 1 (kernel // 2), stride 1                   |
| `64C3S2`  | the same with stride 2                                                               |
| `AP2`     | average pooling 2x2; odd sizes drop the last row and column                          |
| `BN`      | batch normalisation of the current of the layer just before it                       |
| `800FC`   | fully connected, 800 neurons                                                         |
| `10`      | fully connected, 10 neurons: the last layer                                          |
| `DP0.5`   | dropout of what enters the next layer, one mask for all steps of a window            |

Every weighted layer ends in a population of spiking neurons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from mpsl_runtime.errors import RecipeError

__all__ = ["LayerSpec", "parse"]

_CONVOLUTION = re.compile(r"(\d{1,6})C(\d{1,6})(?:S(\d{1,6}))?", re.ASCII)
_DENSE = re.compile(r"(\d{1,6})(?:FC)?", re.ASCII)
_POOLING = re.compile(r"AP(\d{1,6})", re.ASCII)
_DROPOUT = re.compile(r"DP(0?\.\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class LayerSpec:
    """One weighted layer with what comes before it, in the order pool, flatten, dropout, weights.

    Attributes:
        name: `L00`, `L01`, … in graph order.
        weight_shape: [Co, Ci, kh, kw] (`conv`) or [out, in] (`fc`).
        stride, padding: (rows, columns), of a convolution.
        pool_before: k of the average pooling of the input, 1 = none.
        flatten_before: the input is flattened, channel-major.
        dropout_before: probability of dropping an input during training.
        batchnorm: the current is batch-normalised.
        neurons: shape of the population, [Co, Ho, Wo] or [out].
    """

    name: str
    kind: Literal["conv", "fc"]
    weight_shape: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    pool_before: int
    flatten_before: bool
    dropout_before: float
    batchnorm: bool
    neurons: tuple[int, ...]

    @property
    def fan_in(self) -> int:
        """Weights that reach one neuron."""
        return prod(self.weight_shape[1:])

    @property
    def parameters(self) -> int:
        """Weights and biases of one bank, as a single-rule model has them."""
        return prod(self.weight_shape) + self.weight_shape[0]


def _error(what: str, token: str, expected: str, network: str) -> RecipeError:
    shown = [text if len(text) <= 100 else f"{text[:100]}…" for text in (token, network)]
    return RecipeError(what, got=repr(shown[0]), expected=expected, where=f"network {shown[1]!r}")


def parse(network: str, input_shape: tuple[int, ...]) -> tuple[LayerSpec, ...]:
    """Reads a network in the paper's notation.

    Args:
        network: words joined by `-`.
        input_shape: [C, H, W] of one step.

    Raises:
        RecipeError: a word is not known, does not fit where it stands, or leaves no pixels.
    """
    layers: list[LayerSpec] = []
    shape, pool, dropout, previous = input_shape, 1, 0.0, ""
    for token in network.split("-"):
        if match := _POOLING.fullmatch(token):
            size = int(match[1])
            if len(shape) != 3:
                raise _error("pooling after a fully connected layer", token, "an image", network)
            if size < 1 or min(shape[1:]) < size:
                raise _error("pooling leaves no pixels", token, f"≤ {min(shape[1:])}", network)
            pool, shape = pool * size, (shape[0], shape[1] // size, shape[2] // size)
        elif match := _DROPOUT.fullmatch(token):
            dropout = float(match[1])
        elif token == "BN":  # noqa: S105
            if not layers or previous != layers[-1].name:
                raise _error("BN does not follow a layer", token, "64C3-BN or 100FC-BN", network)
            layers[-1] = replace(layers[-1], batchnorm=True)
        elif match := _CONVOLUTION.fullmatch(token):
            channels, kernel, stride = int(match[1]), int(match[2]), int(match[3] or 1)
            if len(shape) != 3:
                raise _error("convolution after a fully connected layer", token, "FC", network)
            if min(channels, kernel, stride) < 1:
                raise _error("size must be positive", token, "64C3", network)
            padding = kernel // 2
            rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in shape[1:])
            weight: tuple[int, ...] = (channels, shape[0], kernel, kernel)
            shape = (channels, rows, columns)
            layers.append(
                _layer(len(layers), weight, shape, (stride, padding), pool, False, dropout)
            )
            pool, dropout = 1, 0.0
        elif match := _DENSE.fullmatch(token):
            out = int(match[1])
            if out < 1:
                raise _error("size must be positive", token, "512FC or 10", network)
            flat, weight, shape = len(shape) == 3, (out, prod(shape)), (out,)
            layers.append(_layer(len(layers), weight, shape, (1, 0), pool, flat, dropout))
            pool, dropout = 1, 0.0
        else:
            raise _error(
                "word is not in the notation", token, "64C3, 64C3S2, AP2, BN, 512FC, 10 or DP0.5",
                network,
            )  # fmt: skip
        previous = layers[-1].name if layers and token[0].isdigit() else ""
    if not layers or len(shape) != 1 or pool != 1 or dropout:
        raise _error("network does not end in a fully connected layer", network, "…-10", network)
    return tuple(layers)


def _layer(
    index: int,
    weight: tuple[int, ...],
    neurons: tuple[int, ...],
    stride_padding: tuple[int, int],
    pool: int,
    flatten: bool,
    dropout: float,
) -> LayerSpec:
    stride, padding = stride_padding
    return LayerSpec(
        name=f"L{index:02d}",
        kind="conv" if len(weight) == 4 else "fc",
        weight_shape=weight,
        stride=(stride, stride),
        padding=(padding, padding),
        pool_before=pool,
        flatten_before=flatten,
        dropout_before=dropout,
        batchnorm=False,
        neurons=neurons,
    )
