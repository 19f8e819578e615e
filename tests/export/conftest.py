"""Run folders as `mpsl train` leaves them (see `fake_runs`), and the command as users meet it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mpsl_runtime import cli

from .fake_runs import (
    FakeRun,
    draw_tensors,
    layer,
    model_metadata,
    write_images,
    write_recordings,
)

ENTRIES = {
    "mpsl.commands": [EntryPoint("export", "mpsl_export.cli:register", "mpsl.commands")],
    "mpsl.inspectors": [
        EntryPoint("run", "mpsl_export.inspection:inspect_run", "mpsl.inspectors"),
        EntryPoint("onnx", "mpsl_export.inspection:inspect_onnx", "mpsl.inspectors"),
    ],
}


@pytest.fixture
def mpsl(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line; gives exit code, stdout and stderr."""
    for module in ("cli", "inspection"):
        monkeypatch.setattr(f"mpsl_runtime.{module}.entry_points", lambda group: ENTRIES[group])

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def event_run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """Recordings, two convolutions, pooling, batch normalisation, λ for channels, fewer banks."""
    base = tmp_path_factory.mktemp("events")
    write_recordings(base / "data", seed=5)
    layers = [
        layer("L00", "conv", [8, 2, 3, 3], [8, 17, 17]),
        layer("L01", "conv", [12, 8, 3, 3], [12, 8, 8], pool_before=2, batchnorm_eps=1e-5),
        layer("L02", "fc", [20, 192], [20], pool_before=2, flatten_before=True, per_channel=True),
        layer("L03", "fc", [8, 20], [8], mechanisms=["stbp", "hebbian"]),
    ]
    tensors = draw_tensors(layers, seed=1)
    description = {
        "format": 1,
        "network": "8C3-AP2-12C3-AP2-20FC-8",
        "input_shape": [2, 17, 17],
        "model": model_metadata(),
        "layers": layers,
    }
    run = FakeRun(base / "run", base / "data", tensors, description).write(base / "run")
    run.record()
    return run


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """Images, stride, a pool of 3 x 3, reset to zero, read out by membrane potential."""
    base = tmp_path_factory.mktemp("images")
    write_images(base / "data", seed=7)
    zero = {"reset": "zero", "mechanisms": ["stbp"], "threshold": 0.5}
    layers = [
        layer("L00", "conv", [6, 1, 3, 3], [6, 14, 14], stride=[2, 2], **zero),
        layer("L01", "fc", [10, 96], [10], pool_before=3, flatten_before=True, **zero),
    ]
    tensors = draw_tensors(layers, seed=2, gain=3.0)
    model = model_metadata(
        dataset="mnist",
        network="6C3S2-AP3-10",
        input_kind="image",
        steps=4,
        step_us=1,
        downsample=1,
        sensor_width=28,
        sensor_height=28,
        image_mean="0.1307",
        image_std="0.3081",
        input_grid=1 / 64,
        classes="0,1,2,3,4,5,6,7,8,9",
        readout="membrane",
    )
    description = {
        "format": 1,
        "network": "6C3S2-AP3-10",
        "input_shape": [1, 28, 28],
        "model": model,
        "layers": layers,
    }
    run = FakeRun(base / "run", base / "data", tensors, description).write(base / "run")
    run.record()
    return run


@pytest.fixture(scope="session")
def if_run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """Recordings, neurons without a leak (ρ = 1), a 5 x 5 kernel with stride 2."""
    base = tmp_path_factory.mktemp("ifs")
    write_recordings(base / "data", seed=9)
    leakless = {"decay": 1.0, "threshold": 0.5, "mechanisms": ["stbp", "hebbian"]}
    layers = [
        layer("L00", "conv", [6, 2, 5, 5], [6, 9, 9], stride=[2, 2], padding=[2, 2], **leakless),
        layer("L01", "conv", [8, 6, 3, 3], [8, 4, 4], pool_before=2, **leakless),
        layer("L02", "fc", [8, 128], [8], flatten_before=True, **leakless),
    ]
    tensors = draw_tensors(layers, seed=3, gain=1.5)
    description = {
        "format": 1,
        "network": "6C5S2-AP2-8C3-8",
        "input_shape": [2, 17, 17],
        "model": model_metadata(network="6C5S2-AP2-8C3-8"),
        "layers": layers,
    }
    run = FakeRun(base / "run", base / "data", tensors, description).write(base / "run")
    run.record()
    return run


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[FakeRun], FakeRun]:
    """A copy of a run that the test may change; tensors and description are copies too."""

    def copy(run: FakeRun) -> FakeRun:
        own = replace(
            run,
            tensors={key: value.copy() for key, value in run.tensors.items()},
            description=json.loads(json.dumps(run.description)),
        )
        return own.write(tmp_path / "run")

    return copy
