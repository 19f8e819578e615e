"""Reading a `.nir` file: what a stranger may have written is refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from mpsl_runtime.hdf5.source import Limits
from mpsl_runtime.model import nir_file
from mpsl_runtime.model.graph import load_graph, load_plan

from .graphs import DT_S, chain, conv, f32, file_refusal, lif


def test_a_good_file_comes_back_in_order_of_execution(file: Path) -> None:
    result = load_plan(file, dt_s=DT_S)
    assert [node.name for node in result.nodes] == ["n0", "n1"]
    assert (result.input_shape, result.output_shape) == ((2, 5, 5), (4, 5, 5))
    assert result.metadata is None
    assert result.source == str(file)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    assert "no such model file" in file_refusal(tmp_path / "absent.nir")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "no such model file" in file_refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"weights: none\n" * 100, b"\x89HDF\r\n\x1a\n"])
def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.nir"
    path.write_bytes(content)
    assert "not HDF5; expected a model file" in file_refusal(path)


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_file_is_refused(file: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    assert "damaged model file" in file_refusal(file)


def test_a_heap_of_texts_without_an_end_does_not_hang(file: Path) -> None:
    content = bytearray(file.read_bytes())
    heap = content.index(b"GCOL")
    free = heap + 16
    while content[free : free + 2] != b"\0\0":
        free += 16 + (int.from_bytes(content[free + 8 : free + 16], "little") + 7) // 8 * 8
    content[free + 8 : free + 16] = bytes(8)
    file.write_bytes(content)
    assert [node.name for node in load_plan(file, dt_s=DT_S).nodes] == ["n0", "n1"]


def test_hdf5_without_a_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.nir"
    with h5py.File(path, "w") as target:
        target["data"] = np.zeros(3)
    assert "not a NIR graph" in file_refusal(path)


def test_declared_data_beyond_the_limit_is_not_allocated(file: Path) -> None:
    with h5py.File(file, "a") as target:
        del target["node/nodes/n0/weight"]
        shape = (1 << 20, 1 << 20, 3, 3)
        target["node/nodes/n0"].create_dataset("weight", shape, "f4", chunks=(64, 64, 3, 3))
    assert file.stat().st_size < 1 << 20
    message = file_refusal(file)
    assert "too much data" in message
    assert "n0/weight" in message


def test_the_limit_holds_for_all_data_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small_when_compressed.nir"
    layers = [conv(filters=64, channels=64, input_shape=(5, 5)) for _ in range(2)]
    nir.write(str(path), chain((64, 5, 5), *layers, lif(64, 5, 5), out=(64, 5, 5)))
    declared = 2 * 64 * 64 * 9 * 4
    assert path.stat().st_size < declared // 2
    load_graph(path)
    monkeypatch.setattr(nir_file, "LIMITS", Limits(data_bytes=declared))
    assert "declares too much data" in file_refusal(path)
    monkeypatch.setattr(nir_file, "LIMITS", Limits(file_bytes=300))
    assert "too large" in file_refusal(path)


def test_links_into_other_files_are_not_followed(file: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["weight"] = f32(4, 2, 3, 3)
    with h5py.File(file, "a") as target:
        del target["node/nodes/n0/weight"]
        target["node/nodes/n0/weight"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "weight")
    assert "links are not read" in file_refusal(file)


def test_a_group_that_contains_itself_is_refused(file: Path) -> None:
    with h5py.File(file, "a") as target:
        target["node/nodes/n0/again"] = target["node/nodes/n0"]
    assert "met twice" in file_refusal(file)


def test_groups_within_groups_have_an_end(file: Path) -> None:
    with h5py.File(file, "a") as target:
        target.create_group("/node/nodes/n0/" + "/".join("abcdefghijklm"))
    assert "nested too deeply" in file_refusal(file)


def test_data_kept_outside_the_file_is_not_read(file: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(288))
    with h5py.File(file, "a") as target:
        del target["node/nodes/n0/weight"]
        target["node/nodes/n0"].create_dataset(
            "weight", (4, 2, 3, 3), "f4", external=[(str(tmp_path / "raw"), 0, 288)]
        )
    assert "another file" in file_refusal(file)


@pytest.mark.parametrize("value", [b"LSTM", b"NIRGraph", b"", 7])
def test_an_unknown_node_type_is_refused_by_name(file: Path, value: object) -> None:
    with h5py.File(file, "a") as target:
        del target["node/nodes/n1/type"]
        target["node/nodes/n1/type"] = value
    message = file_refusal(file)
    assert "'n1'" in message
    assert "node type is not supported" in message or "without " in message


def test_a_node_that_lacks_an_array_is_refused_by_name(file: Path) -> None:
    with h5py.File(file, "a") as target:
        del target["node/nodes/n1/tau"]
    message = file_refusal(file)
    assert "LIF lacks tau" in message
    assert "'n1'" in message


@pytest.mark.parametrize("key", ["stride", "padding", "dilation", "groups"])
@pytest.mark.parametrize("value", [-1, 0.5, "many", [1, 2, 3]])
def test_a_convolution_with_senseless_numbers_is_refused_by_name(
    file: Path, key: str, value: object
) -> None:
    with h5py.File(file, "a") as target:
        del target[f"node/nodes/n0/{key}"]
        target[f"node/nodes/n0/{key}"] = value
    assert "'n0'" in file_refusal(file)


def test_a_stride_of_zero_is_refused_by_name(file: Path) -> None:
    with h5py.File(file, "a") as target:
        del target["node/nodes/n0/stride"]
        target["node/nodes/n0/stride"] = np.array([0, 1])
    assert "stride is out of range" in file_refusal(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name_and_place(file: Path, value: float) -> None:
    with h5py.File(file, "a") as target:
        weight = target["node/nodes/n0/weight"]
        weight[3, 1, 2, 0] = value
    message = file_refusal(file)
    assert "weight is not finite" in message
    assert "(3, 1, 2, 0)" in message
    assert "'n0'" in message


def test_float64_weights_that_overflow_float32_are_refused(file: Path) -> None:
    with h5py.File(file, "a") as target:
        del target["node/nodes/n0/bias"]
        target["node/nodes/n0/bias"] = np.full(4, 1e300)
    assert "bias is not finite" in file_refusal(file)


def test_weights_that_are_text_are_refused(file: Path) -> None:
    with h5py.File(file, "a") as target:
        del target["node/nodes/n0/weight"]
        target["node/nodes/n0/weight"] = "heavy"
    assert "'n0'" in file_refusal(file)
