"""`mpsl import`: a file of another framework becomes one that says all by itself."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.model.graph import load_plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

Run = Callable[..., tuple[int, str, str]]
BETA = 0.875  # 1 − β is a power of two: its tau is exact


def leaky(size: int) -> nir.LIF:
    """As snntorch's exporter writes Leaky(beta=0.875)."""
    tau = np.full(size, 1e-4 / (1 - BETA), np.float32)
    zero = np.zeros(size, np.float32)
    return nir.LIF(tau=tau, r=tau / np.float32(1e-4), v_leak=zero, v_threshold=zero + 1)


def network(shape: tuple[int, ...] = (2, 10, 12), seed: int = 0) -> nir.NIRGraph:
    random = np.random.default_rng(seed)
    size = int(np.prod(shape))
    nodes = {
        "input": nir.Input({"input": np.array(shape)}),
        "a_flat": nir.Flatten({"input": np.array(shape)}, 0, -1),
        "b_fc": nir.Affine(random.normal(0, 0.3, (20, size)), random.normal(0, 0.1, 20)),
        "c_lif": leaky(20),
        "d_fc": nir.Affine(random.normal(0, 0.5, (3, 20)), random.normal(0, 0.1, 3)),
        "e_lif": leaky(3),
        "output": nir.Output({"output": np.array([3])}),
    }
    return nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)


def as_snntorch_computes(graph: nir.NIRGraph, frames: Any) -> Any:
    """Float64: U = β·U + I − S₋₁·θ, and it fires above θ; frames [T, …] → spikes [T, 3]."""
    U = [np.zeros(20), np.zeros(3)]
    out = []
    for frame in frames:
        x = frame.reshape(-1)
        for index, fc in enumerate(("b_fc", "d_fc")):
            node = graph.nodes[fc]
            U[index] = BETA * U[index] + node.weight @ x + node.bias - (U[index] > 1)
            x = (U[index] > 1).astype(float)
        out.append(x)
    return np.array(out)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    nir.write(str(tmp_path / "net.nir"), network())
    return tmp_path / "net.nir"


@pytest.fixture
def expected(tmp_path: Path) -> Path:
    """Three samples of five steps."""
    frames = (np.random.default_rng(1).random((5, 3, 2, 10, 12)) < 0.1).astype(np.float32)
    spikes = [as_snntorch_computes(network(), frames[:, sample]) for sample in range(3)]
    assert np.array(spikes).mean() > 0.1
    np.savez(tmp_path / "run.npz", input=frames, expected=np.stack(spikes, axis=1))
    return tmp_path / "run.npz"


TIMES = ("--steps", "5", "--step-us", "1000")


def test_an_imported_model_needs_no_option(
    mpsl: Run, foreign: Path, expected: Path, make_events: Callable[..., Events], tmp_path: Path
) -> None:
    model = tmp_path / "model.nir"
    code, out, err = mpsl(
        "import", foreign, "--from", "snntorch", *TIMES, "--expect", expected, "--out", model,
        "--classes", "left,right,none", "--json",
    )  # fmt: skip
    assert code == 0
    said = json.loads(out)
    assert said["expect"] == {
        "samples": 3, "values": 45, "differing": 0, "first_difference": None,
    }  # fmt: skip
    assert said["written"] == str(model)
    assert said["from"] == "snntorch"
    assert said["source_sha256"] == hashlib.sha256(foreign.read_bytes()).hexdigest()
    assert [row["reset"] for row in said["populations"]] == ["subtract-undecayed"] * 2
    assert err == "mpsl: taken --dt-s 0.0001: tau/r or 1/r of all neurons\n"
    write_nmnist_bin(tmp_path / "a.bin", make_events(1, number=900))
    code, out, _ = mpsl("run", model, tmp_path / "a.bin", "--json")
    assert code == 0
    prediction = json.loads(out.splitlines()[-2])["prediction"]
    assert prediction["class"] in ("left", "right", "none")
    assert mpsl("bench", model, "--rounds", "1", "--source", tmp_path / "a.bin")[0] == 0
    shown = json.loads(mpsl("inspect", model, "--json")[1])
    assert shown["metadata"]["imported_from"] == "snntorch"
    assert shown["metadata"]["source_name"] == "net.nir"
    assert shown["metadata"]["imported_given"].startswith("--from snntorch --steps 5")
    assert "not_said" not in shown


