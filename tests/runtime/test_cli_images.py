"""`mpsl run` with a model of images: pictures, arrays, IDX files; one line for mistakes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.model.graph import load_plan

STEP_KEYS = ["file", "t_us", "step", "scores", "label", "confidence", "events", "dropped"]
Mpsl = Callable[..., tuple[int, str, str]]
Pixels = np.ndarray[Any, Any]


@pytest.fixture
def image_model(write_model: Callable[..., Path]) -> Path:
    """28x28 pixels of grey, three classes, five steps."""
    kind = {"input_kind": "image", "dataset": "mnist", "step_us": 1, "input_grid": 1 / 256}
    return write_model("image.nir", **kind)


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    """A picture of 28x28 pixels."""
    images = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(2).integers(0, 256, (28, 28), np.uint8)
    images.fromarray(pixels).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_picture_gives_a_line_a_step_a_prediction_and_a_summary(
    mpsl: Mpsl, image_model: Path, digit: Path
) -> None:
    code, out, err = mpsl("run", image_model, digit, "--json")
    assert (code, err) == (0, "")
    *steps, prediction, summary = documents(out)
    assert [list(step) for step in steps] == [[*STEP_KEYS, "compute_us"]] * 5
    assert {step["file"] for step in steps} == {str(digit)}
    assert prediction["prediction"]["label"] == steps[-1]["label"]
    assert prediction["prediction"]["target"] is None
    totals = summary["summary"]
    assert (totals["steps"], totals["samples"], totals["accuracy"]) == (5, 1, None)
    assert totals["real_time_factor"] is None


def test_people_read_one_line_an_image(mpsl: Mpsl, image_model: Path, digit: Path) -> None:
    code, out, err = mpsl("run", image_model, digit, digit)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"{digit}: ")
    assert lines[0].endswith("%")
    assert lines[3] == "2 predictions, 10 steps"
    assert "events" not in out


def test_a_picture_of_the_image_and_its_scores_is_drawn(
    mpsl: Mpsl, image_model: Path, digit: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="the extra mpsl-runtime[plot] is not installed")
    code, _, err = mpsl("run", image_model, digit, digit, "--plot", tmp_path / "out.png")
    assert (code, err) == (0, f"picture: {tmp_path / 'out.png'}\n")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_an_array_gives_a_prediction_an_image(
    mpsl: Mpsl, image_model: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8))
    code, out, _ = mpsl("run", image_model, tmp_path / "a.npy", "--json")
    assert code == 0
    found = [d["prediction"]["file"] for d in documents(out) if "prediction" in d]
    assert found == [f"{tmp_path / 'a.npy'}[{i}]" for i in range(4)]


def test_idx_files_with_labels_give_the_accuracy(
    mpsl: Mpsl, image_model: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    head = struct.pack(">HBB3I", 0, 8, 3, 6, 28, 28)
    images = tmp_path / "t10k-images-idx3-ubyte"
    images.write_bytes(head + pixels.tobytes())
    assert "accuracy" not in mpsl("run", image_model, images)[1]
    labels = struct.pack(">HBBI", 0, 8, 1, 6) + bytes([0, 1, 2, 0, 1, 2])
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(labels)
    code, out, _ = mpsl("run", image_model, images, "--json")
    assert code == 0
    found = [d["prediction"] for d in documents(out) if "prediction" in d]
    right = sum(p["label"] == p["target"] for p in found)
    assert [p["file"] for p in found] == [f"{i:05d}" for i in range(6)]
    assert documents(out)[-1]["summary"]["accuracy"] == pytest.approx(right / 6)
    assert mpsl("run", image_model, images)[1].endswith(f"accuracy {right / 6:.2%}\n")


@pytest.mark.parametrize("options", [["--steps", "2"], ["--engine", "reference"], ["--threads", 2]])
def test_options_that_hold_for_any_model_hold_for_images(
    mpsl: Mpsl, image_model: Path, digit: Path, options: list[object]
) -> None:
    code, out, _ = mpsl("run", image_model, digit, "--json", *options)
    assert code == 0
    assert len(documents(out)) == (4 if options == ["--steps", "2"] else 7)


@pytest.mark.parametrize(
    "options",
    [["--step-us", 5], ["--onset", "auto"], ["--strict"], ["--timeout-s", 1], ["--hold-ms", 3],
     ["--every", 2], ["--columns", "t,x,y,p"], ["--least-events", 1]],
)  # fmt: skip
def test_options_of_events_are_refused_for_images(
    mpsl: Mpsl, image_model: Path, digit: Path, options: list[object]
) -> None:
    code, out, err = mpsl("run", image_model, digit, *options)
    assert (code, out) == (2, "")
    assert err == (
        f"mpsl: option means nothing for a model of images; got {options[0]}; in {image_model}\n"
    )


def test_what_does_not_fit_is_one_line_and_nothing_is_printed_before(
    mpsl: Mpsl, image_model: Path, model_file: Path, digit: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((28, 20), np.uint8))
    for words, what in (
        ((image_model, digit, tmp_path / "a.npy"), "array does not fit the model"),
        ((image_model, digit, tmp_path / "absent.png"), "no such file or folder"),
        ((image_model, "udp://localhost:3333"), "model of images takes no live source"),
        ((image_model, digit, "--policy", "sliding"), "policy has no meaning for images"),
        ((model_file, digit), "digit.png"),
    ):
        code, out, err = mpsl("run", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert what in err


def test_real_mnist_gives_the_accuracy_of_the_card(mpsl: Mpsl, shared_data: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / "models" / "mnist-small"
    card = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    images = shared_data / "mnist" / "t10k-images-idx3-ubyte.gz"
    code, out, _ = mpsl("run", folder / "model.nir", images, "--json")
    assert code == 0
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert (summary["samples"], summary["accuracy"]) == (10_000, card["runs"][0]["accuracy"])


def image_models() -> list[Path]:
    """The published models of images; none outside a checkout."""
    folder = Path(__file__).resolve().parents[2] / "models"
    found = []
    for path in sorted(folder.glob("*/model.nir")):
        metadata = load_plan(path).metadata
        if metadata is not None and metadata.input_kind == "image":
            found.append(path)
    return found


def test_every_published_model_of_images_runs(mpsl: Mpsl, tmp_path: Path) -> None:
    found = image_models()
    if not found:
        pytest.skip("not in a checkout")
    assert len(found) >= 6
    for path in found:
        shape = load_plan(path).input_shape
        pixels = np.random.default_rng(1).integers(0, 256, (2, *shape), np.uint8)
        np.save(tmp_path / "two.npy", pixels)
        code, out, err = mpsl("run", path, tmp_path / "two.npy", "--json")
        assert (code, err) == (0, ""), path
        assert documents(out)[-1]["summary"]["samples"] == 2
