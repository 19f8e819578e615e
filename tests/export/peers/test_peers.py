"""Networks of other frameworks, loaded from our files: every spike is ours, and alone it is not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nir
import numpy as np
import pytest
import torch

import mpsl_export.peers
from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.int8.to_int8 import to_int8
from mpsl_export.peers import load_norse, load_sinabs, load_snntorch, load_spikingjelly
from mpsl_export.verify.backends.peers import PeerProgram
from mpsl_export.write.to_nir import FORMAT, graph_of, write_nir
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import load_graph, load_plan
from mpsl_runtime.model.nir_writer import write_graph
from mpsl_runtime.run.reference import Reference

FRAMEWORKS = ("norse", "sinabs", "snntorch", "spikingjelly")
RUNS = ("event_run", "image_run", "if_run")


@pytest.fixture(scope="module")
def stock() -> Callable[[str, Path, Any], Any]:
    """Output of a framework's own importer: tests/benchmarks/peer_frameworks.py."""
    path = Path(__file__).parents[2] / "benchmarks" / "peer_frameworks.py"
    spec = importlib.util.spec_from_file_location("peer_frameworks", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass asks for it
    spec.loader.exec_module(module)

    def spikes(name: str, path: Path, frames: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecated calls of one into the other
            found: np.ndarray = module.stock_spikes(name, path, frames)
        return found

    return spikes


@pytest.fixture(scope="module", params=RUNS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model: soft reset, reset to zero, or without a leak."""
    path = tmp_path_factory.mktemp(request.param) / "model.nir"
    write_nir(graph_of(read_checkpoint(request.getfixturevalue(request.param).path)), path)
    return path


def frames_for(path: Path, steps: int = 30, batch: int = 3) -> np.ndarray:
    """On the grid of the model's input, float32 [T, B, *input_shape]."""
    plan = load_plan(path)
    assert plan.metadata is not None
    random = np.random.default_rng(4)
    counts = random.poisson(0.4, (steps, batch, *plan.input_shape))
    return (counts * plan.metadata.input_grid * (40 if plan.metadata.input_kind == "image" else 1)
            ).astype(np.float32)  # fmt: skip


def expected_of(path: Path, frames: np.ndarray) -> np.ndarray:
    spikes = Reference(load_plan(path)).run_batch(np.ascontiguousarray(frames))
    assert 0.02 < spikes.mean() < 0.98
    return spikes


def stepped(network: Any, frames: np.ndarray) -> np.ndarray:
    state, steps = None, []
    with torch.no_grad():
        for frame in frames:
            spikes, state = network(torch.from_numpy(frame.copy()), state)
            steps.append(spikes.numpy())
    return np.stack(steps)


def whole(network: Any, frames: np.ndarray) -> np.ndarray:
    steps, batch = frames.shape[:2]
    recordings = np.ascontiguousarray(frames.swapaxes(0, 1)).reshape(-1, *frames.shape[2:])
    with torch.no_grad():
        spikes, _ = network(torch.from_numpy(recordings))
    return spikes.numpy().reshape(batch, steps, -1).swapaxes(0, 1)


def test_a_network_of_norse_or_spikingjelly_is_stepped_with_its_state(written: Path) -> None:
    frames = frames_for(written)
    expected = expected_of(written, frames)
    for load in (load_norse, load_spikingjelly):
        network = load(written)
        for _ in range(2):
            assert np.array_equal(stepped(network, frames), expected), load.__name__


def test_a_network_of_snntorch_is_stepped_and_reset(written: Path) -> None:
    from snntorch import utils

    frames = frames_for(written)
    expected = expected_of(written, frames)
    network = load_snntorch(str(written))
    assert np.array_equal(stepped(network, frames), expected)
    utils.reset(network)
    assert np.array_equal(stepped(network, frames), expected)


def test_a_network_of_sinabs_takes_whole_recordings(written: Path) -> None:
    import sinabs

    frames = frames_for(written)
    expected = expected_of(written, frames)
    network = load_sinabs(written, batch_size=3)
    assert np.array_equal(whole(network, frames), expected)
    sinabs.reset_states(network)
    sinabs.set_batch_size(network, 1)
    assert np.array_equal(whole(network, frames[:, 2:]), expected[:, 2:])


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_back_end_shows_the_membranes_of_the_reference(name: str, written: Path) -> None:
    frames = frames_for(written)
    program, reference = PeerProgram(written, name), Reference(load_plan(written))
    for part in (frames, frames[:7, :2]):
        outcome = program.run(part)
        assert np.array_equal(outcome.spikes, reference.run_batch(np.ascontiguousarray(part)))
        right = reference.membrane.reshape(part.shape[1], -1)
        np.testing.assert_allclose(outcome.membrane, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_int8_model_has_the_same_spikes_and_where_nothing_rounds_the_same_bits(
    name: str, event_run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.int8.nir"
    made = to_int8(
        event_run.path, read_checkpoint(event_run.path), data=event_run.data, samples=24, seed=0
    )
    write_nir(made.graph, path)
    frames = np.minimum(frames_for(path, steps=100), 2)
    reference = Reference(load_plan(path))
    outcome = PeerProgram(path, name).run(frames)
    assert np.array_equal(outcome.spikes, reference.run_batch(frames))
    rounds = {kind.name: kind.own_units for kind in FORMAT.backends}[name]
    if not rounds:
        assert np.array_equal(outcome.membrane, reference.membrane.reshape(3, -1))


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_framework_alone_gives_other_spikes(
    name: str, event_run: Any, tmp_path: Path, stock: Callable[[str, Path, Any], Any]
) -> None:
    path = tmp_path / "model.nir"
    write_nir(graph_of(read_checkpoint(event_run.path)), path)
    frames = frames_for(path)
    if name == "sinabs":
        with pytest.raises(ValueError, match="ambiguous"):
            stock(name, path, frames)
        return
    assert (stock(name, path, frames) != expected_of(path, frames)).mean() > 0.01


@pytest.mark.parametrize("name", ["norse", "snntorch", "spikingjelly"])
def test_reset_to_zero_needs_nothing_of_ours(
    name: str, image_run: Any, tmp_path: Path, stock: Callable[[str, Path, Any], Any]
) -> None:
    path = tmp_path / "model.nir"
    write_nir(graph_of(read_checkpoint(image_run.path)), path)
    frames = frames_for(path)
    assert np.array_equal(stock(name, path, frames), expected_of(path, frames))


@pytest.mark.parametrize("load", [getattr(mpsl_export.peers, n) for n in mpsl_export.peers.__all__])
def test_a_model_that_mpsl_did_not_write_is_refused(
    load: Callable[[Path], Any], event_run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.nir"
    with pytest.raises(ModelError, match="no such model file"):
        load(path)
    graph = graph_of(read_checkpoint(event_run.path))
    write_graph(graph, path)
    graph = load_graph(path)
    graph.nodes["n02_lif"].v_threshold *= 1.5
    write_graph(graph, path)
    with pytest.raises(ModelError, match=r"neuron is not as mpsl writes it.*n02_lif"):
        load(path)
    graph.metadata = {}
    nir.write(path, graph)
    with pytest.raises(ModelError, match="no mpsl metadata"):
        load(path)


def test_neither_the_package_nor_sinabs_imports_what_runs_pip() -> None:
    code = (
        "import sys, mpsl_export.peers as p; "
        "assert not {'torch', 'norse', 'sinabs', 'snntorch', 'spikingjelly'} & set(sys.modules); "
        "import sinabs, sinabs.nir; assert 'samna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
