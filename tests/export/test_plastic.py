"""Banks that go on learning where a model runs: as in training's own window, and reversible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.export import export
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.errors import MpslError
from mpsl_runtime.model.graph import load_graph, load_plan
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.model.nir_writer import write_graph
from mpsl_runtime.run.model import EngineName, Model
from mpsl_runtime.run.opening import load
from mpsl_train.experiments.inference import adaptive
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings
from mpsl_train.network.regulation import BankLimits
from mpsl_train.notation import parse
from mpsl_train.training.record import save_banks

from .fake_runs import model_metadata

STEPS, WINDOWS = 4, 4
RULES = RuleSettings(tau_w_steps=30.0, eta_hat=4.0, beta=0.2, sign=-1)
ALL = ("stbp", "hebbian", "sbp")


def small_network(
    notation: str = "6C3S2-AP2-8C3-AP2-16FC-8",
    mechanisms: tuple[str, ...] = ALL,
    rules: RuleSettings = RULES,
    seed: int = 0,
    **options: Any,
) -> Network:
    """A network in evaluation, as if it were trained: banks, λ, β and statistics are drawn."""
    torch.manual_seed(seed)
    neuron = options.pop("neuron", NeuronSettings())
    made = build_network(
        parse(notation, (2, 17, 17)), mechanisms, neuron, rules, init_gain=2.0, **options
    )
    with torch.no_grad():
        for layer in made.layer_list:
            layer.coefficients.uniform_(0.6, 1.2)
            layer.bias.uniform_(0.0, 0.15)
            size = layer.banks[0].norm() / layer.banks[0].numel() ** 0.5
            for index, rule in enumerate(layer.rule_list, start=1):
                if not rule.learned:
                    bank = torch.randn_like(layer.banks[0])
                    setattr(layer, f"W{index}", 0.1 * size * bank)
                for value in rule.parameters():
                    value.mul_(torch.rand_like(value) + 0.5)
            norm = layer.batchnorm
            if norm is not None and norm.running_mean is not None:
                norm.running_mean.uniform_(-0.1, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
    return made.eval()


def exported(network: Network, folder: Path) -> Path:
    """The plastic artefact of a network."""
    metadata = ModelMetadata.from_mapping(model_metadata(), "test")
    metadata = replace(metadata, steps=STEPS)
    folder.mkdir()
    save_banks(folder / "banks.safetensors", network, metadata, (2, 17, 17))
    return export(folder, "nir", plastic=True).written[0]


def windows(seed: int = 3) -> Iterator[torch.Tensor]:
    """[T, 1, 2, 17, 17], counts of events."""
    generator = np.random.default_rng(seed)
    for _ in range(WINDOWS):
        yield torch.from_numpy(generator.poisson(0.4, (STEPS, 1, 2, 17, 17)).astype(np.float32))


CASES: dict[str, dict[str, Any]] = {
    "three banks": {},
    "Eq. 8 alone, as published": {
        "mechanisms": ("stbp", "hebbian"), "rules": RuleSettings(tau_w_steps=40.0, eta_hat=1.0),
    },
    "batch normalisation, λ for channels, a clipped activity, reset to zero": {
        "notation": "6C3-BN-AP3-8C3S2-BN-16FC-8", "rules": replace(RULES, clipped=True),
        "coefficient_scope": "channel", "neuron": NeuronSettings(reset="zero"),
    },
    "fully connected layers alone": {
        "plastic_layers": "fc", "rules": replace(RULES, delta="split"),
    },
    "every output brought to the cap": {"limits": BankLimits(0.2, per_output=True)},
    "a cap that bounds": {"limits": BankLimits(0.05)},
}  # fmt: skip


def learners(path: Path, words: str) -> dict[str, Model]:
    """The same file in both programs."""
    names: tuple[EngineName, ...] = ("native", "reference")
    return {name: load(path, engine=name, plastic=words) for name in names}


def banks_of(model: Model) -> dict[str, tuple[np.ndarray, ...]]:
    """Of each layer that learns."""
    assert model.plastic is not None
    return {each.layer.numbers.layer: each.banks for each in model.plastic.layers}


def check_banks(model: Model, network: Network) -> None:
    """Those that learn are training's, to 1e-6."""
    trained = {layer.spec.name: layer.banks for layer in network.layer_list}
    for name, banks in banks_of(model).items():
        for bank, wanted in zip(banks, trained[name], strict=True):
            assert np.abs(bank - wanted.detach().numpy()).max() <= 1e-6


