"""Reading NIR: what runs is laid out right, and everything else is refused in one clear line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model import nir_file
from mpsl_runtime.model.graph import encode_neuron, load_graph, load_plan, plan_of
from mpsl_runtime.model.metadata import NeuronMetadata
from mpsl_runtime.model.plan import Convolution, Neuron, Pooling, Scaling

DT_S = 1e-4


def f32(*shape: int, value: float = 1.0) -> np.ndarray[Any, Any]:
    return np.full(shape, value, np.float32)


def conv(filters: int = 4, channels: int = 2, **changes: Any) -> nir.Conv2d:
    kernel = changes.pop("kernel", (3, 3))
    options: dict[str, Any] = {
        "input_shape": None,
        "weight": f32(filters, channels, *kernel, value=0.5),
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "groups": 1,
        "bias": f32(filters, value=0),
    }
    return nir.Conv2d(**{**options, **changes})


def lif(*shape: int, **changes: Any) -> nir.LIF:
    return nir.LIF(**{**encode_neuron(1.0, 0.75, shape, DT_S), **changes})


def ours(
    *shape: int,
    threshold: float = 1.0,
    decay: float = 0.75,
    reset: str = "subtract",
    **changes: Any,
) -> nir.LIF:
    metadata = NeuronMetadata(reset, "reset-decay-add-fire", decay, threshold, DT_S)  # type: ignore[arg-type]
    arrays = {**encode_neuron(threshold, decay, shape, DT_S), **changes}
    return nir.LIF(**arrays, metadata=metadata.to_mapping())


def chain(shape: tuple[int, ...], *nodes: nir.NIRNode, out: tuple[int, ...]) -> nir.NIRGraph:
    """Input, the nodes as n0, n1, …, Output."""
    named = {"input": nir.Input(input_type={"input": np.array(shape)})}
    named |= {f"n{i}": node for i, node in enumerate(nodes)}
    named["output"] = nir.Output(output_type={"output": np.array(out)})
    return nir.NIRGraph(nodes=named, edges=list(pairwise(named)), type_check=False)


def small() -> nir.NIRGraph:
    return chain((2, 5, 5), conv(input_shape=(5, 5)), lif(4, 5, 5), out=(4, 5, 5))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good model, to be damaged."""
    nir.write(str(tmp_path / "model.nir"), small())
    return tmp_path / "model.nir"


def plan(graph: nir.NIRGraph, dt_s: float | None = DT_S) -> Any:
    return plan_of(graph, source="model.nir", dt_s=dt_s)


def refusal(graph: nir.NIRGraph, dt_s: float | None = DT_S) -> str:
    with pytest.raises(ModelError) as caught:
        plan(graph, dt_s)
    return one_line(caught.value)


def file_refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_plan(path, dt_s=DT_S)
    assert str(path) in str(caught.value)
    return one_line(caught.value)


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


