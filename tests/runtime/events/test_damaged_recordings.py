"""Damaged recordings of every format: one clear line, or what is whole of them. Never a crash.

600 files a run, the same every time; `make fuzz` (MPSL_FUZZ=N) reads N new ones. MPSL_FORMATS=WORD
takes only the recordings whose name has this word.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mpsl_runtime.events.events import Events

FUZZ = int(os.environ.get("MPSL_FUZZ") or 0)
SEED = int(os.environ.get("MPSL_SEED") or 0) or (
    int.from_bytes(os.urandom(4), "little") if FUZZ else 11
)
FILES = FUZZ or 600
WORD = os.environ.get("MPSL_FORMATS") or ""
FORMATS = [
    *("evt2", "evt21", "evt21-legacy", "evt3", "dat", "dat-1", "es", "es-atis", "nmnist.bin"),
    *("aedat2", "aedat2-davis", "aedat3", "aedat4", "aedat4-none", "aedat4-zstd", "text"),
    *("bag", "bag-bz2", "bag-lz4", "evt3.gz", "es.zst", "dat.lz4"),
]
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1]
Random = np.random.Generator


def place(content: bytearray, random: Random) -> int:
    """Headers are short, and most of what can be wrong is in them."""
    most = len(content) if random.random() < 0.5 else min(len(content), 1500)
    return int(random.integers(most))


def flip_bits(content: bytearray, random: Random) -> bytes:
    for _ in range(int(random.choice([1, 1, 2, 8]))):
        content[place(content, random)] ^= 1 << int(random.integers(8))
    return bytes(content)


def replace_bytes(content: bytearray, random: Random) -> bytes:
    at = place(content, random)
    content[at : at + int(random.integers(1, 65))] = random.bytes(int(random.integers(1, 65)))
    return bytes(content)


def write_a_number(content: bytearray, random: Random) -> bytes:
    """Sizes, offsets and counts that a format hates."""
    size = int(random.choice([1, 2, 4, 8]))
    at = place(content, random)
    number = int(random.choice([*NUMBERS, len(content)])) * int(random.choice([1, 1, -1]))
    content[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(content)


def truncate(content: bytearray, random: Random) -> bytes:
    return bytes(content[: int(random.integers(1, len(content)))])


def splice(content: bytearray, random: Random) -> bytes:
    """A part of it over another, or once more between."""
    size = int(random.integers(1, len(content) // 2))
    source, target = (int(at) for at in random.integers(0, len(content) - size, 2))
    end = target + size * int(random.integers(2))
    content[target:end] = content[source : source + size]
    return bytes(content)


def noise(content: bytearray, random: Random) -> bytes:
    return bytes(content[: place(content, random)]) + random.bytes(int(random.integers(1, 4000)))


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


def read(folder: Path, seconds: float) -> tuple[int, list[str], str]:
    """Exit code, lines and errors of the process that reads them."""
    script = Path(__file__).with_name("read_damaged_recordings.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            errors = f"took more than {seconds:.0f} s; {errors}"
    return process.returncode, out.splitlines(), errors


def test_damaged_recordings_are_refused_or_give_what_is_whole(
    encode: Callable[..., bytes],
    some_events: Callable[..., Events],
    recordings_folder: Path,
    tmp_path: Path,
) -> None:
    events = some_events(10, 120, 100_000)
    whole = [(name, encode(name, events)) for name in FORMATS]
    for path in sorted(recordings_folder.iterdir()):
        if path.suffix not in (".md", ".py", "") and path.name != "truth.npz":
            whole.append((path.name, path.read_bytes()))
    whole = [(name, content) for name, content in whole if WORD in name]
    random = np.random.default_rng(SEED)
    folder = tmp_path / "damaged"
    folder.mkdir()
    for i, (name, content) in enumerate(whole):
        folder.joinpath(f"{i:06}-whole-{name}").write_bytes(content)
    for i in range(len(whole), FILES):
        name, content = whole[i % len(whole)]
        damage = DAMAGE[int(random.integers(len(DAMAGE)))]
        damaged = damage(bytearray(content), random) or b"\0"
        folder.joinpath(f"{i:06}-{damage.__name__}-{name}").write_bytes(damaged)
    code, lines, errors = read(folder, seconds=120 + FILES / 10)
    about = f"seed {SEED}, at {lines[-1:]}: {errors[-2000:]}"
    assert code == 0, f"ended with {code}, {about}"
    verdicts = [line.split()[1].rstrip(":") for line in lines[1::2]]
    assert len(verdicts) == FILES
    assert set(verdicts[: len(whole)]) == {"read"}
    # Both outcomes are tried.
    counts = Counter(verdicts)
    assert counts["refused"] > FILES / 5, counts
    assert counts["read"] > FILES / 5, counts
