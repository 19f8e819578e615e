"""Masks of dropout: drawn once for the whole batch, of which each process keeps its rows."""

from __future__ import annotations

import pytest
import torch

from mpsl_train.network import dropout
from mpsl_train.network.dropout import draw_masks
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.notation import parse

TEXT = "DP0.5-4C3-AP2-DP0.3-5C3S2-AP2-DP0.2-7FC-3"
SPECS = parse(TEXT, (2, 9, 9))


def test_masks_have_the_shapes_of_what_enters_and_keep_the_mean() -> None:
    masks = draw_masks(SPECS, torch.zeros(2000, 2, 9, 9, dtype=torch.float64))
    shapes = [None if mask is None else tuple(mask.shape[1:]) for mask in masks]
    assert shapes == [(2, 9, 9), (4, 4, 4), (5,), None]
    for mask, keep in zip(masks, (0.5, 0.7, 0.8), strict=False):
        assert mask is not None
        assert {round(value, 9) for value in mask.unique().tolist()} == {0.0, round(1 / keep, 9)}
        assert float(mask.mean()) == pytest.approx(1, abs=0.05)


def test_processes_keep_the_rows_of_their_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    whole = draw_masks(SPECS, torch.zeros(5, 6, 2, 9, 9))
    parts = []
    for rank in range(3):
        monkeypatch.setattr(dropout, "place", lambda rank=rank: (rank, 3))
        torch.manual_seed(4)
        parts.append(draw_masks(SPECS, torch.zeros(5, 2, 2, 9, 9)))
    for index, mask in enumerate(whole):
        rows = [part[index] for part in parts]
        if mask is None:
            assert rows == [None] * 3
        else:
            assert torch.equal(torch.cat([row for row in rows if row is not None]), mask)


def test_nothing_is_dropped_at_evaluation_and_nothing_drawn_without_dropout() -> None:
    network = build_network(SPECS, ["stbp"], NeuronSettings(), RuleSettings()).eval()
    plain = build_network(parse("4C3-3", (2, 9, 9)), ["stbp"], NeuronSettings(), RuleSettings())
    torch.manual_seed(4)
    before = torch.get_rng_state()
    network(torch.ones(2, 2, 9, 9), 3)
    plain.train()(torch.ones(2, 2, 9, 9), 3)
    assert torch.equal(torch.get_rng_state(), before)
    network.train()(torch.ones(2, 2, 9, 9), 3)
    assert not torch.equal(torch.get_rng_state(), before)
