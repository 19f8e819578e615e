"""What every live source is, and which one a scheme stands for.

The scheme names the file: `udp+spif://` is the class `Source` of `from_udp_spif.py`. To add a
scheme is to add such a file; nothing else lists them.
"""

from __future__ import annotations

import pkgutil
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from types import TracebackType
from typing import Any

from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.steps import Chunk, Recording
from mpsl_runtime.kept import Kept
from mpsl_runtime.live.address import Address, parse_address
from mpsl_runtime.live.options import SourceOptions

__all__ = ["LONGEST_GAP_US", "LiveSource", "open_source", "schemes"]

LONGEST_GAP_US = 60_000_000
_PREFIX = "from_"


class LiveSource(ABC):
    """Events as they arrive. Use it in a `with`: leaving it ends threads and closes sockets.

    Iterating gives the chunks of all recordings, one after another; `recordings` keeps them apart.

    Attributes:
        name: the address, as messages and output name it.
        sensor_size: (width, height) of the camera where the source knows it, else None.
        losses: events that did not come through, by cause.
        ignored: messages that were no use, by reason. Reasons hold no values: their number is
            bounded.
        resynchronised: how often the source's time or its numbers began anew.
        awake_s: when it has looked for events last, by `time.monotonic`.

    Args:
        address: what to open.
        options: see `SourceOptions`.
        longest_gap_us: a longer time without events begins a new recording.
        say: called with a line for people: once for each cause, and when the source ends early.
    """

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        *,
        longest_gap_us: int = LONGEST_GAP_US,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.name = address.text
        self.options = options
        self.sensor_size = options.sensor_size
        self.losses: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.resynchronised = 0
        self.awake_s = 0.0
        self._longest_gap_us = longest_gap_us
        self._address = address
        self._say = say or (lambda _: None)
        self._said: set[str] = set()
        self._stop = threading.Event()
        self._is_suspended = False

    def __enter__(self) -> LiveSource:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Chunk]:
        for recording in self.recordings():
            yield from recording.chunks

    @property
    def address(self) -> str:
        """Where it listens or whence it comes, with a port that the system chose."""
        return self.name

    @property
    def doing(self) -> str:
        """What it does once it is open, for people."""
        return f"reading {self.address}"

    @property
    def waiting(self) -> int | None:
        """Events that have come and wait for the network, of at most `options.largest_queue`;
        None where there is no queue: the sender waits."""
        return None

    @property
    def dropped(self) -> int:
        """Events that did not come through."""
        return sum(self.losses.values())

    @abstractmethod
    def open(self) -> None:
        """Connects, or begins to listen; does nothing when it does already.

        Raises:
            DataError: nobody is there, or nobody can listen there. MissingExtraError.
        """

    def stop(self) -> None:
        """Ends the chunks soon, from any thread or a signal handler; what is whole is given."""
        self._stop.set()

    def suspend(self) -> None:
        """As `stop`, but to go on later, where `kept` is restored: nothing is brought to an end."""
        self._is_suspended = True
        self._stop.set()

    @property
    def goes_on(self) -> bool:
        """Whether the first of `recordings` is the rest of one that was kept."""
        return False

    def kept(self) -> dict[str, Any]:
        """All that has been counted, and where the source stands, for `mpsl_runtime.kept`."""
        return {
            "losses": dict(self.losses),
            "ignored": dict(self.ignored),
            "resynchronised": self.resynchronised,
        }

    def restore(self, kept: Kept) -> None:
        """Goes on where `kept` was taken, as far as the source can; before it gives anything.

        Raises:
            DataError: the values cannot be.
        """
        self.losses, self.ignored = kept.counter("losses"), kept.counter("ignored")
        self.resynchronised = kept.integer("resynchronised")

    def close(self) -> None:
        """Stops and lets everything go."""
        self.stop()

    @abstractmethod
    def recordings(self) -> Iterator[Recording]:
        """The recordings as they arrive; opens the source and closes it at the end."""

    def note(self, line: str) -> None:
        """Says a line for people, once."""
        if line not in self._said and len(self._said) < 100:
            self._said.add(line)
            self._say(line)

    def ignore(self, reason: str, number: int = 1) -> None:
        """Counts messages that were no use; the first for a reason is said."""
        self.ignored[reason] += number
        self.note(f"ignored: {reason}")

    def lose(self, cause: str, number: int) -> int:
        """Counts events that were lost; returns their number."""
        if number > 0:
            self.losses[cause] += number
        return number

    def resynchronise(self, why: str) -> None:
        """Counts that time or numbers begin anew; the first time for a reason is said."""
        self.resynchronised += 1
        self.note(f"begins anew: {why}")


def schemes() -> list[str]:
    """The schemes that there are."""
    package = import_module("mpsl_runtime.live")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    found = [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]
    return sorted(name.replace("_", "+") for name in found)


def open_source(
    text: str,
    options: SourceOptions | None = None,
    *,
    longest_gap_us: int = LONGEST_GAP_US,
    say: Callable[[str], None] | None = None,
) -> LiveSource:
    """The source that an address stands for; it is not yet open.

    Args:
        text: `-` or an address such as `tcp://localhost:4000`.
        options, longest_gap_us, say: see `LiveSource`.

    Raises:
        UsageError: the address cannot be meant, or its scheme is not known.
    """
    address = parse_address(text)
    if address.scheme not in schemes():
        raise UsageError(
            "unknown kind of live source",
            got=repr(address.scheme[:40]),
            expected=" ".join(f"{scheme}://" for scheme in schemes()),
            where=text[:80],
        )
    module = import_module(f"mpsl_runtime.live.{_PREFIX}{address.scheme.replace('+', '_')}")
    source: LiveSource = module.Source(
        address, options or SourceOptions(), longest_gap_us=longest_gap_us, say=say
    )
    return source
