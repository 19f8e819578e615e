"""A .nir file is what the exporter writes, every field and all metadata; what is not is named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.export import export
from mpsl_export.verify.exported_file import ExportedFile
from mpsl_export.verify.verify import verify
from mpsl_export.write.format import Network
from mpsl_export.write.to_nir import graph_of, run_network
from mpsl_runtime.errors import ModelError, RunError
from mpsl_runtime.model.provenance import PROVENANCE_KEYS
from mpsl_runtime.model.seal import SEAL_KEYS
from mpsl_runtime.run.probe import PROBE_KEYS

Change = Callable[[h5py.File], None]


@pytest.fixture(scope="module", params=["event_run", "image_run"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path, Network]:
    """A run, its .nir file, and the network that it holds."""
    run = request.getfixturevalue(request.param)
    path = tmp_path_factory.mktemp("nir") / "model.nir"
    export(run.path, "nir", out=path)
    return run, path, run_network(run.path, read_checkpoint(run.path))


def _changed(path: Path, to: Path, change: Change) -> Path:
    shutil.copy(path, to)
    with h5py.File(to, "r+") as file:
        change(file)
    return to


def _leaves(path: Path) -> list[str]:
    """Every value of a file by its path, of each kind of node the last."""
    found: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None
        )
    return list({re.sub(r"n\d+_", "", name): name for name in found}.values())


def _other(value: Any) -> Iterator[Any]:
    """Values near another value."""
    if isinstance(value, bytes):
        yield value + b"x"
        yield b"y" + value
    elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
        yield value[::-1]
    elif np.asarray(value).dtype.kind == "f":
        array = np.array(value)
        array.flat[-1] = np.nextafter(array.flat[-1], array.dtype.type(np.inf))
        yield array
        yield -array
    else:
        array = np.array(value)
        array.flat[0] += 1
        yield array
        yield array.astype(np.int32)


def _told(path: Path, network: Network) -> str:
    """What is said of a file: the alterations, or the loader's refusal."""
    file = ExportedFile.at(path)
    try:
        file.check_shapes(network.plan)
        return "\n".join(str(found) for found in file.alterations(network))
    except (ModelError, RunError) as error:
        return str(error)


def test_an_honest_file_has_no_alteration(exported: tuple[Any, Path, Network]) -> None:
    _, path, network = exported
    assert ExportedFile.at(path).alterations(network) == []


def test_every_value_that_is_changed_is_named(
    exported: tuple[Any, Path, Network], tmp_path: Path
) -> None:
    _, path, network = exported
    leaves = _leaves(path)
    assert len(leaves) > 50
    silent, named = [], 0
    for name in leaves:
        with h5py.File(path) as file:
            value = file[name][()]
        for other in _other(value):

            def change(file: h5py.File, name: str = name, other: Any = other) -> None:
                del file[name]
                file[name] = other

            told = _told(_changed(path, tmp_path / "model.nir", change), network)
            field = name.rpartition("/")[2]
            named += field in told
            if not told:
                silent.append((name, other))
    assert silent == []
    assert named > len(leaves)


def test_every_value_that_is_missing_or_one_too_many_is_named(
    exported: tuple[Any, Path, Network], tmp_path: Path
) -> None:
    _, path, network = exported
    for name in _leaves(path):

        def drop(file: h5py.File, name: str = name) -> None:
            del file[name]

        assert _told(_changed(path, tmp_path / "model.nir", drop), network), name

        def attribute(file: h5py.File, name: str = name) -> None:
            file[name].attrs["more"] = 1

        told = _told(_changed(path, tmp_path / "model.nir", attribute), network)
        assert "more" in told, name
    for group in ("", "node/metadata", "node/nodes/n02_lif/metadata"):

        def more(file: h5py.File, group: str = group) -> None:
            file[f"{group}/more"] = 7

        told = _told(_changed(path, tmp_path / "model.nir", more), network)
        assert "more besides" in told, group


def _unmarked(file: h5py.File) -> None:
    """Without probe, seal and provenance, which earlier versions did not write."""
    metadata = file["node/metadata"]
    for name in {*PROBE_KEYS, *SEAL_KEYS, *PROVENANCE_KEYS} & set(metadata):
        del metadata[name]


