"""What runs beside a stream while it serves: figures and health over HTTP, its state, systemd.

with Service(model, stream, settings, say=…) as service:
    …open the source…
    service.ready()
    for item in stream: …
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mpsl_runtime.errors import UsageError
from mpsl_runtime.run.loop import Loop
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.state import network_hash
from mpsl_runtime.run.stream import Stream
from mpsl_runtime.service.access import Access
from mpsl_runtime.service.exposition import CONTENT_TYPE, Family
from mpsl_runtime.service.http import Answer, Server
from mpsl_runtime.service.metrics import Metrics
from mpsl_runtime.service.notify import notify, watchdog_s
from mpsl_runtime.service.state_file import StateFile

__all__ = ["Service", "ServiceSettings"]

_SILENT_S = 30.0
_LOSSES_S = 60.0

Say = Callable[..., None]


@dataclass(frozen=True)
class ServiceSettings:
    """What is wanted beside a stream.

    Attributes:
        place: (host, port) of `/metrics` and `/healthz`; None: no server.
        token: what a request must bring; needed elsewhere than on the loopback.
        state: the file in which the stream is kept. state_every_s: at most so often.
        stays: the source goes on when a sender has finished.
    """

    place: tuple[str, int] | None = None
    token: str | None = None
    state: Path | None = None
    state_every_s: float = 0.0
    stays: bool = False


class Service:
    """See the module.

    Args:
        model, stream: what is run; not yet iterated over.
        say: called with a line for people, and `level=` and values for programs.

    Raises:
        UsageError: settings that cannot be. From `with`: DataError: the state is damaged or of
            another run. OutputError: it cannot be written.
    """

    def __init__(
        self,
        model: Model,
        stream: Loop,
        settings: ServiceSettings,
        *,
        say: Say = lambda *_, **__: None,
    ) -> None:
        self._stream, self._settings, self._say = stream, settings, say
        self.metrics = Metrics()
        self.metrics.watch(model, stream)
        self._access = None
        if settings.place is not None:
            self._access = Access(settings.place[0], settings.token)
        self._state: StateFile | None = None
        if settings.state is not None:
            if not isinstance(stream, Stream):
                raise UsageError("images have no state", got="--state", where=model.plan.source)
            self._state = StateFile(
                settings.state,
                _identity(model, stream),
                every_s=settings.state_every_s,
                stays=settings.stays,
                say=lambda line: say(line, level="error"),
            )
            self.metrics.include(self._state.families)
        self._server: Server | None = None
        self._began_s = time.monotonic()
        self._over = threading.Event()
        self._open = ExitStack()

    def __enter__(self) -> Service:
        try:
            if self._state is not None and isinstance(self._stream, Stream):
                kept = self._state.read()
                self._open.enter_context(self._state.written())
                if kept is not None:
                    self._stream.restore(kept)
                    steps = self._stream.totals.steps
                    self._say(f"goes on from {self._settings.state}: {steps:,} steps", steps=steps)
                self._stream.keep = self._state.keep
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        notify("STOPPING=1")
        with self._open:
            if kind is None and self._state is not None and isinstance(self._stream, Stream):
                self._state.write(self._stream)

    def ready(self) -> None:
        """The source is open: from now on there is a server, and whoever waits for this program
        need not wait any longer. Called once.

        Raises:
            DataError: nobody can listen there.
        """
        self._began_s = time.monotonic()
        if self._settings.place is not None and self._access is not None:
            paths = {"/metrics": self._figures, "/healthz": self._health}
            self._server = Server(*self._settings.place, paths, self._access)
            self._open.callback(self._server.close)
            self.metrics.include(self._requests)
            address = f"{self._server.address}/metrics"
            self._say(f"figures at {address}", address=address)
        notify("READY=1")
        thread = threading.Thread(target=self._watch, name="mpsl-service", daemon=True)
        thread.start()
        self._open.callback(thread.join)
        self._open.callback(self._over.set)

    def stop(self) -> None:
        """Ends the stream after its step, from a signal handler: to go on later where its state is
        kept, else for good."""
        if self._state is not None and isinstance(self._stream, Stream):
            self._stream.suspend()
        else:
            self._stream.stop()

    def interrupted(self) -> None:
        """What was being made is lost with Ctrl-C: what was kept before it stays."""
        self._state = None

    @property
    def silent_s(self) -> float:
        """Seconds since the stream has run a step, or looked for events."""
        source = None if self._stream.feed is None else self._stream.feed.source
        last = [self._began_s, self._stream.totals.last_s or 0.0]
        last.append(0.0 if source is None else source.awake_s)
        return time.monotonic() - max(last)

    def _figures(self) -> Answer:
        return 200, CONTENT_TYPE, self.metrics.text()

    def _health(self) -> Answer:
        silent_s = self.silent_s
        if silent_s < _SILENT_S:
            return 200, "text/plain; charset=utf-8", b"ok\n"
        return 503, "text/plain; charset=utf-8", f"no sign of life for {silent_s:.0f} s\n".encode()

    def _requests(self) -> list[Family]:
        family = Family("mpsl_http_requests_total", "counter", "Requests here, by status.")
        for status, number in sorted(dict(self._server.requests if self._server else {}).items()):
            family.add(number, code=str(status))
        return [family]

    def _watch(self) -> None:
        """Tells systemd that the stream lives, and people what was lost in the last minute."""
        wait_s = watchdog_s()
        told: Counter[str] = Counter()
        next_s = time.monotonic() + _LOSSES_S
        while not self._over.wait(min(_LOSSES_S, _LOSSES_S if wait_s is None else wait_s / 3)):
            if wait_s is not None and self.silent_s < wait_s:
                notify("WATCHDOG=1")
            if time.monotonic() >= next_s and self._stream.feed is not None:
                next_s += _LOSSES_S
                losses = Counter(self._stream.feed.losses)
                self._tell(losses - told)
                told = losses

    def _tell(self, lost: Counter[str]) -> None:
        if lost:
            words = ", ".join(f"{number:,} {cause}" for cause, number in lost.items())
            self._say(f"lost in a minute: {words}", level="warning", events_lost=dict(lost))


def _identity(model: Model, stream: Stream) -> dict[str, Any]:
    """What a state is of: all that decides what comes after it."""
    found = {
        "model": network_hash(model.plan).hex(),
        "classes": ", ".join(model.class_names),
        "time step": str(model.binning),
        "policy": str(stream.policy),
    }
    return found if stream.feed is None else found | stream.feed.identity
