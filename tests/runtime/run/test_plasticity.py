"""Eq. 8–11 by hand on networks of a few neurons, and when banks are kept. That they are training's
own is `tests/export/test_plastic.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Plan
from mpsl_runtime.model.plastic import PlasticLayer, PlasticNumbers, unfit_rules
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.plastic_runner import PlasticRunner, chosen_layers
from mpsl_runtime.run.reference import Reference

Array = NDArray[np.float32]
NUMBERS = PlasticNumbers(
    layer="L00", rules="stbp,hebbian", tau_w_steps=10.0, eta=0.1, activity="tanh", cap=0.0,
    bound="bank",
)  # fmt: skip


def f32(*values: Any) -> Array:
    return np.array(values, np.float32)


def neurons(name: str, shape: tuple[int, ...]) -> Neuron:
    def full(value: float) -> Array:
        return np.full(shape, value, np.float32)

    return Neuron(
        name=name, kind="spiking", decay=full(0.5), threshold=full(1.0), reset="subtract",
        reset_value=full(0.0), gain=full(1.0), leak=full(0.0), has_input_map=False,
        synaptic_decay=None, synaptic_gain=None, input_shape=shape, output_shape=shape,
        V_th=1.0, rho=0.5,
    )  # fmt: skip


def layer(node: Convolution | Dense, numbers: PlasticNumbers, **more: Any) -> PlasticLayer:
    """Its W1 is the node's weight; all other banks are empty yet."""
    count, out = len(numbers.rule_names), len(node.bias)
    banks = (node.weight, *(np.zeros_like(node.weight) for _ in range(count - 1)))
    values = {"coefficients": np.ones(count, np.float32), "beta": np.zeros(out, np.float32)}
    return PlasticLayer(numbers, node.name, banks, scale=np.ones(out), **{**values, **more})


def dense(name: str, weight: Array) -> Dense:
    out, size = weight.shape
    return Dense(name, weight, np.zeros(out, np.float32), (size,), (out,))


def one_neuron(**more: Any) -> Plan:
    """Two inputs, one neuron, W1 = (0.5, 0.25)."""
    node, numbers = dense("w", f32([0.5, 0.25])), replace(NUMBERS, **more.pop("numbers", {}))
    plastic = (layer(node, numbers, **more),)
    return Plan((node, neurons("n", (1,))), (2,), (1,), None, "test", plastic=plastic)


def runner(program: Any, plan: Plan, **more: Any) -> PlasticRunner:
    return PlasticRunner(program(plan), plan, [each.node for each in plan.plastic],
                         **{"steps": 2, **more})  # fmt: skip


both = pytest.mark.parametrize("program", [Engine, Reference])


@both
def test_two_steps_of_one_neuron_by_hand(program: Any) -> None:
    plan = one_neuron(beta=f32(0.5), coefficients=f32(1.0, 2.0))
    plastic = runner(program, plan)
    [learning] = plastic.layers
    plastic.step(f32(1.0, 0.0))
    U = 0.5
    W2 = 0.1 * (math.tanh(U) + 0.5) * f32(1.0, 0.0)
    assert learning.banks[1][0] == pytest.approx(W2, rel=1e-6)
    assert learning.banks[0] is plan.plastic[0].banks[0]
    plastic.step(f32(1.0, 2.0))
    # The new weight is W1 + 2·W2.
    U = 0.5 * U + 0.5 + 2 * W2[0] + 2 * 0.25
    assert plastic.membrane[0] == pytest.approx(U, rel=1e-6)
    W2 = math.exp(-0.1) * W2 + 0.1 * (math.tanh(U) + 0.5) * f32(1.0, 2.0)
    assert learning.banks[1][0] == pytest.approx(W2, rel=1e-6)
    assert learning.windows == 1


@both
def test_a_convolution_correlates_over_positions_by_hand(program: Any) -> None:
    node = Convolution(
        "w", f32(0.5, 1.0).reshape(1, 1, 1, 2), f32(0.0), (1, 1), ((0, 0), (1, 0)), (1, 1), 1,
        (1, 1, 2), (1, 1, 2),
    )  # fmt: skip
    plan = Plan((node, neurons("n", (1, 1, 2))), (1, 1, 2), (1, 1, 2), None, "test",
                plastic=(layer(node, NUMBERS, beta=f32(1.0)),))  # fmt: skip
    plastic = runner(program, plan)
    plastic.step(f32([[0.5, 0.25]]))
    U = (1.0 * 0.5, 0.5 * 0.5 + 1.0 * 0.25)  # a column of padding stands on the left
    seen = ((0.0, 0.5), (0.5, 0.25))
    wanted = [sum((math.tanh(u) + 1) * s[tap] for u, s in zip(U, seen, strict=True)) / 2
              for tap in range(2)]  # fmt: skip
    assert plastic.layers[0].banks[1].ravel() == pytest.approx(0.1 * f32(*wanted), rel=1e-6)


