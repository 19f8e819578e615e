"""The state of a running stream in a file: written after its steps, read when it starts again.

A state is of one run: of a network, its time steps, a policy, sources, and what the network sees of
them. That of another is refused, with what differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mpsl_runtime.atomic import replacing_often
from mpsl_runtime.errors import DataError, OutputError
from mpsl_runtime.kept import LARGEST_BYTES, Kept, from_bytes, to_bytes
from mpsl_runtime.run.stream import Stream
from mpsl_runtime.service.exposition import Family

__all__ = ["StateFile"]

# While nothing is run, what has come is kept so often.
_BETWEEN_STEPS_S = 1.0


class StateFile:
    """Keeps a stream.

    Args:
        path: the file.
        identity: what the run is of, in words.
        every_s: at most so often; 0: after each step.
        stays: a full disk is said and counted, and does not end the run.
        say: called with a line for people.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, str],
        *,
        every_s: float = 0.0,
        stays: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path, self._identity = path, dict(identity)
        self._every_s, self._stays, self._say = every_s, stays, say
        self._replace: Callable[[bytes], None] | None = None
        self._written = self._failed = 0
        self._is_failing = False
        self._last_s = -float("inf")

    def read(self) -> Kept | None:
        """What was kept; None where the file is not there.

        Raises:
            DataError: it cannot be read, is damaged, or is of another run.
        """
        try:
            size = self._path.stat().st_size
            if size > LARGEST_BYTES or not self._path.is_file():
                raise DataError("not the state of a run", got=f"{size} bytes", where=self._path)
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError("state cannot be read", got=error.strerror, where=self._path) from None
        kept = from_bytes(content, self._path)
        theirs = kept.inner("identity")
        for word, ours in self._identity.items():
            found = theirs.text(word)
            if found != ours:
                got, expected = _difference(found, ours)
                raise DataError(
                    f"state of another {word}", got=got, expected=expected, where=self._path
                )
        return kept.inner("stream")

    @contextmanager
    def written(self) -> Iterator[None]:
        """Within it, `keep` writes.

        Raises:
            OutputError: the folder is absent or not writable.
        """
        with replacing_often(self._path) as self._replace:
            yield

    def keep(self, stream: Stream, after_step: bool) -> None:
        """Writes where it is time; as `Stream.keep`.

        Raises:
            OutputError: the disk is full, unless the service stays.
        """
        passed_s = time.monotonic() - self._last_s
        wait_s = self._every_s if after_step else max(self._every_s, _BETWEEN_STEPS_S)
        if passed_s >= wait_s or stream.is_suspended:
            self.write(stream)

    def write(self, stream: Stream) -> None:
        """Writes now; see `keep`."""
        if self._replace is None:
            return
        self._last_s = time.monotonic()
        content = to_bytes({"identity": self._identity, "stream": stream.kept()})
        try:
            self._replace(content)
        except OutputError as error:
            self._failed += 1
            if not self._stays:
                raise
            if not self._is_failing:
                self._say(f"the state is not kept any more: {error}")
            self._is_failing = True
            return
        if self._is_failing:
            self._say("the state is kept again")
        self._is_failing = False
        self._written += 1

    def families(self) -> list[Family]:
        """What it counts, for `/metrics`."""
        found = []
        for name, text, value in (
            ("mpsl_state_writes_total", "States that were written.", self._written),
            ("mpsl_state_write_errors_total", "States that could not be.", self._failed),
        ):
            family = Family(name, "counter", text)
            family.add(value)
            found.append(family)
        return found


def _difference(one: str, other: str) -> tuple[str, str]:
    """Both, from a little before where they differ."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    begin = max(0, (min(len(one), len(other)) if same is None else same) - 20)
    mark = "…" if begin else ""
    return mark + one[begin : begin + 80], mark + other[begin : begin + 80]
