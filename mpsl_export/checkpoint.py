"""Reads the banks of a run folder.

The folder is all that training and export share, so everything in it is checked: shapes against
each other, numbers for being finite, names for being complete.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_export.strict_json import parse_json
from mpsl_runtime.errors import ModelError, RunError
from mpsl_runtime.model.metadata import ModelMetadata, Reset
from mpsl_runtime.model.plastic import PlasticNumbers
from mpsl_runtime.model.quanta import EXACT_LIMIT
from mpsl_runtime.model.scale import Scale
from mpsl_runtime.model.shapes import LARGEST_SIGNAL
from mpsl_runtime.run_folder import RunFolder

__all__ = [
    "BatchNorm",
    "Checkpoint",
    "Layer",
    "read_checkpoint",
]

Array = NDArray[np.float32]

FORMAT = 1
_LARGEST_EXPONENT = 100
_LARGEST_SIZE = 1 << 24
# So that V_th, (1 − ρ)·V_th and what is next to it are all normal float32.
_THRESHOLDS = (1e-30, 1e30)
_LARGEST_DECAY = float(np.nextafter(np.float32(1), np.float32(0)))


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Batch normalisation at evaluation: y = weight·(x − mean)/√(var + eps) + bias, each [Co]."""

    weight: Array
    bias: Array
    mean: Array
    var: Array
    eps: float


