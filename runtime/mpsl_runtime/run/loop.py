"""What streams of recordings and of images have in common: items to iterate over, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from types import TracebackType

from mpsl_runtime.live.feed import Feed
from mpsl_runtime.run.decisions import Prediction, Step, Summary
from mpsl_runtime.run.totals import Totals

__all__ = ["Items", "Loop", "OnPrediction", "OnStep"]

Items = Generator[Step | Prediction, None, None]
OnStep = Callable[[Step], None]
OnPrediction = Callable[[Prediction], None]


class Loop(ABC):
    """Iterate over it, or call `run` and let the callbacks do the work.

    Attributes:
        totals: of what was given out so far; another thread may read them.
        feed: whence recordings come, where it is known.
        step_us: real time that a step stands for; None for images, where time has no unit.

    Args:
        on_step, on_prediction: called with each of them, before it is yielded.
    """

    def __init__(
        self,
        on_step: OnStep | None,
        on_prediction: OnPrediction | None,
        *,
        feed: Feed | None = None,
        step_us: int | None = None,
    ) -> None:
        self.totals = Totals()
        self._synops_before = 0
        self.feed, self.step_us = feed, step_us
        self._on_step, self._on_prediction = on_step, on_prediction
        self._is_stopped = False
        self._items = self._run()

    def __iter__(self) -> Iterator[Step | Prediction]:
        return self

    def __next__(self) -> Step | Prediction:
        if self._is_stopped:
            self.close()
            raise StopIteration
        item = next(self._items)
        if isinstance(item, Step):
            if self._on_step is not None:
                self._on_step(item)
        elif self._on_prediction is not None:
            self._on_prediction(item)
        return item

    def __enter__(self) -> Loop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def count_on(self, before: Loop) -> None:
        """Its totals, and those of its feed, go on from a stream that has ended; before it is
        iterated over."""
        self.totals = before.totals
        self._synops_before = before.totals.synops
        if self.feed is not None and before.feed is not None:
            self.feed.count_on(before.feed)

    @abstractmethod
    def _run(self) -> Items:
        """What comes; begins when it is iterated over."""

    @property
    def summary(self) -> Summary:
        """Totals so far, with what the feed has counted."""
        summary = self.totals.summary(self.step_us)
        if self.feed is None:
            return summary
        return replace(
            summary,
            lost=self.feed.losses,
            left_out=dict(self.feed.taken),
            resynchronised=self.feed.resynchronised,
        )

    def run(self) -> Summary:
        """Runs to the end; returns the totals."""
        for _ in self:
            pass
        return self.summary

    def stop(self) -> None:
        """Ends it after the item that is being made, from any thread."""
        self._is_stopped = True

    def close(self) -> None:
        """Ends it early."""
        self._items.close()