@both
def test_sbp_steers_by_the_change_of_the_layer_above(program: Any) -> None:
    rules = {"rules": "stbp,hebbian,sbp", "fraction": 0.5, "steering": 1.0}
    first, second = dense("a", f32([2.0], [3.0])), dense("b", f32([1.0, 0.5]))
    lower = layer(first, replace(NUMBERS, **rules))
    upper = layer(second, replace(NUMBERS, layer="L01", eta=0.2, **rules))
    nodes = (first, neurons("m", (2,)), second, neurons("n", (1,)))
    plan = Plan(nodes, (1,), (1,), None, "test", plastic=(lower, upper))
    plastic = runner(program, plan)
    plastic.step(f32(0.4))  # U = 0.8 and 1.2: the second alone fires
    change = 0.1 * np.tanh(f32(0.8, 1.2)) * np.float32(0.4)
    delta = f32(0.0, 1.0)  # ΔW2 above is of the second input alone
    [below, above] = plastic.layers
    assert below.banks[2][:, 0] == pytest.approx(0.5 * (1 + delta) * change, rel=1e-6)
    assert above.banks[2] == pytest.approx(0.5 * above.banks[1], rel=1e-6)
    # The lower one alone has nobody above it that learns.
    alone = PlasticRunner(program(plan), plan, ["a"], steps=2)
    alone.step(f32(0.4))
    assert alone.layers[0].banks[2][:, 0] == pytest.approx(0.5 * change, rel=1e-6)


@both
def test_banks_are_brought_within_the_cap_where_a_window_ends(program: Any) -> None:
    plastic = runner(program, one_neuron(numbers={"eta": 50.0, "cap": 0.25}))
    [learning] = plastic.layers
    norm = float(np.hypot(0.5, 0.25))
    plastic.step(f32(1.0, 1.0))
    assert np.linalg.norm(learning.banks[1]) > norm
    assert learning.windows == 0
    plastic.step(f32(1.0, 1.0))
    assert np.linalg.norm(learning.banks[1]) == pytest.approx(0.25 * norm, rel=1e-6)
    plastic.step(f32(1.0, 1.0))
    plastic.reset()  # a window that ends early is kept too
    assert np.linalg.norm(learning.banks[1]) == pytest.approx(0.25 * norm, rel=1e-6)
    assert learning.windows == 2
    plastic.reset()
    assert learning.windows == 2
    plastic.reset_banks()
    assert (learning.windows, learning.moved) == (0, 0.0)


@both
def test_every_window_may_begin_with_the_exported_banks(program: Any) -> None:
    plastic = runner(program, one_neuron(), banks_reset="window")
    frames = f32([1.0, 0.5], [1.0, 1.0])
    first = plastic.run(frames), plastic.layers[0].banks[1]
    again = plastic.run(frames), plastic.layers[0].banks[1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.any(first[1])


@both
def test_sparse_and_dense_input_teach_alike(program: Any) -> None:
    one, other = runner(program, one_neuron()), runner(program, one_neuron())
    one.step(f32(0.0, 3.0))
    other.step_sparse(np.array([1, 1], np.int32), f32(1.0, 2.0))
    assert np.array_equal(one.layers[0].banks[1], other.layers[0].banks[1])
    assert np.any(one.layers[0].banks[1])


def test_what_a_network_that_learns_cannot_do_is_said() -> None:
    plan = one_neuron()
    plastic = runner(Reference, plan)
    with pytest.raises(UsageError, match="one window at a time"):
        plastic.fork()
    for call in (plastic.state, lambda: plastic.restore(b"")):
        with pytest.raises(UsageError, match="not kept in a state file"):
            call()
    with pytest.raises(UsageError, match="no such plastic layer; got L07"):
        chosen_layers(plan, "L00,L07")
    with pytest.raises(UsageError, match="no banks that could go on learning"):
        chosen_layers(replace(plan, plastic=()), "all")
    assert chosen_layers(plan, "w") == chosen_layers(plan, "all") == ("w",)
    with pytest.raises(UsageError, match="banks are not reset then; got 'often'"):
        runner(Reference, plan, banks_reset="often")


def test_rules_go_on_after_stbp_alone_and_in_their_order() -> None:
    assert unfit_rules(("stbp", "hebbian")) == unfit_rules(("stbp", "random", "hebbian")) == ""
    assert unfit_rules(("stbp",)) == "no Hebbian bank"
    assert unfit_rules(("stbp", "hebbian", "hebbian")) == "banks in another order"
