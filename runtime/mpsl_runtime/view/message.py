"""Frames as messages for a page.

    uint32 little-endian: bytes of the JSON · JSON · one block a picture, deflated (zlib)

The JSON says how long each block is. What does not change from picture to picture is a message of
its own, a text (`describe`).
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from functools import lru_cache
from typing import Any

from mpsl_runtime import __version__
from mpsl_runtime.run.policies import POLICIES
from mpsl_runtime.view.clock import FASTEST, SLOWEST
from mpsl_runtime.view.composer import Frame
from mpsl_runtime.view.session import Session

__all__ = ["FrameWriter", "as_json", "describe"]

_MOST_ROWS = 256


def as_json(value: object) -> str:
    """JSON, with null for what it has no number for."""
    return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def describe(session: Session) -> dict[str, Any]:
    """What does not change from picture to picture."""
    settings = {
        name: getattr(session.settings, name) for name in session.settings.__dataclass_fields__
    }
    surveyed = session.surveyed
    return {
        "about": {
            "length_us": None if surveyed is None else surveyed.length_us,
            "activity": [] if surveyed is None else surveyed.activity,
            "version": __version__,
            "source": session.name,
            "live": session.player is None,
            "camera": session.size,
            "settings": settings,
            "policies": POLICIES,
            "speeds": [SLOWEST, FASTEST],
            "models": [
                {
                    "name": channel.name,
                    "classes": channel.model.class_names,
                    "steps": channel.model.binning.steps,
                    "step_us": channel.model.binning.step_us,
                    "input": channel.model.binning.shape[1:],
                    "window": channel.window(session.size),
                    "readout": channel.model.readout,
                    "layers": [
                        [layer.name, number]
                        for layer, number in zip(
                            channel.model.plan.spiking, channel.neurons, strict=True
                        )
                    ],
                }
                for channel in session.channels
            ],
        }
    }


@lru_cache(maxsize=2)
def _blocks(frame: Frame) -> tuple[bytes, ...]:
    """The pictures of a frame, deflated once for all who watch."""
    planes = (frame.picture.levels, *(model.given for model in frame.models))
    return tuple(zlib.compress(plane.tobytes(), 1) for plane in planes)


class FrameWriter:
    """Writes frames for one page, which is told only what it has not been told yet.

    Attributes:
        dropped: frames that this page did not get.
    """

    def __init__(self, session: Session) -> None:
        self.dropped = 0
        self._session = session
        self._seen = [0] * len(session.channels)
        self._number = 0

    def write(self, frame: Frame) -> bytes:
        """The message of a frame."""
        if self._number:
            self.dropped += frame.number - self._number - 1
        self._number = frame.number
        blocks = _blocks(frame)
        rows, columns = frame.picture.levels.shape
        models = []
        for index, (model, channel) in enumerate(
            zip(frame.models, self._session.channels, strict=True)
        ):
            told = channel.trace.since(self._seen[index], _MOST_ROWS)
            self._seen[index] = told["last"]
            models.append(
                {**model.facts, "scores": model.scores.tolist(), "input": model.given.shape, **told}
            )
        header = {
            **frame.facts,
            "frame": frame.number,
            "dropped": self.dropped,
            "picture": [columns, rows, frame.picture.scale],
            "models": models,
            "blocks": [len(block) for block in blocks],
        }
        text = as_json(header).encode()
        return b"".join([struct.pack("<I", len(text)), text, *blocks])
