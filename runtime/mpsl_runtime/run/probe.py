"""The probe of a model: a made input, and the sha256 of the spikes that it must give.

The input is made from a few numbers by SHAKE-256, so that it is the same everywhere and for ever:
random events in a window in the middle of the input. Its spikes have no ties (`rounding`): any
program that adds float32 in any order gives them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import Plan
from mpsl_runtime.model.typed_metadata import read_fields

__all__ = ["MOST_OUTPUTS", "MOST_VALUES", "PROBE_KEYS", "Probe", "digest_of", "is_spiking"]

Array = NDArray[np.float32]

MOST_VALUES = 1 << 24
"""Of an input, all steps together."""
MOST_OUTPUTS = 64
_TOLERANCE = 1e-4
_NUMBERS = re.compile(r"(-?[0-9.]{1,14}(e[+-]?[0-9]{1,3})?(,(?!$)|$))*")
_BOUNDS = {
    "probe_seed": (0, 2**31),
    "probe_steps": (1, 64),
    "probe_density": (1, 256),
    "probe_amplitude": (1, 65_536),
    "probe_window": (1, 65_536),
}
_FORMS = {
    "probe_sha256": (re.compile("[0-9a-f]{64}"), "64 hexadecimal digits"),
    "probe_outputs": (_NUMBERS, "numbers separated by commas"),
}


@dataclass(frozen=True)
class Probe:
    """How the input is made, and what it must give; the names are those in the metadata.

    Attributes:
        probe_seed: of SHAKE-256. probe_steps: T. probe_density: of 256 values so many are active.
        probe_amplitude: they are 1 … this many quanta of the input grid.
        probe_window: rows and columns in the middle outside which all is 0; of an input without
            them, elements.
        probe_sha256: of the spikes of every population in order, each as bits [T, n].
        probe_outputs: the output at the last step, where it is no spikes; "": it is, or there are
            more than `MOST_OUTPUTS`.
    """

    probe_seed: int
    probe_steps: int
    probe_density: int
    probe_amplitude: int
    probe_window: int
    probe_sha256: str = ""
    probe_outputs: str = ""

    @classmethod
    def of(cls, metadata: Mapping[str, Any], where: str) -> Probe | None:
        """What a file's metadata says, as numbers or as text; None: it has no probe.

        Raises:
            ModelError: it is incomplete or out of bounds.
        """
        if "probe_seed" not in metadata:
            return None
        numbers = {key: _number(metadata[key]) for key in _BOUNDS if key in metadata}
        probe: Probe = read_fields(cls, {**metadata, **numbers}, where, _BOUNDS, _FORMS)
        return probe

    def to_mapping(self) -> dict[str, Any]:
        """For the metadata."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in values.items() if value != ""}

    def frames(self, plan: Plan) -> Array:
        """The input, float32 [T, *input_shape]; of a model of images each step is the same.

        Raises:
            ModelError: it would be too large.
        """
        metadata, shape = plan.metadata, plan.input_shape
        is_image = metadata is not None and metadata.input_kind == "image"
        made = 1 if is_image else self.probe_steps
        if self.probe_steps * math.prod(shape) > MOST_VALUES:
            got = f"{self.probe_steps} steps of {math.prod(shape)}"
            raise ModelError("input of the probe is too large", got=got, where=plan.source)
        name = f"mpsl probe {self.probe_seed}".encode()
        drawn = hashlib.shake_256(name).digest(2 * made * math.prod(shape))
        active, level = np.frombuffer(drawn, np.uint8).reshape(2, made, *shape)
        grid = 1.0 if metadata is None else metadata.input_grid
        quanta = (active < self.probe_density) * (1 + level.astype(np.int64) % self.probe_amplitude)
        values = quanta * self._window(shape) * grid
        return np.repeat(values.astype(np.float32), self.probe_steps // made, axis=0)

    def _window(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        inside = np.ones(shape, np.bool_)
        # Channels are no place: of an image its rows and columns count.
        for axis in range(1 if len(shape) > 2 else 0, len(shape)):
            size = shape[axis]
            width = min(self.probe_window, size)
            at = np.arange(size) - (size - width) // 2
            line = (at >= 0) & (at < width)
            inside &= line.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return inside

    @property
    def outputs(self) -> NDArray[np.float64]:
        """The output at the last step, [K]; empty where it is spikes."""
        return np.array([float(word) for word in self.probe_outputs.split(",") if word])

    @property
    def tolerance(self) -> float:
        """How far an output may be from the right one."""
        return _TOLERANCE * max(1.0, float(np.abs(self.outputs).max(initial=0)))

    def difference(self, spikes: Sequence[NDArray[np.bool_]], outputs: Array | None) -> str:
        """What a program gave otherwise, in words; "": nothing."""
        if digest_of(spikes) != self.probe_sha256:
            return f"sha256 {digest_of(spikes)[:12]}… instead of {self.probe_sha256[:12]}…"
        if not self.probe_outputs or outputs is None:
            return ""
        expected = self.outputs
        if expected.shape != outputs.reshape(-1).shape:
            return f"{outputs.size} outputs instead of {expected.size}"
        apart = np.abs(outputs.reshape(-1) - expected)
        worst = int(apart.argmax())
        if not apart[worst] <= self.tolerance:
            return f"output {worst} is {outputs.reshape(-1)[worst]:g}, not {expected[worst]:g}"
        return ""


PROBE_KEYS = tuple(field.name for field in fields(Probe))


def digest_of(spikes: Sequence[NDArray[np.bool_]]) -> str:
    """Of the spikes of every population in order, each [T, …]."""
    digest = hashlib.sha256()
    for layer in spikes:
        digest.update(np.packbits(layer.reshape(len(layer), -1), axis=1).tobytes())
    return digest.hexdigest()


def is_spiking(plan: Plan) -> bool:
    """The output of a network is spikes, and they are what it is read out by."""
    last = plan.output_neuron
    return last is not None and last.kind != "integrating" and plan.readout == "count"


def _number(value: Any) -> Any:
    """ONNX keeps text."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return int(text) if isinstance(text, str) and re.fullmatch("[0-9]{1,12}", text) else value
