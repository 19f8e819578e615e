"""Files with banks that may go on learning: proven, told, run, and refused where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_export.export import export
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import load_graph, load_plan
from mpsl_runtime.model.nir_writer import write_graph

from .fake_runs import FakeRun

Mpsl = Callable[..., tuple[int, str, str]]
RULES = {
    "tau_w_steps": 40.0, "eta": 1e-3, "activity": "tanh", "cap": 0.25, "bound": "bank",
    "delta": "l1",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(event_run: FakeRun, tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """`event_run`, whose banks say how they learned."""
    tensors, layers = dict(event_run.tensors), []
    for entry in event_run.description["layers"]:
        tensors[f"{entry['name']}.beta"] = np.full(entry["shape"][0], 0.1, np.float32)
        sbp = {"fraction": 0.5, "steering": 0.5} if "sbp" in entry["mechanisms"] else {}
        layers.append({**entry, "rules": RULES | sbp})
    description = {**event_run.description, "layers": layers}
    made = FakeRun(event_run.path, event_run.data, tensors, description)
    return made.write(tmp_path_factory.mktemp("plastic") / "run")


@pytest.fixture(scope="module")
def model(run: FakeRun) -> Path:
    return export(run.path, "nir", plastic=True).written[0]


def test_verify_passes_and_names_a_bank_that_was_changed(
    run: FakeRun, model: Path, mpsl: Mpsl, tmp_path: Path
) -> None:
    code, out, _ = mpsl("verify", run.path, "--data", run.data, "--json")
    assert code == 0, out
    [report] = json.loads(out)["models"]
    assert set(report["spike_mismatch"]) == {"torch", "reference", "engine"}
    assert load_plan(model).plastic  # as it was, with the result
    graph = load_graph(model)
    graph.metadata["plastic"]["n01_conv"]["beta"][0] += 1
    write_graph(graph, tmp_path / "changed.nir")
    code, out, _ = mpsl("verify", run.path, "--data", run.data, "--model", tmp_path / "changed.nir",
                        "--json")  # fmt: skip
    [report] = json.loads(out)["models"]
    assert code == 1
    assert "plastic n01_conv beta" in " ".join(report["reasons"])
    code, _, _ = mpsl("verify", model)  # its probe and its seal
    assert code == 0


def test_inspect_says_that_a_file_is_plastic(model: Path, run: FakeRun, mpsl: Mpsl) -> None:
    code, out, _ = mpsl("inspect", model, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["seal"] == "whole"
    assert found["plastic"] == {
        **dict.fromkeys(("L00", "L01", "L02"), "stbp+hebbian+sbp"), "L03": "stbp+hebbian",
    }  # fmt: skip
    code, out, _ = mpsl("inspect", model)
    assert "plastic" in out


def test_a_plastic_file_is_read_by_the_nir_package(model: Path) -> None:
    import nir

    assert set(nir.read(model).metadata["plastic"]) == {
        "n01_conv", "n04_conv", "n08_affine", "n10_affine"
    }  # fmt: skip


def test_run_learns_where_it_is_told_to_and_says_how_far_it_went(
    model: Path, run: FakeRun, mpsl: Mpsl
) -> None:
    code, out, err = mpsl("run", model, run.data / "Test", "--plastic", "L02,L03", "--json")
    assert code == 0, err
    told = json.loads(out.splitlines()[-1])["summary"]["plastic"]
    assert set(told["layers"]) == {"L02", "L03"}
    assert all(layer["moved"] > 0 and layer["windows"] == 24 for layer in told["layers"].values())
    code, out, _ = mpsl("run", model, run.data / "Test", "--json")
    assert "plastic" not in json.loads(out.splitlines()[-1])["summary"]
    code, out, _ = mpsl("run", model, run.data / "Test", "--plastic", "all", "--reset-banks",
                        "window")  # fmt: skip
    assert code == 0
    assert "plastic, banks reset: window" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plastic", "L09"], "no such plastic layer; got L09; expected all, L00, L01"),
        (["--plastic", "all", "--policy", "sliding"], "belong to one window at a time"),
        (["--plastic", "all", "--state", "kept"], "not kept in a state file"),
        (["--plastic", "all", "--reset-banks", "often"], "got 'often'; expected never or window"),
        (["--reset-banks", "window"], "no banks learn that could be reset"),
    ],
)
def test_run_refuses_in_one_line_what_does_not_go_together(
    model: Path, run: FakeRun, mpsl: Mpsl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = mpsl("run", model, run.data / "Test", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_frozen_model_has_nothing_to_learn_with(run: FakeRun, mpsl: Mpsl) -> None:
    code, _, err = mpsl("run", "nmnist8-small", run.data / "Test", "--plastic", "all")
    assert code == 2
    assert "no banks that could go on learning" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onnx"], "only a .nir file in float32"),
        (["--format", "nir", "--weights", "int8"], "only a .nir file in float32"),
        (["--format", "nir", "--compat", "1.0.4"], "no --compat"),
    ],
)
def test_export_refuses_what_cannot_hold_banks(
    run: FakeRun, mpsl: Mpsl, options: list[str], message: str
) -> None:
    code, _, err = mpsl("export", run.path, "--plastic", *options)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_export_says_which_run_cannot_go_on(
    event_run: FakeRun, image_run: FakeRun, model: Path, mpsl: Mpsl, tmp_path: Path
) -> None:
    for source, message in [
        (event_run.path, "of an earlier version; in L00"),
        (image_run.path, "no bank that could go on learning; got stbp"),
        (model, "only a run has its banks apart"),
    ]:
        code, _, err = mpsl("export", source, "--plastic", "--format", "nir", "--out",
                            tmp_path / "m.nir")  # fmt: skip
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    layers = [{**entry, "mechanisms": ["stbp", "oja", "sbp"]}
              for entry in event_run.description["layers"][:3]]  # fmt: skip
    description = {**event_run.description,
                   "layers": [*layers, event_run.description["layers"][3]]}  # fmt: skip
    other = FakeRun(event_run.path, event_run.data, event_run.tensors, description)
    code, _, err = mpsl("export", other.write(tmp_path / "oja").path, "--plastic",
                        "--format", "nir")  # fmt: skip
    assert code == 2
    assert "layer cannot go on learning; got the rule 'oja'; in L00" in err


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry.update({key: value})


def _put(key: str, value: float) -> Callable[[dict[str, Any]], Any]:
    def change(entry: dict[str, Any]) -> None:
        entry[key] = entry[key].copy()
        entry[key].flat[0] = value

    return change


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "NaN in a bank": (_put("W2", np.nan), "W2 is not finite"),
    "an infinite λ": (_put("lambda", np.inf), "lambda is not finite"),
    "an infinite scale": (_put("scale", -np.inf), "scale is not finite"),
    "β of another layer": (_set("beta", np.zeros(3, np.float32)), "beta has the wrong shape"),
    "a bank of another shape": (
        _set("W1", np.zeros((8, 2, 3, 4), np.float32)), "W1 has the wrong shape",
    ),
    "a huge bank": (_set("W1", np.zeros((1 << 20,), np.float32)), "W1 has the wrong shape"),
    "whole numbers": (_set("W1", np.zeros((8, 2, 3, 3), np.int64)), "W1 has the wrong shape"),
    "text for a bank": (_set("W1", "weights"), "W1 has the wrong shape; got no array"),
    "a group for a bank": (_set("W1", {"a": 1.0}), "W1 has the wrong shape; got no array"),
    "no bank": (lambda entry: entry.pop("W2"), "plastic layer lacks W2"),
    "no η": (lambda entry: entry.pop("eta"), "metadata lacks 'eta'"),
    "an infinite η": (_set("eta", np.inf), "'eta' is out of range; got inf"),
    "η that is no number": (_set("eta", np.nan), "'eta' is out of range; got nan"),
    "η as text": (_set("eta", "0.1"), "'eta' has the wrong type"),
    "η as an array": (_set("eta", np.ones(3)), "'eta' has the wrong type"),
    "τ_w of 0": (_set("tau_w_steps", 0.0), "'tau_w_steps' is out of range"),
    "a negative cap": (_set("cap", -1.0), "'cap' is out of range"),
    "an unknown activity": (_set("activity", "relu"), "'activity' is not known"),
    "an unknown rule": (_set("rules", "stbp,oja,sbp"), "got the rule 'oja'"),
    "rules in another order": (_set("rules", "hebbian,stbp,sbp"), "got banks in another order"),
    "sbp first": (_set("rules", "stbp,sbp,hebbian"), "sbp without a Hebbian bank"),
    "a rule too few": (_set("rules", "stbp,hebbian"), "lambda has the wrong shape"),
    "a thousand rules": (_set("rules", ",".join(["stbp"] * 1000)), "too many banks; got 1000"),
    "a bank of others": (_put("W2", 7.0), "banks do not make the weight that the model has"),
    "numbers beyond float32": (
        _set("W1", np.full((8, 2, 3, 3), 1e300)), "banks do not make the weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_entry_is_refused_in_one_line(
    model: Path, mpsl: Mpsl, tmp_path: Path, case: str
) -> None:
    change, message = HOSTILE[case]
    graph = load_graph(model)
    change(graph.metadata["plastic"]["n01_conv"])
    write_graph(graph, tmp_path / "hostile.nir")
    code, out, err = mpsl("inspect", tmp_path / "hostile.nir")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert "n01_conv" in err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("yes", "is not a group of layers"),
        ({}, "is not a group of layers"),
        ({"n99": {}}, "names no weights between neurons of mpsl; got n99"),
        ({"n02_lif": {}}, "names no weights between neurons of mpsl"),
        ({"n01_conv": 1.0}, "a plastic layer is not a group"),
    ],
)
def test_hostile_groups_are_refused(model: Path, value: Any, message: str, tmp_path: Path) -> None:
    from mpsl_runtime.model.graph import plan_of

    graph = load_graph(model)
    graph.metadata = {**graph.metadata, "plastic": value}
    with pytest.raises(ModelError, match=message):
        plan_of(graph, source="hostile")


def test_two_layers_of_one_name_and_an_int8_model_are_refused(model: Path) -> None:
    from mpsl_runtime.model.graph import plan_of

    graph = load_graph(model)
    graph.metadata["plastic"]["n04_conv"]["layer"] = "L00"
    with pytest.raises(ModelError, match="two plastic layers have one name"):
        plan_of(graph, source="hostile")
    graph = load_graph(model)
    graph.metadata["weights"] = "int8"
    with pytest.raises(ModelError, match=r"only a float32 model|weight_grid"):
        plan_of(graph, source="hostile")
