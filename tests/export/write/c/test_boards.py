"""The probe of a model gives the same digest on every board: newlib on a Cortex-M4 and an M7,
picolibc on a RISC-V without floating point, each in qemu."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_export.checkpoint import read_checkpoint
from mpsl_export.export import export
from mpsl_export.write.c.footprint import BOARDS, Board, build_for, instructions
from mpsl_export.write.c.lower import lowered
from mpsl_export.write.to_nir import graph_of
from mpsl_runtime.model.graph import plan_of


def installed(name: str) -> Board:
    """The board, or a skipped test."""
    board = BOARDS[name]
    if board.missing is not None:
        pytest.skip(f"{board.missing} is not installed: `make boards` tries it, as root")
    return board


def run(board: Board, image: Path) -> list[str]:
    """What a program prints."""
    done = subprocess.run(
        [*board.run, "-kernel", str(image)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("weights", ["float32", "int8"])
@pytest.mark.parametrize("which", ["event_run", "if_run"])
@pytest.mark.parametrize("name", BOARDS)
def test_a_board_gives_the_digest_of_the_reference(
    name: str, which: str, weights: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    board, source = installed(name), request.getfixturevalue(which)
    export(source.path, "c", weights=weights, data=source.data, samples=4, out=tmp_path)
    image = build_for(board, tmp_path, ["probe.c"], "-Wall", "-Wextra", "-Werror")
    assert image is not None
    (digest,) = run(board, image)
    text = (tmp_path / "probe.c").read_text()
    assert re.search(rf'"{digest}"', text)
    assert len(digest) == len(hashlib.sha256().hexdigest())
    if weights == "int8":
        return
    # A program that gives another one says so, with its exit code.
    (tmp_path / "probe.c").write_text(text.replace(digest, "0" * 64))
    wrong = build_for(board, tmp_path, ["probe.c"])
    assert subprocess.run([*board.run, "-kernel", str(wrong)], check=False).returncode == 1


def test_instructions_follow_events_and_are_the_same_each_time(if_run: Any, tmp_path: Path) -> None:
    installed("cortex-m4")
    plan = plan_of(graph_of(read_checkpoint(if_run.path)), source="test")
    export(if_run.path, "c", out=tmp_path)
    drawn = np.random.default_rng(0).random((8, *plan.input_shape))
    program = lowered(plan, "mpsl")
    busy, again, quiet = (
        instructions(program, tmp_path, (drawn < density).astype(np.float32))
        for density in (0.4, 0.4, 0.02)
    )
    assert busy is not None
    assert again is not None
    assert quiet is not None
    np.testing.assert_allclose(busy, again, atol=80)  # two ticks
    assert busy.sum() > 1.5 * quiet.sum()


def test_an_export_says_what_it_takes(if_run: Any, tmp_path: Path) -> None:
    out = tmp_path / "c"
    asked = {"weights": "int8", "data": if_run.data, "samples": 4, "out": out}
    measured = export(if_run.path, "c", measure=True, **asked).measured
    assert measured is not None
    found = measured.to_mapping()
    assert found["ram"] == int(
        re.search(r"owns: ([\d,]+) bytes", (out / "model.h").read_text())[1].replace(",", "")
    )  # type: ignore[index]
    assert found["operations"] > 0
    lines = measured.lines()
    assert f"RAM {found['ram']:,} bytes" in lines[0]
    if BOARDS["cortex-m4"].missing is None:
        assert 500 < found["flash"] < 20_000
        assert 0 < found["stack"] < 1000
        assert found["instructions"] > found["operations"]
    else:
        assert "flash needs arm-none-eabi-gcc" in lines[0]
