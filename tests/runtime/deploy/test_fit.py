"""Networks held against chips."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime.deploy.chips import Chip, find_chips, known_chips, read_chip
from mpsl_runtime.deploy.demands import MEASURES, demands_of
from mpsl_runtime.deploy.fit import fit, kernel_entries, lines, neuron_entries, to_mapping
from mpsl_runtime.deploy.matching import match
from mpsl_runtime.deploy.table import table
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.model.plan import Convolution, Dense
from mpsl_runtime.zoo import known_models

from .networks import network

NAMES = ["akd1000", "brainscales2", "loihi2", "speck", "spinnaker2", "xylo-audio", "xylo-imu"]
PAPER = ("16C5S2", "16C3", "P2", "8C3", "P2", "256FC", "10FC")  # the CNN of the NIR paper
MADE = """
name = "made"
title = "A made chip"

[[limit]]
measure = "neurons"
most = 20
source = "https://example.org/made"
mend = "fewer neurons"

[cores]
assignment = "split"
count = 2
each = { neurons = 8 }
source = "https://example.org/cores"
mend = "smaller layers"
"""


def speck() -> Chip:
    return find_chips("speck")[0]


def broken(result: Any) -> list[str]:
    return [violation.measure for violation in result.violations]


@pytest.mark.parametrize("name", NAMES)
def test_every_chip_reads_and_each_limit_has_its_source_and_what_mends_it(name: str) -> None:
    assert list(known_chips()) == NAMES
    chip = find_chips(name)[0]
    assert chip.name == name
    assert chip.limits or chip.cores
    text = "\n".join(lines(fit(network((2, 34, 34), *PAPER), chip)))
    for limit in chip.limits:
        assert limit.mend
        assert f"{limit.source}" in text
    if chip.cores is not None:
        assert chip.cores.source in text


def test_the_cnn_of_the_nir_paper_fits_a_speck_once_its_weights_are_bytes() -> None:
    result = fit(network((2, 34, 34), *PAPER), speck())
    assert (broken(result), result.verdict) == (["weight_bits"], "fits as int8")
    assert len(result.placed) == 5
    layers = demands_of(network((2, 34, 34), *PAPER)).layers
    # K = c · 2^(⌈log₂ kₓk_y⌉ + ⌈log₂ f⌉): 2·2^(5+4), 16·2^(4+4), 16·2^(4+3), 8·2^(4+8), 256·2^(0+4)
    assert [kernel_entries(layer) for layer in layers] == [1024, 4096, 2048, 32768, 4096]
    # N = f · 2^(⌈log₂ 17⌉ + ⌈log₂ 17⌉) for a map of 17x17.
    assert [neuron_entries(layer) for layer in layers] == [16 << 10, 16 << 10, 8 << 6, 256, 10]


def test_weights_on_a_grid_of_bytes_are_taken_as_they_are() -> None:
    plan = network((2, 34, 34), *PAPER)
    nodes = tuple(
        replace(node, weight_grid=-7) if isinstance(node, Convolution | Dense) else node
        for node in plan.nodes
    )
    result = fit(replace(plan, nodes=nodes), speck())
    assert (result.fits, result.verdict, broken(result)) == (True, "fits", [])


def test_a_leak_and_a_wide_layer_keep_a_network_off_a_speck() -> None:
    plan = network((2, 34, 34), "16C3S2", "32C3", "P2", "128FC", "8FC", decay=0.75)
    result = fit(plan, speck())
    assert broken(result) == ["neuron_model", "weight_bits", "memory"]
    text = lines(result)
    assert text[0].endswith("does not fit")
    assert any(
        "neuron LIF in n01, n03, n07, n09; the chip takes IF; mend:" in line for line in text
    )
    # 32 channels of 8x8 to 128 neurons: 32 · 2^(6+7).
    assert any("n07 needs 256 Ki of kernels" in line for line in text)


@pytest.mark.parametrize(
    ("shape", "words", "measure"),
    [
        ((2, 130, 130), ("4C3S4", "P4", "8FC"), "input_side"),
        ((2, 66, 66), ("2C3", "P4", "8FC"), "map_side"),
        ((2, 34, 34), ("4C3S3", "8FC"), "stride"),
        ((2, 34, 34), ("4C17S2", "8FC"), "kernel"),
        ((2, 34, 34), ("4C17S2", "8FC"), "padding"),
        ((2, 34, 34), ("4C3S2", "P3", "8FC"), "pool"),
        ((2, 8, 8), ("16FC",), "outputs"),
        ((2, 4, 4), ("1025FC", "8FC"), "channels"),
    ],
)
def test_each_limit_of_a_speck_is_looked_at(
    shape: tuple[int, ...], words: tuple[str, ...], measure: str
) -> None:
    assert measure in broken(fit(network(shape, *words), speck()))
    assert measure not in broken(fit(network((2, 34, 34), *PAPER), speck()))


def test_layers_that_fit_single_cores_may_not_find_one_each() -> None:
    # 32 Ki of kernels each: only four cores have as much.
    words = ["4C3S2", "P2", *["64C3"] * 5, "P4", "8FC"]
    result = fit(network((2, 34, 34), *words), speck())
    assert "cores" in broken(result)
    assert any("find a core" in violation.text for violation in result.violations)


def test_matching_moves_a_layer_where_that_makes_room() -> None:
    assert match([[0, 1], [0]]) == [1, 0]
    assert match([[0], [0, 1], [1, 2]]) == [0, 1, 2]
    assert sorted(str(core) for core in match([[0], [0], [0, 1]])) == ["0", "1", "None"]


def test_a_long_chain_of_moves_is_no_trouble() -> None:
    # Each layer may sit on its core or the next, all on their own; the last wants the first core.
    options = [[i, i + 1] for i in range(511)] + [[0]]
    assert sorted(core for core in match(options) if core is not None) == list(range(512))


def test_a_network_is_split_over_equal_cores(tmp_path: Path) -> None:
    (tmp_path / "made.toml").write_text(MADE, encoding="utf-8")
    chip = read_chip(tmp_path / "made.toml")
    assert fit(network((1, 2, 2), "8FC", "8FC"), chip).fits
    result = fit(network((1, 2, 2), "9FC", "12FC"), chip)
    assert broken(result) == ["neurons", "cores"]
    assert [violation.text for violation in result.violations] == [
        "neurons 21; the chip takes ≤ 20", "4 cores; the chip has 2",
    ]  # fmt: skip


def test_adding_a_chip_is_adding_one_file(
    tmp_path: Path, mpsl: Callable[..., tuple[int, str, str]], model_file: Path
) -> None:
    path = tmp_path / "made.toml"
    path.write_text(MADE, encoding="utf-8")
    code, out, _ = mpsl("inspect", model_file, "--target", path)
    assert code == 0
    assert "made  (A made chip): fits" in out
    assert "https://example.org/made" in out
    path.write_text(MADE.replace("most = 20", "most = 2"), encoding="utf-8")
    code, out, _ = mpsl("inspect", model_file, "--target", path, "--json")
    assert code == 0
    found = json.loads(out)["targets"][0]
    assert not found["fits"]
    assert found["violations"] == [
        {"measure": "neurons", "text": "neurons 3; the chip takes ≤ 2", "mend": "fewer neurons"}
    ]
    assert mpsl("inspect", model_file, "--target", path, "--strict")[0] == 1
    path.write_text(MADE, encoding="utf-8")
    assert mpsl("inspect", model_file, "--target", path, "--strict")[0] == 0


def test_an_unknown_chip_is_one_line_with_those_there_are(
    mpsl: Callable[..., tuple[int, str, str]], model_file: Path
) -> None:
    code, out, err = mpsl("inspect", model_file, "--target", "loihi3")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(name in err for name in [*NAMES, "all", "loihi3"])
    with pytest.raises(UsageError, match="no such chip"):
        find_chips("")


def test_operations_need_a_model_that_names_its_data_set(
    mpsl: Callable[..., tuple[int, str, str]], write_model: Callable[..., Path], tmp_path: Path
) -> None:
    foreign = write_model(foreign=True)
    words = ("--data", tmp_path, "--from", "nir", "--dt-s", "1e-4")
    code, out, err = mpsl("inspect", foreign, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--steps T, --step-us N, --dataset NAME" in err
    assert mpsl("inspect", foreign, "--target", "speck")[0] == 0
    code, _, err = mpsl("inspect", write_model(), "--data", tmp_path)
    assert code == 2
    assert "nmnist is not there" in err


def test_all_chips_are_looked_at_in_one_go(
    mpsl: Callable[..., tuple[int, str, str]], model_file: Path
) -> None:
    code, out, _ = mpsl("inspect", model_file, "--target", "all", "--json")
    assert code == 0
    assert [found["chip"] for found in json.loads(out)["targets"]] == NAMES
    code, _, err = mpsl("inspect", model_file, "--strict")
    assert code == 2
    assert "--target" in err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"neurons"\n', '"colour"\n', "measure is not known.*colour"),
        ("most = 20", "most = 20\nleast = 1", "no one bound"),
        ("most = 20", "most = -1", "no whole number"),
        ("most = 20", "most = true", "no whole number"),
        ('title = "A made chip"', "", "title is missing"),
        ('title = "A made chip"', 'titel = "A"\ntitle = "B"', "key is not known.*titel"),
        ('"split"', '"spilt"', "assignment is not known"),
        ("neurons = 8 }", "neurons = 0 }", "no bound"),
        ("count = 2", "count = 2.5", "no whole number"),
        ('name = "made"', "name = ", "no TOML"),
        ("most = 20", f"most = {'9' * 5000}", "no TOML"),
        ("most = 20", "most = 99999999999999999999", "no whole number"),
        ("most = 20", f"most = {'[' * 5000}", "no TOML"),
        ('mend = "fewer neurons"', "", "mend is missing"),
    ],
)
def test_a_chip_file_that_cannot_be_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "made.toml"
    path.write_text(MADE.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_chip(path)


def test_a_chip_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read chip file"):
        find_chips(str(tmp_path / "none.toml"))


def test_every_measure_has_a_value_of_every_network() -> None:
    demands = demands_of(network((2, 34, 34), *PAPER))
    for name, measure in MEASURES.items():
        assert measure.values(demands), name


def test_branches_are_followed(tmp_path: Path) -> None:
    import nir
    import numpy as np

    from mpsl_runtime.model.graph import plan_of

    def affine() -> Any:
        return nir.Affine(np.ones((4, 4), np.float32), np.zeros(4, np.float32))

    def neuron() -> Any:
        return nir.IF(np.ones(4), np.ones(4), np.zeros(4))

    nodes = {"input": nir.Input({"input": np.array([4])}), "a": affine(), "a_if": neuron(),
             "b": affine(), "b_if": neuron(), "c": affine(), "c_if": neuron(),
             "output": nir.Output({"output": np.array([4])})}  # fmt: skip
    edges = [("input", "a"), ("a", "a_if"), ("a_if", "b"), ("b", "b_if"), ("a_if", "c"),
             ("b_if", "c"), ("c", "c_if"), ("c_if", "output")]  # fmt: skip
    plan = plan_of(nir.NIRGraph(nodes=nodes, edges=edges), source="made", dt_s=1.0)
    layers = {layer.name: layer for layer in demands_of(plan).layers}
    assert {name: layer.feeds for name, layer in layers.items()} == {"a": 2, "b": 1, "c": 0}
    assert layers["a"].is_first
    assert layers["c"].is_last


def test_the_table_of_the_zoo_has_a_row_for_each_model() -> None:
    models = [(name, path) for name, path in known_models().items() if name.endswith("-small")]
    if not models:
        pytest.skip("no model of the zoo is here")
    rows = table(models, find_chips("all"))
    assert len(rows) == 2 + len(models)
    assert all(row.count("|") == 2 + len(NAMES) for row in rows)


def test_a_fit_as_json_says_where_each_layer_goes() -> None:
    found = to_mapping(fit(network((2, 34, 34), *PAPER), speck()))
    assert found["fits_as_int8"]
    assert len(found["cores"]["layers"]) == 5
    assert {row["measure"] for row in found["limits"]} == {
        limit.measure for limit in speck().limits
    }
