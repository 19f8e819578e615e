"""A tie is explained by its cause: flipped in the reference, it gives all that the program gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.export import export
from mpsl_export.verify import ties
from mpsl_export.verify.backends import LayerActivity
from mpsl_export.verify.ties import Referee
from mpsl_export.verify.verify import verify
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.run.reference import Reference

Copy = Callable[[Any], Any]
Place = tuple[int, int, int, int]


def _plan(run: Any) -> Any:
    return plan_of(graph_of(read_checkpoint(run.path)), source="test")


def _probed(run: Any, sample: int) -> bool:
    evaluation = read_evaluation(run.path)
    return evaluation.ids[sample] in evaluation.probes


def _with_tie(run: Any, layer: int, *, probed: bool) -> Place:
    """Moves the threshold of a layer onto a membrane potential of its first step, which does not
    depend on it, and writes the record with that spike flipped; the place, as (sample, layer, step,
    neuron). What follows of the flip is in the record too."""
    reference = Reference(_plan(run))
    frames = run.frames()
    for sample in range(frames.shape[1]):
        if _probed(run, sample) != probed:
            continue
        membranes = reference.record_membrane(np.ascontiguousarray(frames[:, sample]))[layer][0]
        for neuron in np.flatnonzero(membranes.reshape(-1) > 0.2):
            threshold = float(membranes.reshape(-1)[neuron]) * (1 + 1e-6)
            run.description["layers"][layer]["threshold"] = threshold
            run.write(run.path)
            run.record()
            before = read_evaluation(run.path)
            place = sample, layer, 0, int(neuron)
            run.record([place])
            after = read_evaluation(run.path)
            changed = (before.spikes != after.spikes).any(axis=(1, 2))
            same_label = before.predictions[sample] == after.predictions[sample]
            # Visible in the output, in more than the flipped spike itself.
            if (before.spikes != after.spikes).sum() > 1 and changed.sum() == 1 and same_label:
                export(run.path, "nir")
                return place
    raise AssertionError("no membrane potential will do")


@pytest.mark.parametrize("probed", [True, False])
@pytest.mark.parametrize("layer", [2, 3])
def test_a_tie_and_all_that_follows_of_it_is_explained(
    event_run: Any, copied: Copy, layer: int, probed: bool
) -> None:
    """Of a probed sample the record has every layer; of another its output alone."""
    run = copied(event_run)
    sample, _, step, neuron = _with_tie(run, layer, probed=probed)
    report = verify(run.path, data=run.data, backends=["reference", "torch"])
    assert report["passed"], report
    (model,) = report["models"]
    assert model["explained_ties"] == 2  # one sample, two programs
    assert all(mismatch > 0 for mismatch in model["spike_mismatch"].values())
    for tie in model["ties"]:
        assert tie["tie"]
        assert tie["backend"] == "trained"
        assert tie["sample"] == read_evaluation(run.path).ids[sample]
        assert (tie["layer"], tie["step"]) == (_plan(run).spiking[layer].name, step)
        assert abs(tie["membrane"] - tie["threshold"]) <= 1e-5
    assert {tie["neuron"] for tie in model["ties"]} == {neuron}
    assert model["first_difference"] == model["ties"][0]


def test_a_tie_beside_a_difference_that_it_does_not_cause_fails(
    event_run: Any, copied: Copy
) -> None:
    run = copied(event_run)
    sample, _, _, neuron = _with_tie(run, 3, probed=False)
    # The tie is there and not flipped; another output spike is.
    run.record()
    other = (neuron + 1) % 8
    run.forge_spikes((sample, 2, other))
    report = verify(run.path, data=run.data, backends=["reference"])
    (model,) = report["models"]
    assert not report["passed"]
    first = model["first_difference"]
    assert not first["tie"]
    assert (first["layer"], first["step"], first["neuron"]) == ("n11_lif", 2, other)
    assert "no tie before it, flipped in the reference, gives this output" in first["why"]


def test_a_tie_whose_consequences_are_missing_fails(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    sample, _, step, neuron = _with_tie(run, 3, probed=False)
    run.record()
    # The spike is flipped, and the neuron's own next steps are as if it had not been.
    run.forge_spikes((sample, step, neuron))
    (model,) = verify(run.path, data=run.data, backends=["reference"])["models"]
    assert not model["passed"]


@pytest.mark.parametrize("probed", [True, False])
def test_a_spike_that_is_no_tie_fails(event_run: Any, copied: Copy, probed: bool) -> None:
    run = copied(event_run)
    export(run.path, "nir")
    sample = next(i for i in range(24) if _probed(run, i) == probed)
    run.forge_spikes((sample, 1, 2))
    (model,) = verify(run.path, data=run.data, backends=["torch"])["models"]
    assert not model["passed"]
    first = model["first_difference"]
    assert (first["layer"], first["step"], first["neuron"]) == ("n11_lif", 1, 2)
    assert first["sample"] == read_evaluation(run.path).ids[sample]


def test_differences_in_many_samples_are_too_many(event_run: Any, copied: Copy) -> None:
    run = copied(event_run)
    place = _with_tie(run, 3, probed=False)
    other = next(i for i in range(24) if i != place[0] and not _probed(run, i))
    run.forge_spikes((other, 2, 0))
    (model,) = verify(run.path, data=run.data, backends=["reference"])["models"]
    assert not model["passed"]
    assert any("of the output spikes differ" in reason for reason in model["reasons"])


def _activity(run: Any, sample: int) -> tuple[np.ndarray, list[LayerActivity]]:
    plan = _plan(run)
    frames = np.ascontiguousarray(run.frames()[:, sample])
    spikes = Reference(plan).record(frames)
    return frames, [
        LayerActivity(neuron.name, values.reshape(len(values), -1).copy())
        for neuron, values in zip(plan.spiking, spikes, strict=True)
    ]


def test_a_flip_in_a_hidden_layer_without_its_consequences_is_named(event_run: Any) -> None:
    referee = Referee(_plan(event_run))
    frames, activity = _activity(event_run, 5)
    assert referee.explain_activity("s", frames, "other", activity).wrong is None
    activity[1].spikes[2, 40] ^= True
    wrong = referee.explain_activity("s", frames, "other", activity).wrong
    assert wrong is not None
    assert (wrong.layer, wrong.step, wrong.neuron) == ("n05_lif", 2, 40)


def test_the_first_difference_goes_by_step_and_then_by_layer(event_run: Any) -> None:
    referee = Referee(_plan(event_run))
    frames, activity = _activity(event_run, 5)
    activity[2].spikes[3, 1] ^= True
    activity[3].spikes[2, [0, 2]] ^= True
    first = referee.explain_activity("s", frames, "other", activity).wrong
    assert first is not None
    assert (first.layer, first.step, first.neuron) == ("n11_lif", 2, 0)
    activity[0].spikes[2, 7] ^= True
    first = referee.explain_activity("s", frames, "other", activity).wrong
    assert first is not None
    assert (first.layer, first.step, first.neuron) == ("n02_lif", 2, 7)


def test_more_ties_than_rounding_makes_explain_nothing(
    event_run: Any, copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copied(event_run)
    _with_tie(run, 3, probed=False)
    monkeypatch.setattr(ties, "MOST_TIES", 0)
    (model,) = verify(run.path, data=run.data, backends=["engine"])["models"]
    # The record's output alone is searched; a program that shows its layers is counted.
    assert model["passed"]
    run = copied(event_run)
    _with_tie(run, 3, probed=True)
    (model,) = verify(run.path, data=run.data, backends=["engine"])["models"]
    assert not model["passed"]
    assert "would be neuron 1 with a tie in one sample" in model["first_difference"]["why"]
