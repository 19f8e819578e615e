"""`mpsl inspect --data` gives the figures of the `neurobench` package on the same network."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
import torch

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_runtime.deploy.workload import measure
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.neurons import neuron_node
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.run.reference import Reference

DT_S = 1e-4
THRESHOLD = 0.5
STEPS, SAMPLES = 6, 5


@pytest.fixture
def neurobench() -> Iterator[Any]:
    """The package; what it and snntorch warn of while they are imported is theirs."""
    pytest.importorskip("neurobench", reason="neurobench is not installed (make peers)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import neurobench.metrics.static
        import neurobench.metrics.workload
        import neurobench.models

        yield neurobench


def torch_network(decay: float) -> Any:
    """Two convolutions, pooling, two layers of weights; a third of the weights 0."""
    import snntorch

    torch.manual_seed(3)

    def neurons() -> Any:
        # Its reset to zero takes effect before the decay of the next step, as ours does.
        return snntorch.Leaky(
            beta=decay, threshold=THRESHOLD, reset_mechanism="zero", init_hidden=True
        )

    layers = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 5, stride=2, padding=2), neurons(),
        torch.nn.Conv2d(6, 8, 3, padding=1), neurons(),
        torch.nn.AvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(128, 20), neurons(),
        torch.nn.Linear(20, 5), neurons(),
    )  # fmt: skip
    with torch.no_grad():
        for name, values in layers.named_parameters():
            values *= 2
            if name.endswith("weight"):
                values[torch.rand_like(values) < 1 / 3] = 0
    return layers


def plan_of_torch(layers: Any, decay: float) -> Plan:
    """The same network through NIR."""
    about = NeuronMetadata("zero", "reset-decay-add-fire", decay, THRESHOLD, DT_S)
    shape: tuple[int, ...] = (2, 16, 16)
    nodes: list[Any] = [nir.Input({"input": np.array(shape)})]
    x = torch.zeros(1, *shape)
    for layer in layers:
        before = tuple(x.shape[1:])
        if isinstance(layer, torch.nn.Conv2d):
            node: Any = nir.Conv2d(
                before[1:], layer.weight.detach().numpy(), layer.stride, layer.padding, 1, 1,
                layer.bias.detach().numpy(),
            )  # fmt: skip
        elif isinstance(layer, torch.nn.Linear):
            node = nir.Affine(layer.weight.detach().numpy(), layer.bias.detach().numpy())
        elif isinstance(layer, torch.nn.AvgPool2d):
            node = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
        elif isinstance(layer, torch.nn.Flatten):
            node = nir.Flatten({"input": np.array(before)}, start_dim=0, end_dim=-1)
        else:
            nodes.append(neuron_node(about, before))
            continue
        x = layer(x)
        nodes.append(node)
    nodes.append(nir.Output({"output": np.array(x.shape[1:])}))
    names = ["input", *(f"n{i:02d}" for i in range(1, len(nodes) - 1)), "output"]
    graph = nir.NIRGraph(nodes=dict(zip(names, nodes, strict=True)), edges=list(pairwise(names)))
    return plan_of(graph, source="made", dt_s=DT_S)


class Stepped(torch.nn.Module):
    """What NeuroBench wants of a network: one step in, spikes and potential out."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layers = layers

    def reset(self) -> None:
        """snntorch's own `utils.reset` does not reach every neuron."""
        for layer in self.layers:
            if hasattr(layer, "reset_mem"):
                layer.reset_mem()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layers(x), self.layers[-1].mem


def theirs(neurobench: Any, layers: Any, frames: np.ndarray) -> tuple[dict[str, Any], Any]:
    """NeuroBench's figures with one sample in a batch, and the output spikes [N, T, K]."""
    static, workload = neurobench.metrics.static, neurobench.metrics.workload
    model = neurobench.models.SNNTorchModel(Stepped(layers))
    found = {
        "Footprint": static.Footprint()(model),
        "ConnectionSparsity": static.ConnectionSparsity()(model),
    }
    model.register_hooks()
    updates, operations = workload.MembraneUpdates(), workload.SynapticOperations()
    sparsity, spikes = [], []
    with torch.no_grad():
        for sample in torch.from_numpy(frames):
            batch = (sample[None], torch.zeros(1))
            spikes.append(model(batch[0])[0].numpy())
            found["MembraneUpdates"] = updates(model, None, batch)
            found["SynapticOperations"] = operations(model, None, batch)
            sparsity.append(workload.ActivationSparsity()(model, None, batch))
            model.reset_hooks()
    model.cleanup_hooks()
    found["ActivationSparsity"] = float(np.mean(sparsity))
    return found, np.stack(spikes)


@pytest.mark.parametrize("decay", [0.75, 1.0])
def test_every_figure_is_neurobench_s_own(neurobench: Any, decay: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = torch_network(decay)
        plan = plan_of_torch(layers, decay)
        random = np.random.default_rng(6)
        frames = random.poisson(0.15, (SAMPLES, STEPS, 2, 16, 16)).astype(np.float32)
        frames[0] = np.minimum(frames[0], 1)  # one sample whose first layer takes ones alone
        frames[1, 3:] = 0
        expected, spikes = theirs(neurobench, layers, frames)
    reference = Reference(plan)
    np.testing.assert_array_equal(np.stack([reference.run(sample) for sample in frames]), spikes)
    assert 0.05 < spikes.mean() < 0.95
    found = measure(plan, frames)
    assert found["SynapticOperations"] == expected["SynapticOperations"]
    assert min(found["SynapticOperations"].values()) > 0
    assert found["MembraneUpdates"] == expected["MembraneUpdates"]
    assert found["ConnectionSparsity"] == expected["ConnectionSparsity"] > 0.3
    assert found["ActivationSparsity"] == pytest.approx(expected["ActivationSparsity"], abs=1e-12)
    # A Leaky registers two numbers more, graded_spikes_factor and reset_mechanism_val.
    assert found["Footprint"] == expected["Footprint"] - 4 * (4 + 8)


def test_inspect_prints_them_for_a_model_and_its_test_set(
    if_run: Any, mpsl: Callable[..., tuple[int, str, str]], tmp_path: Any
) -> None:
    path = tmp_path / "model.nir"
    write_nir(graph_of(read_checkpoint(if_run.path)), path)
    code, out, err = mpsl("inspect", path, "--data", if_run.data, "--samples", 6, "--json")
    assert code == 0, err
    found = json.loads(out)["neurobench"]
    split, plan = (
        if_run.test_split(),
        plan_of(graph_of(read_checkpoint(if_run.path)), source="made"),
    )
    chosen = np.unique(np.linspace(0, len(split) - 1, 6).astype(int))
    expected = measure(plan, [split.input(int(i), plan.metadata) for i in chosen])
    assert {key: found[key] for key in expected} == expected
    assert found["source"] == "6 test samples of nmnist8"
    code, out, _ = mpsl("inspect", path, "--data", if_run.data, "--samples", 2)
    assert code == 0
    for name in ("Footprint", "Effective_ACs", "Dense", "MembraneUpdates", "4.6 pJ", "estimate"):
        assert name in out
    code, _, err = mpsl("inspect", if_run.path, "--data", if_run.data)
    assert code == 2
    assert "a .nir file" in err
