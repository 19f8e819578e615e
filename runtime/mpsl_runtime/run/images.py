"""Images through a network: each is the same current in every one of T steps, from rest."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np

from mpsl_runtime.data.datasets import image_current
from mpsl_runtime.data.images import Image
from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.steps import Recording, StepInput
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.run.lane import Lane
from mpsl_runtime.run.loop import Items, Loop, OnPrediction, OnStep
from mpsl_runtime.run.policies import Policy

__all__ = ["ImageStream"]

# Time has no unit; a step is one of it.
_STEP_US = 1


class ImageStream(Loop):
    """Runs images one after another; iterate over it once.

    Yields for each image a `Step` after each time step and a `Prediction`; `summary` may be read at
    any time. An image has no events: a step's are 0.

    Args:
        lane: the network, for windows of `steps` steps.
        steps: T. metadata: of the model; says how pixels become current.
        images: each of the model's input shape.
        policy: `auto` or `tumbling`, which are the same here; its rule says when scores are an
            answer.
        on_step, on_prediction: see `Loop`.

    Raises:
        UsageError: another policy.
    """

    def __init__(
        self,
        lane: Lane,
        steps: int,
        metadata: ModelMetadata,
        images: Iterable[Image],
        policy: Policy,
        *,
        on_step: OnStep | None = None,
        on_prediction: OnPrediction | None = None,
    ) -> None:
        if policy.name not in ("auto", "tumbling"):
            raise UsageError(
                "policy has no meaning for images",
                got=repr(policy.name),
                expected="auto: each image is one window",
            )
        self._lane, self._steps, self._metadata = lane, steps, metadata
        self._images = images
        # Its limit of events means nothing here.
        self._rule = policy.rule.changed(least_events=0)
        super().__init__(on_step, on_prediction)

    def _run(self) -> Items:
        for image in self._images:
            if not isinstance(image, Image):
                raise UsageError("model takes images", got=type(image).__name__, expected="Image")
            self._lane.begin(self._rule)
            sample = Recording(image.file, (), 0, trial=True, target=image.target)
            for item in self._inputs(image):
                step = self._lane.advance(item, image.file, image.target)
                self.totals.step(step)
                self.totals.synops = self._lane.synops
                yield step
                if self._lane.is_full or self._lane.ends_early():
                    prediction = self._lane.predict(sample, _STEP_US)
                    self.totals.prediction(prediction)
                    yield prediction
                    break

    def _inputs(self, image: Image) -> Iterator[StepInput]:
        start = time.perf_counter_ns()
        current = image_current(image.pixels, self._metadata).reshape(-1)
        address = np.flatnonzero(current).astype(np.int32)
        value = current[address]
        coding_us = (time.perf_counter_ns() - start) / 1000 / self._steps
        for step in range(self._steps):
            yield StepInput(step, step * _STEP_US, address, value, 0, 0, coding_us)
