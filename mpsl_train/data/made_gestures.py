"""dvs-gesture-made: recordings in the layout of DVS128 Gesture, made here, of two moving bars.

A stand-in for the data set where it cannot be had: it takes the same path (AEDAT 3.1, label files,
lists of trials) and its eleven motions are modelled on the eleven gestures, but two bars before a
simulated camera are not people. A score on it says that the path works, and nothing of DVS-Gesture.

Every recording is one made person: own arms, speed, place and contrast; the persons of the test
are not in training. Camera: a pixel fires when the logarithm of its intensity has changed by the
threshold (the model of ESIM, H. Rebecq et al., CoRL 2018), plus shot noise.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.layouts.gestures import MADE_RECORD, SENSOR_SIZE
from mpsl_runtime.errors import DataError, OutputError, UsageError
from mpsl_runtime.events.aedat import encode_aedat3
from mpsl_runtime.events.events import Events
from mpsl_runtime.terminal import show_progress
from mpsl_train.data.staging import is_made, staged

__all__ = ["CLASSES", "VERSION", "make", "record_person"]

VERSION = 1  # goes up whenever the bytes change
CLASSES = 11
_PERSONS = {"train": 36, "test": 12}

_FRAME_US = 8_000
_TRIAL_US = 1_640_000
_PAUSE_US = 160_000
_THRESHOLD = 0.35  # of the natural logarithm of intensity
_SHOT_HZ = 0.1  # events a pixel and second
_WIDTH, _HEIGHT = SENSOR_SIZE
_X, _Y = np.meshgrid(np.arange(_WIDTH, dtype=np.float32), np.arange(_HEIGHT, dtype=np.float32))


@dataclass(frozen=True)
class _Person:
    """Shoulders (x, y) of the right arm, which the camera sees on the left, and of the left arm;
    length and half width of the arms in pixels, cycles a second, contrast in log intensity."""

    right: tuple[float, float]
    left: tuple[float, float]
    length: float
    width: float
    hertz: float
    contrast: float


def _person(rng: np.random.Generator) -> _Person:
    x, y = rng.uniform(58, 70), rng.uniform(48, 64)
    half = rng.uniform(15, 21)
    return _Person(
        right=(x - half, y),
        left=(x + half, y),
        length=rng.uniform(26, 36),
        width=rng.uniform(2.0, 3.5),
        hertz=rng.uniform(1.1, 1.8),
        contrast=rng.uniform(0.6, 1.1),
    )


def _arms(
    kind: int, person: _Person, phase: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both arms over time, each [steps, 4]: ends (x0, y0) and (x1, y1). Angles from straight down,
    positive towards the right of the picture.

    Args:
        kind: 0…10. phase: of the motion, in turns.
    """
    wave, turn = np.sin(2 * np.pi * phase), 2 * np.pi * phase
    rest = np.zeros_like(phase)
    reach = person.length
    right, left = 0.15 * rest - 0.2, 0.15 * rest + 0.2  # hanging
    if kind == 0:  # clapping: both hands meet before the body
        right, left = 0.55 + 0.55 * wave, -0.55 - 0.55 * wave
    elif kind == 1:  # right hand waves, raised
        right = np.pi + 0.55 * wave
    elif kind == 2:
        left = np.pi + 0.55 * wave
    elif kind in (3, 4):  # right arm in circles, clockwise in the picture or against
        right = turn if kind == 4 else -turn
    elif kind in (5, 6):
        left = turn if kind == 6 else -turn
    elif kind == 7:  # forearms roll around each other before the chest
        x = 0.5 * (person.right[0] + person.left[0])
        y = person.right[1] + 0.5 * reach
        half = 0.42 * reach
        return _spoke(x, y, turn, half), _spoke(x, y, turn + np.pi, half)
    elif kind == 8:  # drums: both arms stretched sideways, up and down in turns
        right, left = -1.3 - 0.5 * wave, 1.3 - 0.5 * wave
    elif kind == 9:  # guitar: the left holds, the right strums, twice as fast
        right = 0.75 + 0.3 * np.sin(2 * turn)
        left = 1.9 + 0.06 * wave
    else:  # others: swaying, both arms in opposite circles, or both raised and lowered
        other = int(rng.integers(3))
        if other == 0:
            right, left = 0.8 * wave, 0.8 * wave
        elif other == 1:
            right, left = turn, -turn
        else:
            right, left = -1.6 + 1.1 * wave, 1.6 - 1.1 * wave
    return _spoke(*person.right, right, reach), _spoke(*person.left, left, reach)


