"""What is installed works without the checkout: two wheels, in environments of their own.

An environment holds the wheels and links to what they say they need, so that a dependency that
nobody declared is missed here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
OURS = {"mpsl", "mpsl-runtime"}
# What travels of the zoo: the models that are called small, and that of `make demo`.
SMALL = {path.name for path in ROOT.glob("models/*-small")} | {"dvs-digits"}
LARGEST_MODEL, LARGEST_ZOO = 1_300_000, 5_000_000  # bytes


class Environment:
    """A virtual environment outside the checkout, and a folder to work in."""

    def __init__(self, folder: Path, wheels: Iterable[Path], extras: str = "") -> None:
        self.bin, self.work = folder / "env" / "bin", folder / "work"
        self.work.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
        (site,) = (folder / "env" / "lib").glob("python*/site-packages")
        command = [sys.executable, "-m", "pip", "--python", self.bin / "python", "install", "-q"]
        command += ["--no-index", "--no-deps", "--disable-pip-version-check", *wheels]
        subprocess.run(command, check=True)
        for name in _needed(site, extras):
            (site / name).symlink_to(Path(sysconfig.get_path("purelib")) / name)

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        """What a command of the environment prints on stdout; on stderr, if it should fail."""
        variables = {"HOME": str(self.work), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [self.bin / words[0], *words[1:]],
            cwd=self.work, env=variables, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout


def _needed(site: Path, extras: str) -> set[str]:
    """Entries of our site-packages that the installed wheels ask for, directly or not.

    Args:
        extras: of our wheels, separated by commas.
    """
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    left = [
        (dist.requires or [], extra)
        for dist in metadata.distributions(path=[str(site)])
        for extra in ("", *filter(None, extras.split(",")))
    ]
    while left:
        requires, extra = left.pop()
        for requirement in map(Requirement, requires):
            name = requirement.name.lower().replace("_", "-")
            marker = requirement.marker
            if name in OURS or (marker is not None and not marker.evaluate({"extra": extra})):
                continue
            dist = metadata.distribution(name)
            found |= {file.parts[0] for file in dist.files or [] if file.parts[0] != ".."}
            for wanted in {"", *requirement.extras}:
                if (name, wanted) not in seen:
                    seen.add((name, wanted))
                    left.append((dist.requires or [], wanted))
    return found - {"__pycache__"}


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels by their distributions' names, built from the checkout with what built it."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "-w", str(folder)]
    subprocess.run([*command, str(ROOT), str(ROOT / "runtime")], check=True)
    (training,) = folder.glob("mpsl-*.whl")
    (runtime,) = folder.glob("mpsl_runtime-*.whl")
    return {"mpsl": training, "mpsl-runtime": runtime}


@pytest.fixture(scope="session")
def edge(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The runtime alone."""
    return Environment(tmp_path_factory.mktemp("edge"), [wheels["mpsl-runtime"]])