def _scaled_together(file: h5py.File) -> None:
    """Time constants and time step of every node times two: the same decay here, another in a
    framework that has its own time step."""
    for node in file["node/nodes"].values():
        if "tau" in node:
            node["tau"][...] = node["tau"][()] * 2
            node["metadata/dt_s"][()] *= 2


def test_time_constants_and_time_step_scaled_together_are_named_and_fail(
    exported: tuple[Any, Path, Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path, network = exported
    changed = _changed(path, tmp_path / "model.nir", _scaled_together)
    told = _told(changed, network)
    assert "n02_lif tau[0, 0, 0] is 0.000799999" in told
    assert "n02_lif metadata dt_s is 0.0002 instead of 0.0001" in told
    report = verify(run.path, models=[changed], data=run.data, backends=["engine"])
    assert not report["passed"]
    monkeypatch.setattr(ExportedFile, "alterations", lambda file, network: [])
    report = verify(run.path, models=[changed], data=run.data, backends=["engine"])
    assert report["passed"]


def test_metadata_that_an_earlier_version_wrote_is_no_difference(
    exported: tuple[Any, Path, Network], tmp_path: Path
) -> None:
    _, path, network = exported

    def older(file: h5py.File) -> None:
        groups = [file["node"], *file["node/nodes"].values()]
        for metadata in (group["metadata"] for group in groups if "metadata" in group):
            if "dt_s" in metadata:
                metadata["dt"] = metadata["dt_s"][()]
                del metadata["dt_s"]
        file["node/metadata/mpsl"][()] = 1
        _unmarked(file)

    changed = _changed(path, tmp_path / "model.nir", older)
    assert _told(changed, network) == ""


def _numbered(file: h5py.File, first: str = "n00_input") -> None:
    """The terminals as they were named before: numbered like the nodes between them."""
    _unmarked(file)
    nodes = file["node/nodes"]
    names = {"input": first, "output": f"n{len(nodes) - 1:02d}_output"}
    for name, older in names.items():
        nodes.move(name, older)
    edges = [[names.get(end.decode(), end.decode()) for end in pair] for pair in file["node/edges"]]
    del file["node/edges"]
    file.create_dataset("node/edges", data=edges, dtype=h5py.string_dtype())


def test_terminals_as_an_earlier_version_named_them_are_no_difference(
    exported: tuple[Any, Path, Network], tmp_path: Path
) -> None:
    _, path, network = exported
    changed = _changed(path, tmp_path / "model.nir", _numbered)
    assert _told(changed, network) == ""
    wrong = _changed(path, tmp_path / "wrong.nir", lambda file: _numbered(file, "n01_input"))
    assert "n01_input has" in _told(wrong, network)


def test_a_network_of_another_form_is_not_run(
    exported: tuple[Any, Path, Network], tmp_path: Path
) -> None:
    run, _, _ = exported
    graph = graph_of(read_checkpoint(run.path))
    name = list(graph.nodes)[1]
    renamed = {("n01_z" if key == name else key): node for key, node in graph.nodes.items()}
    import nir

    edges = [tuple("n01_z" if end == name else end for end in edge) for edge in graph.edges]
    other = nir.NIRGraph(nodes=renamed, edges=edges, metadata=graph.metadata)
    nir.write(tmp_path / "model.nir", other)
    report = verify(run.path, models=[tmp_path / "model.nir"], data=run.data)
    (entry,) = report["models"]
    assert not entry["passed"]
    assert entry["spike_mismatch"] == {}
    assert "n01_z" in " ".join(entry["reasons"])


def test_a_file_without_metadata_fails(exported: tuple[Any, Path, Network], tmp_path: Path) -> None:
    run, path, _ = exported

    def bare(file: h5py.File) -> None:
        del file["node/metadata"]

    changed = _changed(path, tmp_path / "model.nir", bare)
    report = verify(run.path, models=[changed], data=run.data)
    assert not report["passed"]
    assert "lacks metadata dt_s" in " ".join(report["models"][0]["reasons"])
