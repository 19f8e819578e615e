"""Datagrams that are lost, late, shuffled or sent by somebody else; clocks and senders that begin
anew. No socket and no clock: arrivals are made up."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpsl_runtime import Events
from mpsl_runtime.live.assembly import Assembler
from mpsl_runtime.live.datagram import END, LAST, Datagram, encode
from mpsl_runtime.live.pieces import Begin, Data, End, Output
from mpsl_runtime.live.replay import datagrams
from mpsl_runtime.live.socket_queue import Batch

SENDER, STRANGER = 1, 2


@dataclass
class Report:
    """Counts, as a source does."""

    losses: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    begun: list[str] = field(default_factory=list)

    def ignore(self, reason: str, number: int = 1) -> None:
        self.ignored[reason] += number

    def lose(self, cause: str, number: int) -> int:
        if number:
            self.losses[cause] += number
        return number

    def resynchronise(self, why: str) -> None:
        self.begun.append(why)


class Receiver:
    """An assembler that is sent datagrams one by one or together."""

    def __init__(self, reorder_s: float = 0.005) -> None:
        self.report = Report()
        self.assembler = Assembler(self.report, reorder_s=reorder_s, gap_us=60_000_000)
        self.outputs: list[Output] = []
        self.now_s = 100.0

    def get(
        self, sent: Iterable[Datagram], sender: int = SENDER, dropped: int = 0, unseen: int = 0
    ) -> Receiver:
        contents = [encode(datagram) for datagram in sent]
        offsets = np.concatenate([[0], np.cumsum([len(c) for c in contents])]).astype(np.int64)
        batch = Batch(
            np.frombuffer(b"".join(contents) + bytes(64), np.uint8),
            offsets,
            np.full(len(contents), sender, np.uint64),
            np.full(len(contents), int(self.now_s * 1e9), np.int64),
            dropped_events=dropped,
            unseen=unseen,
        )
        self.outputs += self.assembler.take(batch)
        return self

    def wait(self, seconds: float) -> Receiver:
        self.now_s += seconds
        self.outputs += self.assembler.idle(self.now_s)
        return self

    def end(self) -> list[list[int]]:
        """The times of the events of each recording."""
        self.outputs += self.assembler.finish()
        found: list[list[int]] = []
        for output in self.outputs:
            if isinstance(output, Begin):
                found.append([])
            elif isinstance(output, Data):
                run = output.run
                for start, time_us, count in zip(run.starts, run.times_us, run.counts, strict=True):
                    body = run.data[start : start + 8 * count].reshape(-1, 8)[:, :4]
                    offsets = np.ascontiguousarray(body).view("<u4")[:, 0]
                    found[-1] += (int(time_us) + offsets.astype(np.int64)).tolist()
        return found

    @property
    def missing(self) -> int:
        return sum(output.missing for output in self.outputs if isinstance(output, Data))

    @property
    def troubles(self) -> tuple[int, int]:
        return self.report.losses.total(), self.report.ignored.total()


def stream(
    number: int = 20, *, begin_us: int = 0, recording: int = 7, first: int = 0
) -> list[Datagram]:
    """Datagrams of three events each, a millisecond apart."""
    found = []
    for k in range(first, first + number):
        t = begin_us + (k - first) * 1000
        events = Events.from_columns([t, t + 1, t + 2], [1, 2, 3], [0, 0, 0], [1, 0, 1])
        found.append(Datagram(0, recording, k, 3 * k, t, 0, 12, 10, events))
    return found


def end_of(sent: list[Datagram], flags: int = LAST) -> Datagram:
    last = sent[-1]
    return replace(
        last,
        flags=END | flags,
        sequence=last.sequence + 1,
        first_event=last.first_event + len(last.events),
        time_us=int(last.events.t[-1]),
        events=Events.empty(),
    )


def times(*streams: list[Datagram]) -> list[int]:
    return [int(t) for sent in streams for datagram in sent for t in datagram.events.t]


def test_datagrams_in_a_row_are_one_piece() -> None:
    sent = stream()
    receiver = Receiver().get([*sent[:1]]).get([*sent[1:], end_of(sent)])
    kinds = [type(output) for output in receiver.outputs]
    assert kinds == [Begin, Data, Data, Data, End]  # the first, all behind it, END
    assert receiver.end() == [times(sent)]
    assert receiver.outputs[-1] == End(last=True)
    assert receiver.troubles == (0, 0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::3])
@pytest.mark.parametrize("together", [1, 4, 1000])
def test_datagrams_shuffled_in_fours_lose_nothing(order: tuple[int, ...], together: int) -> None:
    t = np.arange(0, 40_000, 7)
    zero = np.zeros(len(t), np.int64)
    first = list(datagrams(Events.from_columns(t, zero, zero, zero), 1, trial=True))
    second = stream(8, recording=2)
    sent = [replace(d, width=12, height=10) for d in (*first, *second, end_of(second))]
    shuffled = []
    for i in range(0, len(sent), 4):
        four = sent[i : i + 4]
        shuffled += [four[k] for k in order if k < len(four)]
    receiver = Receiver()
    for i in range(0, len(shuffled), together):
        receiver.get(shuffled[i : i + together])
    assert receiver.end() == [times(first), times(second)]
    assert receiver.troubles == (0, 0)
    assert (receiver.assembler.lost, receiver.report.begun) == (0, [])


def test_a_gap_is_waited_for_and_then_counted_and_what_comes_later_is_late() -> None:
    sent = stream()
    receiver = Receiver(reorder_s=0.005).get(sent[:5]).get(sent[8:12])
    assert receiver.wait(0.004).assembler.lost == 0
    assert receiver.wait(0.002).assembler.lost == 3
    receiver.get(sent[6:7]).get(sent[12:])
    assert receiver.end() == [times(sent[:5], sent[8:])]
    assert dict(receiver.report.losses) == {"lost on the way": 9}
    assert receiver.missing == 9
    assert dict(receiver.report.ignored) == {"late or repeated datagram": 1}


def test_what_our_own_queue_let_go_is_told_from_what_the_network_lost() -> None:
    sent = stream()
    receiver = Receiver().get(sent[:5]).get(sent[9:], dropped=7)
    assert receiver.end() == [times(sent[:5], sent[9:])]
    assert dict(receiver.report.losses) == {"queue was full": 7, "lost on the way": 5}


def test_what_the_systems_buffer_had_no_room_for_is_not_waited_for() -> None:
    sent = stream(40)
    receiver = Receiver().get(sent[:5]).get([*sent[9:20], *sent[22:]], unseen=6)
    assert not receiver.assembler.is_waiting
    assert receiver.end() == [times(sent[:5], sent[9:20], sent[22:])]
    assert dict(receiver.report.losses) == {"the system's buffer was full": 18}
    kinds = [type(output) for output in receiver.outputs]
    assert kinds == [Begin, *[Data] * 5, *[Data] * 2, End]  # two rows behind the beginning


def test_whoever_begins_to_listen_in_the_middle_has_lost_nothing() -> None:
    sent = stream()
    receiver = Receiver().get(sent[5:]).wait(0.1)
    assert receiver.end() == [times(sent[5:])]
    assert (receiver.assembler.lost, receiver.report.losses.total()) == (0, 0)


@pytest.mark.parametrize(
    "jump_us",
    [61_000_000, 10**12, -2_000_000, -(1 << 32) + 50_000_000],
    ids=["60 s of silence", "ahead", "back", "a clock of 32 bits that wraps"],
)
def test_a_clock_that_jumps_begins_anew_and_loses_nothing(jump_us: int) -> None:
    begin_us = 1 << 33
    before = stream(10, begin_us=begin_us)
    after = stream(10, begin_us=begin_us + 10_000 + jump_us, first=10)
    receiver = Receiver().get([*before, *after, end_of(after)])
    assert receiver.end() == [times(before), times(after)]
    assert receiver.report.begun == ["the sender's clock has jumped"]
    assert receiver.troubles == (0, 0)


def test_sixty_seconds_without_a_word_leave_nobody_deaf() -> None:
    before = stream(10)
    after = stream(10, begin_us=70_000_000, first=10)
    receiver = Receiver().get(before).wait(60).get([*after, end_of(after)])
    assert receiver.end() == [times(before), times(after)]
    assert receiver.report.ignored.total() == 0


@pytest.mark.parametrize("number", [4, 20])
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("sender", [SENDER, STRANGER])
def test_a_sender_that_starts_again_with_the_same_number_is_followed(
    number: int, ended: bool, sender: int
) -> None:
    sent = stream(number)
    again = stream(9)
    receiver = Receiver().get(sent)
    if ended:
        receiver.get([end_of(sent, 0)] * 3)
    receiver.wait(3.0).get([*again, end_of(again)], sender)
    assert receiver.end() == [times(sent), times(again)]
    assert receiver.troubles == (0, 0)


def test_repeated_datagrams_are_ignored_and_counted() -> None:
    sent = stream(40)
    twice = [datagram for datagram in sent for _ in range(2)]
    receiver = Receiver().get([*twice, *[end_of(sent)] * 3])
    assert receiver.end() == [times(sent)]
    assert dict(receiver.report.ignored) == {"late or repeated datagram": 40}
    assert receiver.report.begun == []


def test_a_stranger_is_ignored_while_the_sender_speaks_and_followed_when_it_is_silent() -> None:
    sent, other = stream(10), stream(10, recording=99)
    receiver = Receiver().get(sent[:5]).get(other[:3], STRANGER).get(sent[5:])
    assert dict(receiver.report.ignored) == {"another sender during a recording": 3}
    receiver.wait(2.5).get(other[3:], STRANGER)
    assert receiver.end() == [times(sent), times(other[3:])]
    assert receiver.report.begun == ["another sender takes over"]


def test_a_strangers_last_ends_no_run() -> None:
    sent = stream(10)
    bare = replace(end_of(sent), recording=99, sequence=0)
    receiver = Receiver().get(sent[:5]).get([bare], STRANGER)
    receiver.get([*sent[5:], end_of(sent, 0)]).wait(5).get([bare], STRANGER)
    ends = [output for output in receiver.outputs if isinstance(output, End)]
    assert ends == [End(last=False), End(last=False)]


def test_another_recording_ends_one_whose_end_was_lost() -> None:
    first, second = stream(5), stream(5, recording=8)
    receiver = Receiver().get(first).get(second).wait(0.1).get([end_of(second)])
    assert receiver.end() == [times(first), times(second)]


def test_numbers_that_wrap_go_on() -> None:
    sent = [replace(d, sequence=(d.sequence - 5) % (1 << 32)) for d in stream(10)]
    receiver = Receiver().get(sent[:5]).wait(0.1).get(sent[5:])
    assert receiver.end() == [times(sent)]
    assert receiver.assembler.lost == 0


def test_a_number_of_lost_events_that_cannot_be_is_held_to_what_datagrams_hold() -> None:
    sent = stream(10)
    liar = [replace(d, first_event=1 << 60) for d in sent[6:]]
    receiver = Receiver().get(sent[:5]).get(liar).wait(0.1)
    receiver.end()
    assert receiver.missing == 170


def test_reasons_hold_no_values_so_that_their_number_is_bounded() -> None:
    receiver = Receiver()
    rng = np.random.default_rng(0)
    good = bytearray(encode(stream(1)[0]))
    for _ in range(500):
        bad = bytes(b ^ int(rng.random() < 0.1) * int(rng.integers(256)) for b in good)
        data = np.frombuffer(bad[: rng.integers(len(bad) + 1)] + bytes(64), np.uint8)
        offsets = np.array([0, len(data) - 64])
        senders = np.full(1, int(rng.integers(3)), np.uint64)
        batch = Batch(data, offsets, senders, np.full(1, 10**9, np.int64))
        receiver.outputs += receiver.assembler.take(batch)
    assert 2 < len(receiver.report.ignored) <= 8
    assert not any(any(c.isdigit() for c in reason) for reason in receiver.report.ignored)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_event_is_processed_or_counted(data: st.DataObject) -> None:
    """Lost, repeated and shuffled as a network may; the end is known."""
    sent = stream(30)
    arriving = [d for d in sent[1:] if data.draw(st.integers(0, 9)) > 1]
    if arriving:
        again = data.draw(st.lists(st.integers(0, len(arriving) - 1), max_size=3))
        arriving += [arriving[k] for k in again]
    places = [k + data.draw(st.integers(0, 6)) for k in range(len(arriving))]
    order = sorted(range(len(arriving)), key=lambda k: (places[k], k))
    receiver = Receiver().get(sent[:1])
    for k in order:
        receiver.get([arriving[k]])
        if data.draw(st.integers(0, 3)) == 0:
            receiver.wait(0.006)
    receiver.wait(0.1).get([end_of(sent)]).wait(0.1)
    events = sum(map(len, receiver.end()))
    if not receiver.report.begun:
        assert events + receiver.missing == 90
        assert receiver.missing == receiver.report.losses.total()
    assert receiver.report.begun in ([], ["the sender has started again"])
