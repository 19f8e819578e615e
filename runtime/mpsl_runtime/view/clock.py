"""When a piece of a file is due: speed, pause, single steps, and jumps to another place."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Literal

__all__ = ["FASTEST", "SLOWEST", "Clock", "Jump"]

SLOWEST, FASTEST = 1 / 64, 64.0
# Whoever is later than this by the clock does not run after it: it goes on from where it is.
_LATEST_S = 0.1


@dataclass(frozen=True)
class Jump:
    """To which recording, and to which time after its beginning."""

    recording: int
    position_us: int


class Clock:
    """Says when the time of a file may go on. All methods may be called from any thread.

    Attributes:
        speed: 1 is the camera's own. is_paused: time stands still, but for single steps.
    """

    def __init__(self, speed: float, *, paused: bool) -> None:
        self.speed, self.is_paused = speed, paused
        self._changed = threading.Condition()
        self._begin_s, self._begin_us = time.monotonic(), 0
        self._steps = 0
        self._jump: Jump | None = None
        self._is_stopped = False

    def set_speed(self, speed: float) -> None:
        """Held within `SLOWEST` … `FASTEST`."""
        with self._changed:
            self.speed = min(max(speed, SLOWEST), FASTEST)
            self._begin_s = 0.0  # anew from the next piece on
            self._changed.notify_all()

    def pause(self, paused: bool) -> None:
        """Stops, or goes on."""
        with self._changed:
            self.is_paused = paused
            self._steps = 0
            self._begin_s = 0.0
            self._changed.notify_all()

    def step(self) -> None:
        """One step of the network more, then a pause."""
        with self._changed:
            self.is_paused = True
            self._steps += 1
            self._changed.notify_all()

    def jump(self, to: Jump) -> None:
        """Leaves what is being played."""
        with self._changed:
            self._jump = to
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing is played any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    @property
    def is_stopped(self) -> bool:
        """After `stop`."""
        return self._is_stopped

    def taken_jump(self) -> Jump | None:
        """The jump that was asked for, once."""
        with self._changed:
            jump, self._jump = self._jump, None
            return jump

    def wait(self, position_us: int) -> Literal["play", "step", "leave"]:
        """Waits until the file's time may go beyond a position.

        Returns:
            `play`: go on; `step`: by one step of the network; `leave`: a jump, or the end.
        """
        with self._changed:
            while True:
                if self._jump is not None or self._is_stopped:
                    return "leave"
                if self.is_paused:
                    if self._steps:
                        self._steps -= 1
                        return "step"
                    self._changed.wait()
                    continue
                now_s = time.monotonic()
                due_s = self._begin_s + (position_us - self._begin_us) / 1e6 / self.speed
                if position_us < self._begin_us or now_s - due_s > _LATEST_S:
                    self._begin_s, self._begin_us = now_s, position_us
                    return "play"
                if due_s <= now_s:
                    return "play"
                self._changed.wait(due_s - now_s)

    def rest(self, seconds: float) -> None:
        """Waits between two recordings; a jump or the end cuts it short."""
        with self._changed:
            self._changed.wait_for(lambda: self._jump is not None or self._is_stopped, seconds)