@pytest.mark.parametrize("case", CASES)
def test_a_stream_of_windows_changes_the_banks_as_training_would(tmp_path: Path, case: str) -> None:
    network = small_network(**CASES[case])
    models = learners(exported(network, tmp_path / "run"), "all")
    plastic = {layer.spec.name for layer in network.layer_list if layer.plastic}
    before = banks_of(models["native"])
    assert set(before) == plastic
    for window in windows():
        expected = adaptive(network, window)
        for model in models.values():
            got = model.run(window[:, 0].numpy())
            assert np.array_equal(got.spikes, expected.spikes[:, 0].numpy())
            assert 0 < got.spikes.mean() < 1
            check_banks(model, network)
    after = banks_of(models["native"])
    moved = [np.abs(after[name][1] - before[name][1]).max() for name in plastic]
    assert min(moved) > 1e-4  # a hundred times what is tolerated


@pytest.mark.parametrize("chosen", ["L01", "L02,L03", "n08_affine"])
def test_only_the_layers_that_are_asked_for_learn(tmp_path: Path, chosen: str) -> None:
    network = small_network(seed=1)
    models = learners(exported(network, tmp_path / "run"), chosen)
    learning = set(banks_of(models["native"]))
    assert 0 < len(learning) < len(network.layer_list)
    for window in windows():
        expected = adaptive(network, window, learning=learning).spikes[:, 0].numpy()
        for model in models.values():
            assert np.array_equal(model.run(window[:, 0].numpy()).spikes, expected)
            check_banks(model, network)


def test_a_plastic_file_is_the_frozen_one_until_it_is_asked_to_learn(tmp_path: Path) -> None:
    network = small_network()
    path = exported(network, tmp_path / "run")
    frozen = export(tmp_path / "run", "nir", out=tmp_path / "frozen.nir").written[0]
    one, other = load_graph(path), load_graph(frozen)
    for name, node in one.nodes.items():
        if hasattr(node, "weight"):
            assert node.weight.tobytes() == other.nodes[name].weight.tobytes()
    assert load_plan(path).plastic
    assert not load_plan(frozen).plastic
    merged = graph_of(read_checkpoint(tmp_path / "run"))
    assert all(
        np.array_equal(node.weight, merged.nodes[name].weight)
        for name, node in one.nodes.items() if hasattr(node, "weight")
    )  # fmt: skip
    for window in windows():
        frames = window[:, 0].numpy()
        assert np.array_equal(load(path).run(frames).spikes, load(frozen).run(frames).spikes)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_reset_banks_returns_to_the_exported_weights_bit_for_bit(
    tmp_path: Path, engine: Any
) -> None:
    path = exported(small_network(), tmp_path / "run")
    model, frozen = load(path, engine=engine, plastic="all"), load(path, engine=engine)
    assert model.plastic is not None
    frames = [window[:, 0].numpy() for window in windows()]
    first = [model.run(one).spikes for one in frames]
    assert any(
        not np.array_equal(frozen.run(one).spikes, got)
        for one, got in zip(frames, first, strict=True)
    )
    model.reset_banks()
    for each in model.plastic.layers:
        assert each.weight().tobytes() == each.node_weight.tobytes()
        assert each.moved == 0
    again = [model.run(one).spikes for one in frames]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    # With a reset before every window, each is the first one.
    single = load(path, engine=engine, plastic="all", banks_reset="window")
    assert np.array_equal(single.run(frames[0]).spikes, single.run(frames[0]).spikes)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_a_bank_that_leaves_all_bounds_is_told_and_what_was_learned_before_stays(
    tmp_path: Path, engine: Any
) -> None:
    network = small_network(rules=replace(RULES, eta_hat=1.0), limits=BankLimits(0.0))
    path = exported(network, tmp_path / "run")
    graph = load_graph(path)
    for entry in graph.metadata["plastic"].values():
        entry["eta"] = 1e6
        entry["beta"] = np.full_like(entry["beta"], 3e38)
    write_graph(graph, tmp_path / "loud.nir")
    model = load(tmp_path / "loud.nir", engine=engine, plastic="all")
    assert model.plastic is not None
    frames = next(windows())[:, 0].numpy()
    with pytest.raises(MpslError, match=r"a bank that stays plastic is not finite.*L00"):
        model.run(frames)
    assert all(each.moved == 0 for each in model.plastic.layers)
