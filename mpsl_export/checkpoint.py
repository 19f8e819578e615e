"""Reads a run folder: the banks and the record that training left of them.

The folder is all that training and export share, so everything in it is checked here: shapes
against each other, numbers for being finite, names for being complete.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError, RunError
from mpsl_runtime.model.grid import EXACT_LIMIT
from mpsl_runtime.model.metadata import ModelMetadata, Reset
from mpsl_runtime.model.scale import Scale

__all__ = [
    "BatchNorm",
    "Checkpoint",
    "Evaluation",
    "Layer",
    "read_checkpoint",
    "read_evaluation",
]

Array = NDArray[np.float32]

FORMAT = 1
# safetensors allows 100 MB; a header of ours has a few kilobytes.
LARGEST_HEADER_BYTES = 100_000_000
_LARGEST_EXPONENT = 100


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


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the network of banks did on the test set: N samples, T steps, K classes.

    Attributes:
        path: the file, for messages.
        ids: the samples, [N] as `Split.ids`.
        labels, predictions: int64 [N].
        spikes: uint8 [N, T, K] output spikes.
        scores: float32 [N, K].
        probes: for a few samples the spikes of every layer: id -> bool [T, n] for each layer.
        record: device, torch version, flags, data set, `test_hash`, accuracy, `recipe_hash`.
    """

    path: Path
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    spikes: NDArray[np.uint8]
    scores: Array
    predictions: NDArray[np.int64]
    probes: Mapping[str, tuple[NDArray[np.bool_], ...]]
    record: Mapping[str, Any]


def read_checkpoint(run: Path) -> Checkpoint:
    """Reads `RUN/banks.safetensors`.

    Raises:
        RunError: the folder or the file is absent, damaged, incomplete or not finite.
    """
    if (run / "stdp.safetensors").is_file():
        raise RunError(
            "a run of stdp is evaluated, not exported: its winner-take-all inhibition is recurrent",
            expected="a feed-forward network", where=run,
        )  # fmt: skip
    path = _part(run, "banks.safetensors")
    tensors, header = _read_safetensors(path)
    try:
        data = json.loads(header["mpsl"])
        version = data["format"]
        if version != FORMAT:
            raise RunError("banks have an unknown format", got=version, expected=FORMAT, where=path)
        shape = _sizes(data["input_shape"], 3)
        layers = tuple(_layer(entry, tensors, path) for entry in data["layers"])
        checkpoint = Checkpoint(
            path=path,
            network=str(data["network"]),
            input_shape=(shape[0], shape[1], shape[2]),
            model=ModelMetadata.from_mapping(data["model"], str(path)),
            layers=layers,
        )
    except (KeyError, TypeError, ValueError) as error:
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


def read_evaluation(run: Path) -> Evaluation:
    """Reads `RUN/evaluation.npz`.

    Raises:
        RunError: absent, damaged, or its arrays do not fit each other.
    """
    path = _part(run, "evaluation.npz")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise RunError(
            "record cannot be read", got=error, expected="a .npz file", where=path
        ) from error
    wanted = ["ids", "labels", "spikes", "scores", "predictions", "probe_ids", "record"]
    missing = [key for key in wanted if key not in arrays]
    if missing:
        raise RunError(
            "record is incomplete", got=f"no {missing[0]!r}", expected=wanted, where=path
        )
    spikes = arrays["spikes"]
    shapes = {key: arrays[key].shape for key in ("ids", "labels", "predictions")}
    if (
        spikes.ndim != 3
        or spikes.dtype != np.uint8
        or any(shape != spikes.shape[:1] for shape in shapes.values())
        or arrays["scores"].shape != (spikes.shape[0], spikes.shape[2])
        or spikes.shape[0] == 0
        or any(arrays[key].dtype.kind not in "iu" for key in ("labels", "predictions"))
        or arrays["scores"].dtype.kind != "f"
    ):
        raise RunError(
            "arrays of the record do not fit each other",
            got={**shapes, "spikes": spikes.shape, "scores": arrays["scores"].shape},
            expected="ids, labels, predictions [N], spikes [N,T,K] uint8, scores [N,K]",
            where=path,
        )
    try:
        record = json.loads(str(arrays["record"]))
        probes = _probes(arrays, spikes.shape[1])
    except (ValueError, TypeError) as error:
        raise RunError("record cannot be read", got=error, where=path) from error
    if not isinstance(record, dict):
        raise RunError("record is not a table", got=type(record).__name__, where=path)
    return Evaluation(
        path=path,
        ids=tuple(str(name) for name in arrays["ids"]),
        labels=arrays["labels"].astype(np.int64),
        spikes=spikes,
        scores=arrays["scores"].astype(np.float32),
        predictions=arrays["predictions"].astype(np.int64),
        probes=probes,
        record=record,
    )


def _part(run: Path, name: str) -> Path:
    """The file `name` of a run folder."""
    if not run.is_dir():
        raise RunError("no such run folder", got=run, expected="a folder that `mpsl train` made")
    path = run / name
    if not path.is_file():
        raise RunError(f"run has no {name}", expected="a run that `mpsl train` ended", where=run)
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors and file metadata, of a file that may be anything."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = path.read_bytes()
    try:
        (length,) = struct.unpack("<Q", content[:8])
        if length > min(LARGEST_HEADER_BYTES, len(content) - 8):
            raise ValueError("header is longer than the file")
        header = dict(json.loads(content[8 : 8 + length]).get("__metadata__", {}))
        tensors: dict[str, NDArray[Any]] = load(content)
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
        norm = BatchNorm(**parts, eps=float(eps))
    threshold, decay = float(entry["threshold"]), float(entry["decay"])
    if not threshold > 0 or not 0 <= decay < 1:
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
        neurons=_sizes(entry["neurons"], 3 if kind == "conv" else 1),
        scale=_scale(entry.get("scale"), name),
    )


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
        or not all(isinstance(v, int) and v >= least for v in values)
    ):
        raise ValueError(f"{values!r} is not a list of {count} sizes")
    return tuple(values)


def _probes(
    arrays: Mapping[str, NDArray[Any]], steps: int
) -> dict[str, tuple[NDArray[np.bool_], ...]]:
    """The packed spikes of every layer; neurons that only fill the last byte stay at its end."""
    ids = [str(name) for name in arrays["probe_ids"]]
    keys = sorted(key for key in arrays if key.startswith("probe_L"))
    for key in keys:
        if arrays[key].ndim != 3 or arrays[key].shape[:2] != (len(ids), steps):
            raise ValueError(f"{key} has shape {arrays[key].shape}, not [{len(ids)},{steps},bytes]")
    unpacked = [np.unpackbits(arrays[key], axis=-1).astype(np.bool_) for key in keys]
    return {name: tuple(layer[i] for layer in unpacked) for i, name in enumerate(ids)}
