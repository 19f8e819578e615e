"""A simulated event camera that looks at handwritten digits and moves as N-MNIST's did.

Saccades: G. Orchard, A. Jayawant, G. Cohen, N. Thakor, "Converting static image datasets to spiking
neuromorphic datasets using saccades", Frontiers in Neuroscience 9:437 (2015): three moves of about
105 ms along an isosceles triangle. Its side on the sensor and the length of the moves are measured
on the recordings themselves: 5.4 pixels, 80 ms of motion, most events 45 ms into each move.

Camera: the log-intensity threshold model of ESIM (H. Rebecq, D. Gehrig, D. Scaramuzza, "ESIM: an
open event camera simulator", CoRL 2018) with the mismatch, leak and shot noise of v2e (Y. Hu,
S.-C. Liu, T. Delbruck, "v2e: from video frames to realistic DVS events", CVPRW 2021).

The arithmetic keeps to operations that IEEE 754 rounds exactly; log and normal deviates, which
differ between maths libraries in the last bit, are put on a grid first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.events import Events

__all__ = ["SENSOR_SIZE", "Camera", "camera", "simulate", "simulate_batch"]

SENSOR_SIZE = (34, 34)

_WIDTH, _HEIGHT = SENSOR_SIZE
_PIXELS = _WIDTH * _HEIGHT

_FRAME_US = 2_000
_DURATION_US = 316_000
_SACCADE_US = 105_000
_MOTION_US = 80_000
_SIDE_PX = 5.4
_CORNERS = np.array([(-0.5, -0.5), (0.0, 0.5), (0.5, -0.5), (-0.5, -0.5)]) * _SIDE_PX  # x, y

_ENLARGE = 2.75  # sensor pixels a pixel of the digit: 22 pixels tall, as in MNIST with its blur
_INK = 0.12  # how bright ink is beside paper, stray light included
_LOG_STEPS = 4096

_THRESHOLD = 0.3  # of the natural logarithm of intensity
_MISMATCH = 0.03  # standard deviation of the threshold over pixels
_REFRACTORY_US = 1_000
_LEAK_HZ = 0.1  # ON events a pixel and second from the drift of the reference
_SHOT_HZ = 0.15  # events a pixel and second; with the leak about N-MNIST's 0.2 in dark corners

_Columns = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]  # t in µs, pixel, p


@dataclass(frozen=True, eq=False)
class Camera:
    """The pixels of one simulated sensor.

    Attributes:
        on, off: contrast thresholds of each pixel, float64 [H·W], in log intensity.
    """

    on: NDArray[np.float64]
    off: NDArray[np.float64]


def _on_grid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounds to 2^-20, which hides a last bit that is not the same on every machine."""
    rounded: NDArray[np.float64] = np.rint(values * 2.0**20) / 2.0**20
    return rounded


_LOG_TABLE = _on_grid(np.log(1 - (1 - _INK) * np.arange(_LOG_STEPS) / (_LOG_STEPS - 1)))


def camera(rng: np.random.Generator) -> Camera:
    """Draws a sensor: thresholds N(0.3, 0.03²) for each pixel and polarity, at least 0.1."""
    drawn = _THRESHOLD + _MISMATCH * _on_grid(rng.standard_normal((2, _PIXELS)))
    on, off = np.maximum(_on_grid(drawn), 0.1)
    return Camera(on, off)


def _path(rng: np.random.Generator) -> NDArray[np.float64]:
    """Position of the digit on the sensor in each frame, float64 [F, 2] as (x, y) in pixels.

    Speed rises and falls within a saccade (a cubic step); each recording has its own centre,
    length of path and start.
    """
    centre = rng.uniform(-0.5, 0.5, 2)
    scale = rng.uniform(0.95, 1.05)
    starts = np.arange(3) * _SACCADE_US + rng.uniform(2_000, 8_000, 3)
    t = np.arange(0, _DURATION_US + 1, _FRAME_US, dtype=np.float64)
    place = np.zeros((len(t), 2)) + _CORNERS[0]
    for saccade in range(3):
        share = np.clip((t - starts[saccade]) / _MOTION_US, 0, 1)
        smooth = share * share * (3 - 2 * share)
        place = place + smooth[:, None] * (_CORNERS[saccade + 1] - _CORNERS[saccade])
    path: NDArray[np.float64] = place * scale + centre
    return path


