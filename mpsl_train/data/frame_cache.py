"""Binned samples on disk, read again only if they are what was written.

A file is named after a hash of the raw data and of the binning, so it can never be stale; it holds
a hash of its own content, so it cannot be damaged unseen. Without that, a disk that lost a block
would train on zeros in silence.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.errors import OutputError

__all__ = ["FrameCache"]

_TYPES = (np.uint8, np.uint16, np.uint32)
_NAME, _HASH = "frames", "sha256"


class FrameCache:
    """One cached array of frames.

    Args:
        folder: of the cache. key: the name of the array, from what it was made of.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"{key}.safetensors"

    def read(self, shape: tuple[int, ...]) -> NDArray[np.unsignedinteger] | None:
        """The array; None: it is not there, or not whole. Unsigned, of the shape that is asked."""
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, "np") as file:
                said = (file.metadata() or {}).get(_HASH)
                frames: NDArray[np.unsignedinteger] = file.get_tensor(_NAME)
        except (SafetensorError, OSError, ValueError):
            return None
        if frames.shape != shape or frames.dtype not in _TYPES or said != _digest(frames):
            return None
        return frames

    def write(self, frames: NDArray[np.unsignedinteger]) -> None:
        """Keeps the array. A cache that cannot be written only costs time."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        with suppress(OSError, OutputError, SafetensorError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as temporary:
                save_file({_NAME: frames}, temporary, {_HASH: _digest(frames)})


def _digest(frames: NDArray[np.unsignedinteger]) -> str:
    return hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()