# ---- files --------------------------------------------------------------------------------------


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
    assert "not a NIR file" in file_refusal(path) or "damaged" in file_refusal(path)


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_file_is_refused(file: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    assert "damaged model file" in file_refusal(file)


def test_a_heap_of_texts_without_an_end_is_refused_and_does_not_hang(file: Path) -> None:
    content = bytearray(file.read_bytes())
    heap = content.index(b"GCOL")
    free = heap + 16
    while content[free : free + 2] != b"\0\0":
        free += 16 + (int.from_bytes(content[free + 8 : free + 16], "little") + 7) // 8 * 8
    content[free + 8 : free + 16] = bytes(8)
    file.write_bytes(content)
    assert "a heap without an end" in file_refusal(file)


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
    monkeypatch.setattr(nir_file, "LARGEST_FILE_BYTES", declared)
    assert "too much data" in file_refusal(path)
    monkeypatch.setattr(nir_file, "LARGEST_FILE_BYTES", 300)
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
    assert "node type is not supported" in message or "without a type" in message


def test_a_node_that_lacks_an_array_is_refused_by_name(file: Path) -> None:
    with h5py.File(file, "a") as target:
        del target["node/nodes/n1/tau"]
    message = file_refusal(file)
    assert "LIF cannot be built" in message
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


# ---- the chain ----------------------------------------------------------------------------------


def test_a_recurrent_edge_is_refused_and_named(tmp_path: Path) -> None:
    graph = small()
    graph.edges.append(("n1", "n0"))
    nir.write(str(tmp_path / "recurrent.nir"), graph)
    message = file_refusal(tmp_path / "recurrent.nir")
    assert "recurrent edge" in message
    assert "'n1' → 'n0'" in message


def test_an_edge_to_itself_is_recurrent() -> None:
    graph = small()
    graph.edges.append(("n1", "n1"))
    assert "recurrent edge" in refusal(graph)


def test_several_inputs_are_refused() -> None:
    graph = small()
    graph.nodes["second"] = nir.Input(input_type={"input": np.array([2, 5, 5])})
    graph.edges.append(("second", "n0"))
    assert "number of Input nodes; got 2 (input, second)" in refusal(graph)


def test_a_graph_without_output_is_refused() -> None:
    graph = small()
    del graph.nodes["output"]
    graph.edges.pop()
    assert "number of Output nodes; got none" in refusal(graph)


def test_a_branch_is_refused() -> None:
    graph = small()
    graph.nodes["side"] = lif(4, 5, 5)
    graph.edges.append(("n0", "side"))
    message = refusal(graph)
    assert "branching" in message
    assert "'n0'" in message


def test_a_doubled_edge_is_refused() -> None:
    graph = small()
    graph.edges.append(("n0", "n1"))
    assert "branching" in refusal(graph)


def test_an_edge_to_nowhere_is_refused() -> None:
    graph = small()
    graph.edges.append(("n1", "n9"))
    assert "not there" in refusal(graph)


def test_a_node_that_nothing_reaches_is_refused() -> None:
    graph = small()
    graph.nodes["island"] = lif(4, 5, 5)
    message = refusal(graph)
    assert "not connected" in message
    assert "'island'" in message


def test_a_graph_without_neurons_is_refused() -> None:
    assert "no neurons" in refusal(chain((2, 5, 5), conv(), out=(4, 5, 5)))


def test_a_graph_that_ends_in_weights_is_refused() -> None:
    graph = chain((3,), lif(3), nir.Linear(weight=f32(2, 3)), out=(2,))
    assert "does not end in neurons" in refusal(graph)


def test_a_very_long_chain_is_no_problem_for_the_stack() -> None:
    nodes = [nir.Scale(scale=f32(3)) for _ in range(3000)]
    assert len(plan(chain((3,), *nodes, lif(3), out=(3,))).nodes) == 3001


# ---- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 5), (1, 2, 5, 5), (0, 5, 5), (-2, 5, 5), (1 << 30, 4, 4)])
def test_an_input_shape_that_cannot_be_is_refused(shape: tuple[int, ...]) -> None:
    assert "'input'" in refusal(chain(shape, conv(), lif(4, 5, 5), out=(4, 5, 5)))


def test_weights_for_other_channels_are_refused() -> None:
    message = refusal(chain((3, 5, 5), conv(channels=2), lif(4, 5, 5), out=(4, 5, 5)))
    assert "weight does not fit the input" in message
    assert "'n0'" in message


def test_a_bias_of_another_length_is_refused() -> None:
    graph = chain((2, 5, 5), conv(bias=f32(3)), lif(4, 5, 5), out=(4, 5, 5))
    assert "bias does not fit" in refusal(graph)


def test_neurons_of_another_shape_are_refused() -> None:
    message = refusal(chain((2, 5, 5), conv(), lif(4, 5, 6), out=(4, 5, 6)))
    assert "does not fit the neurons" in message
    assert "'n1'" in message


def test_a_kernel_larger_than_its_input_is_refused() -> None:
    graph = chain((2, 5, 5), conv(kernel=(9, 9), padding=(0, 0)), lif(4, 1, 1), out=(4, 1, 1))
    assert "kernel is larger" in refusal(graph)


def test_groups_that_do_not_divide_are_refused() -> None:
    graph = chain((4, 5, 5), conv(filters=3, channels=2, groups=2), lif(3, 5, 5), out=(3, 5, 5))
    assert "weight does not fit" in refusal(graph)


def test_a_convolution_on_a_vector_is_refused() -> None:
    assert "needs an image" in refusal(chain((50,), conv(), lif(4, 5, 5), out=(4, 5, 5)))


def test_a_linear_layer_of_another_size_is_refused() -> None:
    graph = chain((4,), nir.Linear(weight=f32(2, 3)), lif(2), out=(2,))
    assert "weight does not fit" in refusal(graph)


def test_an_output_shape_that_does_not_follow_is_refused() -> None:
    assert "output shape does not fit" in refusal(chain((3,), lif(3), out=(4,)))


def test_a_stated_input_shape_that_does_not_follow_is_refused() -> None:
    graph = chain((2, 5, 5), conv(input_shape=(6, 5)), lif(4, 5, 5), out=(4, 5, 5))
    assert "input_shape does not fit" in refusal(graph)


def test_a_partial_flatten_is_refused() -> None:
    flatten = nir.Flatten(input_type={"input": None}, start_dim=1, end_dim=-1)
    assert "flattening to one dimension" in refusal(chain((2, 5, 5), flatten, lif(50), out=(50,)))


def test_a_signal_too_large_for_memory_is_refused() -> None:
    graph = chain((2, 9, 9), conv(padding=(1 << 15, 1 << 15)), lif(1), out=(1,))
    assert "signal is too large" in refusal(graph)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (4, 7, 6)),
        ({"padding": "valid"}, (4, 5, 4)),
        ({"padding": "same", "kernel": (4, 2)}, (4, 7, 6)),
        ({"stride": 2}, (4, 4, 3)),
        ({"stride": (2, 3), "padding": (0, 2)}, (4, 3, 3)),
        ({"dilation": (2, 1), "padding": 0}, (4, 3, 4)),
        ({"kernel": (5, 1), "padding": (0, 0)}, (4, 3, 6)),
    ],
)
def test_convolution_shapes_follow_torch(
    options: dict[str, Any], expected: tuple[int, ...]
) -> None:
    result = plan(chain((2, 7, 6), conv(**options), lif(*expected), out=expected))
    assert result.nodes[0].output_shape == expected