@pytest.fixture(scope="session")
def desk(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Both, with ONNX Runtime."""
    return Environment(tmp_path_factory.mktemp("desk"), wheels.values(), "cpu,plot")


@pytest.fixture(scope="session")
def recording() -> Path:
    """A recording in N-MNIST's format."""
    return ROOT / "tests" / "recordings" / "digit.bin"


def _members(wheel: Path, folder: str) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as packed:
        return {
            name.removeprefix(folder): packed.read(name)
            for name in packed.namelist()
            if name.startswith(folder)
        }


def test_the_wheels_hold_the_packages_and_nothing_else_of_the_checkout(
    wheels: dict[str, Path],
) -> None:
    expected = {"mpsl": {"mpsl_train", "mpsl_export"}, "mpsl-runtime": {"mpsl_runtime"}}
    for name, wheel in wheels.items():
        names = _members(wheel, "")
        tops = {Path(member).parts[0] for member in names}
        assert {top for top in tops if not top.endswith(".dist-info")} == expected[name]
        assert [member for member in names if member.endswith((".cpp", ".hpp", ".txt.in"))] == []
        assert sum(Path(member).name.startswith("_native.cpython") for member in names) == 1


def test_every_recipe_travels_and_nothing_else_of_its_folder(wheels: dict[str, Path]) -> None:
    expected = {f"{p.parent.name}/{p.name}": p.read_bytes() for p in ROOT.glob("models/*/*.toml")}
    assert len(expected) > 15
    assert _members(wheels["mpsl"], "mpsl_train/models/") == expected


def test_the_small_models_travel_with_the_runtime(wheels: dict[str, Path]) -> None:
    zoo = _members(wheels["mpsl-runtime"], "mpsl_runtime/zoo/")
    models = {name: data for name, data in zoo.items() if not name.endswith(".py")}
    expected = {
        f"{name}.nir": (ROOT / "models" / name / "model.nir").read_bytes() for name in SMALL
    }
    assert models == expected
    assert max(map(len, models.values())) <= LARGEST_MODEL
    assert sum(map(len, models.values())) <= LARGEST_ZOO


def test_a_source_distribution_makes_the_same_wheel(
    tmp_path: Path, wheels: dict[str, Path]
) -> None:
    """But for the compiled part, which is left out here to save the time."""
    build = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    for name, root in (("mpsl", ROOT), ("mpsl-runtime", ROOT / "runtime")):
        out = tmp_path / name
        subprocess.run([sys.executable, "-c", build, out], cwd=root, check=True)
        (source,) = out.glob("*.tar.gz")
        with tarfile.open(source) as packed:
            assert any(member.endswith("/kernels_v3.cpp") for member in packed.getnames())
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps"]
        command += ["--no-build-isolation", "--disable-pip-version-check", "-w", out, source]
        subprocess.run([*command, "-C", "wheel.cmake=false"], cwd=tmp_path, check=True)
        (wheel,) = out.glob("*.whl")
        made, expected = _members(wheel, "mpsl_"), _members(wheels[name], "mpsl_")
        assert set(expected) - set(made) == {n for n in expected if n.endswith(".so")}
        assert all(expected[n] == data for n, data in made.items() if ".dist-info/" not in n)


def test_the_runtime_alone_inspects_and_runs_a_model_by_its_name(
    edge: Environment, recording: Path
) -> None:
    shown = json.loads(edge("mpsl", "inspect", "mnist-small", "--target", "all", "--json"))
    assert shown["metadata"]["dataset"] == "mnist"
    assert len(shown["targets"]) == 7
    lines = edge("mpsl", "run", "nmnist8-small", recording, "--json").splitlines()
    prediction = json.loads(lines[-2])["prediction"]
    assert len(prediction["scores"]) == 8
    assert sum(prediction["scores"]) > 0
    assert json.loads(lines[-1])["summary"]["events"] > 1000


def test_the_runtime_alone_has_neither_torch_nor_a_large_model_and_says_so(
    edge: Environment,
) -> None:
    assert "No module named 'torch'" in edge("python", "-I", "-c", "import torch", code=1)
    said = edge("mpsl", "inspect", "nmnist8", code=2)
    assert said.count("\n") == 1
    assert "no model of that name; got 'nmnist8'" in said


def test_both_train_a_recipe_by_its_name_and_run_what_comes_of_it(
    desk: Environment, recording: Path
) -> None:
    """The data set is made on the way, in its folder below the user's home."""
    settings = ["training.epochs=1", "data.train_limit=100", "data.validation=0"]
    words = [word for setting in settings for word in ("--set", setting)]
    desk("mpsl", "train", "dvs-digits", *words, "--out", "run", "--device", "cpu")
    recipe = tomllib.loads((desk.work / "run" / "recipe.toml").read_text("utf-8"))
    assert (recipe["name"], recipe["data"]["train_limit"]) == ("dvs-digits", 100)
    # The compiled part came along, on a machine with a compiler.
    assert "fused (C++" in (desk.work / "run" / "report.json").read_text("utf-8")
    desk("mpsl", "export", "run", "--format", "nir")
    desk("mpsl", "export", "run", "--format", "onnx")
    desk("mpsl", "verify", "run", "--limit", "20")
    assert "digit.bin: " in desk("mpsl", "run", "run/model.nir", recording)
    assert "digit.bin: " in desk("mpsl", "run", "nmnist8-small", recording)
    assert "mnist" in desk("mpsl", "inspect", "mnist-small")


@pytest.mark.parametrize("name", ["runtime", "models", "tests", "native", "src"])
def test_folders_of_the_checkout_are_not_installed(desk: Environment, name: str) -> None:
    said = desk("python", "-I", "-c", f"import {name}", code=1)
    assert f"No module named '{name}'" in said


def test_the_packages_come_from_the_environment(desk: Environment) -> None:
    code = "import mpsl_runtime, mpsl_train, mpsl_export as e; "
    code += "print(mpsl_runtime.__file__, mpsl_train.__file__, e.__file__, sep='\\n')"
    places = desk("python", "-I", "-c", code).splitlines()
    assert len(places) == 3
    assert all(Path(place).is_relative_to(desk.bin.parent) for place in places)