def _interpolation(place: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights of the digit's 8 rows (or columns) for each of 34 sensor rows, by cubic convolution.

    Args:
        place: shift in sensor pixels in each frame, [F].

    Returns:
        float32 [8, F, 34]. Source: R. Keys, "Cubic convolution interpolation", 1981, a = −1/2.
    """
    sensor = np.arange(_WIDTH) - (_WIDTH - 1) / 2
    at = (sensor - place[:, None]) / _ENLARGE + 3.5
    distance = np.abs(at - np.arange(8)[:, None, None])
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0)).astype(np.float32)


def _log_intensity(image: NDArray[np.float32], place: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the pixels see: log intensity, float64 [F, H·W].

    The digit is dark ink on bright paper: in the recordings of N-MNIST the leading edge of a
    stroke gives OFF events.

    Args:
        image: [8, 8], 0 = paper … 1 = ink; place: [F, 2].
    """
    across, down = _interpolation(place[:, 0]), _interpolation(place[:, 1])
    # Sums are written out: a matrix product would add in an order of the machine's own.
    rows = np.zeros((8, *down.shape[1:]), np.float32)  # [column of the digit, F, 34]
    for k in range(8):
        rows += image[k, :, None, None] * down[k]
    ink = np.zeros((len(place), _HEIGHT, _WIDTH), np.float32)
    part = np.empty_like(ink)
    for k in range(8):
        ink += np.multiply(rows[k, :, :, None], across[k, :, None, :], out=part)
    np.clip(ink, 0, 1, out=ink)
    ink *= ink * (3 - 2 * ink)  # strokes have edges, the blur of 8x8 has none
    ink *= _LOG_STEPS - 1
    return _LOG_TABLE[np.rint(ink, out=ink).astype(np.int16)].reshape(len(place), -1)


def _crossings(
    log: NDArray[np.float64], phase: NDArray[np.float64], sensor: Camera
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """The threshold model: an event each time that log intensity has moved by a threshold.

    Args:
        log: [F, B, H·W]; phase: [B, H·W] in 0…1, where between two thresholds a pixel starts.

    Returns:
        (t, cell, p): time in µs, sample·H·W + pixel, polarity; frame by frame.
    """
    shape = log.shape[1:]
    on = np.broadcast_to(sensor.on, shape).ravel()
    off = np.broadcast_to(sensor.off, shape).ravel()
    leak = sensor.on * (_LEAK_HZ * _FRAME_US / 1e6)
    reference = (log[0] - (phase * (sensor.on + sensor.off) - sensor.off)).ravel()
    last = np.full(log[0].size, -_REFRACTORY_US, np.int64)
    before = log[0].ravel()
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]] = []
    for frame in range(1, len(log)):
        # A reference that sinks is the same as an intensity that rises; that way every crossing
        # lies between the two frames and its time can be interpolated.
        now = (log[frame] + frame * leak).ravel()
        change = now - reference
        cell = np.flatnonzero((change >= on) | (-change >= off))
        p = change[cell] > 0
        step = np.where(p, on[cell], -off[cell])
        count = np.floor(change[cell] / step)
        for k in range(1, int(count.max(initial=0)) + 1):
            more = count >= k
            cell, p, step, count = cell[more], p[more], step[more], count[more]
            reference[cell] += step
            share = (reference[cell] - before[cell]) / (now[cell] - before[cell])
            t = ((frame - 1 + np.clip(share, 0, 1)) * _FRAME_US).astype(np.int64)
            ready = t - last[cell] >= _REFRACTORY_US
            last[cell[ready]] = t[ready]
            found.append((t[ready], cell[ready], p[ready].astype(np.uint8)))
        before = now
    t, cell, p8 = (
        (np.concatenate(column) for column in zip(*found, strict=True))
        if found
        else (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))
    )
    return t, cell, p8


def simulate_batch(
    images: NDArray[np.float64], rngs: Sequence[np.random.Generator], sensor: Camera
) -> list[Events]:
    """Records several digits, each exactly as it would be alone.

    Args:
        images: [B, 8, 8], 0 = paper … 1 = ink.
        rngs: one random stream for each image.
        sensor: the camera.

    Returns:
        B recordings of about 316 ms, with t from 0 µs.

    Raises:
        UsageError: images are not 8x8, not within 0…1, or not as many as the streams.
    """
    images = np.asarray(images, np.float64)
    if images.ndim != 3 or images.shape[1:] != (8, 8) or len(images) != len(rngs):
        raise UsageError(
            "digits cannot be simulated",
            got=f"{images.shape}, {len(rngs)} streams",
            expected="(B, 8, 8) and B streams",
        )
    if not (np.all(images >= 0) and np.all(images <= 1)):
        raise UsageError(
            "digit is out of range", got=f"{images.min()}…{images.max()}", expected="0…1"
        )
    if not len(images):
        return []
    places, phases, noise = [], [], []
    for rng in rngs:
        places.append(_path(rng))
        phases.append(rng.random(_PIXELS))
        noise.append(_shot_noise(rng))
    seen = [
        _log_intensity(image, place)
        for image, place in zip(images.astype(np.float32), places, strict=True)
    ]
    t, cell, p = _crossings(np.stack(seen, axis=1), np.stack(phases), sensor)
    recordings = []
    order = np.argsort(cell // _PIXELS, kind="stable")
    borders = np.searchsorted(cell[order] // _PIXELS, np.arange(len(images) + 1))
    for index, shot in enumerate(noise):
        own = order[borders[index] : borders[index + 1]]
        recordings.append(_recording((t[own], cell[own] % _PIXELS, p[own]), shot))
    return recordings


def _shot_noise(rng: np.random.Generator) -> _Columns:
    number = int(rng.poisson(_SHOT_HZ * _PIXELS * _DURATION_US / 1e6))
    return (
        rng.integers(_DURATION_US, size=number),
        rng.integers(_PIXELS, size=number),
        rng.integers(2, size=number, dtype=np.uint8),
    )


def _recording(*parts: _Columns) -> Events:
    """Events of several causes, in time order."""
    t, pixel, p = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((p, pixel, t))
    return Events.from_columns(
        t[order], pixel[order] % _WIDTH, pixel[order] // _WIDTH, p[order], sensor_size=SENSOR_SIZE
    )


def simulate(
    image: NDArray[np.float64], rng: np.random.Generator, sensor: Camera | None = None
) -> Events:
    """Records one digit.

    Args:
        image: [8, 8], 0 = paper … 1 = ink.
        rng: decides path, noise and, when no `sensor` is given, the camera.
        sensor: the camera, from `camera`.

    Raises:
        UsageError: see `simulate_batch`.
    """
    if sensor is None:
        sensor = camera(rng)
    return simulate_batch(np.asarray(image)[None], [rng], sensor)[0]
