"""`mpsl bench` with nothing but the runtime: what is measured, and what counts as equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from mpsl_runtime import _native
from mpsl_runtime.bench import bench, programs
from mpsl_runtime.bench.density import force_density
from mpsl_runtime.bench.inputs import recorded, synthetic
from mpsl_runtime.bench.layer_times import layer_times
from mpsl_runtime.errors import DataError, UsageError
from mpsl_runtime.events.binning import frames
from mpsl_runtime.events.readers import write_nmnist_bin
from mpsl_runtime.model.graph import encode_neuron, load_plan
from mpsl_runtime.model.grid import layer_grids
from mpsl_runtime.model.metadata import ModelMetadata, NeuronMetadata
from mpsl_runtime.model.plan import Convolution, Dense, Plan
from mpsl_runtime.run.engine import Engine
from mpsl_runtime.run.reference import Reference

ROW_KEYS = [
    "network", "weights", "density", "engine_us", "ort_us", "torch_us", "ratio_ort", "best_us",
    "gsops", "synops", "equal",
]  # fmt: skip
Mpsl = Callable[..., tuple[int, str, str]]


def convolutional(path: Path, weights: str = "int8", **changes: Any) -> Path:
    """6C3-AP2-20FC-4 on 12x10 pixels, weights in multiples of 2^-5."""
    random = np.random.default_rng(1)
    metadata = ModelMetadata(
        mpsl=2, dataset="nmnist", network="6C3-AP2-20FC-4", input_kind="events", steps=5,
        step_us=1000, coding="count", origin="zero", downsample=1, sensor_width=12,
        sensor_height=10, crop="", image_mean="", image_std="", input_grid=1.0,
        classes="0,1,2,3", readout="count", dt_s=1e-4, recipe_hash="0" * 64,
    )  # fmt: skip
    grid: dict[str, Any] = {}
    if weights == "int8":
        grid = {"weight_grid": -5}
        metadata = replace(metadata, weights="int8", input_max=9)
    metadata = replace(metadata, **changes)

    def draw(*shape: int) -> np.ndarray:
        return (random.integers(-60, 61, shape) / 32).astype(np.float32)

    def neurons(*shape: int) -> nir.LIF:
        about = NeuronMetadata("subtract", "reset-decay-add-fire", 0.75, 2.0, 1e-4)
        return nir.LIF(
            **encode_neuron(2.0, 0.75, shape, 1e-4), metadata={**about.to_mapping(), **grid}
        )

    two, none = np.array([2, 2]), np.array([0, 0])
    nodes = {
        "n00_input": nir.Input({"input": np.array([2, 10, 12])}),
        "n01_conv": nir.Conv2d(
            (10, 12), draw(6, 2, 3, 3), 1, 1, 1, 1, draw(6), metadata=dict(grid)
        ),
        "n02_lif": neurons(6, 10, 12),
        "n03_sumpool": nir.SumPool2d(two, two.copy(), none),
        "n04_flatten": nir.Flatten({"input": np.array([6, 5, 6])}, start_dim=0, end_dim=-1),
        "n05_affine": nir.Affine(draw(20, 180) / 4, draw(20), metadata=dict(grid)),
        "n06_lif": neurons(20),
        "n07_affine": nir.Affine(draw(4, 20), draw(4), metadata=dict(grid)),
        "n08_lif": neurons(4),
        "n09_output": nir.Output({"output": np.array([4])}),
    }
    if weights == "int8":
        # 1/4 of a multiple of 2^-5 is a multiple of 2^-7.
        for name in ("n05_affine", "n06_lif"):
            nodes[name].metadata["weight_grid"] = -7
    graph = nir.NIRGraph(nodes=nodes, edges=list(pairwise(nodes)), metadata=metadata.to_mapping())
    nir.write(path, graph)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return convolutional(tmp_path / "model.nir")


class Mirror:
    """A program that is the reference, with a fault in one step if asked for."""

    device = "numpy"

    def __init__(self, plan: Plan, threads: int, fault: float = 0) -> None:
        self.plan, self.fault = plan, fault
        self.reference = Reference(plan)
        self.seen: list[np.ndarray] = []

    def reset(self) -> None:
        self.reference.reset()
        self.seen = []

    def step(self, frame: np.ndarray) -> np.ndarray:
        self.seen.append(frame)
        spikes = np.array(self.reference.step(frame))
        if len(self.seen) == 3:
            spikes[0] += self.fault
        return spikes

    def states(self) -> dict[str, np.ndarray]:
        sequence = np.array(self.seen)
        reference = Reference(self.plan)
        spikes, U = reference.record(sequence), reference.record_membrane(sequence)
        return {
            neuron.name: membrane[-1] - spike[-1] * neuron.threshold
            for neuron, membrane, spike in zip(self.plan.spiking, U, spikes, strict=True)
        }


def faulty(plan: Plan, threads: int) -> Mirror:
    return Mirror(plan, threads, fault=1)


class Entry:
    """An entry point."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value

    def load(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_json_is_one_document_with_the_keys_that_scripts_depend_on(mpsl: Mpsl, model: Path) -> None:
    code, out, err = mpsl("bench", model, "--density", "0.1,0.3", "--rounds", "2", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert list(document)[:3] == ["device", "isa", "rows"]
    assert document["isa"] == _native.isa()
    assert [row["density"] for row in document["rows"]] == [0.1, 0.3]
    for row in document["rows"]:
        assert list(row)[: len(ROW_KEYS)] == ROW_KEYS
        assert (row["network"], row["weights"]) == ("6C3-AP2-20FC-4", "int8")
        assert row["ort_us"] is row["torch_us"] is row["ratio_ort"] is None
        assert row["equal"] is row["exact"] is True
        assert row["engine_us"] > 0
        assert 0 < row["best_us"]["engine"] <= row["engine_us"]
        assert row["output_spikes"] > 0
        assert row["gsops"] == pytest.approx(row["synops"] / row["engine_us"] / 1e3, abs=2e-3)
    assert document["rows"][0]["synops"] < document["rows"][1]["synops"]


def test_people_get_a_table(mpsl: Mpsl, model: Path) -> None:
    code, out, err = mpsl("bench", model, "--rounds", "1")
    assert (code, err) == (0, "")
    assert "6C3-AP2-20FC-4" in out
    assert "yes (bit for bit)" in out
    assert all(name in out for name in ("n02_lif", "n06_lif", "n08_lif", "roofline"))


def test_without_the_other_distribution_rivals_are_a_missing_extra(mpsl: Mpsl, model: Path) -> None:
    code, out, err = mpsl("bench", model, "--against", "onnx")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "mpsl[cpu]" in err


@pytest.mark.parametrize(
    ("value", "word"),
    [("frames", "frames"), (ImportError("no", name="onnxruntime"), "onnxruntime")],
)
def test_a_rival_that_is_not_known_or_lacks_its_package_is_one_line(
    mpsl: Mpsl, model: Path, monkeypatch: pytest.MonkeyPatch, value: Any, word: str
) -> None:
    entries = [Entry("onnx", value)]
    monkeypatch.setattr(programs, "entry_points", lambda group: entries)
    wanted = "onnx" if isinstance(value, Exception) else value
    code, out, err = mpsl("bench", model, "--against", wanted)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert word in err


@pytest.mark.parametrize(
    "words",
    [
        ("--density", "0"),
        ("--density", "1"),
        ("--density", "0.1,much"),
        ("--density", "nan"),
        ("--rounds", "0"),
        ("--source", "udp://localhost:3333"),
        ("--source", "nowhere.bin"),
    ],
)
def test_options_that_cannot_be_are_one_line(mpsl: Mpsl, model: Path, words: tuple[str]) -> None:
    code, out, err = mpsl("bench", model, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_equal_outputs_of_a_rival_count_as_equal(
    mpsl: Mpsl, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "entry_points", lambda group: [Entry("onnx", Mirror)])
    code, out, err = mpsl("bench", model, "--against", "onnx", "--rounds", "2", "--json")
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["rows"]
    assert row["equal"] is row["exact"] is True
    assert row["ort_us"] == row["programs"]["onnx"]["us"] > 0
    assert row["ratio_ort"] > 1
    assert row["programs"]["onnx"]["device"] == "numpy"


def test_one_wrong_spike_of_a_rival_is_found_and_fails(
    mpsl: Mpsl, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "entry_points", lambda group: [Entry("onnx", faulty)])
    code, out, err = mpsl("bench", model, "--against", "onnx", "--rounds", "1", "--json")
    assert code == 1
    assert err.count("\n") == 1
    assert json.loads(out)["rows"][0]["equal"] is False


def test_another_membrane_behind_equal_spikes_fails_an_int8_model(model: Path) -> None:
    class Drifting(Mirror):
        def states(self) -> dict[str, np.ndarray]:
            return {key: V + np.float32(2**-10) for key, V in super().states().items()}

    plan = load_plan(model)
    row = bench.benchmark(plan, synthetic(plan), programs={"onnx": Drifting}, rounds=1)
    assert (row.equal, row.exact) == (False, False)
    as_float = load_plan(convolutional(model.with_name("float.nir"), "float32"))
    row = bench.benchmark(as_float, synthetic(plan), programs={"onnx": Drifting}, rounds=1)
    assert (row.equal, row.exact) == (True, False)


@pytest.mark.parametrize("weights", ["float32", "int8"])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_forced_densities_are_reached_in_every_layer(
    tmp_path: Path, weights: str, density: float
) -> None:
    plan = load_plan(convolutional(tmp_path / "model.nir", weights))
    given = synthetic(plan)
    forced = force_density(plan, given, density)
    spikes = Reference(forced).record(given.samples[0])
    assert len(spikes) == 3
    for layer, wanted in zip(spikes, (density, density, max(density, 0.25)), strict=True):
        # In the small layers one neuron more or less, in one step, is a coarse step.
        assert abs(layer.mean() - wanted) < 0.02 + 3 / layer.size


def test_a_forced_density_keeps_the_weights_the_grid_and_the_original(model: Path) -> None:
    plan, untouched = load_plan(model), load_plan(model)
    forced = force_density(plan, synthetic(plan), 0.1)
    assert len(layer_grids(forced)) == 3
    moved = 0
    for node, before, after in zip(plan.nodes, untouched.nodes, forced.nodes, strict=True):
        for key, value in vars(before).items():
            if isinstance(value, np.ndarray):
                assert np.array_equal(getattr(node, key), value)
        if isinstance(before, Convolution | Dense):
            assert np.array_equal(after.weight, before.weight)
            moved += not np.array_equal(after.bias, before.bias)
    assert moved == 3


def test_recordings_are_binned_as_the_model_says(
    tmp_path: Path, model: Path, make_events: Callable[..., Any]
) -> None:
    for number in (0, 1):
        write_nmnist_bin(tmp_path / f"{number}.bin", make_events(number, 200, last_us=6_000))
    plan = load_plan(model)
    given = recorded(plan, str(tmp_path / "0.bin"))
    assert plan.metadata is not None
    expected = frames(make_events(0, 200, last_us=6_000), plan.metadata.binning)
    assert np.array_equal(given.samples[0], expected)
    assert (given.step_us, given.constant, given.steps) == (1000, False, 5)
    (tmp_path / "both").mkdir()
    for number in (0, 1):
        (tmp_path / f"{number}.bin").rename(tmp_path / "both" / f"{number}.bin")
    assert len(recorded(plan, str(tmp_path / "both")).samples) == 2
    assert len(recorded(plan, str(tmp_path / "both"), limit=1).samples) == 1


def test_a_recording_runs_through_the_command_line(
    mpsl: Mpsl, tmp_path: Path, model: Path, make_events: Callable[..., Any]
) -> None:
    write_nmnist_bin(tmp_path / "a.bin", make_events(1, 150))
    words = ("--source", tmp_path / "a.bin", "--rounds", "1", "--json")
    code, out, err = mpsl("bench", model, *words)
    assert (code, err) == (0, "")
    (row,) = json.loads(out)["rows"]
    assert row["equal"]
    assert row["input"] == f"1 recordings of {tmp_path / 'a.bin'}"
    assert row["real_time_factor"] == pytest.approx(1000 / row["engine_us"], rel=0.01, abs=0.1)


def test_an_input_beyond_the_proof_of_an_int8_model_is_refused(tmp_path: Path) -> None:
    plan = load_plan(convolutional(tmp_path / "model.nir", input_max=1))
    given = replace(synthetic(plan), samples=(np.full((5, 2, 10, 12), 2, np.float32),))
    with pytest.raises(DataError, match="proven exact"):
        bench.benchmark(plan, given, rounds=1)


def test_synthetic_input_is_the_same_every_time(model: Path) -> None:
    plan = load_plan(model)
    (first,), (second,) = synthetic(plan).samples, synthetic(plan).samples
    assert np.array_equal(first, second)
    assert first.shape == (5, 2, 10, 12)
    assert 0.03 < first.mean() < 0.15


def test_a_model_of_images_takes_images_as_its_source(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    plan = load_plan(write_model(input_kind="image", input_grid=1 / 256))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    given = recorded(plan, str(tmp_path / "a.npy"), limit=2)
    assert (len(given.samples), given.steps, given.constant) == (2, 10, True)
    assert np.array_equal(given.samples[1][4, 0], pixels[1].astype(np.float32) / 256)
    np.save(tmp_path / "b.npy", pixels[:, :20])
    with pytest.raises(DataError, match="array does not fit"):
        recorded(plan, str(tmp_path / "b.npy"))


def test_an_image_model_gets_one_image_on_its_grid(
    mpsl: Mpsl, write_model: Callable[..., Path]
) -> None:
    path = write_model(input_kind="image", input_grid=1 / 256)
    given = synthetic(load_plan(path))
    (image,) = given.samples
    assert given.constant
    assert (image == image[0]).all()
    assert image.any()
    assert np.array_equal(image * 256, np.round(image * 256))
    code, out, err = mpsl("bench", path, "--rounds", "1", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["rows"][0]["equal"]


def test_a_foreign_model_runs_with_the_step_that_it_is_told(
    mpsl: Mpsl, write_model: Callable[..., Path]
) -> None:
    path = write_model(foreign=True)
    assert mpsl("bench", path)[0] == 2
    words = ("--from", "nir", "--dt-s", "1e-4", "--rounds", "1", "--json")
    code, out, _ = mpsl("bench", path, *words)
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert (row["network"], row["weights"], row["real_time_factor"]) == ("model", "float32", None)


def test_operations_of_the_layers_add_up_to_those_of_the_network(model: Path) -> None:
    plan = load_plan(model)
    given = synthetic(plan)
    costs = layer_times(plan, given, rounds=2)
    engine = Engine(plan)
    engine.run(given.samples[0])
    assert [cost.name for cost in costs] == ["n02_lif", "n06_lif", "n08_lif"]
    assert sum(cost.synops for cost in costs) * given.steps == pytest.approx(engine.synops)
    spikes = engine.record(given.samples[0])
    assert [cost.density for cost in costs] == pytest.approx([s.mean() for s in spikes])


def test_the_roofline_has_three_caches_and_two_kinds_of_weights() -> None:
    limits = bench.roofline()
    assert set(limits) == {f"{kind}_l{n}" for kind in ("float32", "int8") for n in (1, 2, 3)}
    # No machine that runs Python is slower, none is faster.
    assert all(0.05 < value < 5_000 for value in limits.values())


def test_the_reached_figure_stands_beside_the_roofline_of_its_weights(model: Path) -> None:
    plan = load_plan(model)
    row = bench.benchmark(plan, synthetic(plan), rounds=1)
    limits = {f"float32_l{n}": 1.0 for n in (1, 2, 3)}
    limits |= {"int8_l1": 40.0, "int8_l2": 20.0, "int8_l3": 10.0}
    expected = {"l1": row.gsops / 40, "l2": row.gsops / 20}
    assert row.of_roofline(limits) == pytest.approx(expected)
    assert row.to_mapping(limits)["of_roofline"] == pytest.approx(expected, abs=1e-3)
    both = replace(row, threads=2).of_roofline(limits)
    assert both == pytest.approx({key: part / 2 for key, part in expected.items()})
    (line,) = [
        line
        for line in bench.lines([replace(row, engine_us=row.synops / 30e3)], limits)
        if line.endswith("yes (bit for bit)")
    ]
    assert "30.0    75%   150%" in line


def test_no_round_is_refused(model: Path) -> None:
    plan = load_plan(model)
    with pytest.raises(UsageError, match="rounds"):
        bench.benchmark(plan, synthetic(plan), rounds=0)
