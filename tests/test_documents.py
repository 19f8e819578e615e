"""Every command and every Python example of the documents runs as it stands there.

They run in the order of the page, in a folder with small data sets in the layouts of the real ones.
What would take minutes is shortened, see `SHORTER`; nothing else is changed but ports.
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    "README.md",
    "mpsl_train/README.md",
    "mpsl_export/README.md",
    "runtime/README.md",
    "models/README.md",
]
# What is appended to, or replaced in, commands that would take minutes.
SHORTER = {
    r"mpsl train dvs-digits": " --set training.epochs=1 --set data.train_limit=200",
    r"mpsl (ablate|compare)": " --set training.epochs=1 --set training.batch_size=20 --workers 2",
    r"mpsl compare": " --method stbp --method mpsl",
    r"mpsl robustness": " --limit 20 --seeds 1 --corruption noise",
    r"mpsl features": " --limit 40",
    r"mpsl bench": " --rounds 1 --samples 1",
}
SMALLER = (("--seeds 5", "--seeds 1"), ("--updates 200", "--updates 2"))
MPSL = [sys.executable, "-c", "from mpsl_runtime.cli import main; main()"]


def examples(document: str, *languages: str) -> list[tuple[int, str]]:
    """(line, text) of the fenced blocks of some languages; "" is a fence without one."""
    found: list[tuple[int, str]] = []
    fence, begin, block = None, 0, ""
    for number, line in enumerate((ROOT / document).read_text("utf-8").splitlines(), 1):
        if line.startswith("```"):
            if fence is None:
                fence, begin, block = line[3:].strip(), number + 1, ""
            else:
                if fence in languages:
                    found.append((begin, block))
                fence = None
        elif fence is not None:
            block += line + "\n"
    assert fence is None, f"{document}: a fence does not end"
    return found


def commands(document: str) -> list[str]:
    lines = [line for _, block in examples(document, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def write_recordings(root: Path, split: str, each: int, random: np.random.Generator) -> None:
    """N-MNIST's layout; each class is a bright column at a place of its own."""
    for label in range(8):
        folder = root / split / str(label)
        folder.mkdir(parents=True)
        for index in range(each):
            t = np.sort(random.integers(0, 300_000, 600))
            raw = np.empty((600, 5), np.uint8)
            raw[:, 0] = np.clip(3 + 4 * label + random.integers(-1, 2, 600), 0, 33)
            raw[:, 1] = random.integers(2, 32, 600)
            raw[:, 2] = random.integers(0, 2, 600) << 7 | t >> 16
            raw[:, 3], raw[:, 4] = t >> 8 & 255, t & 255
            (folder / f"{index:05d}.bin").write_bytes(raw.tobytes())


def write_images(root: Path, part: str, number: int, random: np.random.Generator) -> None:
    """MNIST's files, with random pixels."""
    images = random.integers(0, 256, (number, 28, 28), np.uint8)
    labels = (np.arange(number) % 10).astype(np.uint8)
    header = struct.pack(">IIII", 0x803, number, 28, 28)
    (root / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    header = struct.pack(">II", 0x801, number)
    (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.tobytes()))


