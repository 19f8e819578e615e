"""Reads every file of a folder as a recording, in a process of its own, within 10 s and 2 GiB each.

For test_damaged_recordings.py. A line before each file and one after it, so that whoever waits
knows which one ended or held up the process. Anything but an `MpslError` of one line leaves as a
traceback.

    python tests/runtime/events/read_damaged_recordings.py FOLDER
"""

from __future__ import annotations

import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from mpsl_runtime.errors import MpslError
from mpsl_runtime.events.decoder import Decoder
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.options import ReadOptions
from mpsl_runtime.events.readers import read_events

LONGEST_S = 10.0
LARGEST_BYTES = 2 << 30


def outcome(path: Path, options: ReadOptions | None = None) -> Events | str:
    """Events, or the one line that says why not."""
    try:
        events = read_events(path, options, on_trouble=lambda _: None)
    except MpslError as error:
        refusal = error
    else:
        check(events)
        return events
    assert "\n" not in str(refusal), f"more than one line: {refusal!r}"
    assert len(str(refusal)) < 2000, f"too long: {refusal!r}"
    return f"refused: {type(refusal).__name__}"


def check(events: Events) -> None:
    """What every reader promises."""
    assert np.all(np.diff(events.t) >= 0)
    assert events.p.max(initial=0) <= 1
    if events.sensor_size is not None:
        width, height = events.sensor_size
        assert events.x.max(initial=0) < max(width, 1)
        assert events.y.max(initial=0) < max(height, 1)


def in_pieces(content: bytes, name: str, random: np.random.Generator) -> Events | str:
    """The same bytes as they might come through a pipe."""
    cuts = np.sort(random.integers(0, len(content) + 1, 6)).tolist()
    decoder = Decoder(name)
    pieces = []
    try:
        for start, stop in zip([0, *cuts], [*cuts, len(content)], strict=True):
            pieces.append(decoder.feed(content[start:stop]))
        pieces.append(decoder.finish())
    except MpslError as error:
        return f"refused: {type(error).__name__}"
    return Events(*(np.concatenate([getattr(piece, c) for piece in pieces]) for c in "txyp"))


def verdict(path: Path, random: np.random.Generator) -> str:
    """`refused: …`, `none`, or `read`; an exception where that is not what happens."""
    start = time.monotonic()
    found = outcome(path)
    seconds = time.monotonic() - start
    assert seconds < LONGEST_S, f"took {seconds:.1f} s"
    strict = outcome(path, ReadOptions(strict=True))
    assert isinstance(strict, str) or not isinstance(found, str)
    content = path.read_bytes()
    # What was unpacked before damage was met depends on where the bytes were cut.
    if content and not content.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")):
        other = in_pieces(content, path.name, random)
        assert isinstance(found, str) == isinstance(other, str), f"{found} but {other}"
        if not isinstance(found, str) and not isinstance(other, str):
            for column in "txyp":
                assert np.array_equal(getattr(found, column), getattr(other, column)), column
    if isinstance(found, str):
        return found
    return "read" if len(found) else "none"


if __name__ == "__main__":
    warnings.simplefilter("error")
    if "libasan" not in Path("/proc/self/maps").read_text():  # which takes terabytes of addresses
        resource.setrlimit(resource.RLIMIT_AS, (LARGEST_BYTES, LARGEST_BYTES))
    numbers = np.random.default_rng(1)
    for file in sorted(Path(sys.argv[1]).iterdir()):
        print(f"{file.name} …", flush=True)
        print(f"{file.name} {verdict(file, numbers)}", flush=True)