def test_a_file_that_was_never_imported_takes_the_same_options(
    mpsl: Run, foreign: Path, make_events: Callable[..., Events], tmp_path: Path
) -> None:
    write_nmnist_bin(tmp_path / "a.bin", make_events(1, number=900))
    assert mpsl("import", foreign, *TIMES, "--out", tmp_path / "model.nir")[0] == 0
    imported = mpsl("run", tmp_path / "model.nir", tmp_path / "a.bin", "--json")[1]
    code, direct, err = mpsl("run", foreign, tmp_path / "a.bin", *TIMES, "--json")
    assert code == 0
    assert "mpsl: taken --from snntorch" in err

    def scores(out: str) -> Any:
        return json.loads(out.splitlines()[-2])["prediction"]["scores"]

    assert scores(imported) == scores(direct)
    assert sum(scores(direct)) > 0
    hard = mpsl("run", foreign, tmp_path / "a.bin", *TIMES, "--reset", "value", "--json")[1]
    assert scores(hard) != scores(direct)
    for verb in ("bench", "inspect"):
        assert mpsl(verb, foreign, *TIMES, "--from", "snntorch")[0] == 0
    code, _, err = mpsl("bench", foreign, "--source", tmp_path / "a.bin", "--rounds", "1")
    assert code == 2
    assert "expected --steps T, --step-us N; or" in err
    words = ("--source", tmp_path / "a.bin", "--rounds", "1")
    assert mpsl("bench", foreign, *words, *TIMES)[0] == 0
    for verb in ("calibrate", "stream-eval"):
        code, out, err = mpsl(verb, foreign, tmp_path)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "expected --steps T, --step-us N, --dataset NAME; or" in err


