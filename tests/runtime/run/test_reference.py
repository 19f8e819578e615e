"""The reference, held against loops and numbers that can be checked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import (
    Convolution,
    Dense,
    Flatten,
    Neuron,
    Node,
    Plan,
    Pooling,
    Scaling,
)
from mpsl_runtime.run.reference import Reference, apply, fanout

Array = NDArray[np.float32]


def neurons(shape: tuple[int, ...], **changes: Any) -> Neuron:
    def full(value: float) -> Array:
        return np.full(shape, value, np.float32)

    values: dict[str, Any] = {
        "name": "lif",
        "kind": "spiking",
        "decay": full(0.5),
        "threshold": full(1.0),
        "reset": "subtract",
        "reset_value": full(0.0),
        "gain": full(1.0),
        "leak": full(0.0),
        "has_input_map": False,
        "synaptic_decay": None,
        "synaptic_gain": None,
        "input_shape": shape,
        "output_shape": shape,
    }
    return Neuron(**{**values, **changes})


def plan(*nodes: Node) -> Plan:
    return Plan(nodes, nodes[0].input_shape, nodes[-1].output_shape, None, "test")


def membranes(neuron: Neuron, inputs: list[float]) -> tuple[list[float], list[float]]:
    """Output and U of one neuron, step by step."""
    reference = Reference(plan(neuron))
    out, U = [], []
    for value in inputs:
        out.append(float(reference.step(np.array([value], np.float32))[0]))
        U.append(float(reference.membrane[0]))
    return out, U


def test_a_neuron_with_soft_reset_by_hand() -> None:
    # U = 0.5·V + I; V = U − S
    out, U = membranes(neurons((1,)), [0.5, 0.75, 0.5, 2.0, 0.0])
    assert U == [0.5, 1.0, 0.5, 2.25, 0.625]
    assert out == [0, 1, 0, 1, 0]


def test_a_neuron_with_reset_to_a_value_by_hand() -> None:
    neuron = neurons((1,), reset="value", reset_value=np.array([-1], np.float32))
    out, U = membranes(neuron, [3.0, 0.0, 1.0])
    assert U == [3.0, -0.5, 0.75]
    assert out == [1, 0, 0]


def test_a_membrane_exactly_at_the_threshold_fires() -> None:
    below = float(np.nextafter(np.float32(1), np.float32(0)))
    assert membranes(neurons((1,)), [1.0])[0] == [1]
    assert membranes(neurons((1,)), [below])[0] == [0]


def test_an_integrator_gives_its_membrane_and_never_fires() -> None:
    out, U = membranes(neurons((1,), kind="integrating"), [4.0, 0.0, 1.0])
    assert out == U == [4.0, 2.0, 2.0]


def test_a_threshold_remembers_nothing() -> None:
    out, _ = membranes(neurons((1,), kind="threshold"), [0.9, 0.9, 1.0, 0.0])
    assert out == [0, 0, 1, 0]


def test_a_synapse_filters_before_the_membrane() -> None:
    neuron = neurons(
        (1,),
        synaptic_decay=np.array([0.5], np.float32),
        synaptic_gain=np.array([2.0], np.float32),
        threshold=np.array([100], np.float32),
    )
    # J = 0.5·J + 2·I: 2, 1, 0.5;  U = 0.5·U + J
    assert membranes(neuron, [1.0, 0.0, 0.0])[1] == [2.0, 2.0, 1.5]


def test_gain_and_leak_change_the_current() -> None:
    neuron = neurons(
        (1,),
        has_input_map=True,
        gain=np.array([4.0], np.float32),
        leak=np.array([0.25], np.float32),
        threshold=np.array([100], np.float32),
    )
    assert membranes(neuron, [1.0, 0.0])[1] == [4.25, 2.375]


def looped_convolution(node: Convolution, x: Array) -> tuple[Array, NDArray[np.int64]]:
    """Output [Co, H', W'] of x [C, H, W], and how many weights each input meets, by the book."""
    out = np.zeros(node.output_shape, np.float64)
    met = np.zeros(node.input_shape, np.int64)
    per_in, per_out = node.weight.shape[1], node.output_shape[0] // node.groups
    for o, y, x_out in np.ndindex(node.output_shape):
        for c, i, j in np.ndindex(node.weight.shape[1:]):
            row = y * node.stride[0] + i * node.dilation[0] - node.padding[0][0]
            column = x_out * node.stride[1] + j * node.dilation[1] - node.padding[1][0]
            channel = o // per_out * per_in + c
            if 0 <= row < node.input_shape[1] and 0 <= column < node.input_shape[2]:
                out[o, y, x_out] += float(node.weight[o, c, i, j]) * x[channel, row, column]
                met[channel, row, column] += 1
    return (out + node.bias[:, None, None]).astype(np.float32), met


@pytest.mark.parametrize(
    ("channels", "filters", "groups", "kernel", "stride", "padding", "dilation", "out"),
    [
        (2, 3, 1, (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (7, 6)),
        (2, 3, 1, (3, 3), (2, 3), ((0, 0), (2, 2)), (1, 1), (3, 3)),
        (4, 6, 2, (2, 3), (1, 2), ((0, 1), (1, 1)), (1, 1), (7, 3)),
        (3, 3, 3, (3, 1), (1, 1), ((2, 2), (0, 0)), (2, 1), (7, 6)),
        (1, 2, 1, (1, 1), (3, 3), ((0, 0), (0, 0)), (1, 1), (3, 2)),
        (1, 2, 1, (5, 4), (1, 1), ((1, 3), (4, 0)), (1, 2), (7, 4)),
    ],
)
def test_a_convolution_equals_loops_over_every_index(
    channels: int, filters: int, groups: int, kernel: Any, stride: Any, padding: Any, dilation: Any,
    out: Any,
) -> None:  # fmt: skip
    random = np.random.default_rng(0)
    weight = random.integers(-8, 9, (filters, channels // groups, *kernel)) / np.float32(8)
    bias = random.integers(-8, 9, filters) / np.float32(8)
    shape = (channels, 7, 6)
    node = Convolution(
        "conv", weight.astype(np.float32), bias.astype(np.float32), stride, padding, dilation,
        groups, shape, (filters, *out),
    )  # fmt: skip
    x = random.integers(0, 4, shape).astype(np.float32)
    expected, met = looped_convolution(node, x)
    np.testing.assert_array_equal(apply(node, x[None])[0], expected)
    np.testing.assert_array_equal(fanout(node), met)
    assert expected.any()


def test_pooling_sums_windows_and_scales() -> None:
    x = np.arange(2 * 5 * 4, dtype=np.float32).reshape(1, 2, 5, 4)
    node = Pooling("pool", (2, 2), (2, 2), (0, 0), 0.25, (2, 5, 4), (2, 2, 2))
    np.testing.assert_array_equal(apply(node, x)[0, 0], [[2.5, 4.5], [10.5, 12.5]])


def test_padded_overlapping_pooling_by_hand() -> None:
    x = np.ones((1, 1, 3, 3), np.float32)
    node = Pooling("pool", (3, 3), (1, 1), (1, 1), 1.0, (1, 3, 3), (1, 3, 3))
    np.testing.assert_array_equal(apply(node, x)[0, 0], [[4, 6, 4], [6, 9, 6], [4, 6, 4]])


def test_a_dense_layer_and_a_scale_by_hand() -> None:
    weight = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    dense = Dense("fc", weight, np.array([1, -1], np.float32), (3,), (2,))
    scale = Scaling("scale", np.array([2, 0.5], np.float32), (2,), (2,))
    x = np.array([[1, 0, 2]], np.float32)
    np.testing.assert_array_equal(apply(scale, apply(dense, x)), [[16, 7.5]])


def test_flattening_is_channel_major() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
    np.testing.assert_array_equal(apply(Flatten("f", (3, 2, 2), (12,)), x)[0], np.arange(12))


def small_network() -> Plan:
    random = np.random.default_rng(1)
    weight = random.normal(0, 1, (4, 2, 3, 3)).astype(np.float32)
    fc = random.normal(0, 1, (3, 16)).astype(np.float32)
    return plan(
        Convolution(
            "conv", weight, np.zeros(4, np.float32), (1, 1), ((1, 1), (1, 1)), (1, 1), 1,
            (2, 5, 4), (4, 5, 4),
        ),
        neurons((4, 5, 4), name="lif0"),
        Pooling("pool", (2, 2), (2, 2), (0, 0), 0.25, (4, 5, 4), (4, 2, 2)),
        Flatten("flatten", (4, 2, 2), (16,)),
        Dense("fc", fc, np.zeros(3, np.float32), (16,), (3,)),
        neurons((3,), name="lif1"),
    )  # fmt: skip


def test_samples_side_by_side_equal_samples_one_by_one() -> None:
    network = small_network()
    random = np.random.default_rng(2)
    frames = random.integers(0, 3, (6, 3, 2, 5, 4)).astype(np.float32)
    together = Reference(network).run_batch(frames)
    assert together.shape == (6, 3, 3)
    assert together.any()
    for sample in range(3):
        alone = Reference(network).run(frames[:, sample])
        np.testing.assert_array_equal(together[:, sample], alone)


def test_sparse_and_dense_input_are_the_same_and_doubles_add_up() -> None:
    network = small_network()
    frame = np.zeros((2, 5, 4), np.float32)
    frame[1, 2, 3], frame[0, 0, 1] = 3, 1
    dense, sparse = Reference(network), Reference(network)
    address = np.array([1 * 20 + 2 * 4 + 3, 1, 1 * 20 + 2 * 4 + 3], np.int32)
    value = np.array([1, 1, 2], np.float32)
    np.testing.assert_array_equal(dense.step(frame), sparse.step_sparse(address, value))
    np.testing.assert_array_equal(dense.membrane, sparse.membrane)
    assert dense.membrane.any()


def test_synaptic_operations_count_spikes_times_the_weights_they_reach() -> None:
    network = plan(*small_network().nodes[:2])
    reference = Reference(network)
    frame = np.zeros((2, 5, 4), np.float32)
    frame[0, 2, 2] = 7  # inside: nine taps of four filters; the value does not count
    frame[1, 0, 0] = 1  # a corner: four taps
    reference.step(frame)
    assert reference.synops == 9 * 4 + 4 * 4
    reference.reset()
    assert reference.synops == 0


def test_pooled_spikes_count_each_and_dropped_ones_do_not() -> None:
    inputs = neurons((1, 3, 3), decay=np.zeros((1, 3, 3), np.float32))
    network = plan(
        inputs,
        Pooling("pool", (2, 2), (2, 2), (0, 0), 0.25, (1, 3, 3), (1, 1, 1)),
        Flatten("flatten", (1, 1, 1), (1,)),
        Dense("fc", np.ones((5, 1), np.float32), np.zeros(5, np.float32), (1,), (5,)),
        neurons((5,), name="last"),
    )
    reference = Reference(network)
    reference.step(np.ones((1, 3, 3), np.float32))
    assert reference.synops == 4 * 5


def test_recording_shows_every_layer_and_changes_nothing() -> None:
    network = small_network()
    frames = np.random.default_rng(3).integers(0, 3, (5, 2, 5, 4)).astype(np.float32)
    spikes = Reference(network).record(frames)
    membrane = Reference(network).record_membrane(frames)
    assert [s.shape for s in spikes] == [(5, 4, 5, 4), (5, 3)]
    np.testing.assert_array_equal(spikes[-1], Reference(network).run(frames) == 1)
    for S, U in zip(spikes, membrane, strict=True):
        np.testing.assert_array_equal(S, U >= 1)
        assert S.any()


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((3, 2, 5, 5), np.float32),
        np.zeros((2, 5, 4), np.float32),
        np.full((3, 2, 5, 4), np.nan, np.float32),
        np.full((3, 2, 5, 4), 1e300),
        np.full((3, 2, 5, 4), "1"),
        np.float32(1),
    ],
)
def test_input_that_does_not_fit_is_refused(frames: Any) -> None:
    with pytest.raises(UsageError):
        Reference(small_network()).run(frames)


def test_no_frames_give_no_steps() -> None:
    assert Reference(small_network()).run(np.zeros((0, 2, 5, 4), np.float32)).shape == (0, 3)
