"""Each layer's share of the roofline of the cache in which its rows lie."""

from __future__ import annotations

import pytest

import mpsl_runtime
from mpsl_runtime.bench.inputs import synthetic
from mpsl_runtime.bench.layer_times import LayerTime, layer_times

LIMITS = {
    "float32_l1": 60.0, "float32_l2": 30.0, "float32_l3": 10.0,
    "int8_l1": 120.0, "int8_l2": 60.0, "int8_l3": 25.0,
}  # fmt: skip


def test_a_layer_is_measured_against_its_own_cache() -> None:
    layer = LayerTime("lif", 100.0, 1.5e6, 0.1, 1.0, "int8", 13_000_000, "l3")  # 15 GSOP/s
    assert layer.of_roofline(LIMITS) == pytest.approx(15 / 25)
    said = layer.to_mapping(LIMITS)
    assert (said["level"], said["of_roofline"], said["weight_bytes"]) == ("l3", 0.6, 13_000_000)
    unknown = LayerTime("lif", 100.0, 1.5e6, 0.1, 1.0)
    assert unknown.of_roofline(LIMITS) is None
    assert unknown.to_mapping(LIMITS)["of_roofline"] is None


def test_the_cache_follows_from_the_rows_that_are_added_again_and_again() -> None:
    """12C3S2-24C3-AP2-64FC-8: events add no rows; one tap of 12 channels is small; the fully
    connected layer is larger than a first-level cache."""
    plan = mpsl_runtime.load("nmnist8-small").plan
    layers = layer_times(plan, synthetic(plan), rounds=1)
    assert [layer.level for layer in layers] == [None, "l1", "l2", "l1"]
    sizes = [node.weight.nbytes for node in plan.nodes if hasattr(node, "weight")]
    assert [layer.weight_bytes for layer in layers] == sizes
