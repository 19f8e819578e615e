"""A pytest plugin: the engine's tests, with the engine at the other end of a pipe (driver.cpp).

`FAR_ENGINE` is the command that runs the driver, such as `qemu-aarch64 DRIVER`. While this is
loaded, `mpsl_runtime._native.Network` hands every call on to it; all else is as it was, so that
tests cannot tell and compare with the reference as always.
"""

from __future__ import annotations

import os
import shlex
import struct
import subprocess
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime import _native

KINDS = {"spiking": 0, "integrating": 1, "threshold": 2}
RESETS = {"subtract": 0, "value": 1, "subtract-undecayed": 2, "lost": 3}
ARRAYS = (
    "decay", "threshold", "reset_value", "gain", "leak", "synaptic_decay", "synaptic_gain",
    "initial", "drop",
)  # fmt: skip
END = 2**64 - 1
_numbers = count()


class Driver:
    """One process for all networks of a test run."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, letter: str, network: int, *arguments: Any) -> list[bytes]:
        """The parts of the answer; ValueError where the driver says that something is wrong."""
        assert self.process.stdin is not None
        words = [letter.encode(), struct.pack("<i", network)]
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                words.append(struct.pack("<Q", argument.size) + argument.tobytes())
            elif isinstance(argument, float):
                words.append(struct.pack("<f", argument))
            else:
                words.append(struct.pack("<i", argument))
        self.process.stdin.write(b"".join(words))
        self.process.stdin.flush()
        parts = []
        while (size := self._size()) != END:
            parts.append(self._read(size))
        wrong = self._read(self._size()).decode()
        if wrong:
            raise ValueError(wrong)
        return parts

    def _size(self) -> int:
        return int(struct.unpack("<Q", self._read(8))[0])

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        found = self.process.stdout.read(size)
        assert len(found) == size, f"the driver died: {self.process.wait()}"
        return found


driver = Driver(shlex.split(os.environ["FAR_ENGINE"]))


class Network:
    """`_native.Network`, elsewhere."""

    def __init__(self, channels: int, rows: int, columns: int, threads: int = 1) -> None:
        self.name = next(_numbers)
        self._call("N", channels, rows, columns, threads)

    def __del__(self) -> None:
        self._call("x")

    def _call(self, letter: str, *arguments: Any) -> list[bytes]:
        return driver.call(letter, self.name, *arguments)

    def _fill(self, output: NDArray[Any], letter: str, *arguments: Any) -> None:
        (values,) = self._call(letter, *arguments)
        output[...] = np.frombuffer(values, output.dtype).reshape(output.shape)

    def add_convolution(self, weight: Any, bias: Any, *shape: Any) -> None:
        self._call("c", *_convolution(weight, *shape), 0, weight, bias)

    def add_int8_convolution(self, weight: Any, quantum: float, bias: Any, *shape: Any) -> None:
        self._call("c", *_convolution(weight, *shape), 1, float(quantum), weight, bias)

    def add_dense(self, weight: Any, bias: Any) -> None:
        self._call("d", len(weight), 0, weight, bias)

    def add_int8_dense(self, weight: Any, quantum: float, bias: Any) -> None:
        self._call("d", len(weight), 1, float(quantum), weight, bias)

    def add_pooling(self, kernel: Any, stride: Any, padding: Any, scale: float) -> None:
        self._call("p", *kernel, *stride, *padding, float(scale))

    def add_scaling(self, scale: Any) -> None:
        self._call("s", scale)

    def add_neurons(self, kind: str, reset: str, *arrays: Any, **named: Any) -> None:
        none = np.zeros(0, np.float32)
        values = [*arrays, *(named.get(key) for key in ARRAYS[len(arrays) :])]
        given = [none if value is None else value for value in values]
        self._call("n", KINDS[kind], RESETS[reset], int(named.get("many", False)), *given)

    def mark(self) -> int:
        return int.from_bytes(self._call("M")[0], "little")

    def add_late(self, extent: Any, spikes: bool) -> int:
        return int.from_bytes(self._call("L", *extent, int(spikes))[0], "little")

    def follow(self, late: int, source: int) -> None:
        self._call("F", late, source)

    def see(self, sources: Any, extent: Any) -> None:
        self._call("V", *extent, np.array(sources, np.int32))

    def add_delay(self, steps: Any) -> None:
        self._call("D", steps)

    def finish(self) -> None:
        self._call("f")

    def reset(self) -> None:
        self._call("0")

    def step(self, frame: Any, output: Any) -> None:
        self._fill(output, "S", frame)

    def step_sparse(self, address: Any, value: Any, output: Any) -> None:
        self._fill(output, "E", address, value)

    def run(self, frames: Any, steps: int, constant: bool, output: Any) -> None:
        self._fill(output, "R", steps, int(constant), frames)

    def keep_membrane(self, index: int) -> None:
        self._call("k", index)

    def spikes(self, index: int, output: Any) -> None:
        self._fill(output, "b", index)

    def membrane(self, index: int, output: Any) -> None:
        self._fill(output, "m", index)

    def _facts(self) -> tuple[int, ...]:
        return struct.unpack("<4Q", self._call("?")[0])

    @property
    def populations(self) -> int:
        return self._facts()[0]

    @property
    def output_size(self) -> int:
        return self._facts()[1]

    @property
    def synops(self) -> int:
        return self._facts()[2]

    @property
    def bytes(self) -> int:
        return self._facts()[3]

    @property
    def isa(self) -> str:
        return self._call("?")[1].decode()


def _convolution(weight: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> list[int]:
    return [weight.shape[0], *weight.shape[2:], *stride, *padding, *dilation, groups]


def isa() -> str:
    """The driver knows one instruction set."""
    if os.environ.get("MPSL_ISA", "baseline") != "baseline":
        raise ValueError("MPSL_ISA is not known here")
    return "baseline"


_native.Network = Network  # type: ignore[assignment, misc]
_native.isa = isa
