"""A run or a model as C: what is written, what compilers say of it, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.export import export
from mpsl_export.write.c.names import identifiers
from mpsl_export.write.to_c import c_files
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.graph import load_graph, load_plan, plan_of
from mpsl_runtime.model.plan import Plan

from ....runtime.run.branching import DT_S, grown  # noqa: TID252 - tests are no package
from .many import STRICT, compilers

Copy = Callable[[Any], Any]
Command = Callable[..., tuple[int, str, str]]
FILES = ["CMakeLists.txt", "Makefile", "model.c", "model.h", "probe.c"]
FOREIGN = ("--from", "nir", "--dt-s", DT_S)
needs_gcc = pytest.mark.skipif("gcc" not in compilers(), reason="no gcc: nothing compiles the C")


def build(folder: Path, tool: str, *flags: str) -> Path:
    """Everything in a folder that is C, strictly; the program."""
    program = folder / "program"
    sources = [str(path) for path in sorted(folder.glob("*.c"))]
    done = subprocess.run(
        [tool, *STRICT, *flags, "-o", str(program), *sources],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:3000]
    return program


def digest(program: Path) -> str:
    """What the probe prints; it must be what stands in it."""
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@needs_gcc
@pytest.mark.parametrize("weights", ["float32", "int8"])
@pytest.mark.parametrize("which", ["event_run", "image_run", "if_run"])
def test_a_run_as_c_does_what_training_did(
    which: str, weights: str, request: pytest.FixtureRequest, copied: Copy, mpsl: Command
) -> None:
    run = copied(request.getfixturevalue(which))
    asked = ("--weights", weights, "--data", run.data)
    code, out, err = mpsl("export", run.path, "--format", "c", *asked)
    assert code == 0, err
    folder = run.path / ("model.c" if weights == "float32" else "model.int8.c")
    more = [] if weights == "float32" else ["int8.json"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, *more])
    assert all(str(folder / name) in out for name in FILES)
    code, out, err = mpsl("verify", run.path, "--data", run.data, "--json")
    (model,) = json.loads(out)["models"]
    # Of a few random samples one is more than int8 may lose of the accuracy.
    assert all("accuracy" in reason for reason in model["reasons"])
    assert code == (1 if model["reasons"] else 0), err
    assert model["spike_mismatch"]["c"] == 0
    assert model["argmax_agreement"]["c"] == 1
    # Every file of a model has the same probe.
    export(run.path, "nir", weights=weights, data=run.data, out=run.path / "same.nir")
    said = load_graph(run.path / "same.nir").metadata
    assert digest(build(folder, "gcc", "-O1")) == said["probe_sha256"]


@needs_gcc
def test_a_model_of_images_becomes_int8_c(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, 1, 28, 28)).astype(np.float32) / 256
    np.savez(tmp_path / "given.npz", input=np.repeat(frames, 4, axis=0))
    asked = {"weights": "int8", "calibrate": tmp_path / "given.npz", "out": tmp_path / "c"}
    export("mnist-small", "c", **asked)
    assert len(digest(build(tmp_path / "c", "gcc", "-O1"))) == 64


@needs_gcc
def test_one_wrong_bit_in_a_folder_fails_and_is_not_compiled(
    event_run: Any, copied: Copy, mpsl: Command
) -> None:
    run = copied(event_run)
    export(run.path, "c", out=run.path / "elsewhere")
    path = run.path / "elsewhere" / "model.c"
    text = path.read_text()
    path.write_text(text.replace(" >= 0.3f;", " >= 0.30001f;", 1))
    asked = ("--model", path.parent, "--data", run.data, "--json")
    code, out, _ = mpsl("verify", run.path, *asked)
    assert code == 1
    (model,) = json.loads(out)["models"]
    assert "model.c" in model["reasons"][0]
    assert "differs from byte" in model["reasons"][0]
    assert model["spike_mismatch"] == {}
    path.unlink()
    code, out, err = mpsl("verify", run.path, *asked)
    assert code == 2
    assert "no such model" in err


@needs_gcc
def test_compilers_find_nothing_and_all_give_the_same_digest(
    event_run: Any, if_run: Any, tmp_path: Path
) -> None:
    """gcc and clang, unoptimised and optimised, and under AddressSanitizer and UBSan; with gcc's
    own dialect too, in which it may join products and sums."""
    for number, (run, weights) in enumerate([(event_run, "float32"), (if_run, "int8")]):
        folder = tmp_path / str(number)
        export(run.path, "c", weights=weights, data=run.data, samples=4, out=folder)
        found = set()
        for tool in compilers():
            for level in ("-O0", "-O3"):
                found.add(digest(build(folder, tool, level)))
        sanitized = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        found.add(digest(build(folder, "gcc", "-O1", *sanitized)))
        found.add(digest(build(folder, "gcc", "-O2", "-std=gnu11", "-march=native")))
        assert len(found) == 1


@needs_gcc
@pytest.mark.parametrize("middle", ["many spikes", "delay"])
def test_whole_numbers_that_lie_in_floats_compile_strictly_as_int8(
    middle: str, tmp_path: Path, mpsl: Command
) -> None:
    random, one = np.random.default_rng(0), np.ones(8, np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([6])}),
        "a_fc": nir.Linear(random.normal(0, 0.8, (8, 6)).astype(np.float32)),
        "b_if": nir.IF(one, one, 0 * one),
        "c_delay": nir.Delay(2 * one),
        "d_fc": nir.Linear(random.normal(0, 0.4, (4, 8)).astype(np.float32)),
        "e_if": nir.IF(one[:4], one[:4], 0 * one[:4]),
        "output": nir.Output({"output": np.array([4])}),
    }
    words = ("--from", "nir", "--dt-s", "1")
    if middle == "many spikes":
        del nodes["c_delay"]
        words = ("--from", "sinabs", "--spikes", "many")
    nir.write(str(tmp_path / "net.nir"), nir.NIRGraph(nodes, [*pairwise(nodes)], type_check=False))
    np.savez(tmp_path / "x.npz", input=(random.random((9, 2, 6)) < 0.5).astype(np.float32))
    int8 = ("--weights", "int8", "--calibrate", tmp_path / "x.npz", "--out", tmp_path / "c")
    code, _, err = mpsl("export", tmp_path / "net.nir", "--format", "c", *int8, *words)
    assert code == 0, err
    digest(build(tmp_path / "c", "gcc", "-O1"))


@needs_gcc
def test_thresholds_that_are_one_number_leave_no_parameter_unused(
    tmp_path: Path, mpsl: Command
) -> None:
    nodes = {
        "input": nir.Input({"input": np.array([6])}),
        "a_fc": nir.Linear(np.random.default_rng(0).normal(0, 1, (4, 6)).astype(np.float32)),
        "b_threshold": nir.Threshold(np.full(4, 0.3, np.float32)),
        "output": nir.Output({"output": np.array([4])}),
    }
    nir.write(str(tmp_path / "net.nir"), nir.NIRGraph(nodes, [*pairwise(nodes)], type_check=False))
    out = ("--out", tmp_path / "c")
    code, _, err = mpsl("export", tmp_path / "net.nir", "--format", "c", *FOREIGN, *out)
    assert code == 0, err
    digest(build(tmp_path / "c", "gcc", "-O1"))


@needs_gcc
def test_two_models_link_into_one_image(event_run: Any, if_run: Any, tmp_path: Path) -> None:
    export(event_run.path, "c", out=tmp_path / "eye", prefix="eye")
    export(if_run.path, "c", out=tmp_path / "ear", prefix="ear")
    (tmp_path / "main.c").write_text(
        '#include "eye/model.h"\n#include "ear/model.h"\n'
        "static eye_state one;\nstatic ear_state two;\n"
        "int main(void)\n{\n    eye_score a[EYE_CLASSES];\n    ear_score b[EAR_CLASSES];\n"
        "    eye_event event;\n    eye_reset(&one), ear_reset(&two);\n"
        "    if (!eye_camera(3, 4, 1, &event) || eye_camera(34, 0, 0, &event)) return 1;\n"
        "    if (eye_step(&one, &event, 1, a) || ear_step(&two, 0, 0, b)) return 2;\n"
        "    event.at = EYE_INPUTS;\n"
        "    if (eye_step(&one, &event, 1, a) != EYE_BAD_EVENT) return 3;\n"
        "    return (int)(eye_label(a) + ear_label(b)) > 14;\n}\n"
    )
    sources = [str(tmp_path / name) for name in ("main.c", "eye/model.c", "ear/model.c")]
    program = str(tmp_path / "main")
    subprocess.run(["gcc", *STRICT, "-O1", "-o", program, *sources], check=True)
    assert subprocess.run([program], check=False).returncode == 0


@needs_gcc
def test_an_int8_program_refuses_what_its_proof_does_not_cover(
    if_run: Any, copied: Copy, tmp_path: Path
) -> None:
    """Inputs beyond the bound, and more steps than membranes are proven for."""
    folder = tmp_path / "c"
    export(if_run.path, "c", weights="int8", data=if_run.data, samples=4, out=folder)
    (folder / "probe.c").write_text(
        '#include "model.h"\nstatic mpsl_state state, before;\n#include <string.h>\n'
        "int main(void)\n{\n    mpsl_event most[2] = {{7, 1}, {7, 1}};\n"
        "    mpsl_score scores[MPSL_CLASSES];\n    mpsl_reset(&state);\n"
        "    before = state;\n"
        "    for (int32_t k = 0; k < 70000; k++) {\n"
        "        most[0].value = (uint16_t)-1;\n"
        "        if (mpsl_step(&state, most, 2, scores) != MPSL_BAD_EVENT) return 1;\n    }\n"
        "    state.scratch = before.scratch;\n"
        "    if (memcmp(&state, &before, sizeof state) != 0) return 2;\n"
        "    most[0].value = 1;\n"
        "    for (uint32_t t = 0; t < MPSL_STEPS; t++)\n"
        "        if (mpsl_step(&state, most, 2, scores) != MPSL_OK) return 3;\n"
        "    return mpsl_step(&state, most, 2, scores) == MPSL_RESET_FIRST ? 0 : 4;\n}\n"
    )
    program = build(folder, "gcc", "-O1")
    assert subprocess.run([str(program)], check=False).returncode == 0


def test_the_same_network_always_gives_the_same_bytes(event_run: Any) -> None:
    plan = plan_of(graph_of(read_checkpoint(event_run.path)), source="test")
    assert c_files(plan) == c_files(plan)
    assert c_files(plan)["model.c"] != c_files(plan, "other")["model.c"]


def test_a_model_file_becomes_c_beside_it_and_nothing_is_half_written(
    tmp_path: Path, mpsl: Command
) -> None:
    graph, _ = grown(2)
    nir.write(str(tmp_path / "graph.nir"), graph)
    code, _, err = mpsl("export", tmp_path / "graph.nir", "--format", "c", *FOREIGN)
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "graph.c").iterdir()) == FILES
    (tmp_path / "taken").write_text("a file")
    asked = ("export", tmp_path / "graph.nir", "--format", "c", *FOREIGN)
    code, _, err = mpsl(*asked, "--out", tmp_path / "taken")
    assert code == 2
    assert "cannot write output" in err
    # Capitals are those of macros: `Digits` and `digits` would not fit one image.
    for prefix in ("3d", "Digits", ""):
        code, _, err = mpsl(*asked, "--out", tmp_path / "none", "--prefix", prefix)
        assert code == 2
        assert f"prefix begins no name of C; got {prefix}" in err
    assert not (tmp_path / "none").exists()
    code, _, err = mpsl(*asked[:3], "nir", *asked[4:], "--prefix", "a")
    assert code == 2
    assert "format nir has no prefix; got a; in --prefix" in err


def test_what_cannot_be_said_in_c_is_refused_by_name(tmp_path: Path) -> None:
    graph, _ = grown(2)
    nir.write(str(tmp_path / "graph.nir"), graph)
    plan = load_plan(tmp_path / "graph.nir", dt_s=DT_S)

    class Strange:
        name, sources = "odd", ()
        input_shape = output_shape = plan.output_shape

    odd: Any = Strange()
    strange: Plan = replace(plan, nodes=(*plan.nodes, odd))
    with pytest.raises(ModelError, match="node has no form in C; got Strange; in node 'odd' of"):
        c_files(strange)


def test_any_name_of_a_node_becomes_one_of_c() -> None:
    names = ["n01_conv", "a.b", "a_b", "if", "int", "0", "ünï*/", "x" * 99, "x" * 98, "V", "a_V"]
    found = identifiers([*names, "input"])
    assert len({each.lower() for each in found.values()}) == len(names) + 1
    for each in found.values():
        assert each.isidentifier()
        assert each.isascii()
        assert len(each) <= 24
    assert found["n01_conv"] == "n01_conv"
    assert not {"if", "int", "input"} & set(found.values())


@needs_gcc
def test_texts_of_a_stranger_end_no_comment_and_no_string(event_run: Any, tmp_path: Path) -> None:
    plan = plan_of(graph_of(read_checkpoint(event_run.path)), source="test")
    assert plan.metadata is not None
    text = '*/ int x; /* " \\ ??/ % $name ü'
    classes = ",".join([text.replace(",", ""), *"bcdefgh"])
    changed = replace(plan.metadata, classes=classes, network=text, dataset=text)
    nodes = (replace(plan.nodes[0], name="*/ #error"), *plan.nodes[1:])
    files = c_files(replace(plan, metadata=changed, nodes=nodes))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    digest(build(tmp_path, "gcc", "-O0", "-trigraphs"))


def test_a_constant_is_read_back_as_it_was() -> None:
    from mpsl_export.write.c.text import number

    values = np.random.default_rng(0).normal(0, 1, 500).astype(np.float32)
    for value in [*values, np.float32(0.1), np.float32(1e-40), np.float32(3e38), np.float32(2)]:
        text = number(value)
        assert text.endswith("f")
        assert any(mark in text for mark in ".e")
        assert np.float32(text[:-1]) == value
