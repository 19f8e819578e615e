"""Where potentials are the scores, a tie in a hidden layer changes a label and no output spike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.evaluation import read_evaluation
from mpsl_export.export import export
from mpsl_export.verify.verify import verify
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.run.reference import Reference

Copy = Callable[[Any], Any]


def _with_hidden_tie(run: Any) -> tuple[int, int]:
    """Outputs that never fire, a tie of the first layer whose spike is flipped in the record, and
    a bias with which that changes the label; (sample, neuron)."""
    first, last = run.description["layers"]
    last["threshold"] = 1e3
    plan = plan_of(graph_of(read_checkpoint(run.write(run.path).path)), source="test")
    run.record()
    evaluation = read_evaluation(run.path)
    sample = next(i for i, name in enumerate(evaluation.ids) if name in evaluation.probes)
    frames = np.ascontiguousarray(run.frames()[:, sample])
    potentials = Reference(plan).record_membrane(frames)[0][0].reshape(-1)
    shown = sum(last["decay"] ** back for back in range(len(frames)))  # of a bias in the last U
    for neuron in np.flatnonzero(potentials > 0.2):
        first["threshold"] = float(potentials[neuron]) * (1 + 1e-6)
        run.write(run.path)
        run.record()
        before = read_evaluation(run.path).scores[sample].astype(float)
        run.record([(sample, 0, 0, int(neuron))])
        moved = read_evaluation(run.path).scores[sample] - before
        best = int(before.argmax())
        other = int((moved - moved[best]).argmax())
        gain = moved[other] - moved[best]
        if gain > 1e-2:
            bias = run.tensors["L01.bias"]
            bias[other] += (before[best] - before[other] - gain / 2) / shown
            run.write(run.path)
            run.record([(sample, 0, 0, int(neuron))])
            assert read_evaluation(run.path).predictions[sample] == other
            export(run.path, "nir")
            return sample, int(neuron)
    raise AssertionError("no membrane potential will do")


@pytest.fixture
def tied(image_run: Any, copied: Copy) -> tuple[Any, int, int]:
    run = copied(image_run)
    return run, *_with_hidden_tie(run)


def test_a_label_that_a_hidden_tie_changes_is_explained(tied: tuple[Any, int, int]) -> None:
    run, sample, neuron = tied
    (model,) = verify(run.path, data=run.data, backends=["reference", "torch"])["models"]
    assert model["passed"], model["reasons"]
    assert set(model["spike_mismatch"].values()) == {0.0}
    assert all(agreement < 1 for agreement in model["argmax_agreement"].values())
    assert model["explained_ties"] == 2  # one sample, two programs
    for tie in model["ties"]:
        assert tie["tie"]
        assert (tie["backend"], tie["step"], tie["neuron"]) == ("trained", 0, neuron)
        assert tie["sample"] == read_evaluation(run.path).ids[sample]


def test_scores_that_the_tie_does_not_give_fail(tied: tuple[Any, int, int]) -> None:
    run, sample, _ = tied
    scores = read_evaluation(run.path).scores.copy()
    scores[sample] += 1e-3  # of all classes: the label stays
    run.forge(scores=scores)
    (model,) = verify(run.path, data=run.data, backends=["reference"])["models"]
    assert not model["passed"]
    assert any("differs without a differing spike" in reason for reason in model["reasons"])


def test_a_label_without_any_tie_fails(image_run: Any, copied: Copy) -> None:
    run = copied(image_run)
    export(run.path, "nir")
    evaluation = read_evaluation(run.path)
    scores, predictions = evaluation.scores.copy(), evaluation.predictions.copy()
    other = int(scores[3].argsort()[-2])
    scores[3, other], predictions[3] = scores[3].max() + 0.1, other
    run.forge(scores=scores, predictions=predictions)
    (model,) = verify(run.path, data=run.data, backends=["reference"])["models"]
    assert not model["passed"]
    assert any("differs without a differing spike" in reason for reason in model["reasons"])
