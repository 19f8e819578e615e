"""The one collector of a running program's figures: `/metrics` of `mpsl run` and of `mpsl view`.

    metrics = Metrics()
    metrics.watch(model, stream)  # of each model that runs
    metrics.text()  # bytes for Prometheus, from any thread

It counts nothing itself: every figure is read from where it is counted (`run.totals`, `live.feed`).
Names and units follow Prometheus' conventions: seconds, totals, ratios between 0 and 1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mpsl_runtime import __version__
from mpsl_runtime.live.feed import Feed
from mpsl_runtime.run.answers import NONE
from mpsl_runtime.run.loop import Loop
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.totals import Totals
from mpsl_runtime.service.exposition import Family, Kind, exposition
from mpsl_runtime.service.process import process_families

__all__ = ["Metrics"]

_BOUNDS_US = tuple(
    part * 10.0**decade for decade in range(1, 7) for part in (1, 2.5, 5) if decade < 6 or part == 1
)
"""Of the histogram's buckets: 10 µs … 1 s."""


@dataclass(frozen=True)
class _Watched:
    word: str
    name: str
    model: Model
    stream: Loop


class Metrics:
    """Figures of the streams that it was given; see the module."""

    def __init__(self) -> None:
        self._watched: list[_Watched] = []
        self._more: list[Callable[[], Iterable[Family]]] = []

    def watch(self, model: Model, stream: Loop, name: str | None = None) -> None:
        """From now on the figures of a stream are among them.

        Args:
            model: that runs it.
            name: the value of the label `model`; by default that of the file without its suffix,
                or of its folder where all files are called `model.nir`.
        """
        word = name or _name_of(model)
        same = sum(watched.word == word for watched in self._watched)
        name = f"{word} ({same + 1})" if same else word  # two series of one name are none
        self._watched.append(_Watched(word, name, model, stream))

    def include(self, families: Callable[[], Iterable[Family]]) -> None:
        """From now on these are among them; called in any thread."""
        self._more.append(families)

    def count_on(self, before: Loop, stream: Loop) -> None:
        """A stream goes on where one that was watched has ended."""
        self._watched = [
            replace(watched, stream=stream) if watched.stream is before else watched
            for watched in self._watched
        ]

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        families = _families()
        for watched in self._watched:
            _add_stream(families, watched)
            _add_layers(families, watched)
            if watched.stream.feed is not None:
                _add_feed(families, watched.name, watched.stream.feed)
        build = Family("mpsl_build_info", "gauge", "Version of mpsl; always 1.")
        build.add(1, version=__version__)
        more = [family for families_of in self._more for family in families_of()]
        return exposition([build, *families.values(), *more, *process_families()])


def _name_of(model: Model) -> str:
    path = Path(model.plan.source)
    return path.parent.name if path.stem == "model" and path.parent.name else path.stem


_HELP = {
    "mpsl_steps_total": "Time steps that the network has run.",
    "mpsl_stream_seconds_total": "Time of the source in those steps.",
    "mpsl_stream_time_seconds": "Time of the source at the last step's begin.",
    "mpsl_last_step_age_seconds": "Time since the last step was run.",
    "mpsl_events_processed_total": "Events that the network has seen.",
    "mpsl_events_idle_total": "Events that no window needed.",
    "mpsl_events_truncated_total": "Events after the last step of a sample.",
    "mpsl_events_dropped_total": "Events that were lost, by cause.",
    "mpsl_events_filtered_total": "Events that a filter or the view took.",
    "mpsl_messages_ignored_total": "Messages of no use, by reason.",
    "mpsl_resynchronisations_total": "How often the source began anew.",
    "mpsl_queue_events": "Events that wait for the network.",
    "mpsl_queue_capacity_events": "Events that may wait.",
    "mpsl_answers_total": "Windows that were answered, by class.",
    "mpsl_synaptic_operations_total": "Spikes times their outgoing weights.",
    "mpsl_step_duration_seconds": "Binning, network and read-out of a step.",
    "mpsl_layer_neurons": "Neurons of a spiking layer.",
    "mpsl_layer_spikes_total": "Spikes of a layer.",
    "mpsl_layer_firing_ratio": "Share of a layer's neurons that fire in a step, mean of the last "
    "hundred steps.",
}


def _families() -> dict[str, Family]:
    """The families without samples, by their names."""
    found = {}
    for name, text in _HELP.items():
        kind: Kind = "counter" if name.endswith("_total") else "gauge"
        found[name] = Family(name, "histogram" if "duration" in name else kind, text)
    return found


def _add_stream(families: dict[str, Family], watched: _Watched) -> None:
    totals: Totals = watched.stream.totals
    name, step_us = watched.name, watched.stream.step_us

    def add(metric: str, value: float) -> None:
        families[metric].add(value, model=name)

    add("mpsl_steps_total", totals.steps)
    if step_us is not None:
        add("mpsl_stream_seconds_total", totals.steps * step_us / 1e6)
        if totals.last_us is not None:
            add("mpsl_stream_time_seconds", totals.last_us / 1e6)
    if totals.last_s is not None:
        add("mpsl_last_step_age_seconds", max(0.0, time.monotonic() - totals.last_s))
    add("mpsl_events_processed_total", totals.events)
    add("mpsl_events_idle_total", totals.idle + totals.onsets.idle)
    add("mpsl_events_truncated_total", totals.truncated)
    add("mpsl_synaptic_operations_total", totals.synops)
    answers = dict(totals.answers)
    for word in dict.fromkeys((*watched.model.class_names, NONE, *answers)):
        families["mpsl_answers_total"].add(answers.get(word, 0), model=name, **{"class": word})
    latency = totals.latency
    families["mpsl_step_duration_seconds"].add_histogram(
        [(bound / 1e6, latency.below(bound)) for bound in _BOUNDS_US],
        latency.count,
        latency.sum_us / 1e6,
        model=name,
    )


def _add_layers(families: dict[str, Family], watched: _Watched) -> None:
    totals, layers = watched.stream.totals, watched.model.plan.spiking
    neurons = [math.prod(layer.output_shape) for layer in layers]
    fired = totals.fired or (0,) * len(layers)
    for layer, size, spikes, ratio in zip(
        layers, neurons, fired, totals.firing(neurons), strict=True
    ):
        labels = {"model": watched.name, "layer": layer.name}
        families["mpsl_layer_neurons"].add(size, **labels)
        families["mpsl_layer_spikes_total"].add(spikes, **labels)
        families["mpsl_layer_firing_ratio"].add(ratio, **labels)


def _add_feed(families: dict[str, Family], name: str, feed: Feed) -> None:
    for metric, label, counts in (
        ("mpsl_events_dropped_total", "cause", feed.losses),
        ("mpsl_events_filtered_total", "by", dict(feed.taken)),
        ("mpsl_messages_ignored_total", "reason", feed.ignored),
    ):
        for word, number in counts.items():
            families[metric].add(number, model=name, **{label: word})
    if feed.source is None:
        return
    families["mpsl_resynchronisations_total"].add(feed.resynchronised, model=name)
    waiting = feed.source.waiting
    if waiting is not None:
        families["mpsl_queue_events"].add(waiting, model=name)
        families["mpsl_queue_capacity_events"].add(feed.source.options.largest_queue, model=name)
