"""What NIR cannot say, kept as plain metadata of the graph and of every LIF (DESIGN §6).

The exporter writes it, the loader reads it, training fills it in: all through these two classes.
Values are str, int and float only, so that every HDF5 reader can show them; no None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from mpsl_runtime.errors import ModelError
from mpsl_runtime.events.binning import LONGEST_SAMPLE_STEPS, Binning, Coding, Origin
from mpsl_runtime.model.readout import Readout
from mpsl_runtime.model.typed_metadata import plain_value, read_fields

__all__ = [
    "ENCODING_VERSION",
    "STREAM_LIMITS",
    "InputKind",
    "ModelMetadata",
    "NeuronMetadata",
    "Reset",
    "Weights",
    "upgraded",
    "weight_grid",
]

ENCODING_VERSION = 2
"""Version 1 called `dt` what is `dt_s` now; its files are read as version 2."""
Reset = Literal["subtract", "zero"]
InputKind = Literal["events", "image", "frames"]
"""`frames`: values for each step as they come, of which no more is known."""
Weights = Literal["float32", "int8"]

STREAM_LIMITS = ("onset", "least_events", "least_score", "least_margin", "early_margin")
"""What `mpsl calibrate` adds to a finished model; no number of the network depends on it."""

# Of what a window must have to be answered: events, scores, margins.
LARGEST_LIMIT = 1_000_000_000
_NUMBERS = re.compile(r"(-?[0-9]{1,5}(\.[0-9]{0,20})?(e-?[0-9]{1,2})?(,(?!$)|$))*")

# Smallest and largest of what a stranger's file may say; each is far from what would overflow.
_BOUNDS: dict[str, tuple[float, float]] = {
    "mpsl": (1, ENCODING_VERSION),
    "steps": (1, LONGEST_SAMPLE_STEPS),
    "step_us": (1, 3_600_000_000),
    "downsample": (1, 65_536),
    "sensor_width": (1, 65_536),
    "sensor_height": (1, 65_536),
    "input_grid": (2.0**-24, 2.0**24),
    "input_max": (0, 2**24 - 1),
    **{name: (0, LARGEST_LIMIT) for name in STREAM_LIMITS[1:]},
}
# Texts by what they must look like; every text must be printable.
_FORMS: dict[str, tuple[re.Pattern[str], str]] = {
    "onset": (re.compile(r"([1-9][0-9]{0,8}/[1-9][0-9]{0,4})?"), "N/MS, such as 30/10"),
    "crop": (re.compile(r"([0-9]{1,5}(,[0-9]{1,5}){3})?"), '"left,top,width,height", or ""'),
    "image_mean": (_NUMBERS, "numbers separated by commas"),
    "image_std": (_NUMBERS, "numbers separated by commas"),
    "source_sha256": (re.compile(r"([0-9a-f]{64})?"), "64 hexadecimal digits"),
}

# Node metadata of an int8 model: the exponent of the layer's grid.
_GRID_KEY = "weight_grid"
# Far inside what float32 holds, so that no multiple of a quantum under- or overflows.
_LARGEST_EXPONENT = 64


def upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """What version 1 says, as version 2 says it; what is of version 2 stays as it is.

    Args:
        data: of the graph or a node; values of any type, text too, as ONNX keeps them.
    """
    result = dict(data)
    if "dt" in result and "dt_s" not in result:
        result["dt_s"] = result.pop("dt")
    version = result.get("mpsl")
    if str(version) == "1":
        result["mpsl"] = str(ENCODING_VERSION) if isinstance(version, str) else ENCODING_VERSION
    return result


def weight_grid(data: object, where: str) -> int | None:
    """The exponent e of a weighted node in an int8 model: its weights and biases, and the threshold
    of the neurons behind it, are whole multiples of 2^e. None where the node says nothing.

    Args:
        data: the node's metadata. where: node and file, for messages.

    Raises:
        ModelError: not a whole number, or out of range.
    """
    if not isinstance(data, Mapping) or _GRID_KEY not in data:
        return None
    value = plain_value(data[_GRID_KEY])
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST_EXPONENT:
        raise ModelError(
            f"metadata {_GRID_KEY!r} is not an exponent",
            got=repr(value),
            expected=f"a whole number, −{_LARGEST_EXPONENT} … {_LARGEST_EXPONENT}",
            where=where,
        )
    return value


@dataclass(frozen=True)
class NeuronMetadata:
    """The neuron of Eq. 1–3 behind a `nir.LIF`, or a `nir.IF` where ρ_m is 1.

    Attributes:
        reset: `subtract` (U − S·V_th) or `zero`.
        order: `reset-decay-add-fire`, the only one: U_t = ρ·reset(U_{t−1}) + I_t, then
            S_t = [U_t ≥ V_th].
        decay: ρ_m.
        threshold: V_th, in the units of U.
        dt_s: the discretisation step in seconds that `tau` of the node was made with.
    """

    reset: Reset
    order: Literal["reset-decay-add-fire"]
    decay: float
    threshold: float
    dt_s: float

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], where: str) -> NeuronMetadata:
        """Reads node metadata, of version 1 too; raises ModelError on a missing key or a wrong
        type."""
        result: NeuronMetadata = read_fields(cls, upgraded(data), where)
        return result

    def to_mapping(self) -> dict[str, Any]:
        """The metadata dict of a node."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class ModelMetadata:
    """What a model was trained on and how its input is made.

    Attributes:
        mpsl: version of this encoding; what was read from a file of version 1 is version 2.
        dataset: name of the data set.
        network: the network in the paper's notation.
        input_kind: `events`, `image` or `frames`.
        steps: T; step_us: length of a step (1 for images, where time has no unit).
        coding, origin, downsample, sensor_width, sensor_height, crop: see `Binning`; crop is
            "left,top,width,height" or "".
        image_mean, image_std: "0.1307" or "m1,m2,m3" per channel for normalised images, else "".
        input_grid: the input's values are integer multiples of this (1 for events, 1/256 for
            images, 1/64 for normalised images).
        classes: names separated by ","; "": they have numbers alone.
        readout: `count` or `membrane`.
        dt_s: seconds a step stands for in the NIR neurons.
        recipe_hash: sha256 of the complete recipe, hexadecimal.
        weights: `float32`, or `int8`: every layer lies on a grid (see `mpsl_runtime.model.grid`).
        input_max: of an int8 model, the largest |input| in units of `input_grid` for which its sums
            are proven exact; 0 = no bound is known.
        onset, least_events, least_score, least_margin, early_margin: when the model answers in a
            stream, as `mpsl calibrate` chose it (`run.policies`, `run.answers`); "" or 0: not said.
        imported_from: the dialect of another framework's file; imported_given, imported_inferred:
            what `mpsl import` was told, and what it found; source_name, source_sha256: of the file
            that it read. "" for a model that mpsl trained.

    What follows `recipe_hash` is written only where it says something; older files lack it.
    """

    mpsl: int
    dataset: str
    network: str
    input_kind: InputKind
    steps: int
    step_us: int
    coding: Coding
    origin: Origin
    downsample: int
    sensor_width: int
    sensor_height: int
    crop: str
    image_mean: str
    image_std: str
    input_grid: float
    classes: str
    readout: Readout
    dt_s: float
    recipe_hash: str
    weights: Weights = "float32"
    input_max: int = 0
    onset: str = ""
    least_events: int = 0
    least_score: float = 0.0
    least_margin: float = 0.0
    early_margin: float = 0.0
    imported_from: str = ""
    imported_given: str = ""
    imported_inferred: str = ""
    source_name: str = ""
    source_sha256: str = ""

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any], where: str) -> ModelMetadata:
        """Reads graph metadata, of version 1 too; raises ModelError on a missing key, a wrong type,
        a value out of range, or a newer encoding."""
        version = plain_value(data.get("mpsl"))
        if isinstance(version, int) and version > ENCODING_VERSION:
            raise ModelError(
                "model was written by a newer mpsl",
                got=f"encoding {version}",
                expected=f"≤ {ENCODING_VERSION}",
                where=where,
            )
        result: ModelMetadata = read_fields(cls, upgraded(data), where, _BOUNDS, _FORMS)
        return result

    def to_mapping(self) -> dict[str, Any]:
        """The metadata dict of the graph."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        optional = {field.name: field.default for field in fields(self)}
        return {key: value for key, value in values.items() if value != optional[key]}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the outputs; none where they have numbers alone."""
        return tuple(self.classes.split(",")) if self.classes else ()

    @property
    def binning(self) -> Binning:
        """The binning rule; only for `input_kind == "events"`."""
        if self.input_kind != "events":
            raise ModelError(
                "model takes frames, not events", got=self.input_kind, expected="events"
            )
        crop: tuple[int, int, int, int] | None = None
        if self.crop:
            left, top, width, height = (int(part) for part in self.crop.split(","))
            crop = (left, top, width, height)
        return Binning(
            sensor_width=self.sensor_width,
            sensor_height=self.sensor_height,
            step_us=self.step_us,
            steps=self.steps,
            coding=self.coding,
            origin=self.origin,
            downsample=self.downsample,
            crop=crop,
        )