def write_foreign(folder: Path) -> None:
    """A layer of neurons as each exporter writes it, and what one gives that never fires."""
    full = np.ones(10, np.float32)
    tau = np.float32(1e-4) / (1 - np.float32(0.9) * full)
    home = {"v_leak": 0 * full, "v_threshold": 1e6 * full, "v_reset": 0 * full}
    neurons = {
        "snntorch": nir.LIF(tau=tau, r=tau / np.float32(1e-4), **home),
        "norse": nir.LIF(tau=5e-6 * full, r=full, **home),
        "jelly": nir.LIF(tau=2e-4 * full, r=full, **home),
        "sinabs": nir.IF(full, 1e6 * full, 0 * full),
        "paper": nir.LIF(tau=2e-3 * full, r=3 * full, **home),
    }
    for name, neuron in neurons.items():
        nodes = {
            "input": nir.Input({"input": np.array([2, 34, 34])}),
            "flat": nir.Flatten({"input": np.array([2, 34, 34])}, 0, -1),
            "fc": nir.Affine(np.full((10, 2312), 0.1, np.float32), full),
            "neurons": neuron,
            "output": nir.Output({"output": np.array([10])}),
        }
        graph = nir.NIRGraph(nodes, list(pairwise(nodes)), type_check=False)
        nir.write(str(folder / f"{name}.nir"), graph)
        x = np.zeros((8, 2, 2, 34, 34), np.float32)
        np.savez(folder / f"{name}.npz", input=x, expected=np.zeros((8, 2, 10)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents speak of: DIR, recording.bin, recordings, model.nir."""
    folder = tmp_path_factory.mktemp("documents")
    random = np.random.default_rng(0)
    write_recordings(folder / "DIR" / "nmnist8", "Train", 16, random)
    write_recordings(folder / "DIR" / "nmnist8", "Test", 2, random)
    (folder / "DIR" / "mnist").mkdir()
    write_images(folder / "DIR" / "mnist", "train", 200, random)
    write_images(folder / "DIR" / "mnist", "t10k", 40, random)
    shutil.copy(folder / "DIR" / "nmnist8" / "Test" / "3" / "00000.bin", folder / "recording.bin")
    (folder / "recordings").mkdir()
    shutil.copy(folder / "recording.bin", folder / "recordings")
    shutil.copy(ROOT / "models" / "nmnist8-small" / "model.nir", folder)
    write_foreign(folder)
    for run in ("a", "b"):  # nmnist8 twice: with two seeds, so that a card can have both
        mpsl(
            f"mpsl train nmnist8 --data DIR --out runs/{run} --set seed={'ab'.index(run)}"
            " --set training.epochs=2",
            folder,
        )
    (folder / "models" / "mine").mkdir(parents=True)
    shutil.copy(folder / "runs" / "a" / "recipe.toml", folder / "models" / "mine")
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def mpsl(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    assert words[0] == "mpsl"
    done = subprocess.run(
        [*MPSL, *words[1:]],
        cwd=folder, env=environment(folder), capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done


def shortened(command: str) -> str:
    for long, short in SMALLER:
        command = command.replace(long, short)
    return command + "".join(more for start, more in SHORTER.items() if re.match(start, command))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def listener() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_a_document_run(
    document: str, place: Path, listener: list[subprocess.Popen[str]]
) -> None:
    found = commands(document)
    assert found
    port = free_port()
    trained = 0
    for command in found:
        command = shortened(command).replace("0.0.0.0:3333", f"127.0.0.1:{port}")
        command = command.replace("localhost:3333", f"127.0.0.1:{port}")
        if command.startswith("mpsl train "):
            trained += " --resume" not in command
            command = command.replace(
                "--out runs/", f"--out runs/{trained}-{Path(document).parts[0]}-"
            )
        words = shlex.split(command)
        if words[1] == "run" and any("://" in word for word in words):
            process = subprocess.Popen(
                [*MPSL, *words[1:]],
                cwd=place, env=environment(place), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            listener.append(process)
            assert process.stderr is not None
            assert "listening" in process.stderr.readline()
            continue
        mpsl(command, place)
        if words[1] == "replay":
            output, errors = listener[-1].communicate(timeout=60)
            assert listener[-1].returncode == 0, errors
            assert "synaptic operations" in output


def test_the_documents_show_no_command_in_another_way() -> None:
    """`mpsl …` in a fence without a language would escape this test."""
    for document in DOCUMENTS:
        for line, block in examples(document, "sh", "bash", "shell", ""):
            for text in block.splitlines():
                assert not re.match(r"(\$ )?mpsl [a-z]", text), f"{document}:{line}: {text}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_python_examples_of_a_document_run(
    document: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    frames = np.zeros((8, 2, 34, 34), np.float32)
    frames[:, 0, 5:20, 10] = 1
    names = {
        "frames": frames,
        "address": np.array([3, 40], np.int32),
        "value": np.ones(2, np.float32),
    }
    began = time.monotonic()
    for line, block in examples(document, "python"):
        code = compile("\n" * (line - 1) + block, str(ROOT / document), "exec")
        exec(code, names)  # noqa: S102
    assert time.monotonic() - began < 60
