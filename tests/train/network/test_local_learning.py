"""SBP without back-propagation: against its equations written with loops, and in a run."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mpsl_export.checkpoint import read_checkpoint
from mpsl_runtime.errors import RecipeError
from mpsl_train.data.frames import input_shape, metadata_of
from mpsl_train.network.local_learning import local_loss
from mpsl_train.network.plasticity.sbp_local import local_changes, nudged_states
from mpsl_train.recipe import find_recipe, load
from mpsl_train.training.build import build
from mpsl_train.training.training import train

Table = list[list[float]]


def literal_nudged(free: list[Table], weights: list[Table], labels: list[int]) -> list[Table]:
    """Five relaxations, one neuron of one sample at a time."""
    states = [[list(row) for row in layer] for layer in free]
    last = len(free) - 1
    for b, label in enumerate(labels):
        for _ in range(5):
            for i in range(1, last + 1):
                new = []
                for o, old in enumerate(states[i][b]):
                    slope = 0.0 < free[i][b][o] < 1.0 or i == last
                    d = old - free[i][b][o]
                    for p, below in enumerate(states[i - 1][b]):
                        d -= (below - free[i - 1][b][p]) * weights[i - 1][o][p]
                    if i == last:
                        d += 0.5 * (old - float(o == label))
                    else:
                        for q, upper in enumerate(states[i + 1][b]):
                            d -= (upper - free[i + 1][b][q]) * weights[i][q][o]
                    new.append(min(1.0, max(0.0, old - 0.5 * d * slope)))
                states[i][b] = new
    return states


def literal_changes(
    free: list[Table], nudged: list[Table]
) -> tuple[list[Table], list[list[float]]]:
    """One synapse at a time, the last layer first."""
    weights, biases = [], []
    above: tuple[Table, Table] | None = None
    for i in range(len(free) - 1, 0, -1):
        batch, outs, ins = len(free[0]), len(free[i][0]), len(free[i - 1][0])
        delta = [
            [(nudged[i][b][o] - free[i][b][o]) / 0.5 for o in range(outs)] for b in range(batch)
        ]
        c = [[0.0] * ins for _ in range(outs)]
        for b, o, p in product(range(batch), range(outs), range(ins)):
            c[o][p] += delta[b][o] * free[i - 1][b][p] / batch
        gain = [[max(v, 0.0) for v in row] for row in c]
        loss = [[min(v, 0.0) for v in row] for row in c]

        def to_input(table: Table, p: int) -> float:
            whole = sum(abs(v) for row in table for v in row)
            return 1 + 0.2 * sum(abs(row[p]) for row in table) / whole

        total: Table = [[0.0] * ins for _ in range(outs)]
        pres: tuple[Table, Table] = ([], [])
        for o in range(outs):
            pres[0].append([gain[o][p] * to_input(gain, p) for p in range(ins)])
            pres[1].append([loss[o][p] * to_input(loss, p) for p in range(ins)])
            share = sum(-v for v in loss[o]) / sum(-v for row in loss for v in row)
            for p in range(ins):
                lateral = loss[o][p] * (1 + 0.5 * 0.2 * share)
                if above is None:
                    total[o][p] = pres[0][o][p] + (pres[1][o][p] + lateral) / 2
                    continue
                back = []
                for part, table in zip((gain, loss), above, strict=True):
                    whole = sum(v for row in table for v in row)
                    back.append(part[o][p] * (1 + 0.2 * sum(row[o] for row in table) / whole))
                total[o][p] = (pres[0][o][p] + back[0]) / 2 + (
                    pres[1][o][p] + lateral + back[1]
                ) / 3
        above = pres
        weights.insert(0, total)
        biases.insert(0, [sum(delta[b][o] for b in range(batch)) / batch for o in range(outs)])
    return weights, biases


def _case() -> tuple[list[Tensor], list[Tensor], Tensor]:
    torch.manual_seed(3)
    sizes = (5, 4, 6, 3)
    free = [torch.randint(0, 5, (7, size)).double() / 4 for size in sizes]
    weights = [torch.rand(o, i).double() - 0.5 for i, o in pairwise(sizes)]
    return free, weights, torch.arange(7) % 3


def test_nudged_states_are_the_relaxation_of_every_neuron() -> None:
    free, weights, labels = _case()
    nudged = nudged_states(free, weights, labels)
    expected = literal_nudged(
        [x.tolist() for x in free], [w.tolist() for w in weights], labels.tolist()
    )
    for ours, theirs in zip(nudged, expected, strict=True):
        torch.testing.assert_close(ours, torch.tensor(theirs).double(), rtol=1e-6, atol=1e-7)
    for layer in (1, 2, 3):
        assert float((nudged[layer] - free[layer]).abs().max()) > 0.01


def test_changes_are_those_of_every_synapse() -> None:
    free, weights, labels = _case()
    nudged = nudged_states(free, weights, labels)
    ours = local_changes(free, nudged)
    expected = literal_changes([x.tolist() for x in free], [x.tolist() for x in nudged])
    for mine, theirs in zip(ours, expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, torch.tensor(other).double(), rtol=1e-5, atol=1e-8)


def test_the_loss_moves_weights_by_the_local_change_and_no_error_passes_a_layer() -> None:
    recipe = load(find_recipe("mnist"), ["method=sbp", "network=6FC-10"])
    network = build(recipe, input_shape(metadata_of(recipe)), 10).train()
    window, labels = torch.rand(8, 1, 28, 28), torch.arange(8)
    with torch.no_grad():
        output = network(window, 4, record=True)
    local_loss(network, window, output, labels).backward()
    free = [window.flatten(1), *(spikes.mean(0) for spikes in output.layers)]
    banks = [layer.W1.detach() for layer in network.layer_list]
    weights, biases = local_changes(free, nudged_states(free, banks, labels))
    for layer, weight, bias in zip(network.layer_list, weights, biases, strict=True):
        assert torch.equal(layer.W1.grad, -weight)
        assert torch.equal(layer.bias.grad, -bias)
        assert layer.shared_coefficients.grad is None
    assert float(weights[-1].abs().max()) > 0


def test_a_run_without_back_propagation_learns_and_leaves_a_common_run_folder(
    small_recipe: Path, small_data: Path, tmp_path: Path
) -> None:
    overrides = ["method=sbp", "network=60FC-10", "training.epochs=12", "augmentation.shift=0"]
    report = train(load(small_recipe, overrides), tmp_path / "run", data=small_data, device="cpu")
    assert report.report["accuracy"] >= 0.4
    assert report.report["mechanisms"] == ["sbp-local"]
    assert {layer.mechanisms for layer in read_checkpoint(tmp_path / "run").layers} == {
        ("sbp-local",)
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network=4C3-10"], "fully connected layers alone"),
        (["network=DP0.5-20FC-10"], "fully connected layers alone"),
        (["mechanisms=sbp-local+hebbian"], "without back-propagation, alone"),
    ],
)
def test_what_local_learning_is_not_defined_for_is_refused(
    overrides: list[str], message: str
) -> None:
    recipe = load(find_recipe("mnist"), ["method=sbp", *overrides])
    with pytest.raises(RecipeError, match=message):
        build(recipe, (1, 28, 28), 10)
