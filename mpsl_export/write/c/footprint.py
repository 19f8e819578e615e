"""What an exported program takes on a Cortex-M4: flash, RAM, stack, work and instructions a step.

Sizes are those of arm-none-eabi-gcc. Instructions are counted by qemu-system-arm: with
`-icount shift=0` each lasts a nanosecond of the board's clock. That is no count of cycles: a real
core waits for its flash. What is not installed is left out.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.write.c.files import state_bytes
from mpsl_export.write.c.lower import lowered
from mpsl_export.write.c.probe import events_text, probe_of
from mpsl_export.write.c.program import Program
from mpsl_export.write.c.text import fill
from mpsl_runtime.model.plan import Neuron, Plan
from mpsl_runtime.run.reference import Reference

__all__ = ["BOARDS", "Board", "Footprint", "build_for", "footprint_of", "instructions"]

_TICK = 40  # instructions
_LONGEST = 120  # seconds that a board may take


@dataclass(frozen=True)
class Board:
    """A board of qemu, and how one compiles for it.

    Attributes:
        compiler, flags: to compile. linked: more flags, to link. run: qemu and its options, before
            the program. files: of the templates, that the program needs besides.
    """

    name: str
    compiler: str
    flags: tuple[str, ...]
    linked: tuple[str, ...]
    run: tuple[str, ...]
    files: tuple[str, ...] = ()

    @cached_property
    def missing(self) -> str | None:
        """What is not installed."""
        for tool in (self.compiler, self.run[0]):
            if not shutil.which(tool):
                return tool
        specs = next(flag for flag in self.linked if flag.startswith("--specs="))[8:]
        found = subprocess.run(
            [self.compiler, f"-print-file-name={specs}"],
            capture_output=True,
            text=True,
            check=False,
        )
        return None if Path(found.stdout.strip()).is_absolute() else f"the C library of {specs}"


_SEMIHOSTING = (
    "-nographic", "-monitor", "none", "-serial", "none", "-chardev", "stdio,id=out",
    "-semihosting-config", "enable=on,target=native,chardev=out",
)  # fmt: skip


def _cortex(name: str, core: str, fpu: str, machine: str) -> Board:
    return Board(
        name,
        "arm-none-eabi-gcc",
        (f"-mcpu={core}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={fpu}"),
        ("--specs=rdimon.specs", "-T", "cortex_m.ld", "cortex_m.c"),
        ("qemu-system-arm", "-M", machine, *_SEMIHOSTING),
        ("cortex_m.ld", "cortex_m.c"),
    )


_RISCV_MEMORY = {
    "__flash": "0x80000000", "__flash_size": "0x400000", "__ram": "0x80400000",
    "__ram_size": "0x400000", "__stack_size": "0x2000",
}  # fmt: skip
BOARDS = {
    board.name: board
    for board in (
        _cortex("cortex-m4", "cortex-m4", "fpv4-sp-d16", "mps2-an386"),
        _cortex("cortex-m7", "cortex-m7", "fpv5-d16", "mps2-an500"),
        Board(
            "rv32imc",
            "riscv64-unknown-elf-gcc",
            ("-march=rv32imc", "-mabi=ilp32"),
            (
                "--specs=picolibc.specs", "--oslib=semihost", "--crt0=hosted",
                *(f"-Wl,--defsym={name}={value}" for name, value in _RISCV_MEMORY.items()),
            ),
            ("qemu-system-riscv32", "-M", "virt", "-bios", "none", *_SEMIHOSTING),
        ),
    )
}  # fmt: skip
"""Each with a C library of its own: newlib for ARM, picolibc for RISC-V."""


@dataclass(frozen=True)
class Footprint:
    """What a program takes.

    Attributes:
        ram: bytes of the state. flash: bytes of code and constants of model.c; stack: bytes that a
            step needs at most. All on a Cortex-M4 at -O2; None where its compiler is missing.
        operations: synaptic operations a step, updates: neurons, each updated once a step.
        instructions: a step, on a Cortex-M4; None where qemu is missing. On the probe's input.
    """

    ram: int
    operations: float
    updates: int
    flash: int | None = None
    stack: int | None = None
    instructions: float | None = None

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))

    def lines(self) -> list[str]:
        """For people."""
        sizes = f"RAM {self.ram:,} bytes"
        if self.flash is None or self.stack is None:
            sizes += "; flash needs arm-none-eabi-gcc to tell"
        else:
            sizes += f" and a stack of {self.stack:,}, flash {self.flash:,} bytes (Cortex-M4, -O2)"
        work = f"a step of the probe: {self.operations:,.0f} synaptic operations, "
        work += f"{self.updates:,} neurons"
        if self.instructions is not None:
            work += f", {self.instructions:,.0f} instructions (qemu -icount, no cycles)"
        return [sizes, work]


def footprint_of(
    plan: Plan, files: Mapping[str, bytes], prefix: str, marks: Mapping[str, Any]
) -> Footprint:
    """Measures a program, as far as the tools for it are here.

    Args:
        files: of the exported folder. marks: its probe, as `write.marks` has it.
    """
    program = lowered(plan, prefix)
    frames = probe_of(plan, marks).frames(plan)
    reference = Reference(plan)
    reference.run(frames)
    updates = sum(math.prod(n.output_shape) for n in plan.nodes if isinstance(n, Neuron))
    found = Footprint(state_bytes(program), reference.synops / len(frames), updates)
    board = BOARDS["cortex-m4"]
    if shutil.which(board.compiler) is None:
        return found
    with tempfile.TemporaryDirectory(prefix="mpsl-c-") as name:
        folder = Path(name)
        for file in ("model.h", "model.c"):
            (folder / file).write_bytes(files[file])
        sizes = _sizes(folder, board)
        if sizes is None:
            return found
        counted = instructions(program, folder, frames)
    return Footprint(
        found.ram, found.operations, updates, *sizes,
        None if counted is None else float(counted.mean()),
    )  # fmt: skip


def build_for(board: Board, folder: Path, sources: list[str], *more: str) -> Path | None:
    """Compiles the sources of a folder for a board; None where the compiler refuses them, or lacks
    its C library."""
    for file in board.files:
        (folder / file).write_text(fill(f"board/{file}"))
    program = folder / f"{board.name}.elf"
    done = subprocess.run(
        [board.compiler, "-std=c99", "-O2", *more, *board.flags, *board.linked,
         "-o", program.name, *sources],
        cwd=folder, capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return program if done.returncode == 0 else None


def instructions(
    program: Program, folder: Path, frames: NDArray[np.float32]
) -> NDArray[np.int64] | None:
    """Instructions of each step, [T], on a Cortex-M4; None where that cannot be told.

    Args:
        folder: with model.h and model.c. frames: float32 [T, *input_shape]; behind every T of the
            model the state is reset.
    """
    board, metadata = BOARDS["cortex-m4"], program.plan.metadata
    if board.missing is not None:
        return None
    text = fill(
        "board/count.c",
        **events_text(program, frames),
        prefix=program.prefix,
        PREFIX=program.prefix.upper(),
        steps=len(frames),
        window=len(frames) if metadata is None else metadata.steps,
    )
    (folder / "count.c").write_text(text)
    image = build_for(board, folder, ["count.c", "model.c"])
    if image is None:
        return None
    try:
        done = subprocess.run(
            [*board.run, "-icount", "shift=0", "-kernel", str(image)],
            capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=_LONGEST,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    ticks = [int(line) for line in done.stdout.split() if line.isdigit()]
    if done.returncode or len(ticks) != len(frames):
        return None
    return np.array(ticks, np.int64) * _TICK


def _sizes(folder: Path, board: Board) -> tuple[int, int] | None:
    """Bytes of flash of model.c, and of the stack below `step`."""
    done = subprocess.run(
        [board.compiler, "-std=c99", "-O2", "-fstack-usage", *board.flags, "-c", "model.c"],
        cwd=folder, capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    size = shutil.which("arm-none-eabi-size")
    if done.returncode or size is None:
        return None
    listed = subprocess.run(
        [size, "model.o"], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    text, data = (int(word) for word in listed[1].split()[:2])
    frames = re.findall(r"\t(\d+)\t", (folder / "model.su").read_text())
    # A step calls a node's function, and that one the function for one input: no deeper.
    return text + data, sum(sorted(map(int, frames))[-3:])
