"""`mpsl export`, `mpsl verify` and `mpsl inspect` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.write.to_nir import graph_of, write_nir

Copy = Callable[[Any], Any]
Command = Callable[..., tuple[int, str, str]]


def test_a_run_is_exported_and_verified(event_run: Any, copied: Copy, mpsl: Command) -> None:
    run = copied(event_run)
    code, out, _ = mpsl("export", run.path, "--format", "nir")
    assert code == 0
    assert "model.nir" in out
    assert "14,912 with banks, 5,056 merged" in out
    assert "folding rounded the weights once in: L01" in out
    code, out, _ = mpsl("export", run.path, "--format", "onnx")
    assert code == 0
    assert "model.onnx" in out
    assert "model.step.onnx" in out
    code, out, err = mpsl("verify", run.path, "--data", run.data)
    assert code == 0, err
    assert out == ""
    for word in ("passed", "torch", "onnx", "reference", "engine", "CPUExecutionProvider"):
        assert word in err
    code, out, err = mpsl("verify", run.path, "--data", run.data, "--json", "--limit", 4)
    assert code == 0
    assert err == ""
    report = json.loads(out)
    assert report["passed"]
    assert report["samples"] == 4
    assert {name for model in report["models"] for name in model["spike_mismatch"]} == {
        "torch", "onnx", "reference", "engine",
    }  # fmt: skip


def test_neurons_without_a_leak_are_exported_as_ifs_and_verified_as_int8_too(
    if_run: Any, copied: Copy, mpsl: Command
) -> None:
    run = copied(if_run)
    for kind in ("nir", "onnx"):
        assert mpsl("export", run.path, "--format", kind)[0] == 0
        int8 = ("--weights", "int8", "--data", run.data)
        assert mpsl("export", run.path, "--format", kind, *int8)[0] == 0
    graph = nir.read(run.path / "model.nir")
    assert [name for name in graph.nodes if name.endswith("_if")] == ["n02_if", "n05_if", "n08_if"]
    # The exit code is not asked for: banks that were drawn lose accuracy as int8.
    _, out, _ = mpsl("verify", run.path, "--data", run.data, "--json")
    models = json.loads(out)["models"]
    assert sorted({model["against"] for model in models}) == ["reference", "trained"]
    assert len(models) == 6
    assert all(set(model["spike_mismatch"].values()) == {0} for model in models)


@pytest.mark.parametrize("name", ["norse", "sinabs", "snntorch", "spikingjelly"])
def test_a_framework_is_asked_for_by_name(
    name: str, event_run: Any, copied: Copy, mpsl: Command
) -> None:
    run = copied(event_run)
    mpsl("export", run.path, "--format", "nir")
    code, out, err = mpsl("verify", run.path, "--data", run.data, "--backend", name, "--json")
    assert code == 0, err
    (model,) = json.loads(out)["models"]
    assert model["spike_mismatch"] == {name: 0}


def test_out_names_the_files(event_run: Any, copied: Copy, mpsl: Command, tmp_path: Path) -> None:
    run = copied(event_run)
    code, _, _ = mpsl("export", run.path, "--format", "onnx", "--out", tmp_path / "a.onnx")
    assert code == 0
    assert {path.name for path in tmp_path.glob("a*")} == {"a.onnx", "a.step.onnx"}
    assert not list(run.path.glob("model*"))
    code, _, err = mpsl("export", run.path, "--format", "nir", "--out", tmp_path / "b.onnx")
    assert code == 2
    assert "ends in .nir" in err


def test_a_wrong_artifact_exits_with_1(event_run: Any, copied: Copy, mpsl: Command) -> None:
    run = copied(event_run)
    graph = graph_of(read_checkpoint(run.path))
    graph.nodes["n05_lif"].v_threshold = graph.nodes["n05_lif"].v_threshold * np.float32(1.05)
    write_nir(graph, run.path / "model.nir")
    code, out, err = mpsl("verify", run.path, "--data", run.data)
    assert code == 1
    assert "FAILED" in err
    assert "layer n05_lif, step" in err
    assert "sample 0/0000" in err
    code, out, _ = mpsl("verify", run.path, "--data", run.data, "--json")
    assert code == 1
    assert json.loads(out)["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "RUN", "--format", "pdf"], "no such export format; got pdf"),
        (["export", "RUN", "--format", "nir", "--weights", "int4"], "got int4"),
        (["export", "RUN"], "--format"),
        (["export", "absent", "--format", "nir"], "no such run folder"),
        (["export", "RUN", "--format", "nir", "--out", "absent/m.nir"], "cannot write"),
        (["verify", "RUN", "--data", "DATA"], "run `mpsl export` first"),
        (["verify", "absent"], "no such run folder"),
        (["verify", "RUN", "--limit", "many"], "--limit"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_2(
    event_run: Any, mpsl: Command, arguments: list[str], words: str
) -> None:
    places = {"RUN": str(event_run.path), "DATA": str(event_run.data)}
    code, out, err = mpsl(*(places.get(argument, argument) for argument in arguments))
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_banks_that_are_not_finite_leave_nothing_written(
    event_run: Any, copied: Copy, mpsl: Command
) -> None:
    run = copied(event_run)
    run.tensors["L00.W1"][0, 0, 0, 0] = np.nan
    run.write(run.path)
    code, _, err = mpsl("export", run.path, "--format", "nir")
    assert code == 2
    assert "L00.W1" in err
    assert not list(run.path.glob("*model*"))


def test_a_run_is_inspected(event_run: Any, mpsl: Command) -> None:
    code, out, err = mpsl("inspect", event_run.path, "--json")
    assert code == 0, err
    described = json.loads(out)
    assert described["kind"] == "run"
    assert described["parameters"] == 14_912
    assert described["parameters_merged"] == 5_056
    assert [row["name"] for row in described["layers"]] == ["L00", "L01", "L02", "L03"]
    assert described["layers"][0]["weight_shape"] == [8, 2, 3, 3]
    assert described["layers"][3]["mechanisms"] == "stbp, hebbian"
    assert described["metadata"]["dataset"] == "nmnist8"
    assert described["samples"] == 24


def test_onnx_files_are_inspected(event_run: Any, copied: Copy, mpsl: Command) -> None:
    run = copied(event_run)
    mpsl("export", run.path, "--format", "onnx")
    for name, form in (("model.onnx", "sequence"), ("model.step.onnx", "step")):
        code, out, err = mpsl("inspect", run.path / name, "--json")
        assert code == 0, err
        described = json.loads(out)
        assert (described["kind"], described["form"]) == ("onnx", form)
        assert described["parameters"] == 5_056
        assert described["bytes"] == (run.path / name).stat().st_size
        assert described["metadata"]["step_us"] == "60000"
        rows = {row["name"]: row for row in described["layers"]}
        assert rows["n01_conv"]["weight_shape"] == [8, 2, 3, 3]
        assert rows["n02_lif"]["type"] == "LIF"
        assert rows["n02_lif"]["threshold"] == pytest.approx(0.3)
        assert rows["n02_lif"]["reset"] == "subtract"
    code, out, _ = mpsl("inspect", run.path / "model.onnx")
    assert code == 0
    assert "n11_lif" in out


def test_what_cannot_be_inspected_is_one_line(tmp_path: Path, mpsl: Command) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    for path in (tmp_path, tmp_path / "text.onnx"):
        code, _, err = mpsl("inspect", path)
        assert code == 2
        assert err.count("\n") == 1


def test_help_shows_the_verbs_and_an_example(mpsl: Command) -> None:
    for verb in ("export", "verify"):
        code, out, _ = mpsl(verb, "--help")
        assert code == 0
        assert f"Example: mpsl {verb} runs/demo" in " ".join(out.split())


def _in_fresh_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_the_command_line_imports_typer_and_nothing_heavy() -> None:
    code = "import sys, mpsl_export.cli; print(sorted(m for m in sys.modules if '.' not in m))"
    loaded = set(json.loads(_in_fresh_python(code).replace("'", '"')))
    assert "typer" in loaded
    assert not loaded & {"numpy", "nir", "h5py", "torch", "onnx", "safetensors", "mpsl_train"}


def test_export_needs_no_torch(event_run: Any, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.write.to_nir import graph_of, write_nir
from mpsl_export.write.to_onnx import write_onnx
from mpsl_runtime.model.graph import load_plan
graph = graph_of(read_checkpoint(Path({str(event_run.path)!r})))
out = Path({str(tmp_path)!r})
write_nir(graph, out / "m.nir")
write_onnx(load_plan(out / "m.nir"), out / "m.onnx")
import mpsl_export.verify.verify
print("done")
"""
    assert _in_fresh_python(code) == "done"
    assert (tmp_path / "m.step.onnx").is_file()


def test_an_onnx_file_with_damaged_data_is_one_line(
    event_run: Any, copied: Copy, mpsl: Command
) -> None:
    import onnx

    run = copied(event_run)
    mpsl("export", run.path, "--format", "onnx")
    file = run.path / "model.step.onnx"
    for damage in ("short", "external"):
        model = onnx.load(file)
        weight = next(v for v in model.graph.initializer if v.name.endswith(".weight"))
        if damage == "short":
            weight.raw_data = weight.raw_data[:-4]
        else:
            weight.data_location = onnx.TensorProto.EXTERNAL
            weight.external_data.add(key="location", value="/etc/passwd")
        (run.path / "bad.onnx").write_bytes(model.SerializeToString())
        for command in (["inspect"], ["verify", run.path, "--data", run.data, "--model"]):
            code, _, err = mpsl(*command, run.path / "bad.onnx")
            assert code == 2
            assert err.count("\n") == 1
            assert "bad.onnx" in err
