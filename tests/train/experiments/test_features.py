"""Runs read back, the potentials of the penultimate layer, their picture and its score."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from mpsl_runtime.cli import main
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import RunError, UsageError
from mpsl_train.data.batches import Samples, to_window
from mpsl_train.data.frames import load_frames
from mpsl_train.experiments.features import features
from mpsl_train.experiments.inference import adaptive, aligned, mean_currents, potentials, preserved
from mpsl_train.experiments.runs import choose, load_run, open_test
from mpsl_train.recipe import load
from mpsl_train.training.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_data: Path, recipe_text: str) -> Path:
    folder = tmp_path_factory.mktemp("features")
    (folder / "small.toml").write_text(recipe_text, encoding="utf-8")
    overrides = ["rules.sign=-", "rules.eta_hat=5.0", "network=4C3S2-BN-6C3-AP2-12FC-10"]
    train(load(folder / "small.toml", overrides), folder / "run", data=small_data, device="cpu")
    return folder / "run"


def _window(run: Path, data: Path) -> tuple[torch.Tensor, torch.Tensor]:
    trained = load_run(run)
    split, _ = open_test(trained, data)
    frames = load_frames(split, trained.metadata, datasets.content_hash(split))
    values, labels = Samples(frames, split.labels, trained.metadata)[
        (None, np.arange(len(split.labels)))
    ]
    return to_window(values), labels


@pytest.mark.parametrize("rules", [False, True])
def test_a_run_read_back_answers_as_its_record_says(
    run: Path, small_data: Path, rules: bool
) -> None:
    trained = load_run(run, rules=rules)
    window, _ = _window(run, small_data)
    with torch.no_grad():
        spikes = trained.network(window).spikes
    with np.load(run / "evaluation.npz", allow_pickle=False) as record:
        assert np.array_equal(spikes.numpy().astype(np.uint8), record["spikes"].swapaxes(0, 1))


def test_the_checkpoint_gives_the_parameters_of_the_rules(run: Path) -> None:
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    trained, untrained = load_run(run, rules=True), load_run(run)
    for index, layer in enumerate(trained.network.layer_list):
        key = f"network.layers.{index}.rules.hebbian.eta_hat"
        assert torch.equal(layer.rules["hebbian"].eta_hat, state[key])
    assert untrained.network.layer_list[0].rules["hebbian"].eta_hat.item() == 5.0
    assert trained.network.layer_list[0].rules["hebbian"].eta_hat.item() != 5.0


def test_potentials_are_the_mean_membrane_of_the_layer_before_the_last(
    run: Path, small_data: Path
) -> None:
    network, (window, _) = load_run(run).network, _window(run, small_data)
    carried, total = torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        x = network(window, record=True).layers[-3]  # spikes into the penultimate layer
        layer = network.layer_list[-2]
        for step in x:
            pooled = torch.nn.functional.avg_pool2d(step, layer.spec.pool_before).flatten(1)
            membrane = 0.75 * carried + pooled @ layer.effective_weight().T + layer.bias
            total = total + membrane / len(x)
            carried = membrane - 0.3 * (membrane >= 0.3)
    assert torch.allclose(potentials(network, window), total, atol=1e-5)


def test_alignment_with_the_means_of_the_same_batch_changes_nothing(
    run: Path, small_data: Path
) -> None:
    network, (window, _) = load_run(run).network, _window(run, small_data)
    means = mean_currents(network, [window])
    with torch.no_grad():
        plain = network(window)
    assert torch.equal(aligned(network, window, means).spikes, plain.spikes)


def test_alignment_restores_the_mean_current_of_a_louder_input(run: Path, small_data: Path) -> None:
    network, (window, _) = load_run(run).network, _window(run, small_data)
    means = mean_currents(network, [window])
    louder = window + 0.5
    [first, *_] = mean_currents(network, [louder])
    assert float((first - means[0]).abs().max()) > 0.05
    # A constant added to every pixel is a constant current in the middle; only the border differs.
    shifted = aligned(network, louder, means).spikes
    with torch.no_grad():
        plain, clean = network(louder).spikes, network(window).spikes
    assert not torch.equal(plain, clean)
    assert float((shifted - clean).abs().mean()) < float((plain - clean).abs().mean())


def test_banks_go_on_learning_only_where_it_was_asked_for_and_are_put_back(
    run: Path, small_data: Path
) -> None:
    network, (window, _) = load_run(run, rules=True).network, _window(run, small_data)
    layer = network.layer_list[1]
    W1, W2 = layer.W1.clone(), layer.W2.clone()
    with preserved(network):
        adaptive(network, window)
        assert torch.equal(layer.W1, W1)
        assert not torch.equal(layer.W2, W2)
        changed = layer.W2.clone()
        adaptive(network, window)
        assert not torch.equal(layer.W2, changed)
    assert torch.equal(layer.W2, W2)
    assert not network.training


def test_a_plastic_window_is_the_one_of_training(run: Path, small_data: Path) -> None:
    """The same banks as a training window leaves, in a network without batch norm.

    The plain way of training: the fused one rounds its changes in another order (test_window).
    """
    trained = load_run(run, rules=True)
    recipe = load(run / "recipe.toml", ["network=4C3S2-6C3-AP2-12FC-10"])
    from mpsl_train.training.build import build

    one, other = build(recipe, (2, 34, 34), 10), build(recipe, (2, 34, 34), 10)
    one.step = "autograd"
    window, _ = _window(run, small_data)
    with torch.no_grad():
        expected = one.train()(window).spikes
    assert torch.equal(adaptive(other.eval(), window).spikes, expected)
    assert torch.equal(one.layer_list[2].W3, other.layer_list[2].W3)
    assert trained.recipe.rules.sign == "-"


def test_the_picture_and_its_numbers(run: Path, small_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    out = tmp_path / "f.png"
    result = features([run, copy], out, data=small_data)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert json.loads(out.with_suffix(".json").read_text("utf-8")) == result
    with out.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["silhouette_features"]) for row in written] == [
        row["silhouette_features"] for row in result["runs"]
    ]
    assert not {"run", "labels", "embedding"} & set(written[0])
    one, other = result["runs"]
    assert one["embedding"] == other["embedding"]  # seeded
    plane = np.array(one["embedding"])
    assert plane.shape == (20, 2)
    assert one["silhouette_embedding"] == pytest.approx(
        silhouette_score(plane, one["labels"]), abs=1e-3
    )
    assert one["neurons"] == 12


def test_samples_are_drawn_from_the_seed() -> None:
    labels = np.zeros(50, np.int64)
    assert np.array_equal(choose(labels, 7, 1), choose(labels, 7, 1))
    assert not np.array_equal(choose(labels, 7, 1), choose(labels, 7, 2))
    assert len(np.unique(choose(labels, 7, 1))) == 7
    assert np.array_equal(choose(labels, 0, 1), np.arange(50))
    with pytest.raises(UsageError, match="negative"):
        choose(labels, -1, 0)


def test_what_is_no_run_or_a_broken_one_is_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        load_run(tmp_path / "none")
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    text = (broken / "recipe.toml").read_text("utf-8")
    (broken / "recipe.toml").write_text(text.replace("12FC", "13FC"), "utf-8")
    with pytest.raises(RunError, match=r"banks do not belong.*L02.W1 \[12, \d+\]"):
        load_run(broken)
    (broken / "banks.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match="banks cannot be read"):
        load_run(broken)
    (broken / "last.ckpt").write_bytes(b"no")
    with pytest.raises(RunError, match="checkpoint cannot be read"):
        load_run(broken, rules=True)
    (broken / "last.ckpt").unlink()
    (broken / "banks.safetensors").unlink()
    with pytest.raises(RunError, match="not finished"):
        load_run(broken)
    with pytest.raises(RunError, match="no checkpoint"):
        load_run(broken, rules=True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["features", "nowhere"], "mpsl: no such run; expected a folder that `mpsl train` wrote; "),
        (["features", "RUN", "--out", "a.jpg"], "mpsl: picture has another format; got a.jpg"),
        (["features", "RUN", "RUN"], "mpsl: a run is named twice"),
        (["features", "RUN", "--limit", "3"], "mpsl: too few samples for t-SNE; got 3"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, small_data: Path, tmp_path: Path, arguments: list[str], line: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [str(run) if word == "RUN" else word for word in arguments]
    with pytest.raises(SystemExit) as exit_:
        main([*words, "--data", str(small_data)])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(line)
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))
