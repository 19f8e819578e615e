"""dvs-digits: a data set of events that is made here, from real handwriting, without a download.

scikit-learn carries 1,797 handwritten digits of 8x8 pixels (E. Alpaydin, C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI 1998, the 13 writers of its test part). Each is enlarged,
moved before a simulated 34x34 event camera along the three saccades of N-MNIST
(`mpsl_train.data.saccades`), and written as an N-MNIST .bin file, so that it takes the very path
of a real recording. Every writer is in both splits: a score says nothing of writers never seen.

The same seed gives the same bytes: every sample has a random stream of its own, whatever the order
or number of samples made at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import OutputError, UsageError
from mpsl_runtime.events.readers import encode_nmnist_bin
from mpsl_runtime.terminal import show, show_progress
from mpsl_train.data.saccades import camera, simulate, simulate_batch
from mpsl_train.data.staging import is_made, staged

__all__ = ["VERSION", "digits", "make", "sample_rng", "simulate", "split_indices"]

VERSION = 1  # goes up whenever the bytes change

_RECORD = "dvs-digits.json"
_BATCH = 16  # samples simulated at once: small enough for the processor's cache


def _stream(seed: int, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def sample_rng(seed: int, index: int) -> np.random.Generator:
    """The random stream of one sample: of its own, so that order and parallelism do not matter."""
    return _stream(seed, 1, index)


def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """scikit-learn's digits.

    Returns:
        (images, labels): float64 [1797, 8, 8] in 0…1, and int64 [1797].
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.asarray(data.images, np.float64) / 16, np.asarray(data.target, np.int64)


def split_indices(labels: NDArray[np.int64], split: Literal["train", "test"]) -> NDArray[np.int64]:
    """Which samples belong to a split, ascending: every fifth of each class is tested.

    The split depends on nothing but the labels, so all seeds share their test digits.

    Args:
        labels: int64 [N] of the whole set.
    """
    shuffled = _stream(0, 0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    tested = np.zeros(len(labels), bool)
    tested[by_class[::5]] = True
    return np.flatnonzero(tested if split == "test" else ~tested)


def make(root: Path, *, seed: int = 0, progress: bool = True, limit: int | None = None) -> None:
    """Makes the data set at `root`, unless it is there already.

    Writes `Train/<label>/NNNNN.bin` (1,437) and `Test/<label>/NNNNN.bin` (360), where NNNNN is the
    index in scikit-learn's set. The folder is made under a hidden name beside `root` and renamed
    when it is complete: an interrupted run leaves no `root` behind.

    Args:
        root: the data set's folder; absent, empty, or made by this function before.
        seed: of paths, noise and camera; the digits and the split are the same for every seed.
        progress: show progress on stderr.
        limit: at most so many samples of each class and split, for tests.

    Raises:
        DataError: `root` holds something else, or the data set of another seed.
        OutputError: the folder cannot be written. UsageError: impossible seed or limit.
    """
    if seed < 0 or (limit is not None and limit < 1):
        raise UsageError(
            "dvs-digits cannot be made",
            got=f"seed {seed}, limit {limit}",
            expected="seed ≥ 0 and limit ≥ 1",
        )
    root = Path(root)
    record = {"dataset": "dvs-digits", "version": VERSION, "seed": seed, "limit": limit}
    if is_made(root, record, _RECORD):
        return
    images, labels = digits()
    try:
        with staged(root) as stage:
            _write(stage, images, labels, seed=seed, limit=limit, progress=progress)
            # Last, so that the record stands for everything before it.
            (stage / _RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    except OutputError:
        # Another process may have been quicker; what it made is the same.
        if not is_made(root, record, _RECORD):
            raise


def _write(
    stage: Path,
    images: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    seed: int,
    limit: int | None,
    progress: bool,
) -> None:
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    chosen: list[tuple[int, Path]] = []
    for split in splits:
        members = split_indices(labels, split)
        for label in range(10):
            folder = stage / split.capitalize() / str(label)
            folder.mkdir(parents=True)
            own = members[labels[members] == label][:limit]
            chosen += [(int(index), folder) for index in own]
    sensor = camera(_stream(seed, 0))
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        recordings = simulate_batch(
            images[[index for index, _ in part]],
            [sample_rng(seed, index) for index, _ in part],
            sensor,
        )
        for (index, folder), events in zip(part, recordings, strict=True):
            path = folder / f"{index:05d}.bin"
            path.write_bytes(encode_nmnist_bin(events, where=path))
        if progress:
            _show(min(start + _BATCH, len(chosen)), len(chosen))


def _show(done: int, total: int) -> None:
    """One line that is written over on a terminal; elsewhere the start and the end only."""
    if sys.stderr.isatty():
        show_progress(f"dvs-digits: {done}/{total} recordings", done=done == total)
    elif done in (total, min(_BATCH, total)):
        show(f"dvs-digits: {done}/{total} recordings", err=True)
