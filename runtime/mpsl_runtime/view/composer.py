"""What is seen at a moment, many times a second: also when nothing comes, or all is paused."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.view.channel import Channel
from mpsl_runtime.view.picture import Picture, levels
from mpsl_runtime.view.session import Session

__all__ = ["RATE_HZ", "Composer", "Frame", "ModelFrame"]

RATE_HZ = 30.0
_SILENT_S = 1.0


@dataclass(frozen=True, eq=False)
class ModelFrame:
    """What one model shows.

    Attributes:
        facts: numbers for people, as JSON has them. given: levels of its last input, uint8 [H, W].
        scores: of the last step, float32 [K]; zeros before the first.
    """

    facts: dict[str, Any]
    given: NDArray[np.uint8]
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Frame:
    """All that is seen at a moment.

    Attributes:
        number: counts from 1 on. version: of what `describe` says.
        facts: as JSON has them. picture: of the camera. models: one for each.
    """

    number: int
    version: int
    facts: dict[str, Any]
    picture: Picture
    models: tuple[ModelFrame, ...]


class Composer:
    """Makes frames at a constant rate, in a thread of its own, while somebody watches.

    Args:
        session: what is watched. see: called with each frame. is_watched: asked before each.
    """

    def __init__(
        self,
        session: Session,
        see: Callable[[Frame], None],
        is_watched: Callable[[], bool],
    ) -> None:
        self._session, self._see, self._is_watched = session, see, is_watched
        self.made = 0
        self._tops = [1.0] * len(session.channels)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mpsl view composer", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + 1 / RATE_HZ, time.monotonic())
            picture = self._session.compose()
            if self._is_watched():
                self._see(self._frame(picture))

    def _frame(self, picture: Picture) -> Frame:
        self.made += 1
        session = self._session
        models = tuple(self._model(i, each) for i, each in enumerate(session.channels))
        return Frame(self.made, session.version, _facts(session, picture), picture, models)

    def _model(self, index: int, channel: Channel) -> ModelFrame:
        trace = channel.trace
        answer, shape = trace.answer, channel.model.binning.shape
        values: NDArray[np.float32] = np.zeros(shape, np.float32)
        scores: NDArray[np.float32] = np.zeros(len(channel.model.class_names), np.float32)
        step = answer.step
        if step is not None:
            scores = step.scores
            if step.given is not None:
                values.reshape(-1)[step.given.address] = step.given.value
        shown, self._tops[index] = levels(values, self._tops[index])
        p50, p99 = trace.latency_ms()
        totals, feed = channel.stream.totals, channel.stream.feed
        facts = {
            "label": answer.label,
            "name": answer.class_name,
            "final": answer.is_final,
            "confidence": round(answer.confidence, 4),
            "t_us": None if step is None else step.t_us,
            "latency_ms": [round(p50, 3), round(p99, 3)],
            "waiting": channel.belt.events,
            "steps": totals.steps,
            "events": totals.events,
            "answers": dict(totals.answers),
            "firing": [round(share, 5) for share in trace.firing(channel.neurons)],
            "right": trace.right,
            "judged": trace.judged,
            "lost": {} if feed is None else feed.losses,
            "left_out": {} if feed is None else dict(feed.taken),
        }
        return ModelFrame(facts, shown[1] << 4 | shown[0], scores)


def _facts(session: Session, picture: Picture) -> dict[str, Any]:
    """What is not of one model."""
    player, source = session.player, session.source
    facts: dict[str, Any] = {
        "rate": round(picture.events_per_s),
        "begin_us": session.begin_us,
        "silent_s": round(session.silent_s, 1),
        "ignored": {} if source is None else dict(source.ignored),
        "state": _state(session),
    }
    if player is not None:
        playing, clock = player.playing, player.clock
        facts |= {
            "position_us": playing.position_us,
            "speed": clock.speed,
            "track": playing.number,
            "file": playing.file,
            "target": playing.target,
        }
    return facts


def _state(session: Session) -> str:
    player = session.player
    if player is None:
        return "silent" if session.silent_s > _SILENT_S else "live"
    if player.playing.is_over:
        return "over"
    return "paused" if player.clock.is_paused else "playing"
