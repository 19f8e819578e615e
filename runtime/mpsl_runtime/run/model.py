"""A model that is ready to run: the public face of this package. `opening` makes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.data.images import Image, images_of
from mpsl_runtime.errors import UsageError
from mpsl_runtime.events.binning import Binning, sparse_steps
from mpsl_runtime.events.events import Events
from mpsl_runtime.events.steps import Recording, StepInput
from mpsl_runtime.live.feed import Feed
from mpsl_runtime.live.options import StreamOptions, source_options
from mpsl_runtime.live.source import LiveSource
from mpsl_runtime.live.sources import Source
from mpsl_runtime.model import readout as read_out
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.readout import Readout
from mpsl_runtime.run.answers import AnswerRule
from mpsl_runtime.run.checks import checked_frames
from mpsl_runtime.run.decisions import Prediction, Step
from mpsl_runtime.run.images import ImageStream
from mpsl_runtime.run.lane import Lane, Runner
from mpsl_runtime.run.loop import OnPrediction, OnStep
from mpsl_runtime.run.onset import Onset
from mpsl_runtime.run.plastic_runner import PlasticRunner
from mpsl_runtime.run.policies import Policy
from mpsl_runtime.run.stream import Stream

__all__ = ["EngineName", "Model", "Result"]

EngineName = Literal["native", "reference"]
AnySource = Source | LiveSource | Feed | Iterable[Recording] | NDArray[np.uint8] | Iterable[Image]
"""What `Model.stream` takes."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a network made of T frames.

    Attributes:
        spikes: of the output neurons, float32 [T, K] (U where the last layer only integrates).
        scores: of the classes, float32 [K]; label, confidence: see `mpsl_runtime.model.readout`.
        synops: synaptic operations.
    """

    spikes: NDArray[np.float32]
    scores: NDArray[np.float32]
    label: int
    confidence: float
    synops: int


class Model:
    """A network, its binning rule and its read-out. Made by `opening.load`.

    Attributes:
        plan: the checked network.
        metadata: what mpsl wrote into the file; None for a file of another framework.
        readout: `count` or `membrane`.
        class_names: in the order of the scores.
        plastic: what goes on learning; None: the network is frozen.
    """

    def __init__(
        self,
        plan: Plan,
        runner: Runner,
        *,
        steps: int | None = None,
        step_us: int | None = None,
        options: StreamOptions | None = None,
    ) -> None:
        self._stream_options: StreamOptions = options or {}
        source_options(self._stream_options)
        self.plan = plan
        self.metadata: ModelMetadata | None = plan.metadata
        self._runner = runner
        self.plastic = runner if isinstance(runner, PlasticRunner) else None
        self.readout: Readout = plan.readout
        self.class_names = plan.class_names
        self._binning = plan.binning(steps=steps, step_us=step_us)
        trained = self._binning.steps if self._binning else self.metadata and self.metadata.steps
        self._steps = steps or trained or 1
        self._lane = Lane(runner, self.readout, self._steps, self.class_names)
        self._next_step = 0
        self._lane.begin(AnswerRule())

    @property
    def takes_images(self) -> bool:
        """The model was trained on images, which are the same current in every step."""
        return self.metadata is not None and self.metadata.input_kind == "image"

    @property
    def binning(self) -> Binning:
        """How events become time steps.

        Raises:
            UsageError: an image model, or a foreign file and no `steps` and `step_us` at `load`.
        """
        if self._binning is not None:
            return self._binning
        if self.metadata is not None and self.takes_images:
            raise UsageError(
                "model takes frames, not events",
                got=f"an image model ({self.metadata.dataset})",
                expected="images: a picture, an array, an IDX file",
                where=self.plan.source,
            )
        if len(self.plan.input_shape) != 3 or self.plan.input_shape[0] != 2:
            raise UsageError(
                "model takes frames, not events",
                got=f"input {self.plan.input_shape}",
                expected="[2, rows, columns]: a plane of pixels for each polarity",
                where=self.plan.source,
            )
        raise UsageError(
            "model has no mpsl metadata, so its time steps are not known",
            expected="--steps T and --step-us N",
            where=self.plan.source,
        )

    @property
    def synops(self) -> int:
        """Synaptic operations since the last reset: spikes times their outgoing weights."""
        return int(self._runner.synops)

    def reset(self) -> None:
        """Puts the network at rest; the next `step` is step 0."""
        self._lane.begin(AnswerRule())
        self._next_step = 0

    def reset_banks(self) -> None:
        """Puts the network at rest, with the weights that were exported, bit for bit.

        Raises:
            UsageError: the network does not learn.
        """
        if self.plastic is None:
            raise UsageError("network does not learn", expected="load(…, plastic=\"all\")",
                             where=self.plan.source)  # fmt: skip
        self.plastic.reset_banks()
        self.reset()

    def step(self, events: Events) -> Step:
        """Advances the network by one time step.

        Args:
            events: those of this step; their times within it do not matter. May be empty.

        Returns:
            the decision; its scores are those of the last T steps since `reset`.

        Raises:
            DataError: an event outside the sensor. UsageError: the model takes frames.
        """
        binning = replace(self.binning, steps=1, origin="zero")
        start = time.perf_counter_ns()
        sparse = sparse_steps(replace(events, t=np.zeros_like(events.t)), binning)
        item = StepInput(
            step=self._next_step,
            t_us=self._next_step * binning.step_us,
            address=sparse.address,
            value=sparse.value,
            events=len(events),
            dropped=0,
            binning_us=(time.perf_counter_ns() - start) / 1000,
        )
        step = self._lane.advance(item, "events")
        self._next_step += 1
        return step

    def run(self, frames: NDArray[np.float32]) -> Result:
        """Runs one sample from rest.

        Args:
            frames: float32 [T, *input shape], for example from `binning.frames` or
                `datasets.Split.input`.

        Raises:
            UsageError: another shape, no step, or values that are not finite.
            DataError: values that the proof of an int8 model does not cover.
        """
        frames = checked_frames(frames, self.plan, least=1)
        self.reset()
        spikes = np.asarray(self._runner.run(frames), np.float32).reshape(len(frames), -1)
        membrane = np.asarray(self._runner.membrane, np.float32).reshape(-1)
        scores = read_out.scores(self.readout, spikes, membrane)
        return Result(
            spikes=spikes,
            scores=scores,
            label=int(read_out.label(scores)),
            confidence=read_out.confidence(self.readout, scores),
            synops=self.synops,
        )

    def feed(
        self,
        sources: Sequence[Source | LiveSource],
        *,
        say: Callable[[str], None] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Feed:
        """The recordings of some sources, as this model is to see them.

        Args:
            sources: paths, `Events` and iterables of them, or one live source.
            say: called with a line for people; by default, what is wrong with files is a warning.
            options: see `SourceOptions`; those given to `load` hold where none is given here.

        Raises:
            UsageError, DataError: see `Feed`.
        """
        metadata = self.metadata
        is_int8 = metadata is not None and metadata.weights == "int8"
        return Feed(
            sources,
            self.binning,
            self.class_names,
            source_options({**self._stream_options, **options}),
            input_max=metadata.input_max or None if metadata is not None and is_int8 else None,
            say=say,
        )

    def stream(
        self,
        source: AnySource,
        policy: Policy | str = "auto",
        *,
        every: int | None = None,
        onset: Onset | None = None,
        rule: AnswerRule | None = None,
        feed: Feed | None = None,
        on_step: OnStep | None = None,
        on_prediction: OnPrediction | None = None,
        **options: Unpack[StreamOptions],
    ) -> Stream | ImageStream:
        """Runs recordings, a live source or images step by step.

            for item in model.stream("udp://localhost:3333", policy="continuous"):
                if isinstance(item, Step):
                    print(item.label, item.confidence)

            model.stream("camera://", fit=True, on_prediction=print).run()

        Args:
            source: a path (file, folder, zip), `-` or a live address, `Events`, or an iterable of
                `Events` that arrive one after another. For a model of images: a path or an array,
                see `mpsl_runtime.data.images`, or an iterable of `Image`.
            policy: `onset`, `tumbling`, `continuous` or `sliding` decides where windows begin in a
                stream; `auto` is `onset`. A recording that is one sample is one window. See
                `mpsl_runtime.run.policies`.
            every, onset, rule: settings of the policy, where it is a name.
            feed: where the recordings of `source` come from, for the totals; known for all else.
            on_step, on_prediction: called with each of them, before it is yielded.
            options: see `mpsl_runtime.live.options.SourceOptions`; those given to `load` hold where
                none is given here.

        Returns:
            an iterator over `Step` and `Prediction`; its `summary` has the totals.

        Raises:
            UsageError: the policy does not exist or does not fit, the model takes frames, or an
                option cannot be.
            DataError: the source is absent; while iterating: damaged or from another sensor.
        """
        settings = {"every": every, "onset": onset, "rule": rule}
        chosen = Policy.of(policy, **{k: v for k, v in settings.items() if v is not None})
        if self.takes_images:
            if options:
                raise UsageError("option means nothing for images", got=", ".join(options))
            return self._image_stream(source, chosen, on_step, on_prediction)
        found: Iterable[Recording]
        if isinstance(source, Feed):
            found = feed = source
        elif isinstance(source, str | Path | Events | LiveSource):
            found = feed = self.feed([source], **options)
        else:
            found = self._recordings_of(source, options)
        self.reset()
        return Stream(
            self._runner,
            self.binning,
            self.readout,
            self.class_names,
            found,
            chosen,
            feed=feed,
            on_step=on_step,
            on_prediction=on_prediction,
        )

    def _image_stream(
        self,
        source: Any,
        policy: Policy,
        on_step: OnStep | None,
        on_prediction: OnPrediction | None,
    ) -> ImageStream:
        if self.metadata is None or isinstance(source, Events):
            _ = self.binning  # says what the model takes
            raise RuntimeError("a model of images has no binning")
        if isinstance(source, str | Path | np.ndarray):
            source = images_of(source, self.plan)
        self.reset()
        lane = Lane(self._runner, self.readout, self._steps, self.class_names)
        return ImageStream(
            lane,
            self._steps,
            self.metadata,
            source,
            policy,
            on_step=on_step,
            on_prediction=on_prediction,
        )

    async def astream(
        self,
        source: AnySource,
        policy: Policy | str = "auto",
        *,
        every: int | None = None,
        onset: Onset | None = None,
        rule: AnswerRule | None = None,
        **options: Unpack[StreamOptions],
    ) -> AsyncGenerator[Step | Prediction, None]:
        """The same, for asyncio: the network runs in a thread, one step at a time.

            async for item in model.astream("udp://localhost:3333"):
                ...

        Leaving the loop ends a live source and waits for the step that is being computed. The
        arguments are those of `stream`.
        """
        stream = self.stream(source, policy, every=every, onset=onset, rule=rule, **options)
        pending: asyncio.Future[Step | Prediction | None] | None = None
        try:
            while True:
                pending = asyncio.ensure_future(asyncio.to_thread(next, stream, None))
                item = await asyncio.shield(pending)
                if item is None:
                    return
                yield item
        finally:
            stream.stop()
            if pending is not None and not pending.done():
                await asyncio.wait([pending])
            stream.close()

    def _recordings_of(self, items: Iterable[Any], options: StreamOptions) -> Iterator[Recording]:
        """Recordings as they are; Events become one stream that arrives in pieces."""
        iterator = iter(items)
        for first in iterator:
            if isinstance(first, Recording):
                yield first
            else:
                yield from self.feed([_chain(first, iterator)], **options)


def _chain(first: Events, rest: Iterator[Events]) -> Iterator[Events]:
    yield first
    yield from rest
