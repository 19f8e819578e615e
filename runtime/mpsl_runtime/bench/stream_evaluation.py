"""What a policy's answers are worth: judged on a staged stream, of which the truth is known.

An answer belongs to the recording that its window overlaps most; a class that is answered for a
window without any recording is a false answer in silence. A recording is right if the answer with
the largest overlap (the first of equals) is its class; one that got no answer is wrong.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mpsl_runtime.bench.staged_stream import Shown

__all__ = ["Answer", "Verdict", "judge", "table"]


@dataclass(frozen=True)
class Answer:
    """What was answered, and for which stretch of time.

    Attributes:
        label: a class; None is `none`.
        begin_us, end_us: of the steps that the answer is of; it was given at `end_us`.
    """

    label: int | None
    begin_us: int
    end_us: int


@dataclass(frozen=True)
class Verdict:
    """How a policy did on a stream.

    Attributes:
        policy: in words.
        recordings: shown; right: of them, by the rule of the module; missed: without any answer.
        answers: classes answered; answers_right: of them for the recording they belong to.
        false_in_silence: classes answered for windows without a recording.
        pauses: stretches of silence; pauses_broken: of them with a false answer.
        decision_ms: median and 95th percentile of the time from a recording's first event to its
            first answer, None without answers.
        synops: synaptic operations of the whole stream.
    """

    policy: str
    recordings: int
    right: int
    missed: int
    answers: int
    answers_right: int
    false_in_silence: int
    pauses: int
    pauses_broken: int
    decision_ms: tuple[float, float] | None
    synops: int

    @property
    def accuracy(self) -> float:
        """Share of the recordings that are right."""
        return self.right / self.recordings if self.recordings else 0.0

    @property
    def silence_broken(self) -> float:
        """Share of the pauses with a false answer."""
        return self.pauses_broken / self.pauses if self.pauses else 0.0

    def to_mapping(self) -> dict[str, Any]:
        """For `--json`."""
        shares = {"accuracy": self.accuracy, "silence_broken": self.silence_broken}
        return {**asdict(self), **shares}


def judge(
    policy: str, answers: Iterable[Answer], shown: Sequence[Shown], *, synops: int
) -> Verdict:
    """Holds answers against the truth.

    Args:
        policy: named in the result. answers: in time order. shown: in time order, apart from each
            other. synops: of the stream.
    """
    starts = [recording.start_us for recording in shown]
    best: dict[int, tuple[int, int]] = {}
    first_ms: dict[int, float] = {}
    broken: set[int] = set()
    total = right = silent = 0
    for answer in answers:
        if answer.label is None:
            continue
        total += 1
        index, overlap = _most_overlap(answer, shown, starts)
        if index is None:
            silent += 1
            broken.add(bisect_right(starts, answer.begin_us))
            continue
        right += answer.label == shown[index].label
        if overlap > best.get(index, (0, 0))[0]:
            best[index] = (overlap, answer.label)
        first_ms.setdefault(index, (answer.end_us - shown[index].start_us) / 1000)
    times = list(first_ms.values())
    return Verdict(
        policy=policy,
        recordings=len(shown),
        right=sum(label == shown[i].label for i, (_, label) in best.items()),
        missed=len(shown) - len(best),
        answers=total,
        answers_right=right,
        false_in_silence=silent,
        pauses=len(shown) + 1,
        pauses_broken=len(broken),
        decision_ms=((float(np.median(times)), float(np.percentile(times, 95))) if times else None),
        synops=synops,
    )


def _most_overlap(
    answer: Answer, shown: Sequence[Shown], starts: Sequence[int]
) -> tuple[int | None, int]:
    """The recording that a window overlaps most, and by how many µs."""
    found, most = None, 0
    index = max(bisect_right(starts, answer.begin_us) - 1, 0)
    while index < len(shown) and shown[index].start_us < answer.end_us:
        begin, end = shown[index].start_us, shown[index].end_us
        overlap = min(answer.end_us, end) - max(answer.begin_us, begin)
        if overlap > most:
            found, most = index, overlap
        index += 1
    return found, most


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """Lines for people, a policy each."""
    lines = [
        f"{'policy':<28} {'right':>7} {'missed':>7} {'answers':>8} {'right':>7} "
        f"{'in silence':>11} {'pauses':>7} {'decided after':>20} {'SOP/recording':>14}"
    ]
    for row in verdicts:
        share = row.answers_right / row.answers if row.answers else 0.0
        after = (
            "–" if row.decision_ms is None else "{:.0f} ms (95 %: {:.0f})".format(*row.decision_ms)
        )
        lines.append(
            f"{row.policy:<28} {row.accuracy:>7.2%} {row.missed:>7} {row.answers:>8} "
            f"{share:>7.2%} {row.false_in_silence:>11} {row.silence_broken:>7.2%} {after:>20} "
            f"{row.synops / max(row.recordings, 1):>14,.0f}"
        )
    return lines
