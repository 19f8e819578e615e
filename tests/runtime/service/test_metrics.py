"""`/metrics`: valid by the format's grammar, and every figure is that of the run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mpsl_runtime import load
from mpsl_runtime.events.binning import frames as frames_of
from mpsl_runtime.events.events import Events
from mpsl_runtime.live.source import open_source
from mpsl_runtime.run.model import Model
from mpsl_runtime.run.stream import Stream
from mpsl_runtime.service.exposition import Family, exposition
from mpsl_runtime.service.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


def parsed(text: bytes) -> Samples:
    """The samples of an exposition, by name and labels; the grammar is held to on the way."""
    found: Samples = {}
    kinds: dict[str, str] = {}
    family = ""
    lines = text.decode("utf-8")
    assert lines.endswith("\n")
    for line in lines[:-1].split("\n"):
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert re.fullmatch(_NAME, family)
            assert family not in kinds, "a family in two pieces"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            assert kind in ("counter", "gauge", "histogram")
            assert name.endswith("_total") == (kind == "counter")
            kinds[name] = kind
        else:
            match = _SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match[1] in [family + end for end in _SUFFIXES.get(kinds[family], ("",))]
            labels = tuple((key, value) for key, value in re.findall(_LABEL, match[2] or ""))
            assert len({key for key, _ in labels}) == len(labels)
            assert (match[1], labels) not in found
            found[match[1], labels] = float(match[7])
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    """The one sample with these labels among its own."""
    chosen = [
        number
        for (other, pairs), number in samples.items()
        if other == name and labels.items() <= dict(pairs).items()
    ]
    assert len(chosen) == 1, (name, labels)
    return chosen[0]


def ran(model_file: Path, events: Events, policy: str = "tumbling") -> tuple[Model, Stream]:
    model = load(model_file)
    stream = model.stream([events], policy)
    assert isinstance(stream, Stream)
    stream.run()
    return model, stream


def test_every_figure_is_that_of_the_run(
    model_file: Path, make_events: Callable[..., Events]
) -> None:
    model, stream = ran(model_file, make_events(1, 400, 20_000))
    metrics = Metrics()
    metrics.watch(model, stream)
    samples = parsed(metrics.text())
    summary = stream.summary
    assert summary.events == 400
    assert value(samples, "mpsl_events_processed_total") == 400
    assert value(samples, "mpsl_steps_total") == summary.steps >= 20
    assert value(samples, "mpsl_stream_seconds_total") == pytest.approx(summary.steps / 1000)
    assert value(samples, "mpsl_synaptic_operations_total") == summary.synops > 0
    answers = [value(samples, "mpsl_answers_total", **{"class": name}) for name in "012"]
    answers.append(value(samples, "mpsl_answers_total", **{"class": "none"}))
    assert sum(answers) == summary.samples >= 4
    assert answers[-1] == summary.none
    assert value(samples, "mpsl_layer_neurons", layer="n03_lif") == 3
    spikes = value(samples, "mpsl_layer_spikes_total", layer="n03_lif")
    ratio = value(samples, "mpsl_layer_firing_ratio", layer="n03_lif")
    assert ratio == pytest.approx(spikes / 3 / summary.steps)
    assert 0 < ratio < 1


def test_the_histogram_rises_to_the_number_of_steps(
    model_file: Path, make_events: Callable[..., Events]
) -> None:
    model, stream = ran(model_file, make_events(1, 400, 50_000))
    metrics = Metrics()
    metrics.watch(model, stream)
    samples = parsed(metrics.text())
    buckets = [
        (dict(labels)["le"], number)
        for (name, labels), number in samples.items()
        if name == "mpsl_step_duration_seconds_bucket"
    ]
    bounds = [float(bound.replace("+Inf", "inf")) for bound, _ in buckets]
    assert bounds == sorted(bounds)
    assert bounds[-1] == math.inf
    assert bounds[:3] == [1e-05, 2.5e-05, 5e-05]
    assert bounds[-2] == 1
    counts = [number for _, number in buckets]
    assert counts == sorted(counts)
    steps = value(samples, "mpsl_step_duration_seconds_count")
    assert counts[-1] == steps == stream.summary.steps
    total = value(samples, "mpsl_step_duration_seconds_sum")
    assert total == pytest.approx(stream.totals.latency.sum_us / 1e6)


def test_what_is_lost_is_told_by_its_cause(model_file: Path) -> None:
    model = load(model_file)
    with open_source("udp://127.0.0.1:0") as source:
        stream = model.stream(source)
        source.lose("lost on the way", 7)
        source.ignore('a "reason" with \\ in it', 2)
        source.resynchronise("the sender's clock has jumped")
        metrics = Metrics()
        metrics.watch(model, stream)
        samples = parsed(metrics.text())
    assert value(samples, "mpsl_events_dropped_total", cause="lost on the way") == 7
    assert value(samples, "mpsl_messages_ignored_total") == 2
    assert value(samples, "mpsl_resynchronisations_total") == 1
    assert value(samples, "mpsl_queue_events") == 0
    assert value(samples, "mpsl_queue_capacity_events") == 1_000_000


def test_two_models_of_one_name_are_told_apart(model_file: Path) -> None:
    metrics = Metrics()
    for _ in range(2):
        model = load(model_file)
        metrics.watch(model, model.stream([]), "digits")
    samples = parsed(metrics.text())
    assert value(samples, "mpsl_steps_total", model="digits") == 0
    assert value(samples, "mpsl_steps_total", model="digits (2)") == 0


def test_names_of_strangers_break_no_line() -> None:
    family = Family("mpsl_answers_total", "counter", 'Lines\nand \\ and "quotes".')
    family.add(1, model='a\nb"c\\d\ud800')
    family.add(math.inf, model="é")
    family.add(0.1 + 0.2, model="∑")
    assert exposition([family, Family("mpsl_empty", "gauge", "Nothing.")]).decode("utf-8") == (
        '# HELP mpsl_answers_total Lines\\nand \\\\ and "quotes".\n'
        "# TYPE mpsl_answers_total counter\n"
        'mpsl_answers_total{model="a\\nb\\"c\\\\d\\\\ud800"} 1\n'
        'mpsl_answers_total{model="é"} +Inf\n'
        'mpsl_answers_total{model="∑"} 0.30000000000000004\n'
    )


def test_the_spikes_of_a_step_are_those_that_the_engine_records(
    model_file: Path, make_events: Callable[..., Events]
) -> None:
    model = load(model_file)
    native, reference = (load(model_file, engine=name) for name in ("native", "reference"))
    steps = {
        name: [item.fired for item in each.stream(make_events(3)) if hasattr(item, "fired")]
        for name, each in (("native", native), ("reference", reference))
    }
    frames = frames_of(make_events(3), model.binning)
    recorded = [np.count_nonzero(model.run(frames).spikes[t]) for t in range(5)]
    assert steps["native"] == steps["reference"] == [(count,) for count in recorded]
    assert sum(recorded) > 0