def test_same_padding_puts_the_odd_one_at_the_end() -> None:
    graph = chain((2, 7, 6), conv(padding="same", kernel=(4, 2)), lif(4, 7, 6), out=(4, 7, 6))
    node = plan(graph).nodes[0]
    assert isinstance(node, Convolution)
    assert node.padding == ((1, 2), (0, 1))


def test_pools_drop_what_no_window_covers() -> None:
    pool = nir.AvgPool2d(
        kernel_size=np.array([2, 2]), stride=np.array([2, 2]), padding=np.array([0, 0])
    )
    node = plan(chain((2, 17, 5), pool, lif(2, 8, 2), out=(2, 8, 2))).nodes[0]
    assert isinstance(node, Pooling)
    assert node.output_shape == (2, 8, 2)
    assert node.scale == 0.25


def test_a_scale_of_one_element_is_spread() -> None:
    node = plan(chain((3,), nir.Scale(scale=f32(1, value=2)), lif(3), out=(3,))).nodes[0]
    assert isinstance(node, Scaling)
    np.testing.assert_array_equal(node.scale, [2, 2, 2])


# ---- neurons ------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize("threshold", [0.3, 1.0, 7.5])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_our_neurons_come_back_exactly(decay: float, threshold: float, reset: str) -> None:
    node = ours(3, threshold=threshold, decay=decay, reset=reset)
    neuron = plan(chain((3,), node, out=(3,)), dt_s=None).nodes[0]
    assert isinstance(neuron, Neuron)
    np.testing.assert_array_equal(neuron.decay, np.float32(decay))
    np.testing.assert_array_equal(neuron.threshold, np.float32(threshold))
    assert neuron.reset == ("subtract" if reset == "subtract" else "value")
    assert not neuron.has_input_map


@pytest.mark.parametrize(
    ("key", "factor", "attribute", "expected"),
    [
        ("v_threshold", 1.05, "threshold", 1.05),
        ("tau", 2.0, "decay", 0.875),
        ("r", 3.0, "gain", 3.0),
    ],
)
def test_a_changed_node_runs_as_changed_not_as_its_metadata_says(
    key: str, factor: float, attribute: str, expected: float
) -> None:
    changed = encode_neuron(1.0, 0.75, (3,), DT_S)[key] * np.float32(factor)
    neuron = plan(chain((3,), ours(3, **{key: changed}), out=(3,))).nodes[0]
    np.testing.assert_allclose(getattr(neuron, attribute), expected, rtol=1e-6)
    assert neuron.reset == "subtract"


def test_a_foreign_lif_is_one_euler_step_of_its_equation() -> None:
    node = nir.LIF(
        tau=f32(2, value=1e-3), r=f32(2, value=3), v_leak=f32(2, value=0.5),
        v_reset=f32(2, value=-1), v_threshold=f32(2, value=2),
    )  # fmt: skip
    neuron = plan(chain((2,), node, out=(2,)), dt_s=2e-4).nodes[0]
    np.testing.assert_allclose(neuron.decay, 0.8)
    np.testing.assert_allclose(neuron.gain, 0.6)
    np.testing.assert_allclose(neuron.leak, 0.1)
    np.testing.assert_array_equal(neuron.threshold, np.nextafter(np.float32(2), np.float32(3)))
    np.testing.assert_array_equal(neuron.reset_value, -1)
    assert neuron.reset == "value"
    assert neuron.has_input_map


