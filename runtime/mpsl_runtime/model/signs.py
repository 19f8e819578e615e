"""What a graph tells of the framework that wrote it, and of its step.

Each exporter leaves its own marks in the numbers: see `dialects` for where they were read. Only
what no other exporter writes counts; a file by hand has none of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

__all__ = ["inferred_step_s", "self_exciting", "writers_of"]

_USUAL_S = 1e-4  # the step of snntorch's and spikingjelly's exporters
_CLOSE = 1e-4  # of numbers that went through float32


def inferred_step_s(nodes: Mapping[str, nir.NIRNode]) -> float | None:
    """The step for which an input counts once: tau/r of a LIF or CubaLIF, 1/r of an IF.

    Frameworks whose step adds its input as it is write r so. None where neurons disagree, where r
    is 1, or where the number is not round (rockpool's r is another one).

    Args:
        nodes: all of a flat graph.
    """
    found: list[NDArray[np.float64]] = []
    for node in nodes.values():
        if isinstance(node, nir.LIF | nir.CubaLIF | nir.IF):
            r = _numbers(node.r)
            if (r == 1).any() or (r == 0).any():
                return None
            tau = {nir.LIF: "tau", nir.CubaLIF: "tau_mem"}.get(type(node))
            found.append((_numbers(getattr(node, tau)) / r if tau else 1 / r).reshape(-1))
    steps = np.concatenate(found) if found else np.zeros(1)
    low, high = float(steps.min()), float(steps.max())
    if not 0 < low <= high < math.inf or high - low > _CLOSE * low:
        return None
    rounded = float(f"{low:.1e}")
    return rounded if _is_near(steps, rounded) else None


def writers_of(nodes: Mapping[str, nir.NIRNode], recurrent: Collection[str]) -> list[str]:
    """The dialects whose exporter may have written all neurons of a graph.

    Args:
        nodes: all of a flat graph. recurrent: names of the neurons that see their own spikes.
    """
    neurons = {name: node for name, node in nodes.items() if hasattr(node, "r")}
    if not neurons or any(isinstance(node, nir.Threshold) for node in nodes.values()):
        return []
    with np.errstate(all="ignore"):
        return [
            name
            for name, wrote in _WRITERS.items()
            if all(wrote(node, key in recurrent) for key, node in neurons.items())
        ]


def self_exciting(names: Collection[str], edges: Collection[tuple[str, str]]) -> set[str]:
    """Of `names`, those whose output comes back to them, at most through one other node."""
    following: dict[str, set[str]] = {}
    for tail, head in edges:
        following.setdefault(tail, set()).add(head)
    return {
        name
        for name in names
        if any(
            name in ({head} | (following.get(head, set()) if head not in names else set()))
            for head in following.get(name, ())
        )
    }


def _snntorch(node: Any, recurrent: bool) -> bool:
    """r = tau/dt with dt = 1e-4, nothing leaks or resets to another value; float32 but for RLeaky
    and RSynaptic."""
    if not isinstance(node, nir.LIF | nir.CubaLIF) or not _is_still(node):
        return False
    return _adds_its_input(node) and (recurrent or np.asarray(node.r).dtype == np.float32)


def _norse(node: Any, recurrent: bool) -> bool:
    """r = 1 and tau = dt·tau, shorter than the step of anybody else; an IF's arrays are scalars."""
    if isinstance(node, nir.IF):
        return _is(node.r, 1) and np.ndim(node.r) == 0
    tau = getattr(node, "tau_mem", getattr(node, "tau", None))
    return tau is not None and _is(node.r, 1) and bool((_numbers(tau) < _USUAL_S).all())


def _spikingjelly(node: Any, recurrent: bool) -> bool:
    """Full arrays of float64, each of one number; v leaks to where it is reset."""
    if recurrent or not isinstance(node, nir.IF | nir.LIF | nir.CubaLIF):
        return False
    arrays = [np.asarray(value) for key, value in vars(node).items() if key in _ARRAYS]
    if not all(a.dtype == np.float64 and a.ndim and bool((a == a.flat[0]).all()) for a in arrays):
        return False
    if isinstance(node, nir.IF):
        return _is_near(_numbers(node.r), 1 / _USUAL_S)
    if isinstance(node, nir.LIF):
        leaks_home = np.array_equal(node.v_leak, node.v_reset)
        return leaks_home and (_is(node.r, 1) or _adds_its_input(node))
    return _is(node.v_leak, 0) and _adds_its_input(node)


def _sinabs(node: Any, recurrent: bool) -> bool:
    """r = 1; tau counts steps, so that it is above any time constant in seconds."""
    if isinstance(node, nir.IF):
        return _is(node.r, 1) and np.ndim(node.r) > 0
    counts = isinstance(node, nir.LIF | nir.LI) and bool((_numbers(node.tau) >= 1).all())
    return counts and _is(node.r, 1) and _is(node.v_leak, 0)


_WRITERS: dict[str, Callable[[Any, bool], bool]] = {
    "snntorch": _snntorch,
    "norse": _norse,
    "spikingjelly": _spikingjelly,
    "sinabs": _sinabs,
}
_ARRAYS = ("tau", "tau_mem", "tau_syn", "r", "v_leak", "v_threshold", "v_reset", "w_in")


def _is_still(node: Any) -> bool:
    return _is(node.v_leak, 0) and _is(node.v_reset, 0)


def _adds_its_input(node: Any) -> bool:
    """One input of 1 adds 1 to v in a step of 1e-4 s."""
    tau = node.tau_mem if isinstance(node, nir.CubaLIF) else node.tau
    adds = _is_near(_numbers(tau) / _numbers(node.r), _USUAL_S)
    if isinstance(node, nir.CubaLIF):
        return adds and _is_near(_numbers(node.tau_syn) / _numbers(node.w_in), _USUAL_S)
    return adds


def _numbers(value: object) -> NDArray[np.float64]:
    return np.asarray(value, np.float64)


def _is(value: object, number: float) -> bool:
    return bool((np.asarray(value) == number).all())


def _is_near(values: NDArray[np.float64], number: float) -> bool:
    return bool((np.abs(values - number) <= _CLOSE * abs(number)).all())
