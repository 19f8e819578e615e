"""A source, the models that run on it, and the pictures of both: all of a view but its page.

    player or relay ─► belts ─► a channel for each model      threads of their own, which wait for
           └─► picture ◄─ composer ─► whoever watches         nobody below them in this drawing

The composer makes pictures at a constant rate, whether events come or not; who is slow gets fewer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mpsl_runtime.errors import MpslError, UsageError
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.live.address import is_live
from mpsl_runtime.live.options import StreamOptions, source_options
from mpsl_runtime.live.source import LiveSource
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.service.metrics import Metrics
from mpsl_runtime.view.channel import Channel
from mpsl_runtime.view.clock import Clock, Jump
from mpsl_runtime.view.picture import EventPicture, Picture
from mpsl_runtime.view.player import Player
from mpsl_runtime.view.playlist import Playlist
from mpsl_runtime.view.settings import Settings
from mpsl_runtime.view.survey import Survey, Surveyed

__all__ = ["MOST_MODELS", "Session", "Shown"]

MOST_MODELS = 6
"""Models beside each other on one page."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Shown:
    """A model as it is shown: its name for people, itself, and the policy it begins with."""

    name: str
    model: Model
    policy: Policy


class Session:
    """See the module.

    Attributes:
        channels: one for each model. metrics: of all of them.
        settings: see `Settings`; source: the live one, else None.
        player: of files, else None. version: changes with all that `describe` says.

    Args:
        shown: the models. source: a path, `-` or a live address.
        options: of the source. speed: of a file. once: a file is played once, at once; otherwise it
            waits for somebody who watches, and stays at its end.
        say: called with a line for people.

    Raises:
        UsageError, DataError: see `Feed`; or a model that takes no events.
    """

    def __init__(
        self,
        shown: Sequence[Shown],
        source: str,
        options: StreamOptions,
        *,
        speed: float = 1.0,
        once: bool = False,
        say: Callable[[str], None],
    ) -> None:
        self._say, self._options = say, options
        first = shown[0].model
        self.name, self.metrics = source, Metrics()
        self.source: LiveSource | None = None
        if is_live(source):
            self.source = first.feed([source], say=say, **options).source
        self.channels = [
            Channel(
                each.name, each.model, options, each.policy,
                source=self.source, metrics=self.metrics, say=say, ended=self._one_ended,
            )
            for each in shown
        ]  # fmt: skip
        self.settings = self.channels[0].settings
        self.picture = EventPicture()
        self.player: Player | None = None
        self.surveyed: Surveyed | None = None
        self._survey: Survey | None = None
        self.version = 0
        self.size: Size = shown[0].model.binning.sensor_size
        self.error: MpslError | None = None
        self.ended = threading.Event()
        self._begun_us: int | None = None  # the first time of a live recording
        self._heard_s = time.monotonic()
        self._awaits_watcher = self.source is None and not once
        if self.source is not None:
            self._thread = threading.Thread(target=self._relay, name="mpsl view relay", daemon=True)
        else:
            binning, names = first.binning, first.class_names
            playlist, again = (
                Playlist(source, binning, names, source_options(options), each)
                for each in (say, lambda _: None)
            )
            self._survey = Survey(again, self._see_survey)
            clock = Clock(speed, paused=not once)
            self.player = Player(
                playlist, clock, binning, self, once=once, loops=lambda: self.settings.loops
            )
            self._thread = threading.Thread(target=self._play, name="mpsl view player", daemon=True)

    def start(self) -> None:
        """Begins; a live source is open after this.

        Raises:
            DataError: nobody is at the address.
        """
        if self.source is not None:
            self.source.open()
        self.picture.begin(self.size)
        for channel in self.channels:
            channel.start()
        if self._survey is not None:
            self._survey.start()
        self._thread.start()

    def stop(self) -> None:
        """Ends all threads; the windows that run are finished."""
        if self.source is not None:
            self.source.stop()
        if self.player is not None:
            self.player.clock.stop()
        for channel in self.channels:
            channel.stop()
        for channel in self.channels:
            channel.join()
        if self._thread.ident is not None:
            self._thread.join()
        if self._survey is not None:
            self._survey.stop()
        if self.source is not None:
            self.source.close()

    def watched(self) -> None:
        """Somebody watches: a file that has waited for it begins."""
        if self._awaits_watcher and self.player is not None:
            self._awaits_watcher = False
            self.player.clock.pause(False)

    # What the player and the relay call.

    def begin(self, recording: Recording, size: Size | None) -> None:
        """See `player.Audience`."""
        self._see_camera(size or self.channels[0].model.binning.sensor_size, anew=True)
        if self._survey is not None and self.player is not None:
            self._survey.ask(self.player.playing.number)
        first = self.channels[0].model
        for channel in self.channels:
            channel.camera(size)
            origin_us, target = recording.origin_us, recording.target
            if recording.trial:
                origin_us = 0 if channel.model.binning.origin == "zero" else None
            if target is not None and channel.model is not first:
                name, names = first.class_names[target], channel.model.class_names
                target = names.index(name) if name in names else None
            channel.belt.begin(replace(recording, origin_us=origin_us, target=target))

    def put(self, chunk: Chunk, *, is_shown: bool) -> None:
        """See `player.Audience`."""
        if len(chunk.events):
            self._heard_s = time.monotonic()
            if is_shown:
                self.picture.add(chunk.events)
        for channel in self.channels:
            channel.belt.put(chunk)

    def end(self) -> None:
        """See `player.Audience`."""
        for channel in self.channels:
            channel.belt.end()

    def clear(self) -> None:
        """See `player.Audience`."""
        self.picture.begin(self.size)
        for channel in self.channels:
            channel.belt.clear()

    def _see_survey(self, found: Surveyed) -> None:
        self.surveyed = found
        self.version += 1

    def _see_camera(self, size: Size, *, anew: bool) -> None:
        if size != self.size:
            self.size = size
            self.version += 1
        elif not anew:
            return
        self.picture.begin(size)

    def _play(self) -> None:
        try:
            if self.player is not None:
                self.player.run()
        except MpslError as error:
            self.error = error
        finally:
            self._finish()

    def _relay(self) -> None:
        """Passes on what a live source gives, as it comes."""
        source = self.source
        try:
            for recording in source.recordings() if source is not None else ():
                self.begin(recording, source.sensor_size if source is not None else None)
                self._begun_us = None
                for chunk in recording.chunks:
                    self._look_at(chunk.events)
                    self.put(chunk, is_shown=True)
                self.end()
        except MpslError as error:
            self.error = error
        finally:
            self._finish()

    def _look_at(self, events: Events) -> None:
        if not len(events):
            return
        if self._begun_us is None:
            self._begun_us = int(events.t[0])
        size = source_options(self._options).sensor_size or events.sensor_size
        if size is None and self.source is not None:
            size = self.source.sensor_size
        if size and size != self.size:
            self._see_camera(size, anew=False)

    def _finish(self) -> None:
        for channel in self.channels:
            channel.belt.close()
        if self.error is not None:
            self.ended.set()

    def _one_ended(self) -> None:
        """A model's thread has ended: with an error, the whole ends; else with the last of them."""
        failed = [channel.error for channel in self.channels if channel.error is not None]
        if failed:
            self.error = self.error or failed[0]
        if failed or all(channel.has_ended for channel in self.channels):
            self.ended.set()

    # What a page asks for.

    def act(self, words: Mapping[str, Any]) -> None:
        """Does what a page asks for.

        Raises:
            UsageError: it cannot be meant; nothing has changed.
        """
        changes, what = words.get("set"), words.get("do")
        if isinstance(changes, dict):
            self.change(self.settings.changed(changes))
            return
        if self.player is None:
            raise UsageError("a live source cannot be wound", got=f"{what!s:.40}")
        _wind(self.player, str(what), words.get("to"))

    def change(self, settings: Settings) -> None:
        """Other settings from now on."""
        for channel in self.channels:
            channel.check(settings)
        before, self.settings = self.settings, settings
        self.version += 1
        if settings.is_answered_alike(before):
            return
        for channel in self.channels:
            channel.change(settings, restart=self.player is None)
        if self.player is not None:
            playing = self.player.playing
            self.player.clock.jump(Jump(playing.number, playing.position_us))

    @property
    def now_us(self) -> int:
        """The time by which the picture fades: that of the file, or the clock on the wall."""
        if self.player is not None:
            return self.player.playing.position_us
        return time.monotonic_ns() // 1000

    def compose(self) -> Picture:
        """The picture of now, of what came since the one before."""
        return self.picture.compose(self.picture.taken(), self.now_us, 1000 * self.settings.fade_ms)

    @property
    def begin_us(self) -> int:
        """Where the time of what is shown begins."""
        return self.player.playing.begin_us if self.player is not None else self._begun_us or 0

    @property
    def silent_s(self) -> float:
        """How long no event has come."""
        return time.monotonic() - self._heard_s


def _wind(player: Player, what: str, to: object) -> None:
    clock, playing = player.clock, player.playing
    numeric = isinstance(to, int | float) and not isinstance(to, bool) and abs(to) < 1 << 62
    goal: float = to if numeric else 0.0  # type: ignore[assignment]
    if what in ("play", "pause"):
        clock.pause(what == "pause")
    elif what == "step":
        clock.step()
    elif what == "back":
        clock.pause(True)
        clock.jump(Jump(playing.number, max(0, playing.position_us - player.step_us)))
    elif what == "seek" and numeric:
        clock.jump(Jump(playing.number, max(0, round(goal))))
    elif what == "track" and numeric:
        clock.jump(Jump(max(0, round(goal)), 0))
    elif what == "speed" and numeric:
        clock.set_speed(float(goal))
    else:
        raise UsageError("no such command", got=f"{what:.40} {to!s:.40}")