@dataclass(frozen=True, eq=False)
class Layer:
    """One weighted layer with its banks, and the population of neurons behind it.

    Attributes:
        name: `L00`, `L01`, … in the order in which they run.
        kind: `conv` or `fc`.
        banks: W1, W2, W3 as far as the layer has mechanisms; [Co, Ci, kh, kw] or [out, in].
        coefficients: λ, [m] or [m, Co] with m = number of banks.
        bias: [Co] or [out].
        norm: batch normalisation between weight and neuron, or None.
        stride, padding: (rows, columns); (1, 1) and (0, 0) for `fc`.
        pool_before: k, average pooling k x k of the layer's input; 1 = none.
        flatten_before: [C, H, W] becomes [C·H·W] after the pooling.
        mechanisms: the plasticity rule of each bank.
        threshold, decay, reset: V_th, ρ_m and the reset of the neurons.
        neurons: shape of the population, [C, H, W] or [out].
        scale: of the int8 grid that training ended on; None: it trained in float.
        rules: the numbers of its local rules as they ended, for `write.plastic`; None: no local
            rule, or a run of an earlier version. beta: β of the Hebbian one, [Co].
    """

    name: str
    kind: Literal["conv", "fc"]
    banks: tuple[Array, ...]
    coefficients: Array
    bias: Array
    norm: BatchNorm | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    pool_before: int
    flatten_before: bool
    mechanisms: tuple[str, ...]
    threshold: float
    decay: float
    reset: Reset
    neurons: tuple[int, ...]
    scale: Scale | None = None
    rules: PlasticNumbers | None = None
    beta: Array | None = None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The banks of a run.

    Attributes:
        path: the file, for messages.
        network: in the paper's notation.
        input_shape: [C, H, W] of one step.
        model: what the model was trained on and how its input is made.
        layers: in order.
    """

    path: Path
    network: str
    input_shape: tuple[int, int, int]
    model: ModelMetadata
    layers: tuple[Layer, ...]

    @property
    def scales(self) -> tuple[Scale, ...] | None:
        """The grids that training ended on; None: it trained in float."""
        found = tuple(layer.scale for layer in self.layers if layer.scale is not None)
        return found or None


def read_checkpoint(run: Path) -> Checkpoint:
    """Reads `RUN/banks.safetensors`.

    Raises:
        RunError: the folder or the file is absent, damaged, incomplete or not finite.
    """
    folder = RunFolder(run)
    if folder.stdp_weights.is_file():
        raise RunError(
            "a run of stdp is evaluated, not exported: its winner-take-all inhibition is recurrent",
            expected="a feed-forward network", where=run,
        )  # fmt: skip
    path = folder.require(folder.banks)
    tensors, header = _read_safetensors(path)
    try:
        data = parse_json(header["mpsl"])
        version = data["format"]
        if version != FORMAT:
            raise RunError("banks have an unknown format", got=version, expected=FORMAT, where=path)
        shape = _signal(data["input_shape"], 3)
        layers = tuple(_layer(entry, tensors, path) for entry in data["layers"])
        checkpoint = Checkpoint(
            path=path,
            network=str(data["network"]),
            input_shape=(shape[0], shape[1], shape[2]),
            model=ModelMetadata.from_mapping(data["model"], str(path)),
            layers=layers,
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise RunError(
            "banks have no readable description",
            got=f"{type(error).__name__}: {error}",
            expected="the metadata that `mpsl train` writes",
            where=path,
        ) from error
    except ModelError as error:
        raise RunError(error.what, got=error.got, expected=error.expected, where=path) from error
    if not layers:
        raise RunError("banks hold no layer", expected="at least one", where=path)
    if len({layer.scale is None for layer in layers}) > 1:
        raise RunError("some layers were trained in int8, others in float", where=path)
    return checkpoint


def _read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors and file metadata, of a file that may be anything."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        if length > len(content) - 8:
            raise ValueError("header is longer than the file")
        header = dict(parse_json(content[8 : 8 + length]).get("__metadata__", {}))
        tensors: dict[str, NDArray[Any]] = load(content)
    except OSError as error:
        raise RunError("banks cannot be read", got=error.strerror, where=path) from error
    except (SafetensorError, ValueError, AttributeError, TypeError, struct.error) as error:
        raise RunError(
            "banks cannot be read", got=error, expected="a safetensors file", where=path
        ) from error
    if "mpsl" not in header:
        raise RunError(
            "banks were not written by `mpsl train`", got="no metadata 'mpsl'", where=path
        )
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise RunError(
                "bank has the wrong type",
                got=tensor.dtype,
                expected="float32",
                where=f"{name} of {path}",
            )
        if not np.isfinite(tensor).all():
            position = [int(i) for i in np.argwhere(~np.isfinite(tensor))[0]]
            raise RunError(
                "bank is not finite",
                got=f"{tensor[tuple(position)]} at {position}",
                expected="finite numbers",
                where=f"{name} of {path}",
            )
    return tensors, header


def _layer(entry: Mapping[str, Any], tensors: Mapping[str, Array], path: Path) -> Layer:
    """One layer, its tensors held against what the description says."""
    name, kind = str(entry["name"]), entry["kind"]
    mechanisms = tuple(str(rule) for rule in entry["mechanisms"])
    shape = _sizes(entry["shape"], {"conv": 4, "fc": 2}.get(kind, 0))
    if not mechanisms or entry["reset"] not in ("subtract", "zero"):
        raise ValueError(f"layer {name} has mechanisms {mechanisms}, reset {entry['reset']!r}")

    def tensor(part: str, *shapes: tuple[int, ...]) -> Array:
        key = f"{name}.{part}"
        if key not in tensors:
            raise RunError("banks are incomplete", got=f"no {key!r}", where=path)
        if tensors[key].shape not in shapes:
            raise RunError(
                "tensor has the wrong shape",
                got=list(tensors[key].shape),
                expected=" or ".join(str(list(s)) for s in shapes),
                where=f"{key} of {path}",
            )
        return np.ascontiguousarray(tensors[key])

    out, m = shape[0], len(mechanisms)
    eps = entry["batchnorm_eps"]
    norm = None
    if eps is not None:
        parts = {part: tensor(f"bn.{part}", (out,)) for part in ("weight", "bias", "mean", "var")}
        if float(parts["var"].min()) < 0:
            raise RunError(
                "variance is negative",
                got=float(parts["var"].min()),
                where=f"{name}.bn.var of {path}",
            )
        if not float(eps) > 0:
            raise ValueError(f"layer {name} has batchnorm_eps {eps}")
        norm = BatchNorm(**parts, eps=float(eps))
    threshold, decay = float(entry["threshold"]), float(entry["decay"])
    has_tau = 0 <= decay <= _LARGEST_DECAY
    if not _THRESHOLDS[0] <= threshold <= _THRESHOLDS[1] or not (has_tau or decay == 1):
        raise ValueError(f"layer {name} has threshold {threshold}, decay {decay}")
    stride, padding = _sizes(entry["stride"], 2), _sizes(entry["padding"], 2, least=0)
    return Layer(
        name=name,
        kind=kind,
        banks=tuple(tensor(f"W{k + 1}", shape) for k in range(m)),
        coefficients=tensor("lambda", (m,), (m, out)),
        bias=tensor("bias", (out,)),
        norm=norm,
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        pool_before=_sizes([entry["pool_before"]], 1)[0],
        flatten_before=bool(entry["flatten_before"]),
        mechanisms=mechanisms,
        threshold=threshold,
        decay=decay,
        reset=entry["reset"],
        neurons=_signal(entry["neurons"], 3 if kind == "conv" else 1),
        scale=_scale(entry.get("scale"), name),
        rules=_rules(entry.get("rules"), name, mechanisms, path),
        beta=tensor("beta", (out,)) if entry.get("rules") is not None else None,
    )


def _rules(entry: Any, name: str, mechanisms: tuple[str, ...], path: Path) -> PlasticNumbers | None:
    if entry is None:
        return None
    said = {**entry, "layer": name, "rules": ",".join(mechanisms)}
    return PlasticNumbers.from_mapping(said, f"rules of {name} of {path}")


def _scale(entry: Any, name: str) -> Scale | None:
    if entry is None:
        return None
    scale = Scale(int(entry["exponent"]), int(entry["threshold"]), float(entry["step"]))
    # Beyond it quanta and the numbers made of them are no float32.
    if not (1 <= scale.threshold < EXACT_LIMIT and 0 < scale.step < np.inf) or (
        abs(scale.exponent) > _LARGEST_EXPONENT
    ):
        raise ValueError(f"layer {name} has the scale {entry}")
    return scale


def _sizes(values: Any, count: int, *, least: int = 1) -> tuple[int, ...]:
    """A list of `count` integers ≥ `least`."""
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(v) is int and least <= v <= _LARGEST_SIZE for v in values)
    ):
        raise ValueError(f"{values!r} is not a list of {count} sizes")
    return tuple(values)


def _signal(values: Any, count: int) -> tuple[int, ...]:
    """The shape of a signal, which every program must be able to hold."""
    shape = _sizes(values, count)
    if math.prod(shape) > LARGEST_SIGNAL:
        raise ValueError(f"signal of shape {list(shape)} is too large")
    return shape