def _spoke(x: float, y: float, angle: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    ends = x + length * np.sin(angle), y + length * np.cos(angle)
    return np.stack([np.full_like(angle, x), np.full_like(angle, y), *ends], axis=1)


def _cover(arm: NDArray[np.float64], width: float) -> NDArray[np.float32]:
    """How much of each pixel a bar covers, 0…1 with a soft edge of a pixel. float32 [H, W]"""
    x0, y0, x1, y1 = (float(value) for value in arm)
    along_x, along_y = x1 - x0, y1 - y0
    share = ((_X - x0) * along_x + (_Y - y0) * along_y) / (along_x**2 + along_y**2)
    share = np.clip(share, 0, 1)
    distance = np.hypot(_X - x0 - share * along_x, _Y - y0 - share * along_y)
    cover: NDArray[np.float32] = np.clip(width + 0.5 - distance, 0, 1).astype(np.float32)
    return cover


def _trial(kind: int, person: _Person, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """One gesture: columns t (from 0, in µs), cell (y·W + x), p; not yet in time order."""
    frames = _TRIAL_US // _FRAME_US
    turns = person.hertz * _FRAME_US / 1e6 * rng.uniform(0.85, 1.15)
    phase: NDArray[np.float64] = rng.random() + turns * np.arange(frames, dtype=np.float64)
    arms = np.stack(_arms(kind, person, phase, rng), axis=1)
    # Whole parts of a pixel: sines differ between maths libraries in the last bit.
    arms = np.rint(arms * 256) / 256
    reference: NDArray[np.float32] | None = None
    found: list[list[NDArray[np.int64]]] = []
    for frame in range(frames):
        cover = np.maximum(
            _cover(arms[frame, 0], person.width), _cover(arms[frame, 1], person.width)
        )
        light = (-person.contrast * cover).ravel()
        if reference is None:
            # Pixels do not all stand at the same distance from their threshold.
            reference = light + rng.uniform(-0.5, 0.5, light.size).astype(np.float32) * _THRESHOLD
            continue
        crossings = np.trunc((light - reference) / _THRESHOLD).astype(np.int64)
        cell = np.flatnonzero(crossings)
        number = np.abs(crossings[cell])
        reference[cell] += (crossings[cell] * _THRESHOLD).astype(np.float32)
        cell, up = np.repeat(cell, number), np.repeat(crossings[cell] > 0, number)
        t = frame * _FRAME_US + rng.integers(-_FRAME_US, 0, len(cell))
        found.append([t, cell, up.astype(np.int64)])
    noise = int(rng.poisson(_SHOT_HZ * _WIDTH * _HEIGHT * _TRIAL_US / 1e6))
    found.append(
        [
            rng.integers(0, _TRIAL_US, noise),
            rng.integers(0, _WIDTH * _HEIGHT, noise),
            rng.integers(0, 2, noise),
        ]
    )
    return [np.concatenate(column) for column in zip(*found, strict=True)]


def record_person(seed: int, number: int) -> tuple[Events, list[tuple[int, int, int]]]:
    """One recording: all eleven gestures in a random order, with pauses.

    Args:
        seed: of the data set. number: of the person; each has a random stream of its own.

    Returns:
        (events, rows): t in µs from the start of the recording; rows of the label file, (class
        1…11, start, end) in µs.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(number,))))
    person = _person(rng)
    columns: list[list[NDArray[np.int64]]] = []
    rows = []
    start = _PAUSE_US
    for kind in rng.permutation(CLASSES):
        t, cell, p = _trial(int(kind), person, rng)
        columns.append([t + start, cell, p])
        rows.append((int(kind) + 1, start, start + _TRIAL_US))
        start += _TRIAL_US + _PAUSE_US
    t, cell, p = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.lexsort((p, cell, t))
    events = Events.from_columns(
        t[order], cell[order] % _WIDTH, cell[order] // _WIDTH, p[order], sensor_size=SENSOR_SIZE
    )
    return events, rows


def make(root: Path, *, seed: int = 0, progress: bool = True, limit: int | None = None) -> None:
    """Makes the data set at `root`, unless it is there already: whole or not at all.

    Args:
        root: the data set's folder; absent, empty, or made by this function before.
        seed: of everything. progress: show progress on stderr.
        limit: at most so many persons in each split, for tests; each makes eleven trials.

    Raises:
        DataError: `root` holds something else, or the data set of another seed.
        OutputError: the folder cannot be written. UsageError: impossible seed or limit.
    """
    if seed < 0 or (limit is not None and limit < 1):
        raise UsageError(
            "dvs-gesture-made cannot be made",
            got=f"seed {seed}, limit {limit}",
            expected="seed ≥ 0 and limit ≥ 1",
        )
    root = Path(root)
    record = {"dataset": "dvs-gesture-made", "version": VERSION, "seed": seed, "limit": limit}
    if is_made(root, record, MADE_RECORD):
        return
    try:
        with staged(root) as stage:
            _write(stage, seed, limit, progress)
            # Last, so that the record stands for everything before it.
            (stage / MADE_RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    except OutputError:
        # Another process may have been quicker; what it made is the same.
        try:
            done = is_made(root, record, MADE_RECORD)
        except DataError:
            done = False
        if not done:
            raise


def _write(stage: Path, seed: int, limit: int | None, progress: bool) -> None:
    total = sum(min(number, limit or number) for number in _PERSONS.values())
    done, first = 0, 1
    for split, number in _PERSONS.items():
        names = []
        for person in range(first, first + min(number, limit or number)):
            name = f"user{person:02d}_made"
            events, rows = record_person(seed, person)
            (stage / f"{name}.aedat").write_bytes(encode_aedat3(events))
            lines = ["class,startTime_usec,endTime_usec", *(f"{k},{a},{b}" for k, a, b in rows)]
            (stage / f"{name}_labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
            names.append(f"{name}.aedat")
            done += 1
            if progress and sys.stderr.isatty():
                line = f"dvs-gesture-made: {done}/{total} recordings"
                show_progress(line, done=done == total)
        listed = stage / f"trials_to_{split}.txt"
        listed.write_text("\n".join(names) + "\n", encoding="utf-8")
        first += number