def test_what_differs_is_named_and_nothing_is_written(
    mpsl: Run, foreign: Path, expected: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.nir"
    words = ("import", foreign, *TIMES, "--reset", "value", "--expect", expected, "--out", model)
    code, out, err = mpsl(*words, "--json")
    assert code == 1
    assert not model.exists()
    found = json.loads(out)
    assert found["written"] is None
    first = found["expect"]["first_difference"]
    case = np.load(expected)
    ours = Reference(load_plan_as(foreign, "value", tmp_path, mpsl))
    got = np.stack([ours.run(case["input"][:, sample]) for sample in range(3)], axis=1)
    step, sample, neuron = np.argwhere(got != case["expected"])[0]
    assert (first["sample"], first["step"], first["neuron"]) == (sample, step, neuron)
    assert found["expect"]["differing"] == (got != case["expected"]).sum()
    code, out, err = mpsl(*words)
    assert code == 1
    assert f"first in sample {sample}, step {step}, neuron {neuron}: got" in out
    assert "nothing written" in err


def load_plan_as(path: Path, reset: str, folder: Path, mpsl: Run) -> Any:
    assert mpsl("import", path, *TIMES, "--reset", reset, "--out", folder / "x.nir")[0] == 0
    return load_plan(folder / "x.nir")


def test_frames_that_are_no_events_need_no_time(mpsl: Run, tmp_path: Path) -> None:
    nir.write(str(tmp_path / "net.nir"), network((7,)))
    model = tmp_path / "model.nir"
    assert mpsl("import", tmp_path / "net.nir", "--out", model)[0] == 0
    plan = load_plan(model)
    assert plan.metadata is not None
    assert plan.metadata.input_kind == "frames"
    assert plan.class_names == ("0", "1", "2")
    assert mpsl("bench", model, "--rounds", "1")[0] == 0
    code, out, err = mpsl("run", model, tmp_path / "a.bin")
    assert (code, out) == (2, "")
    assert "model takes frames, not events; got input (7,)" in err
    assert Engine(plan).run(np.ones((3, 7), np.float32)).shape == (3, 3)


def test_what_cannot_be_imported_is_one_line(
    mpsl: Run, foreign: Path, model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.nir").write_text("hello")
    rockpool = network()
    rockpool.nodes["c_lif"].r = rockpool.nodes["c_lif"].r * 1.04
    nir.write(str(tmp_path / "rockpool.nir"), rockpool)
    out_file = ("--out", tmp_path / "out.nir")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((foreign, *out_file), "expected --steps T, --step-us N; or"),
        (
            (tmp_path / "rockpool.nir", *out_file),
            "nir|snntorch|norse|spikingjelly|sinabs, --dt-s S, --steps T, --step-us N; or",
        ),
        ((foreign, "--from", "nengo", *TIMES, *out_file), "dialect is not known; got 'nengo'"),
        ((foreign, "--fires", "=>", *TIMES, *out_file), "expected > or >=; in --fires"),
        ((model_file, *out_file), "model says all by itself already"),
        ((tmp_path / "text.nir", *out_file), "text.nir"),
        ((tmp_path / "none.nir", *out_file), "no such"),
        ((foreign, *TIMES, "--classes", "a,b", *out_file), "2 class names"),
        ((foreign, *TIMES, "--crop", "0,0,5,5", *out_file), "events binned to (2, 5, 5)"),
        ((foreign, *TIMES, "--crop", "a", *out_file), "expected L,T,W,H; in --crop"),
        ((foreign, *TIMES), "Missing option '--out'"),
        ((foreign, *TIMES, "--out", foreign), "model would be written over itself"),
    ]
    for words, what in cases:
        code, out, err = mpsl("import", *words)
        assert (code, out) == (2, ""), words
        assert err.splitlines()[-1].startswith("mpsl: ")
        assert what in err, words
    assert not (tmp_path / "out.nir").exists()


def damaged(path: Path, **arrays: Any) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in arrays.items():
            if not isinstance(content, bytes):
                stream = io.BytesIO()
                np.save(stream, content, allow_pickle=True)
                content = stream.getvalue()
            archive.writestr(f"{name}.npy", content)
    return path


def test_an_expectation_that_does_not_fit_is_one_line(
    mpsl: Run, foreign: Path, tmp_path: Path
) -> None:
    good, spikes = np.zeros((5, 2, 10, 12), np.float32), np.zeros((5, 3), np.float32)
    (tmp_path / "text.npz").write_text("hello")
    path = tmp_path / "f.npz"
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, "
    bomb = (header + b"'shape': (999999999999,), }").ljust(127) + b"\n"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"input": good}, "no 'expected'"),
        ({"input": good, "expected": spikes[:4]}, "expected [5, 3]"),
        ({"input": good, "expected": spikes + np.inf}, "expected output is not finite"),
        ({"input": good, "expected": np.zeros((3, 5))}, "expected [5, 3]"),
        ({"input": good[..., :3], "expected": spikes}, "input does not fit"),
        ({"input": good * np.nan, "expected": spikes}, "not finite"),
        ({"input": np.zeros(0), "expected": np.zeros(0)}, "input does not fit"),
        ({"input": np.array(["a"]), "expected": spikes}, "array has no numbers"),
        ({"input": np.array([{}]), "expected": spikes}, "array cannot be read"),
        ({"input": b"hello", "expected": spikes}, "array cannot be read"),
        ({"input": bomb, "expected": spikes}, "does not fit its data"),
    ]
    for arrays, what in cases:
        damaged(path, **arrays)
        code, out, err = mpsl(
            "import", foreign, *TIMES, "--expect", path, "--out", tmp_path / "out.nir"
        )
        assert (code, out) == (2, ""), what
        assert what in err.splitlines()[-1]
        assert "f.npz" in err
    for name in ("none.npz", "text.npz"):
        words = ("--expect", tmp_path / name, "--out", tmp_path / "out.nir")
        code, _, err = mpsl("import", foreign, *TIMES, *words)
        assert code == 2
        assert name in err
    assert not (tmp_path / "out.nir").exists()


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (("--dt-s", "1e-6"), "likely cause: dt_s = 1e-06, with which an input of 1 adds 0.01 to"),
        (("--from", "sinabs", "--dt-s", "1e-3"), "none of 'c_lif' fires: is it sinabs (--from)"),
    ],
)
def test_a_silent_recording_is_said_with_its_likely_cause(
    mpsl: Run,
    make_events: Callable[..., Events],
    tmp_path: Path,
    changes: tuple[str, ...],
    cause: str,
) -> None:
    graph = network()
    graph.nodes["b_fc"].bias[:] = 0
    if "sinabs" in changes:
        graph.nodes["b_fc"].weight[:] = -1
    graph.nodes["d_fc"].bias[:] = 0
    nir.write(str(tmp_path / "net.nir"), graph)
    for name in ("a.bin", "b.bin"):
        write_nmnist_bin(tmp_path / name, make_events(1))
    words = (tmp_path / "a.bin", tmp_path / "b.bin", *TIMES, *changes)
    code, _, err = mpsl("run", tmp_path / "net.nir", *words)
    assert code == 0
    said = [line for line in err.splitlines() if "no output spike" in line]
    assert "a.bin: no output spike in 5 steps, 300 events; " in said[0]
    assert cause in said[0]
    assert said[1:] == ["mpsl: 2 of 2 recordings gave no output spike"]


def test_a_model_of_ours_that_is_silent_says_which_layer(
    mpsl: Run, write_model: Callable[..., Path], make_events: Callable[..., Events], tmp_path: Path
) -> None:
    model = write_model()
    with h5py.File(model, "r+") as file:
        for key in ("weight", "bias"):
            file[f"node/nodes/n02_fc/{key}"][...] = 0
    write_nmnist_bin(tmp_path / "a.bin", make_events(1))
    err = mpsl("run", model, tmp_path / "a.bin")[2]
    assert "a.bin: no output spike in 5 steps, 300 events; none of 'n03_lif' fires" in err
