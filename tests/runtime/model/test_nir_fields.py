"""Every field of every node, with everything that it should not hold: one line, or a network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.model.nir_fields import SUPPORTED_TYPES

from .graphs import DT_S, conv, f32

FULL = {"tau": 2e-4, "tau_mem": 2e-4, "tau_syn": 2e-4, "r": 1, "v_leak": 0, "v_threshold": 1,
        "v_reset": 0, "w_in": 1}  # fmt: skip


def neurons(kind: str, *shape: int) -> nir.NIRNode:
    made: type[nir.NIRNode] = getattr(nir, kind)
    names = [name for name in made.__dataclass_fields__ if name in FULL]
    return made(**{name: f32(*shape, value=FULL[name]) for name in names})


def pool(kind: str) -> nir.NIRNode:
    size = np.array([1, 1])
    made: nir.NIRNode = getattr(nir, kind)(size, size, np.array([0, 0]))
    return made


def with_every_type(path: Path) -> Path:
    """A chain of every type of node that is supported."""
    nodes = {
        "input": nir.Input({"input": np.array([2, 5, 5])}),
        "a_conv": conv(input_shape=(5, 5)),
        "b_lif": neurons("LIF", 4, 5, 5),
        "c_avg": pool("AvgPool2d"),
        "d_sum": pool("SumPool2d"),
        "e_scale": nir.Scale(f32(4, 5, 5)),
        "f_threshold": nir.Threshold(f32(4, 5, 5)),
        "g_flatten": nir.Flatten({"input": np.array([4, 5, 5])}, 0, -1),
        "h_linear": nir.Linear(f32(3, 100)),
        "i_if": neurons("IF", 3),
        "j_affine": nir.Affine(f32(3, 3), f32(3)),
        "k_cuba": neurons("CubaLIF", 3),
        "k_delay": nir.Delay(f32(3, value=2 * DT_S)),
        "k_li": neurons("CubaLI", 3),
        "l_li": neurons("LI", 3),
        "m_i": neurons("I", 3),
        "output": nir.Output({"output": np.array([3])}),
    }
    names = list(nodes)
    edges = list(pairwise(names))
    nir.write(str(path), nir.NIRGraph(nodes, edges, type_check=False))
    return path


def with_a_row(path: Path) -> Path:
    """Conv1d, which takes [channels, length]."""
    nodes = {
        "input": nir.Input({"input": np.array([2, 9])}),
        "row": nir.Conv1d(9, f32(4, 2, 3), 1, 1, 1, 1, f32(4)),
        "lif": neurons("LIF", 4, 9),
        "output": nir.Output({"output": np.array([4, 9])}),
    }
    nir.write(str(path), nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False))
    return path


WRONG: dict[str, Any] = {
    "text": "heavy",
    "escape": "\x1b[31m",
    "texts": np.array([b"a", b"b"]),
    "complex": np.ones(3, complex),
    "truth": True,
    "truths": np.ones((4, 5, 5), bool),
    "nan": np.nan,
    "inf": np.float64(np.inf),
    "infs": np.full((4, 5, 5), -np.inf),
    "nans": np.full(3, np.nan, np.float32),
    "huge": np.full(3, 1e300),
    "half": 0.5,
    "minus": -1,
    "minuses": np.array([-1, -1]),
    "zero": 0,
    "zeros": np.zeros(2, int),
    "big": 2**62,
    "u64": np.uint64(2**64 - 1),
    "u64s": np.full(2, 2**64 - 1, np.uint64),
    "large": np.array([1 << 27, 1 << 27]),
    "three": np.array([1, 2, 3]),
    "empty": np.zeros(0),
    "empty texts": np.zeros(0, "S3"),
    "flat": np.ones(100, np.float32),
    "cube": np.ones((2, 2, 2, 2, 2), np.float16),
    "square": np.ones((3, 3), np.int8),
    "column": np.ones((2, 1), np.int64),
    "row": np.full((1, 2), 5, np.int64),
    "long": np.ones(50, np.int64),
}


def test_the_chain_has_every_type_and_runs(tmp_path: Path) -> None:
    path = with_every_type(tmp_path / "a.nir")
    plan = load_plan(path, dt_s=DT_S)
    with h5py.File(path, "r") as file:
        types = {group["type"][()].decode() for group in file["node/nodes"].values()}
    assert types == SUPPORTED_TYPES - {"Conv1d"}
    assert len(plan.nodes) == 15


@pytest.mark.parametrize("make", [with_every_type, with_a_row])
@pytest.mark.parametrize("value", [*WRONG, "group", "absent"])
def test_no_field_of_any_node_gives_anything_but_one_line(
    tmp_path: Path, value: str, make: Callable[[Path], Path]
) -> None:
    """Or a network that runs: `bias` may be missing, `padding` may be 0."""
    path = make(tmp_path / "a.nir")
    content = path.read_bytes()
    with h5py.File(path, "r") as file:
        fields = [
            f"node/nodes/{name}/{key}"
            for name, group in file["node/nodes"].items()
            for key in group
        ]
    fields += ["node/type", "node/edges", "node/nodes", "node/metadata"]
    refused = 0
    for field in fields:
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            if field in file:
                del file[field]
            if value == "group":
                file.create_group(field)
            elif value != "absent":
                file[field] = WRONG[value]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                load_plan(path, dt_s=DT_S)
            except ModelError as error:
                refused += 1
                text = str(error)
                assert "\n" not in text
                # Of a stride of 2, the node behind it says that it does not fit.
                assert "node '" in text or field in text or field.count("/") == 1, text
                for trace in ("TypeError", "ValueError", "cannot be built", "Error:"):
                    assert trace not in text, (field, text)
    assert refused > len(fields) // 2


def test_a_field_that_nir_does_not_know_is_left_alone_and_said(tmp_path: Path) -> None:
    path = with_every_type(tmp_path / "a.nir")
    with h5py.File(path, "a") as file:
        file["node/nodes/b_lif/colour"] = 1
    notes = load_plan(path, dt_s=DT_S).notes
    assert "LIF has colour, which NIR does not know: left alone" in notes


def test_a_convolution_without_a_bias_has_none(tmp_path: Path) -> None:
    path = with_every_type(tmp_path / "a.nir")
    with h5py.File(path, "a") as file:
        del file["node/nodes/a_conv/bias"]
    np.testing.assert_array_equal(load_plan(path, dt_s=DT_S).nodes[0].bias, 0)  # type: ignore[union-attr]


def test_thousands_of_fields_that_nir_does_not_know_are_a_short_note(tmp_path: Path) -> None:
    path = with_every_type(tmp_path / "a.nir")
    with h5py.File(path, "a") as file:
        for index in range(2000):
            file[f"node/nodes/b_lif/x{index:04}" + "y" * 500] = 1
    (note,) = (note for note in load_plan(path, dt_s=DT_S).notes if "left alone" in note)
    assert "and 1996 more" in note
    assert len(note) < 300