def test_integrate_and_fire_neurons_keep_everything() -> None:
    node = nir.IF(r=f32(2, value=4), v_threshold=f32(2), v_reset=f32(2, value=0))
    neuron = plan(chain((2,), node, out=(2,)), dt_s=0.25).nodes[0]
    np.testing.assert_array_equal(neuron.decay, 1)
    np.testing.assert_array_equal(neuron.gain, 1)


def test_cuba_neurons_have_a_synapse() -> None:
    node = nir.CubaLIF(
        tau_syn=f32(2, value=4e-4), tau_mem=f32(2, value=2e-4), r=f32(2), v_leak=f32(2, value=0),
        v_threshold=f32(2), v_reset=f32(2, value=0), w_in=f32(2, value=8),
    )  # fmt: skip
    neuron = plan(chain((2,), node, out=(2,)), dt_s=1e-4).nodes[0]
    np.testing.assert_allclose(neuron.synaptic_decay, 0.75)
    np.testing.assert_allclose(neuron.synaptic_gain, 2.0)
    np.testing.assert_allclose(neuron.decay, 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tau": f32(3, value=0)}, "tau is not positive"),
        ({"tau": f32(3, value=-1e-3)}, "tau is not positive"),
        ({"tau": f32(3, value=1e-6)}, "tau is shorter than a step"),
        ({"tau": f32(3, value=np.nan)}, "tau is not finite"),
        ({"r": f32(3, value=np.inf)}, "r is not finite"),
        ({"v_threshold": f32(3, value=np.nan)}, "v_threshold is not finite"),
    ],
)
def test_neurons_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    assert message in refusal(chain((3,), lif(3, **changes), out=(3,)))


@pytest.mark.parametrize(
    ("key", "value"),
    [("decay", 1.0), ("decay", np.nan), ("threshold", 0.0), ("threshold", np.inf), ("dt", -1.0)],
)
def test_metadata_out_of_range_is_refused(key: str, value: float) -> None:
    node = ours(3)
    node.metadata[key] = value
    assert "neuron metadata is out of range" in refusal(chain((3,), node, out=(3,)))


def test_incomplete_metadata_is_refused() -> None:
    node = ours(3)
    del node.metadata["decay"]
    assert "metadata lacks 'decay'" in refusal(chain((3,), node, out=(3,)))


def test_a_foreign_model_needs_the_length_of_a_step() -> None:
    message = refusal(small(), dt_s=None)
    assert "--dt-s" in message
    assert "'n1'" in message


@pytest.mark.parametrize("dt_s", [0.0, -1.0, np.nan, np.inf])
def test_a_step_that_does_not_last_is_refused(dt_s: float) -> None:
    assert "dt_s" in refusal(small(), dt_s=dt_s)


@pytest.mark.parametrize(
    ("threshold", "decay", "dt"), [(0, 0.5, 1), (1, 1, 1), (1, -0.1, 1), (1, 0.5, 0)]
)
def test_neurons_that_nir_cannot_say_are_not_encoded(
    threshold: float, decay: float, dt: float
) -> None:
    with pytest.raises(UsageError):
        encode_neuron(threshold, decay, (2,), dt)


def test_the_encoding_fires_on_greater_where_we_fire_on_greater_or_equal() -> None:
    encoded = encode_neuron(0.3, 0.75, (2, 3), DT_S)
    exact = np.float32(0.25 * 0.3)
    assert (exact > encoded["v_threshold"]).all()
    assert not (np.nextafter(exact, np.float32(0)) > encoded["v_threshold"]).any()
    assert {name: value.shape for name, value in encoded.items()} == dict.fromkeys(
        ("tau", "r", "v_leak", "v_reset", "v_threshold"), (2, 3)
    )


def test_graph_metadata_that_contradicts_the_graph_is_refused(model_file: Path) -> None:
    with h5py.File(model_file, "a") as target:
        del target["node/metadata/classes"]
        target["node/metadata/classes"] = "0,1"
    assert "2 class names" in file_refusal(model_file)


def test_metadata_for_another_sensor_is_refused(model_file: Path) -> None:
    with h5py.File(model_file, "a") as target:
        del target["node/metadata/sensor_width"]
        target["node/metadata/sensor_width"] = 20
    assert "metadata does not fit the graph" in file_refusal(model_file)


def test_metadata_gives_the_length_of_a_step(model_file: Path) -> None:
    result = load_plan(model_file)
    assert result.metadata is not None
    assert result.metadata.class_names == ("0", "1", "2")
