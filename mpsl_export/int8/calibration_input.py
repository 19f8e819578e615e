"""What an int8 model is calibrated on: recordings or pictures, or an `.npz` in, frames out."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.bench.inputs import samples_of
from mpsl_runtime.data.containers import read_arrays
from mpsl_runtime.errors import DataError
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.checks import checked
from mpsl_runtime.run.memory import limit_or_default

__all__ = ["calibration_frames"]

Array = NDArray[np.float32]

# So that a folder of a whole data set is looked at, and one of years of recordings is not.
_MOST_LOOKED_AT = 10_000


def calibration_frames(plan: Plan, source: str | Path, count: int, seed: int) -> tuple[Array, str]:
    """Frames [T, B, *input_shape], and where they come from, in words.

    Args:
        source: an `.npz` file with `input` [T, …] or [T, B, …]; else recordings or pictures as
            `mpsl run` takes them: a file, a folder or a zip.
        count: samples, at most; seed: which, where there are more.

    Raises:
        DataError: nothing there, damaged, no `input`, no time step, or of another shape.
        UsageError: the time steps of the model are not known; a live source; numbers that are not
            finite.
    """
    path = Path(source)
    if _is_archive(path, "input.npy"):
        frames = _arrays(plan, path)
        chosen = _drawn(frames.shape[1], count, seed)
        return frames[:, chosen], path.name
    kept: list[Array] = []
    random = np.random.default_rng(seed)
    for number, sample in enumerate(samples_of(plan, str(source))):
        if number >= _MOST_LOOKED_AT:
            break
        # Each has the same chance to stay.
        place = number if number < count else int(random.integers(number + 1))
        if place < count:
            kept[place : place + 1] = [np.array(sample, np.float32)]
    if not kept:
        raise DataError("nothing to calibrate on", expected="recordings or pictures", where=source)
    return np.stack(kept, axis=1), path.name


def _is_archive(source: Path, member: str) -> bool:
    """Whether it is an `.npz` of frames. One without columns of events is meant to be one."""
    if source.suffix.lower() != ".npz" or not source.is_file():
        return False
    try:
        with zipfile.ZipFile(source) as archive:
            names = set(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False  # whoever reads it says what is wrong with it
    return member in names or (len(names) > 1 and not {"x.npy", "t.npy"} & names)


def _arrays(plan: Plan, source: Path) -> Array:
    """[T, B, *input_shape] of `input`."""
    (given,) = read_arrays(source, ("input",), limit_or_default(None))
    size = math.prod(plan.input_shape)
    steps = given.shape[0] if given.ndim else 0
    shape = ", ".join(map(str, plan.input_shape))
    if not given.size:
        raise DataError(
            "input has no time step" if not steps else "input has no sample",
            got=given.shape,
            expected=f"[T, {shape}] or [T, B, {shape}], T and B ≥ 1",
            where=source,
        )
    batch = 1 if given.size == steps * size else given.shape[1] if given.ndim > 1 else 0
    if given.size != steps * batch * size:
        raise DataError(
            "input does not fit the model",
            got=given.shape,
            expected=f"[T, {shape}] or [T, B, {shape}]",
            where=source,
        )
    return checked(given, given.shape, source).reshape(steps, batch, *plan.input_shape)


def _drawn(number: int, count: int, seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(number)[:count])
