"""`mpsl export MODEL.nir`: a file without a training run becomes another format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import onnx
import onnxruntime
import pytest

from mpsl_export.export import export
from mpsl_runtime.model.filling import Filling
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.run.reference import Reference
from mpsl_runtime.run.state import network_hash

from ..runtime.run.branching import DT_S, frames, grown  # noqa: TID252 - tests are no package

Copy = Callable[[Any], Any]
Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("seed", range(12))
def test_a_graph_of_branches_loops_and_delays_is_exported_as_it_runs(
    seed: int, tmp_path: Path
) -> None:
    graph, _ = grown(seed)
    nir.write(tmp_path / "graph.nir", graph)
    plan, given = load_plan(tmp_path / "graph.nir", dt_s=DT_S), frames(graph)
    filling = Filling("nir", dt_s=DT_S)
    written = export(tmp_path / "graph.nir", "onnx", filling=filling).written
    assert [path.name for path in written] == ["graph.onnx", "graph.step.onnx"]
    session = onnxruntime.InferenceSession(str(written[0]), providers=["CPUExecutionProvider"])
    got = session.run(None, {"x": given[:, None]})[0].reshape(len(given), -1)
    np.testing.assert_allclose(got, Reference(plan).run(given), atol=1e-4)
    export(tmp_path / "graph.nir", "nir", out=tmp_path / "again.nir", filling=filling)
    assert network_hash(load_plan(tmp_path / "again.nir", dt_s=DT_S)) == network_hash(plan)


def test_what_a_file_leaves_out_is_written(tmp_path: Path) -> None:
    """No Output, no bias, no input shape, numbers without dimensions, a graph inside."""
    one = np.array([1, 1])
    weight, bias = np.ones((3, 2, 3, 3), np.float32), np.zeros(3, np.float32)
    inner = nir.NIRGraph(
        nodes={
            "input": nir.Input({"input": np.array([2, 6, 6])}),
            "c": nir.Conv2d((6, 6), weight, one, 0 * one, one, 1, bias),
            "output": nir.Output({"output": np.array([3, 4, 4])}),
        },
        edges=[("input", "c"), ("c", "output")],
    )
    lif = nir.LIF(*(np.float32(value) for value in (2e-3, 1, 0, 1, 0)))
    first = nir.Input({"input": np.array([2, 6, 6])})
    nodes, edges = {"in": first, "block": inner, "l": lif}, [("in", "block"), ("block", "l")]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    nir.write(tmp_path / "short.nir", graph)
    with h5py.File(tmp_path / "short.nir", "a") as file:
        for name in ("bias", "input_shape"):
            del file[f"node/nodes/block/nodes/c/{name}"]
    plan = load_plan(tmp_path / "short.nir", dt_s=1e-3)
    filling = Filling("nir", dt_s=1e-3)
    export(tmp_path / "short.nir", "nir", out=tmp_path / "whole.nir", filling=filling)
    whole = nir.read(tmp_path / "whole.nir", type_check=False)
    assert {"input", "output", "block.c", "l"} == set(whole.nodes)
    assert whole.nodes["block.c"].bias.tolist() == [0, 0, 0]
    assert list(whole.nodes["block.c"].input_shape) == [6, 6]
    assert network_hash(load_plan(tmp_path / "whole.nir", dt_s=1e-3)) == network_hash(plan)


def test_a_model_gives_the_onnx_of_its_run(
    event_run: Any, copied: Copy, mpsl: Command, tmp_path: Path
) -> None:
    run = copied(event_run)
    for kind in ("nir", "onnx"):
        assert mpsl("export", run.path, "--format", kind)[0] == 0
    model = run.path / "model.nir"
    code, out, _ = mpsl("export", model, "--format", "onnx", "--out", tmp_path / "b.onnx", "--json")
    assert code == 0
    assert json.loads(out)["parameters"] == {"merged": 5_056}
    for name in (".onnx", ".step.onnx"):
        ours, theirs = onnx.load(tmp_path / f"b{name}"), onnx.load(run.path / f"model{name}")
        assert ours.graph == theirs.graph
        said, expected = ({e.key: e.value for e in m.metadata_props} for m in (ours, theirs))
        # It says that it was made of a model, and so has another seal.
        assert set(said) - set(expected) == {"exported_from"}
        assert [key for key in expected if said[key] != expected[key]] == ["seal"]


def test_a_model_by_name_is_written_here(
    event_run: Any, mpsl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo" / "mine").mkdir(parents=True)
    export(event_run.path, "nir", out=tmp_path / "zoo" / "mine" / "model.nir")
    monkeypatch.setenv("MPSL_MODELS", str(tmp_path / "zoo"))
    monkeypatch.chdir(tmp_path)
    assert mpsl("export", "mine", "--format", "onnx")[0] == 0
    assert {path.name for path in tmp_path.glob("*.onnx")} == {"mine.onnx", "mine.step.onnx"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "--format", "nir"], "over itself; expected --out FILE"),
        (["MODEL", "--format", "nir", "--out", "MODEL"], "over itself"),
        (["absent.nir", "--format", "onnx"], "no such model file"),
        (["FOREIGN", "--format", "onnx"], "expected --from"),
        (["TEXT", "--format", "onnx"], "not HDF5"),
    ],
)
def test_what_a_model_cannot_become_is_one_line(
    event_run: Any, mpsl: Command, tmp_path: Path, arguments: list[str], words: str
) -> None:
    export(event_run.path, "nir", out=tmp_path / "model.nir")
    nir.write(tmp_path / "foreign.nir", grown(1)[0])
    (tmp_path / "text.txt").write_text("text")
    names = {"MODEL": "model.nir", "FOREIGN": "foreign.nir", "TEXT": "text.txt"}
    places = {word: str(tmp_path / name) for word, name in names.items()}
    before = sorted(tmp_path.iterdir())
    code, out, err = mpsl("export", *(places.get(word, word) for word in arguments))
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
