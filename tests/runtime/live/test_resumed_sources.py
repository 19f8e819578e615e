"""Live sources that are kept and go on in another process: every event is processed or counted."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime import Events
from mpsl_runtime.events.readers import read_events
from mpsl_runtime.kept import Kept, from_bytes, to_bytes
from mpsl_runtime.live.datagram import encode
from mpsl_runtime.live.options import source_options
from mpsl_runtime.live.replay import datagrams, spif_datagrams
from mpsl_runtime.live.source import LiveSource, open_source
from mpsl_runtime.run.onset import Onset
from mpsl_runtime.run.opening import load
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.run.stream import Stream

RECORDINGS = Path(__file__).parents[2] / "recordings"
POLICIES = {
    "tumbling": Policy("tumbling"),
    "continuous": Policy("continuous"),
    "sliding": Policy("sliding", every=3),
    "onset": Policy("onset", onset=Onset.parse("20/20")),
}


class KilledError(Exception):
    """Nothing more happens in this process."""


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        yield sending


def made(model_file: Path, source: LiveSource | Events, policy: Policy) -> Stream:
    given = [source] if isinstance(source, Events) else source
    stream = load(model_file, fit=True, step_us=20_000).stream(given, policy)
    assert isinstance(stream, Stream)
    return stream


def opened(address: str, *, serve: bool = False) -> Any:
    source = open_source(address, source_options({"timeout_s": 20.0, "serve": serve}))
    source.open()
    return source


def run_until(stream: Stream, stop: Callable[[Stream], bool]) -> tuple[list[Any], bytes]:
    """The items up to where `stop` says so, and the state there."""
    items: list[Any] = []
    states: list[bytes] = []

    def keep(kept: Stream, _: bool) -> None:
        states.append(to_bytes(kept.kept()))
        if stop(kept):
            raise KilledError

    stream.keep = keep
    with pytest.raises(KilledError):
        items.extend(iter(stream))
    stream.close()
    return items, states[-1]


def answers(items: list[Any]) -> list[Any]:
    kept = []
    for item in items:
        mapping = item.to_mapping()
        for name in ("compute_us", "file", "dropped"):
            mapping.pop(name, None)
            mapping.get("prediction", {}).pop(name, None)
        kept.append(mapping)
    return kept


def position(kept: Kept) -> int:
    """Events of the recording that have been taken from the datagrams."""
    return kept.inner("feed").inner("source").inner("assembler").integer("next_event")


@pytest.mark.parametrize("name", POLICIES)
def test_datagrams_go_on_with_the_next_step_and_the_gap_is_counted(
    name: str, model_file: Path, sender: socket.socket
) -> None:
    events = read_events(RECORDINGS / "gesture.es")
    sent = [encode(d) for d in datagrams(events, 77, trial=False)]
    first, again = len(sent) // 3, len(sent) // 2
    source = opened("udp://127.0.0.1:0")
    stream = made(model_file, source, POLICIES[name])
    for data in sent[:first]:
        sender.sendto(data, ("127.0.0.1", source.port))
    before, state = run_until(stream, lambda s: source.received == first and not source._ready)
    kept = from_bytes(state, "memory")
    taken = position(kept)
    assert 0 < taken < len(events)

    source = opened("udp://127.0.0.1:0")
    stream = made(model_file, source, POLICIES[name])
    stream.restore(kept)
    for data in sent[again:]:
        sender.sendto(data, ("127.0.0.1", source.port))
    after = list(stream)
    lost = stream.summary.lost
    gap = sum(len(d.events) for d in [*datagrams(events, 77, trial=False)][first:again])
    assert lost == {"sent while nothing ran": gap}
    counted = stream.summary
    assert counted.events + counted.idle + sum(
        counted.left_out.values()
    ) + counted.truncated + gap == len(events)

    left = np.r_[0:taken, taken + gap : len(events)]
    columns = (getattr(events, name)[left] for name in "txyp")
    whole = Events.from_columns(*columns, sensor_size=events.sensor_size)
    wanted = answers(list(made(model_file, whole, POLICIES[name])))
    assert answers(before + after) == wanted
    assert len(wanted) > 5


def test_what_was_received_and_not_yet_run_is_kept_too(
    model_file: Path, sender: socket.socket
) -> None:
    events = read_events(RECORDINGS / "gesture.es")
    sent = [
        encode(datagram)
        for number in (1, 2, 3)
        for datagram in datagrams(events, number, trial=False, last=number == 3)
    ]
    policy = POLICIES["tumbling"]
    wanted = answers([i for _ in range(3) for i in made(model_file, events, policy)])
    source = opened("udp://127.0.0.1:0")
    for data in sent:
        sender.sendto(data, ("127.0.0.1", source.port))
    while source._queue.waiting_events < 3 * len(events):
        pass
    before, state = run_until(made(model_file, source, policy), lambda s: s.totals.steps == 7)
    assert len(source._ready) > 2
    other = opened("udp://127.0.0.1:0")
    stream = made(model_file, other, policy)
    stream.restore(from_bytes(state, "memory"))
    after = list(stream)  # ends with the LAST that was received before
    assert other.received == 0
    assert stream.summary.lost == {}
    assert answers(before + after) == wanted


def test_a_sender_that_is_another_one_begins_anew(model_file: Path, sender: socket.socket) -> None:
    events = read_events(RECORDINGS / "gesture.es")
    source = opened("udp://127.0.0.1:0", serve=True)
    for datagram in [*datagrams(events, 1, trial=False)][:10]:
        sender.sendto(encode(datagram), ("127.0.0.1", source.port))
    policy = POLICIES["tumbling"]
    before, state = run_until(made(model_file, source, policy), lambda s: source.received == 10)
    source = opened("udp://127.0.0.1:0", serve=False)
    stream = made(model_file, source, policy)
    stream.restore(from_bytes(state, "memory"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for datagram in datagrams(events, 9, trial=False):
            other.sendto(encode(datagram), ("127.0.0.1", source.port))
        after = list(stream)
    assert stream.summary.lost == {}
    whole = answers(list(made(model_file, events, policy)))
    assert answers(after)[-len(whole) :] == whole
    assert len(before) + len(after) > len(whole)


def test_formats_without_numbers_go_on_by_their_times(
    model_file: Path, sender: socket.socket
) -> None:
    events = read_events(RECORDINGS / "gesture.es")
    width, height = events.sensor_size or (0, 0)
    sent = [data for data, _ in spif_datagrams(events)]
    half = len(sent) // 2
    address = f"udp+spif://127.0.0.1:0?size={width}x{height}"
    source = opened(address)
    for data in sent[:half]:
        sender.sendto(data, ("127.0.0.1", source.port))
    policy = POLICIES["continuous"]

    before, state = run_until(made(model_file, source, policy), lambda s: s.totals.steps == 3)
    source = opened(address)
    stream = made(model_file, source, policy)
    stream.restore(from_bytes(state, "memory"))
    for data in sent[half:]:
        sender.sendto(data, ("127.0.0.1", source.port))
    stream.keep = lambda kept, _: source.stop() if kept.totals.steps == 9 else None
    after = list(stream)
    steps = [item["step"] for item in answers(before + after) if "step" in item]
    assert steps == list(range(10))
    assert len(stream.totals.answers) == 1  # of one recording


def test_a_connection_that_begins_anew_ends_the_recording_and_begins_another(
    model_file: Path,
) -> None:
    """TCP has no numbers and no place to go on from: nothing is invented."""
    content = (RECORDINGS / "gesture.es").read_bytes()
    policy = POLICIES["tumbling"]

    def served(sent: bytes) -> Any:
        listening = socket.create_server(("127.0.0.1", 0))
        source = opened(f"tcp://127.0.0.1:{listening.getsockname()[1]}?name=a.es")
        with listening, listening.accept()[0] as client:
            client.sendall(sent)
        return source

    source = served(content)
    before, state = run_until(made(model_file, source, policy), lambda s: s.totals.steps == 3)
    kept = from_bytes(state, "memory")
    other = served(content)
    other.name = source.name  # a service has the same address again
    stream = made(model_file, other, policy)
    stream.restore(kept)
    after = list(stream)
    whole = answers(list(made(model_file, read_events(RECORDINGS / "gesture.es"), policy)))
    # What had been received is run to its end, and answered; then comes what the server sends.
    assert answers(before + after) == whole + whole
    assert stream.summary.samples == 2 * sum("prediction" in item for item in whole)
