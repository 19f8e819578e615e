"""Damaged model files: one clear line, or a network that equals the reference. Never a crash.

HDF5 is a C library, so the files are read in a process of their own. 400 files a run, the same
every time; `make fuzz` (MPSL_FUZZ=N) reads N new ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import nir
import numpy as np
from numpy.typing import NDArray

FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
SEED = int.from_bytes(os.urandom(4), "little") if FUZZ else 7
FILES = FUZZ or 400
SIGNATURE = b"\x89HDF\r\n\x1a\n"
Random = np.random.Generator


def flip_bits(content: bytearray, random: Random) -> bytes:
    for at in random.integers(0, len(content), random.integers(1, 9)):
        content[at] ^= 1 << int(random.integers(8))
    return bytes(content)


def replace_bytes(content: bytearray, random: Random) -> bytes:
    at = int(random.integers(len(content)))
    content[at : at + int(random.integers(1, 65))] = random.bytes(int(random.integers(1, 65)))
    return bytes(content)


def write_a_number(content: bytearray, random: Random) -> bytes:
    """Sizes, addresses and counts that a format hates."""
    at = int(random.integers(len(content) // 8)) * 8
    number = int(random.choice([0, 1, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, len(content), 1 << 40]))
    content[at : at + 8] = (number * int(random.choice([1, 1, -1])) % (1 << 64)).to_bytes(
        8, "little"
    )
    return bytes(content)


def truncate(content: bytearray, random: Random) -> bytes:
    return bytes(content[: int(random.integers(len(content)))])


def splice(content: bytearray, random: Random) -> bytes:
    """A part of it over another."""
    size = int(random.integers(1, 2048))
    source, target = random.integers(0, len(content) - size, 2)
    content[target : target + size] = content[source : source + size]
    return bytes(content)


def noise(content: bytearray, random: Random) -> bytes:
    head = SIGNATURE if random.random() < 0.5 else b""
    return head + random.bytes(int(random.integers(len(content))))


DAMAGE = [
    flip_bits,
    flip_bits,
    replace_bytes,
    write_a_number,
    write_a_number,
    splice,
    truncate,
    noise,
]


def convolutions(path: Path) -> Path:
    """Of another program, with a node of many kinds."""
    random = np.random.default_rng(3)

    def f32(*shape: int) -> NDArray[np.float32]:
        return (random.integers(-4, 5, shape) / 4).astype(np.float32)

    def lif(*shape: int) -> nir.LIF:
        full = {key: np.full(shape, value) for key, value in {"tau": 2e-4, "v_leak": 0}.items()}
        return nir.LIF(r=np.ones(shape), v_threshold=np.full(shape, 0.5), **full)

    nodes: dict[str, nir.NIRNode] = {
        "n0_input": nir.Input(input_type={"input": np.array([2, 6, 5])}),
        "n1_conv": nir.Conv2d((6, 5), f32(4, 2, 3, 3), 1, 1, 1, 1, f32(4)),
        "n2_lif": lif(4, 6, 5),
        "n3_pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "n4_flatten": nir.Flatten({"input": np.array([4, 3, 2])}, 0, -1),
        "n5_fc": nir.Affine(f32(3, 24), f32(3)),
        "n6_lif": lif(3),
        "n7_output": nir.Output(output_type={"output": np.array([3])}),
    }
    edges = list(pairwise(nodes))
    nir.write(str(path), nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))
    return path


def read(folder: Path, seconds: float) -> tuple[int, list[str], str]:
    """Exit code, lines and errors of the process that reads them."""
    command = [sys.executable, str(Path(__file__).with_name("read_damaged.py")), str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            errors = f"took more than {seconds:.0f} s; {errors}"
    return process.returncode, out.splitlines(), errors


def test_damaged_files_are_refused_or_equal_the_reference(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    models = [
        write_model("a.nir", sensor_width=4, sensor_height=3).read_bytes(),
        convolutions(tmp_path / "b.nir").read_bytes(),
    ]
    random = np.random.default_rng(SEED)
    folder = tmp_path / "damaged"
    folder.mkdir()
    kinds = ["ours", "foreign"]
    for i, model in enumerate(models):
        folder.joinpath(f"{i:06}-whole-{kinds[i]}.nir").write_bytes(model)
    for i in range(2, FILES):
        damage, which = DAMAGE[i % len(DAMAGE)], int(random.integers(2))
        content = damage(bytearray(models[which]), random)
        folder.joinpath(f"{i:06}-{damage.__name__}-{kinds[which]}.nir").write_bytes(content)
    code, lines, errors = read(folder, seconds=60 + FILES / 2)
    about = f"seed {SEED}, at {lines[-1:]}: {errors[-2000:]}"
    assert code == 0, f"ended with {code}, {about}"
    verdicts = Counter(line.split()[1].rstrip(":") for line in lines[1::2])
    assert sum(verdicts.values()) == FILES
    assert lines[1] == "000000-whole-ours.nir equal"
    assert lines[3] == "000001-whole-foreign.nir equal"
    # Both outcomes are tried.
    assert verdicts["refused"] > FILES / 4
    assert verdicts["equal"] + verdicts["tie"] > FILES / 10, verdicts
