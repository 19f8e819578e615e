"""Where a stream stands in a recording: all that is neither the network's nor a total."""

from __future__ import annotations

from collections import deque
from typing import Any

from mpsl_runtime.errors import DataError
from mpsl_runtime.events.binning import Binning
from mpsl_runtime.events.steps import Cutter, Recording
from mpsl_runtime.kept import Kept
from mpsl_runtime.run.onset import Windows

__all__ = ["Place", "SuspendedError"]


class SuspendedError(Exception):
    """The stream is to end here, and to go on later."""


class Place:
    """See the module.

    Attributes:
        recording: that is being run. cutter: of it, or of the window that began in it.
        windows: of the policy `onset`. began: windows before this recording.
        running: of `sliding`: numbers of the lanes whose windows run, the oldest first.
        started: windows that were; steps: that were cut.

    Args:
        recording, binning: see `Cutter`.
    """

    def __init__(self, recording: Recording, binning: Binning) -> None:
        self.recording, self._binning = recording, binning
        self.cutter = Cutter(binning, recording)
        self.windows: Windows | None = None
        self.began = 0
        self.running: deque[int] = deque()
        self.started = self.steps = 0
        self._of_cutter: Kept | None = None

    def enter(self, recording: Recording) -> bool:
        """Begins to cut the recording, or a window in it; whether it goes on where it was kept."""
        self.cutter = Cutter(self._binning, recording)
        kept, self._of_cutter = self._of_cutter, None
        if kept is not None:
            self.cutter.restore(kept)
        return kept is not None

    def kept(self) -> dict[str, Any]:
        """For `mpsl_runtime.kept`."""
        recording = self.recording
        return {
            "file": recording.file,
            "trial": recording.trial,
            "target": recording.target,
            "cutter": self.cutter.kept(),
            "windows": None if self.windows is None else self.windows.kept(),
            "began": self.began,
            "running": list(self.running),
            "started": self.started,
            "steps": self.steps,
        }

    def restore(self, kept: Kept, lanes: int) -> None:
        """Goes on where `kept` was taken, of a stream with so many lanes; DataError where that
        cannot be."""
        self._of_cutter = kept.inner("cutter")
        self.began = kept.integer("began")
        self.running = deque(kept.integers("running", 0, lanes - 1))
        self.started, self.steps = kept.integer("started"), kept.integer("steps")
        if kept.is_there("windows") != (self.windows is not None):
            raise DataError("state of another policy", where=kept.where)
        if self.windows is not None:
            self.windows.restore(kept.inner("windows"))
            if not self.windows.is_inside:
                self._of_cutter = None

    @staticmethod
    def recording_of(kept: Kept) -> Recording:
        """What is known of the recording, without its chunks."""
        target = kept.integer("target") if kept.is_there("target") else None
        return Recording(kept.text("file"), (), None, kept.boolean("trial"), target)
