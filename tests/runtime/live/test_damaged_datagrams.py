"""Datagrams as a stranger or a bad line may send them, in all formats: none raises, and what comes
out is in order and inside the sensor.

200 rounds a run, the same every time; `make fuzz` (MPSL_FUZZ=N) takes N new ones.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from mpsl_runtime import Events
from mpsl_runtime.events.steps import Chunk
from mpsl_runtime.live.arrivals import Run
from mpsl_runtime.live.datagram import END, LAST, Datagram, encode
from mpsl_runtime.live.options import source_options
from mpsl_runtime.live.pieces import Begin, Data, End
from mpsl_runtime.live.socket_queue import Batch
from mpsl_runtime.live.source import open_source
from mpsl_runtime.live.timed_source import TimedSource
from mpsl_runtime.live.timeline import Arrival, Timeline

FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
ROUNDS = FUZZ or 200
SIZE = (64, 48)


def randomness() -> np.random.Generator:
    return np.random.default_rng(None if FUZZ else 11)


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(0, 4))):
        if not out:
            break
        kind, at = rng.integers(4), int(rng.integers(len(out)))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == 2:
            del out[at:]
        else:
            out += rng.bytes(int(rng.integers(1, 20)))
    return bytes(out)


def conversation(rng: np.random.Generator) -> list[bytes]:
    """Some recordings, each with its end, mixed, repeated and changed."""
    sent = []
    for recording in rng.integers(0, 4, 3).tolist():
        t = int(rng.choice([0, 1000, 1 << 32, 1 << 61]))
        number = int(rng.integers(1, 12))
        first = int(rng.choice([0, (1 << 32) - 3, 7]))
        position = 0
        for k in range(number):
            count = int(rng.integers(0, 6))
            events = Events.from_columns(
                t + np.sort(rng.integers(0, 900, count)),
                rng.integers(0, SIZE[0] + 2, count),
                rng.integers(0, SIZE[1] + 2, count),
                rng.integers(0, 2, count),
            )
            size = SIZE if rng.random() < 0.9 else (0, 0)
            sent.append(Datagram(0, recording, first + k, position, t, 0, *size, events))
            position += count
            t += int(rng.choice([0, 1000, 10**8]))
        last = replace(sent[-1], flags=END | LAST * int(rng.integers(2)), events=Events.empty())
        sent.append(replace(last, sequence=last.sequence + 1))
    order = np.argsort(np.arange(len(sent)) + rng.integers(0, 5, len(sent)))
    return [mutated(encode(sent[k]), rng) for k in order.tolist()]


def batches(contents: list[bytes], rng: np.random.Generator) -> list[Batch]:
    found, now_ns = [], 10**12
    while contents:
        some = contents[: int(rng.integers(1, 9))]
        contents = contents[len(some) :]
        now_ns += int(rng.choice([1, 10**6, 10**7, 3 * 10**9]))
        data = np.frombuffer(b"".join(some) + rng.bytes(64), np.uint8)
        offsets = np.concatenate([[0], np.cumsum([len(c) for c in some])]).astype(np.int64)
        senders = rng.choice([1, 1, 1, 1, 2, 3], len(some)).astype(np.uint64)
        arrivals = np.full(len(some), now_ns, np.int64)
        dropped, unseen = (int(v) for v in rng.choice([0, 0, 0, 5], 2))
        found.append(Batch(data, offsets, senders, arrivals, dropped, 1, unseen))
    return found


def test_our_datagrams() -> None:
    rng = randomness()
    events_seen = 0
    for _ in range(ROUNDS):
        source = open_source("udp://127.0.0.1:0")
        assembler = source._assembler  # type: ignore[attr-defined]
        outputs = []
        for batch in batches(conversation(rng), rng):
            outputs += assembler.take(batch)
            outputs += assembler.idle(float(batch.arrivals_ns[-1]) / 1e9 + 0.001)
        outputs += assembler.finish()
        inside, reached = False, 0
        for output in outputs:
            if isinstance(output, Begin):
                assert not inside
                inside, reached = True, 0
                source._size = output.size  # type: ignore[attr-defined]
                source._reached_us = output.origin_us or 0  # type: ignore[attr-defined]
            elif isinstance(output, End):
                assert inside
                inside = False
            else:
                assert inside
                assert isinstance(output, Data)
                assert isinstance(output.run, Run)
                chunk = source._chunk(output)  # type: ignore[attr-defined]
                chunk.events.check()
                if len(chunk.events):
                    assert int(chunk.events.t[0]) >= reached
                    reached = int(chunk.events.t[-1])
                assert chunk.dropped >= 0
                events_seen += len(chunk.events)
        assert not inside
        assert len(source.ignored) + len(source.losses) < 16
    assert events_seen > ROUNDS


@pytest.mark.parametrize(
    "address",
    ["udp+spif://127.0.0.1:0", "udp+faery://127.0.0.1:0", "udp+faery://127.0.0.1:0?format=t32"],
)
def test_formats_without_numbers(address: str) -> None:
    rng = randomness()
    for _ in range(ROUNDS):
        source = open_source(address, source_options({}))
        assert isinstance(source, TimedSource)
        contents = [rng.bytes(int(rng.integers(0, 60))) for _ in range(int(rng.integers(1, 20)))]
        arrivals = []
        for batch in batches(contents, rng):
            chosen = source._followed(batch)
            if len(chosen):
                events, edges = source.decode(chosen)
                assert edges[-1] == len(events)
                arrivals.append(Arrival(events, float(batch.arrivals_ns[-1]) / 1e9, edges))
        timeline = Timeline(source, reorder_s=0.005, gap_us=60_000_000)
        pieces = [piece for arrival in arrivals for piece in timeline.take(arrival)]
        reached, is_open = None, False
        for piece in [*pieces, *timeline.finish()]:
            if not isinstance(piece, Chunk):
                assert isinstance(piece, End) == is_open
                reached, is_open = None, not is_open
                continue
            assert is_open
            piece.events.check()
            if len(piece.events):
                assert reached is None or int(piece.events.t[0]) >= reached
                reached = int(piece.events.t[-1])
        assert not is_open
