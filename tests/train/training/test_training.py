"""Runs on a small data set: the folder they leave, resuming, stopping, a rule of one's own."""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError, MpslError, OutputError, RunError, UsageError
from mpsl_runtime.model import readout
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.data import acquire
from mpsl_train.recipe import load
from mpsl_train.training import training
from mpsl_train.training.build import build
from mpsl_train.training.report import commit_of_checkout

Trained = Callable[..., dict[str, Any]]


def test_the_run_folder_holds_everything(finished: Path, small_data: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= {
        "recipe.toml", "banks.safetensors", "evaluation.npz", "metrics.csv", "last.ckpt",
        "report.json", "report.png", "tensorboard",
    }  # fmt: skip
    assert not list(finished.glob(".*"))
    report = json.loads((finished / "report.json").read_text("utf-8"))
    with np.load(finished / "evaluation.npz", allow_pickle=False) as record:
        facts = json.loads(str(record["record"]))
        split = datasets.open_split("nmnist", datasets.find("nmnist", small_data), "test")
        assert record["ids"].tolist() == split.ids
        assert facts["test_hash"] == datasets.content_hash(split)
        assert facts["accuracy"] == report["accuracy"]
        assert record["spikes"].shape == (20, 3, 10)
        assert record["spikes"].dtype == np.uint8
        assert np.array_equal(record["spikes"].sum(1), record["scores"])
        assert np.array_equal(readout.label(record["scores"]), record["predictions"])
        assert float(np.mean(record["predictions"] == record["labels"])) == report["accuracy"]
        assert record["probe_ids"].shape == (8,)
        last = np.unpackbits(record["probe_L03"], axis=-1)[:, :, :10]
        rows = [split.ids.index(name) for name in record["probe_ids"]]
        assert np.array_equal(last, record["spikes"][rows])
        assert record["probe_L00"].shape == (8, 3, -(-4 * 17 * 17 // 8))
    recipe_hash = load(finished / "recipe.toml").hash()
    assert report["recipe_hash"] == facts["recipe_hash"] == recipe_hash
    assert report["parameters"]["merged"] < report["parameters"]["banks"] / 2.5
    assert [layer["name"] for layer in report["layers"]] == ["L00", "L01", "L02", "L03"]
    assert all(abs(sum(layer["share"]) - 1) < 1e-6 for layer in report["layers"])
    rows_of_csv = (finished / "metrics.csv").read_text().splitlines()
    assert len(rows_of_csv) == 4
    assert rows_of_csv[0].startswith("epoch,training_loss,training_accuracy,validation_loss")


def test_the_commit_is_that_of_the_start(
    small_data: Path,
    small_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    trained: Trained,
) -> None:
    head, run, fit = ["a" * 40], subprocess.run, training.fit

    def git(command: list[str], **more: Any) -> Any:
        if command[:2] == ["git", "rev-parse"]:
            return subprocess.CompletedProcess(command, 0, head[0] + "\n")
        return run(command, **more)

    def someone_commits_meanwhile(*arguments: Any) -> Any:
        head[0] = "b" * 40
        return fit(*arguments)

    monkeypatch.setattr(subprocess, "run", git)
    monkeypatch.setattr(training, "fit", someone_commits_meanwhile)
    commit_of_checkout.cache_clear()
    try:
        report = trained(small_recipe, tmp_path / "run", small_data, "training.epochs=1")
    finally:
        commit_of_checkout.cache_clear()
    assert report["commit"] == "a" * 40


def test_the_banks_say_how_the_network_is_made(finished: Path) -> None:
    with safe_open(finished / "banks.safetensors", "np") as banks:
        facts = json.loads(banks.metadata()["mpsl"])
        for layer in facts["layers"]:
            for key in ("W1", "W2", "W3"):
                tensor = banks.get_tensor(f"{layer['name']}.{key}")
                assert list(tensor.shape) == layer["shape"]
                assert tensor.dtype == np.float32
            assert banks.get_tensor(f"{layer['name']}.lambda").shape == (3,)
    metadata = ModelMetadata.from_mapping(facts["model"], "banks")
    assert metadata.binning.shape == tuple(facts["input_shape"]) == (2, 34, 34)
    assert metadata.recipe_hash == load(finished / "recipe.toml").hash()
    second, third = facts["layers"][1:3]
    assert (second["pool_before"], third["pool_before"], third["flatten_before"]) == (1, 2, True)
    assert (second["kind"], second["stride"], second["padding"]) == ("conv", [1, 1], [1, 1])


def test_nan_stops_training_and_names_layer_step_and_epoch(
    small_data: Path,
    small_recipe: Path,
    tmp_path: Path,
    trained: Trained,
) -> None:
    """With the literal δ, Σr = 0 in a silent layer gives 0/0; the loss would stay finite."""
    with pytest.raises(MpslError) as caught:
        trained(small_recipe, tmp_path / "run", small_data, "rules.delta=literal",
               "neuron.threshold=50.0", "rules.beta=0.0")  # fmt: skip
    message = str(caught.value)
    assert "not finite" in message
    assert "layer L0" in message
    assert "step 1 of epoch 1" in message
    assert not (tmp_path / "run" / "banks.safetensors").exists()


def test_a_rule_of_ones_own_needs_one_file(
    small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained
) -> None:
    plugin = '''
import torch
from mpsl_train.network.plasticity import Rule, register

@register("oja")
class Oja(Rule):
    """ΔW = η·(⟨g sᵀ⟩ − ⟨g²⟩)."""

    def __init__(self, weight_shape, settings):
        super().__init__(weight_shape, settings)
        self.rate = torch.nn.Parameter(torch.tensor(1e-3))

    def update(self, pre, post):
        others = [d for d in range(post.activity.dim()) if d != 1]
        forget = self.per_output(post.activity.square().mean(others))
        return self.rate * (pre.correlate(post.activity) - forget)
'''
    assert len(plugin.strip().splitlines()) < 40
    (tmp_path / "oja.py").write_text(plugin, encoding="utf-8")
    report = trained(small_recipe, tmp_path / "run", small_data, "mechanisms=[stbp, oja]",
                    'plugins=["oja.py"]', "training.epochs=1")  # fmt: skip
    banks = load_file(tmp_path / "run" / "banks.safetensors")
    assert report["mechanisms"] == ["stbp", "oja"]
    assert all(float(banks[f"L0{n}.W2"].abs().max()) > 0 for n in range(4))
    assert report["layers"][0]["rules"]["oja"]["rate"] != pytest.approx(1e-3, abs=1e-9)


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.loss=ce", "rules.coefficient_scope=channel", "training.schedule=constant"),
        ("training.loss=ce-membrane", "rules.coefficients=frozen", "rules.sign=-",
         "training.checkpoint=best", "training.optimiser=sgd"),
        ("network=4C3S2-BN-AP2-12FC-10", "rules.plastic_layers=fc", "rules.delta=split",
         "rules.coefficient_scope=global", "neuron.reset=zero", "training.gradient_clip=1.0"),
        ("rules.coefficients=fixed", "data.coding=binary", "data.downsample=2",
         "data.crop=[2,2,30,30]", "rules.local_gradient=flow", "training.precision=bf16"),
    ],
    ids=["ce", "membrane", "fc", "binary"],
)  # fmt: skip
def test_the_choices_of_a_recipe_all_train(
    overrides: tuple[str, ...],
    small_data: Path,
    small_recipe: Path,
    tmp_path: Path,
    trained: Trained,
) -> None:
    run = tmp_path / "run"
    report = trained(small_recipe, run, small_data, "training.epochs=2", *overrides)
    banks = load_file(run / "banks.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in banks.values())
    if "rules.coefficient_scope=channel" in overrides:
        assert banks["L01.lambda"].shape == (3, 6)
    if "rules.coefficients=fixed" in overrides:
        assert banks["L00.lambda"].tolist() == [1.0, 1.0, 1.0]
    if "rules.plastic_layers=fc" in overrides:
        assert banks["L00.lambda"].shape == (1,)
        assert "L00.W2" not in banks
        assert banks["L00.bn.var"].shape == (4,)
        assert torch.equal(banks["L00.lambda"], banks["L01.lambda"][:1])
    assert report["epochs"] == 2


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (("network=4C3S2-11",), "number of classes"),
        (("mechanisms=[stbp, sbp]",), "'sbp' needs another"),
        (("mechanisms=[hebbian]",), "no mechanism learns"),
        (("mechanisms=[stbp, hebbien]",), "'hebbian'"),
        (("training.batch_size=1000",), "batch_size"),
        (("data.dataset=nmnst",), "unknown data set"),
        (("plugins=[absent.py]",), "plug-in cannot be read"),
        (("data.crop=[0,0,99,9]",), "crop does not fit"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    overrides: tuple[str, ...],
    part: str,
    small_data: Path,
    small_recipe: Path,
    tmp_path: Path,
    trained: Trained,
) -> None:
    with pytest.raises(MpslError) as caught:
        trained(small_recipe, tmp_path / "run", small_data, *overrides)
    assert part in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_bad_places_are_refused(
    small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained
) -> None:
    with pytest.raises(DataError, match="no such data folder"):
        trained(small_recipe, tmp_path / "run", tmp_path / "absent")
    (tmp_path / "file").write_text("here")
    with pytest.raises(OutputError):
        trained(small_recipe, tmp_path / "file" / "run", small_data)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match="something else"):
        trained(small_recipe, tmp_path / "other", small_data)
    with pytest.raises(RunError, match="no run to resume"):
        trained(small_recipe, tmp_path / "new", small_data, resume=True)


def test_a_training_that_does_not_fit_into_memory_is_told_in_one_line(
    small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    huge = ("network=999999FC-999999FC-10", "training.batch_size=16")
    with pytest.raises(UsageError, match="not enough memory for the network and one batch"):
        trained(small_recipe, tmp_path / "run", small_data, *huge)
    assert not (tmp_path / "run").exists()

    def too_much(*given: Any) -> None:
        torch.empty(1 << 58)

    monkeypatch.setattr(training, "fit", too_much)
    with pytest.raises(UsageError, match="not enough memory for this training; expected a smaller"):
        trained(small_recipe, tmp_path / "run", small_data)


def test_a_last_layer_that_fires_in_no_step_of_an_epoch_is_said_once(
    small_data: Path, small_recipe: Path, tmp_path: Path, trained: Trained, capfd: Any
) -> None:
    trained(small_recipe, tmp_path / "run", small_data, "training.epochs=2")
    assert "warning: the last layer" not in capfd.readouterr().err
    for loss, times in (("mse", 1), ("ce-membrane", 0)):
        trained(small_recipe, tmp_path / loss, small_data, "training.epochs=2",
                "neuron.threshold=1000", f"training.loss={loss}")  # fmt: skip
        assert capfd.readouterr().err.count("fired in no step of this epoch") == times


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(small_recipe: Path) -> None:
    def digest(*overrides: str) -> int:
        network = build(load(small_recipe, overrides), (2, 34, 34), 10)
        return zlib.crc32(b"".join(p.detach().numpy().tobytes() for p in network.parameters()))

    assert digest() == digest()
    assert digest() != digest("seed=1")


def test_a_data_folder_that_is_not_there_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data folder"):
        acquire.locate("dvs-digits", tmp_path / "typo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("undefined_name", "NameError"),
        ("class R(Rule):\n    def update(self, pre, post):\n        return pre.mean\n"
         "register('flat')(R)", "wrong shape"),
        ("register('a.b')(Rule)", "no plain name"),
        ("class R(Rule):\n    pass\nregister('stbp')(R)", "same name"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_plug_in_is_one_line(
    body: str,
    part: str,
    small_data: Path,
    small_recipe: Path,
    tmp_path: Path,
    trained: Trained,
) -> None:
    head = "from mpsl_train.network.plasticity import Rule, register\n"
    (tmp_path / "mine.py").write_text(head + body, encoding="utf-8")
    with pytest.raises(MpslError, match=part):
        trained(
            small_recipe, tmp_path / "run", small_data, "mechanisms=stbp+flat",
            f"plugins=[{tmp_path / 'mine.py'}]",
        )  # fmt: skip
