"""An exported folder of C: built by the system's compiler in a temporary folder, then run."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backends import LayerActivity, Outcome
from mpsl_export.write.c.files import read_metadata
from mpsl_runtime.errors import ModelError, UsageError

__all__ = ["CompiledC", "Population", "compiler", "populations_of"]

Array = NDArray[np.float32]
_REFUSED = {11: "an event is outside the input, or beyond its bound", 12: "too many steps"}


@dataclass(frozen=True)
class Population:
    """How a spiking population lies in a program.

    Attributes:
        name: of the node. size: neurons. image: its shape [C, H, W] where it lies channel-last.
        unit: of U.
    """

    name: str
    size: int
    image: tuple[int, ...] | None
    unit: float

    def in_order(self, values: NDArray[Any]) -> NDArray[Any]:
        """[T, n] as they lie, to NIR's order."""
        if self.image is None:
            return values
        channels, rows, columns = self.image
        return (
            values.reshape(-1, rows, columns, channels)
            .transpose(0, 3, 1, 2)
            .reshape(len(values), -1)
        )


def compiler() -> str:
    """The system's C compiler: `$CC`, else cc, gcc or clang.

    Raises:
        UsageError: there is none.
    """
    asked = os.environ.get("CC")
    found = (shutil.which(name) for name in ([asked] if asked else ["cc", "gcc", "clang"]))
    path = next((path for path in found if path), None)
    if path is None:
        raise UsageError(
            "no C compiler is installed here", got=asked, expected="cc, gcc or clang, or $CC"
        )
    return path


def _replay_flags(layout: Mapping[str, Any], prefix: str) -> list[str]:
    """What replay.c and the trace of a model.c are compiled with."""
    populations = populations_of(layout)
    begins = np.cumsum([0, *(p.size for p in populations)]).tolist()
    at, value = layout["event"]
    return [
        f"-DREPLAY(name)={prefix}_##name",
        f"-DREPLAY_CLASSES={prefix.upper()}_CLASSES",
        f"-DREPLAY_AT={at}",
        f"-DREPLAY_VALUE={value}",
        f"-DREPLAY_NEURONS={begins[-1]}",
        f"-DREPLAY_BEGINS={','.join(map(str, begins))}",
        f"-D{prefix.upper()}_TRACE(population,neuron,U,fired)="
        "replay_trace(population,neuron,(float)(U),fired)",
    ]


def populations_of(layout: Mapping[str, Any]) -> list[Population]:
    """The spiking populations, as the comment of a model.h says them."""
    rows: Sequence[tuple[str, int, list[int] | None, float]] = layout["populations"]
    return [
        Population(str(name), int(size), tuple(image) if image else None, float(unit))
        for name, size, image, unit in rows
    ]


class CompiledC:
    """A folder of `mpsl export --format c` as a program of this machine; each sample from rest.

    Raises:
        ModelError: the folder is damaged, or the compiler refuses it.
        UsageError: no compiler is installed.
    """

    name = "c"

    def __init__(self, path: Path) -> None:
        self._path = path
        tool = compiler()
        self.device = f"cpu, {Path(tool).name} -O2"
        try:
            layout = read_metadata((path / "model.h").read_text("utf-8", "replace"))
            self._populations = populations_of(layout)
            self._unit = float(layout["input_unit"])
            self._shape = tuple(int(size) for size in layout["input_shape"])
            self._classes = int(np.prod(layout["output_shape"]))
            self._gives_spikes = layout["output"] == "spikes"
            flags = _replay_flags(layout, str(layout["prefix"]))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError("model.h is not as mpsl writes it", got=error, where=path) from error
        self._folder = Path(tempfile.mkdtemp(prefix="mpsl-c-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._program = self._folder / "replay"
        self._build(tool, flags)

    def _build(self, tool: str, flags: list[str]) -> None:
        folder = self._folder
        (folder / "replay.c").write_bytes(Path(__file__).with_name("replay.c").read_bytes())
        (folder / "trace.h").write_text(
            "#include <stdint.h>\n"
            "void replay_trace(int population, int32_t neuron, float U, int fired);\n"
        )
        done = subprocess.run(
            [
                tool, "-std=c99", "-O2", *flags, "-include", str(folder / "trace.h"),
                f"-I{self._path}", "-o", str(self._program),
                str(folder / "replay.c"), str(self._path / "model.c"),
            ],
            capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or ["?"]
            raise ModelError("C compiler refuses the program", got=lines[0], where=self._path)

    def run(self, frames: Array) -> Outcome:
        """See `Backend.run`."""
        last = self._populations[-1] if self._gives_spikes else None
        first = sum(p.size for p in self._populations[:-1]) if last is not None else 0
        count = last.size if last is not None else 0
        U, fired, scores = self._replay(frames, first, count)
        if last is None:
            return Outcome(scores.swapaxes(0, 1).astype(np.uint8), scores[:, -1])
        samples, steps = U.shape[:2]
        spikes = last.in_order(fired.reshape(-1, count)).reshape(samples, steps, count)
        membrane = last.in_order(U[:, -1]) * np.float32(last.unit)
        return Outcome(spikes.swapaxes(0, 1), membrane.astype(np.float32))

    def record(self, frames: Array) -> list[LayerActivity]:
        """See `Backend.record`."""
        count = sum(p.size for p in self._populations)
        U, fired, _ = self._replay(frames[:, None], 0, count)
        found, at = [], 0
        for each in self._populations:
            part = slice(at, at + each.size)
            at += each.size
            membrane = each.in_order(U[0][:, part]) * np.float32(each.unit)
            spikes = each.in_order(fired[0][:, part]).astype(np.bool_)
            found.append(LayerActivity(each.name, spikes, membrane.astype(np.float32)))
        return found

    def scores(self, frames: Array) -> Array:
        """The scores after each step: frames [T, B, …] -> float32 [T, B, K]."""
        return self._replay(frames, 0, 0)[2].swapaxes(0, 1)

    def _replay(
        self, frames: Array, first: int, count: int
    ) -> tuple[Array, NDArray[np.uint8], Array]:
        """U and spikes [B, T, count] of the elements from `first` on, and scores [B, T, K]."""
        steps, samples = frames.shape[:2]
        given = b"".join(self._encoded(frames))
        done = subprocess.run(
            [str(self._program), str(first), str(count)], input=given, capture_output=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            why = _REFUSED.get(done.returncode, f"it ended with {done.returncode}")
            raise ModelError("compiled program fails", got=why, where=self._path)
        kind = np.dtype(
            [
                ("U", np.float32, (count,)),
                ("fired", np.uint8, (count,)),
                ("scores", np.float32, (self._classes,)),
            ]
        )
        out = np.frombuffer(done.stdout, kind).reshape(samples, steps)
        return out["U"], out["fired"], out["scores"]

    def _encoded(self, frames: Array) -> Iterator[bytes]:
        """What replay.c reads."""
        steps, samples = frames.shape[:2]
        yield struct.pack("=II", samples, steps)
        flat = np.ascontiguousarray(frames, np.float32).reshape(steps, samples, -1)
        if self._unit != 1:
            flat = flat / np.float32(self._unit)
        kind = np.dtype([("at", np.uint32), ("value", np.float32)])
        for sample in range(samples):
            for step in range(steps):
                active = np.flatnonzero(flat[step, sample])
                events = np.empty(len(active), kind)
                events["at"], events["value"] = active, flat[step, sample][active]
                yield struct.pack("=I", len(active)) + events.tobytes()
