"""`mpsl export --compat 1.0.4`: the same network in the fields that nir 1.0.4 reads."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.export import export
from mpsl_export.verify.verify import verify
from mpsl_export.write.older_nir import as_read_by
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.nir_writer import graph_bytes
from mpsl_runtime.run.state import network_hash

# What the classes of nir 1.0.4 take. It hands them every data set of a node; another is an error.
FIELDS_1_0_4 = {
    "Affine": {"weight", "bias"},
    "Conv2d": {"input_shape", "weight", "stride", "padding", "dilation", "groups", "bias"},
    "Flatten": {"input_type", "start_dim", "end_dim"},
    "IF": {"r", "v_threshold"},
    "Input": {"shape"},
    "LIF": {"tau", "r", "v_leak", "v_threshold"},
    "Output": {"shape"},
    "SumPool2d": {"kernel_size", "stride", "padding"},
}


def fields_of(content: bytes) -> dict[str, set[str]]:
    """Of each type of node what its nodes hold."""
    found: dict[str, set[str]] = {}
    with h5py.File(io.BytesIO(content)) as file:
        for node in file["node/nodes"].values():
            kind = node["type"][()].decode()
            found.setdefault(kind, set()).update(set(node) - {"type", "metadata"})
    return found


@pytest.mark.parametrize("name", ["event_run", "if_run"])
def test_a_file_has_the_fields_of_nir_1_0_4_and_is_the_same_network(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(name)
    export(run.path, "nir", out=tmp_path / "new.nir")
    export(run.path, "nir", out=tmp_path / "old.nir", compat="1.0.4")
    export(tmp_path / "new.nir", "nir", out=tmp_path / "again.nir", compat="1.0.4")
    old = (tmp_path / "old.nir").read_bytes()
    found = fields_of(old)
    assert found == {kind: FIELDS_1_0_4[kind] for kind in found}
    assert fields_of((tmp_path / "new.nir").read_bytes()) != found
    assert fields_of((tmp_path / "again.nir").read_bytes()) == found
    hashes = {network_hash(load_plan(path)) for path in tmp_path.glob("*.nir")}
    assert len(hashes) == 1


def test_verify_takes_it_for_the_export_that_it_is(event_run: Any, tmp_path: Path) -> None:
    path = tmp_path / "old.nir"
    export(event_run.path, "nir", out=path, compat="1.0.4")
    assert verify(event_run.path, models=[path], data=event_run.data, backends=["engine"])["passed"]
    export(event_run.path, "nir", out=path)
    with h5py.File(path, "r+") as file:
        del file["node/nodes/n02_lif/v_reset"]
    report = verify(event_run.path, models=[path], data=event_run.data, backends=["engine"])
    assert not report["passed"]
    assert "n02_lif" in " ".join(report["models"][0]["reasons"])


def test_a_graph_is_not_changed_by_what_is_made_of_it(event_run: Any) -> None:
    graph = graph_of(read_checkpoint(event_run.path))
    before = graph_bytes(graph)
    as_read_by(graph, "1.0.4", "test")
    assert graph_bytes(graph) == before


def test_what_it_cannot_say_is_refused(event_run: Any) -> None:
    graph = graph_of(read_checkpoint(event_run.path))
    with pytest.raises(UsageError, match=r"version of nir; got 1\.0\.3; expected 1\.0\.4"):
        as_read_by(graph, "1.0.3", "test")
    grid = graph_of(read_checkpoint(event_run.path))
    grid.nodes["n04_conv"].metadata = {"weight_grid": -7}
    with pytest.raises(ModelError, match=r"grid of an int8 convolution; in node 'n04_conv'"):
        as_read_by(grid, "1.0.4", "test")
    graph.nodes["n05_lif"].v_reset = np.full_like(graph.nodes["n05_lif"].v_reset, 0.1)
    with pytest.raises(ModelError, match=r"another value than 0.*'n05_lif' of test"):
        as_read_by(graph, "1.0.4", "test")


def test_other_formats_know_no_versions_of_nir(
    event_run: Any, tmp_path: Path, mpsl: Callable[..., tuple[int, str, str]]
) -> None:
    words = ("export", event_run.path, "--compat", "1.0.4", "--format")
    code, _, err = mpsl(*words, "onnx", "--out", tmp_path / "m.onnx")
    assert code == 2
    assert "--compat" in err
    assert list(tmp_path.iterdir()) == []
    assert mpsl(*words, "nir", "--out", tmp_path / "m.nir")[0] == 0
