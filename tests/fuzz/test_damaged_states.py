"""States of a run whose values a stranger has changed, checksum and all: run, or one DataError.

MPSL_FUZZ=N changes N states, new ones every time.
"""

from __future__ import annotations

import json
import os
import random
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mpsl_runtime.errors import MpslError
from mpsl_runtime.kept import from_bytes, to_bytes
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.opening import load
from mpsl_runtime.run.stream import Stream

FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
RECORDING = Path(__file__).resolve().parents[1] / "recordings" / "gesture.es"
HEADER = struct.Struct("<8sII")
VALUES: list[Any] = [
    None, True, -1, 0, 1, 7, 2**31, 2**40, 2**61, 2**62, 2**63, -(2**62), 0.5, float("nan"),
    float("inf"), "x", [], {}, [1], [2**62], {"a": 1},
]  # fmt: skip


def stream_of(model: Model, policy: str) -> Stream:
    feed = model.feed(
        [RECORDING], fit=True, hot_pixels="auto", background_us=5000, refractory_us=100
    )
    stream = model.stream(feed, policy)
    assert isinstance(stream, Stream)
    return stream


def states(model: Model) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for policy in ("onset", "sliding", "tumbling", "continuous"):
        stream, of_policy = stream_of(model, policy), []
        stream.keep = lambda kept, _, to=of_policy: to.append(to_bytes(kept.kept()))  # type: ignore[misc]
        stream.run()
        found += [(policy, state) for state in of_policy[::4]]
    return found


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand, one below the other."""
    if isinstance(value, dict) and "@" not in value:
        for key, item in value.items():
            yield from places(item, (*before, key))
        return
    yield before
    if isinstance(value, list):
        for key, item in enumerate(value):
            yield from places(item, (*before, key))


def changed(state: bytes, chance: random.Random) -> bytes:
    """One value, or some bytes of the arrays."""
    end = HEADER.size + HEADER.unpack_from(state)[2]
    tree, arrays = json.loads(state[HEADER.size : end]), bytearray(state[end:-4])
    if chance.random() < 0.65:
        *above, last = chance.choice(list(places(tree)))
        inside = tree
        for key in above:
            inside = inside[key]
        inside[last] = chance.choice(VALUES)
    else:
        for _ in range(chance.randint(1, 8)):
            arrays[chance.randrange(len(arrays))] = chance.randrange(256)
    text = json.dumps(tree).encode()
    content = HEADER.pack(b"mpslkept", 1, len(text)) + text + bytes(arrays)
    return content + struct.pack("<I", zlib.crc32(content))


def test_a_state_that_was_changed_is_run_or_refused() -> None:
    chance = random.Random(None if FUZZ else 5)
    model = load("nmnist8-small", step_us=20_000)
    known = states(model)
    refused = ran = 0
    for _ in range(FUZZ or 120):
        policy, state = chance.choice(known)
        stream = stream_of(model, policy)
        try:
            stream.restore(from_bytes(changed(state, chance), "s"))
            # A time far ahead is as many empty steps, up to the longest gap of a recording.
            deque(islice(stream, 300), maxlen=0)
            ran += 1
        except MpslError:
            refused += 1
    assert refused > 20
    assert ran > 20
