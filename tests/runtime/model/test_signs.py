"""What numbers tell of who wrote them, and of the step."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime.model.signs import inferred_step_s, self_exciting, writers_of


def full(value: float, kind: Any = np.float32, size: int = 3) -> Any:
    return np.full(size, value, kind)


def leaky(tau: Any, r: Any, **changes: Any) -> nir.LIF:
    zero = np.zeros_like(tau)
    return nir.LIF(**{"tau": tau, "r": r, "v_leak": zero, "v_threshold": zero + 1, **changes})


def as_snntorch_writes(beta: float = 0.9, kind: Any = np.float32) -> nir.LIF:
    tau = kind(1e-4) / (1 - full(beta, kind))
    return leaky(tau, tau / kind(1e-4))


def as_norse_writes() -> nir.LIF:
    return leaky(np.float32(5e-6), np.float32(1), v_reset=np.float32(0))


def as_spikingjelly_writes(v_reset: float = -0.3) -> nir.LIF:
    home = full(v_reset, float)
    return leaky(full(2e-4, float), full(1, float), v_leak=home, v_reset=home)


def as_sinabs_writes() -> nir.LIF:
    return leaky(np.float32(20), np.float32(1))


@pytest.mark.parametrize(
    ("node", "writer"),
    [
        (as_snntorch_writes(), ["snntorch"]),
        (as_norse_writes(), ["norse"]),
        (as_spikingjelly_writes(), ["spikingjelly"]),
        (as_sinabs_writes(), ["sinabs"]),
        (nir.IF(full(1e4, float), full(1, float), full(0, float)), ["spikingjelly"]),
        (nir.IF(np.float32(1), np.float32(1), np.float32(0)), ["norse"]),
        (nir.IF(full(1), full(1), full(0)), ["sinabs"]),
        (leaky(full(1e-3), full(3)), []),
        (leaky(full(1e-3), full(10), v_leak=full(0.1)), []),
        (leaky(full(0), full(0)), []),
        (nir.Threshold(full(1)), []),
    ],
)
def test_a_graph_is_known_by_its_numbers(node: Any, writer: list[str]) -> None:
    assert writers_of({"a": node}, ()) == writer


def test_one_neuron_that_somebody_else_wrote_leaves_nobody() -> None:
    nodes = {"a": as_snntorch_writes(), "b": as_spikingjelly_writes()}
    assert writers_of(nodes, ()) == []
    # snntorch writes float64 for RLeaky and RSynaptic alone.
    wide = {"a": as_snntorch_writes(kind=np.float64)}
    assert writers_of(wide, ()) == ["spikingjelly"]
    assert writers_of(wide, {"a"}) == ["snntorch"]


def test_the_step_is_that_in_which_an_input_counts_once() -> None:
    assert inferred_step_s({"a": as_snntorch_writes(), "b": as_snntorch_writes(0.5)}) == 1e-4
    assert inferred_step_s({"a": nir.IF(full(1e3), full(1))}) == 1e-3
    tau = full(5e-3)
    synaptic = nir.CubaLIF(tau, tau, tau / 2e-4, full(0), full(1), w_in=full(1))
    assert inferred_step_s({"a": synaptic}) == 2e-4


def test_no_step_is_inferred_where_numbers_do_not_tell() -> None:
    assert inferred_step_s({"a": as_norse_writes()}) is None  # r = 1
    assert inferred_step_s({"a": as_snntorch_writes(), "b": nir.IF(full(1e3), full(1))}) is None
    assert inferred_step_s({"a": leaky(full(0.0025), full(24.0197))}) is None  # rockpool's r
    assert inferred_step_s({"a": leaky(full(1), full(0))}) is None
    assert inferred_step_s({"a": leaky(full(np.nan), full(2))}) is None
    assert inferred_step_s({}) is None


def test_who_sees_itself_is_found_through_at_most_one_node() -> None:
    edges = [("a", "b"), ("b", "w"), ("w", "b"), ("c", "c"), ("d", "x"), ("x", "y"), ("y", "d")]
    assert self_exciting({"a", "b", "c", "d"}, edges) == {"b", "c"}
    # Two populations around one loop: neither sees its own spikes alone.
    assert self_exciting({"a", "b"}, [("a", "b"), ("b", "a")]) == set()
