"""Reads the record that training left in a run folder: what its network did on the test set."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.strict_json import parse_json
from mpsl_runtime.data.containers import array_of
from mpsl_runtime.errors import RunError
from mpsl_runtime.run_folder import RunFolder

__all__ = ["LARGEST_RECORD_BYTES", "Evaluation", "read_evaluation"]

LARGEST_RECORD_BYTES = 1 << 30
"""The most that a record may unpack to."""

_WANTED = ["ids", "labels", "spikes", "scores", "predictions", "probe_ids", "record"]


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
    scores: NDArray[np.float32]
    predictions: NDArray[np.int64]
    probes: Mapping[str, tuple[NDArray[np.bool_], ...]]
    record: Mapping[str, Any]

    def at(self, positions: NDArray[np.int64]) -> Evaluation:
        """The record of some of its samples, in the order of `positions`; all probes stay."""
        return replace(
            self,
            ids=tuple(self.ids[int(position)] for position in positions),
            labels=self.labels[positions],
            spikes=self.spikes[positions],
            scores=self.scores[positions],
            predictions=self.predictions[positions],
        )


def read_evaluation(run: Path) -> Evaluation:
    """Reads `RUN/evaluation.npz`. What the record claims is not believed here, see
    `mpsl_export.verify.samples`.

    Raises:
        RunError: absent, damaged, or its arrays do not fit each other.
    """
    folder = RunFolder(run)
    path = folder.require(folder.evaluation)
    arrays = _arrays(path)
    missing = [key for key in _WANTED if key not in arrays]
    if missing:
        raise RunError(
            "record is incomplete", got=f"no {missing[0]!r}", expected=_WANTED, where=path
        )
    _check_arrays(arrays, path)
    try:
        record = parse_json(str(arrays["record"]))
        probes = _probes(arrays, arrays["spikes"].shape[1])
    except (ValueError, TypeError) as error:
        raise RunError("record cannot be read", got=error, where=path) from error
    if not isinstance(record, dict):
        raise RunError("record is not a table", got=type(record).__name__, where=path)
    return Evaluation(
        path=path,
        ids=tuple(str(name) for name in arrays["ids"]),
        labels=arrays["labels"].astype(np.int64),
        spikes=arrays["spikes"],
        scores=arrays["scores"].astype(np.float32),
        predictions=arrays["predictions"].astype(np.int64),
        probes=probes,
        record=record,
    )


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an archive. No more is unpacked than it says in its directory, and no more
    than `LARGEST_RECORD_BYTES`."""
    found: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            declared = sum(member.file_size for member in members)
            if declared > LARGEST_RECORD_BYTES:
                raise ValueError(f"{declared:,} bytes, more than {LARGEST_RECORD_BYTES:,}")
            for member in members:
                # Not archive.read(), which unpacks all that there is before it looks at the size.
                with archive.open(member) as stream:
                    content = stream.read(member.file_size + 1)
                found[member.filename.removesuffix(".npy")] = array_of(content)
    # zipfile and numpy answer damage with errors of every kind, RuntimeError of an archive that is
    # encrypted and SyntaxError of a header among them.
    except Exception as error:
        raise RunError(
            "record cannot be read", got=error, expected="a .npz file", where=path
        ) from error
    return found


def _check_arrays(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Shapes and types of the arrays against each other, and values that can be classes."""
    spikes, scores = arrays["spikes"], arrays["scores"]
    shapes = {key: arrays[key].shape for key in ("ids", "labels", "predictions")}
    if (
        spikes.ndim != 3
        or spikes.dtype != np.uint8
        or 0 in spikes.shape
        or any(shape != spikes.shape[:1] for shape in shapes.values())
        or scores.shape != (spikes.shape[0], spikes.shape[2])
        or arrays["ids"].dtype.kind != "U"
        or arrays["probe_ids"].dtype.kind != "U"
        or arrays["record"].shape != ()
        or any(arrays[key].dtype.kind not in "iu" for key in ("labels", "predictions"))
        or scores.dtype.kind != "f"
    ):
        raise RunError(
            "arrays of the record do not fit each other",
            got={**shapes, "spikes": spikes.shape, "scores": scores.shape},
            expected="ids, labels, predictions [N], spikes [N,T,K] uint8, scores [N,K]",
            where=path,
        )
    if spikes.max() > 1 or not np.isfinite(scores).all():
        raise RunError(
            "record has impossible values",
            got="spikes beyond 1" if spikes.max() > 1 else "scores that are not finite",
            where=path,
        )
    for key in ("labels", "predictions"):
        low, high = int(arrays[key].min()), int(arrays[key].max())
        if low < 0 or high >= spikes.shape[2]:
            raise RunError(
                f"record has {key} that are no classes",
                got=f"{low} … {high}",
                expected=f"0 … {spikes.shape[2] - 1}",
                where=path,
            )


def _probes(
    arrays: Mapping[str, NDArray[Any]], steps: int
) -> dict[str, tuple[NDArray[np.bool_], ...]]:
    """The packed spikes of every layer; neurons that only fill the last byte stay at its end."""
    ids = [str(name) for name in arrays["probe_ids"]]
    keys = sorted(key for key in arrays if key.startswith("probe_L"))
    for key in keys:
        if (
            arrays[key].dtype != np.uint8
            or arrays[key].ndim != 3
            or arrays[key].shape[:2] != (len(ids), steps)
        ):
            raise ValueError(f"{key} has shape {arrays[key].shape}, not [{len(ids)},{steps},bytes]")
    unpacked = [np.unpackbits(arrays[key], axis=-1).astype(np.bool_) for key in keys]
    return {name: tuple(layer[i] for layer in unpacked) for i, name in enumerate(ids)}
