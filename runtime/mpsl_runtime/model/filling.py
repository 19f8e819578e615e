"""A graph that does not say how it steps, filled in: given, inferred, or named as missing.

What `mpsl import` writes down once, and what every other verb takes for a file that was never
imported: both come from here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import nir

from mpsl_runtime.errors import UsageError, plain
from mpsl_runtime.events.binning import Coding
from mpsl_runtime.model.dialects import (
    DIALECTS,
    Dialect,
    Fires,
    Leak,
    Norm,
    ResetRule,
    Spikes,
    Start,
    StepRule,
)
from mpsl_runtime.model.graph import input_shape_of, load_graph, plan_of
from mpsl_runtime.model.metadata import ENCODING_VERSION, InputKind, ModelMetadata
from mpsl_runtime.model.nested import FlatGraph, flatten_graph
from mpsl_runtime.model.neurons import NEURON_TYPES
from mpsl_runtime.model.plan import Plan, Shape
from mpsl_runtime.model.signs import inferred_step_s, self_exciting, writers_of

__all__ = ["Filled", "Filling", "fill", "load_filled", "plan_of_shapes", "with_times"]

_FRAME_STEPS = 16
"""T of a graph that takes no events, where nobody says it."""

_MOST_NUMBERED = 4096
_TIMES = ("--steps", "--step-us")


@dataclass(frozen=True)
class Filling:
    """What somebody says of a file that does not say it itself; None: nothing.

    Attributes:
        dialect: a name of `dialects.DIALECTS`, or `auto`: the one that alone writes such files.
        reset, fires, spikes, leak, start, norm_input: instead of the dialect's own, see
            `dialects.StepRule`; a reset of `subtract` or `value` is the framework's own.
        dt_s: seconds that a step stands for.
        steps, step_us, coding, downsample, crop, sensor: how events become input, see `Binning`;
            crop "left,top,width,height", sensor "WxH".
        classes: names separated by ",". dataset: the name of a data set that it was trained on.
    """

    dialect: str = "auto"
    reset: ResetRule | None = None
    fires: Fires | None = None
    spikes: Spikes | None = None
    leak: Leak | None = None
    start: Start | None = None
    norm_input: Norm | None = None
    dt_s: float | None = None
    steps: int | None = None
    step_us: int | None = None
    coding: Coding | None = None
    downsample: int | None = None
    crop: str | None = None
    sensor: str | None = None
    classes: str | None = None
    dataset: str | None = None

    @property
    def given(self) -> dict[str, object]:
        """What is said, by the name of its option."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        named = {"from" if key == "dialect" else key.replace("_", "-"): value
                 for key, value in values.items() if value not in (None, "auto")}  # fmt: skip
        return {f"--{key}": value for key, value in named.items()}

    @property
    def says_all(self) -> bool:
        """Every word of a step is given: no dialect need be known."""
        return None not in (self.reset, self.fires, self.spikes, self.leak, self.start)


def with_times(
    filling: Filling | None, *, dt_s: float | None, steps: int | None, step_us: int | None
) -> Filling:
    """The same, or nothing, with what else is said."""
    said = filling or Filling()
    return replace(
        said, dt_s=dt_s or said.dt_s, steps=steps or said.steps, step_us=step_us or said.step_us
    )


@dataclass(frozen=True, eq=False)
class Filled:
    """A graph that says how it steps.

    Attributes:
        graph: with metadata; as it was, where it said all by itself.
        plan: of it.
        lines: what was inferred, and from what, for people.
        dt_s: what `graph.plan_of` takes with the graph, where that has no metadata of its own.
        is_new: the graph is not the one that was given.
    """

    graph: nir.NIRGraph
    plan: Plan
    lines: tuple[str, ...] = ()
    dt_s: float | None = None
    is_new: bool = False


def load_filled(
    path: Path,
    filling: Filling,
    *,
    timed: bool,
    labelled: bool = False,
    overrules: bool = False,
) -> Filled:
    """Reads a file and fills it in; see `fill`."""
    graph = load_graph(path)
    return fill(graph, str(path), filling, timed=timed, labelled=labelled, overrules=overrules)


def fill(
    graph: nir.NIRGraph,
    source: str,
    filling: Filling,
    *,
    timed: bool,
    labelled: bool = False,
    overrules: bool = False,
    source_sha256: str = "",
) -> Filled:
    """Gives each population of a graph its rule, and the graph its metadata.

    Args:
        graph: stays as it is.
        source: the file, for messages.
        timed: events are to become steps: their number and length must be known.
        labelled: the data set must be known.
        overrules: the steps of a model that says them itself may be given too: they are the
            caller's to use.
        source_sha256: of the file, to be kept in the metadata.

    Raises:
        UsageError: something is not said and cannot be inferred: all of it is named; or something
            is given that the file itself says otherwise, or that cannot be.
        ModelError: see `graph.plan_of`.
    """
    if isinstance(graph.metadata, dict) and "mpsl" in graph.metadata:
        plan = plan_of(graph, source=source)
        times = _TIMES if overrules else ()
        refused = [
            option
            for option, value in filling.given.items()
            if option not in times and value != _said(plan, option)
        ]
        if refused:
            raise UsageError(
                "model says itself how it steps",
                got=", ".join(refused),
                expected="none of these options",
                where=source,
            )
        return Filled(graph, plan)
    flat = flatten_graph(graph, source)
    inside = _Inference(flat, source, filling)
    takes_events = _takes_events(input_shape_of(graph, source))
    is_timed = bool(filling.steps and filling.step_us) or not takes_events
    inside.check(timed=timed and takes_events, labelled=labelled)
    ruled = _with_rules(graph, inside.rules())
    plan = plan_of(ruled, source=source, dt_s=inside.dt_s)
    if not is_timed:
        return Filled(ruled, plan, tuple(inside.lines), inside.dt_s, True)
    metadata = _metadata(plan, filling, inside, Path(source).name, source_sha256)
    ruled.metadata = {**graph.metadata, **metadata.to_mapping()}
    return Filled(ruled, plan_of(ruled, source=source), tuple(inside.lines), is_new=True)


def _said(plan: Plan, option: str) -> object:
    """What the metadata of a plan say of an option; None: nothing of that name."""
    return getattr(plan.metadata, option.removeprefix("--").replace("-", "_"), None)


def plan_of_shapes(graph: nir.NIRGraph, source: str) -> Plan:
    """A plan to look at of a graph that does not say how it steps: shapes and weights are right,
    decays are not.

    Raises:
        ModelError: see `graph.plan_of`.
    """
    flat = flatten_graph(graph, source)
    neurons = [name for name, node in flat.nodes.items() if isinstance(node, NEURON_TYPES)]
    # A leak that no tau contradicts.
    rule = replace(StepRule.nir(1.0), leak="exact")
    return plan_of(_with_rules(graph, dict.fromkeys(neurons, rule)), source=source, dt_s=1.0)


class _Inference:
    """What a flat graph needs to be told, what was told, and what follows from its numbers.

    Attributes:
        lines: what was inferred, in words.
    """

    def __init__(self, flat: FlatGraph, source: str, filling: Filling) -> None:
        self.source, self.filling = source, filling
        self.lines: list[str] = []
        self._open = {  # neurons that say nothing themselves
            name: node
            for name, node in flat.nodes.items()
            if isinstance(node, NEURON_TYPES) and not _says_its_rule(node, name, source)
        }
        self._nodes = flat.nodes
        self._recurrent = self_exciting(self._open, flat.edges)
        self._candidates = writers_of(self._open, self._recurrent)
        self.dialect = self._dialect()
        self.dt_s = self._step_s()

    def _dialect(self) -> Dialect | None:
        name = self.filling.dialect
        if name != "auto":
            if name not in DIALECTS:
                raise UsageError(
                    "dialect is not known", got=repr(name), expected=", ".join(DIALECTS),
                    where="--from",
                )  # fmt: skip
            return DIALECTS[name]
        if len(self._candidates) == 1:
            name = self._candidates[0]
            self.lines.append(f"--from {name}: the numbers are as its exporter writes them")
            return DIALECTS[name]
        return DIALECTS["nir"] if self.filling.says_all or not self._open else None

    def _step_s(self) -> float | None:
        given, inferred = self.filling.dt_s, inferred_step_s(self._open)
        if given is not None:
            if inferred is not None and not math.isclose(given, inferred, rel_tol=1e-3):
                self.lines.append(f"--dt-s {given:g} is given, but tau/r or 1/r is {inferred:g}")
            return given
        if inferred is not None:
            self.lines.append(f"--dt-s {inferred:g}: tau/r or 1/r of all neurons")
            return inferred
        usual = None if self.dialect is None else self.dialect.dt_s
        if usual is not None and self._open:
            self.lines.append(f"--dt-s {usual:g}: the usual step of {self.dialect_name}")
        return usual

    @property
    def dialect_name(self) -> str:
        """Its name; the file's own word where it says all itself."""
        return "" if self.dialect is None else self.dialect.name

    def check(self, *, timed: bool, labelled: bool) -> None:
        """Raises UsageError with everything that is missing."""
        missing = []
        if self.dialect is None:
            likely = self._candidates or [name for name in DIALECTS if name != "mpsl"]
            missing.append(f"--from {'|'.join(likely)}")
        needs_step = any(not isinstance(node, nir.Threshold) for node in self._open.values())
        needs_step |= any(isinstance(node, nir.Delay) for node in self._nodes.values())
        if self.dt_s is None and needs_step:
            missing.append("--dt-s S")
        if timed:
            missing += ["--steps T"] * (not self.filling.steps)
            missing += ["--step-us N"] * (not self.filling.step_us)
        if labelled and not self.filling.dataset:
            missing.append("--dataset NAME")
        if missing:
            raise UsageError(
                "file does not say how it steps",
                got="no mpsl metadata",
                expected=f"{', '.join(missing)}; or `mpsl import` first",
                where=self.source,
            )

    def rules(self) -> dict[str, StepRule]:
        """A rule for each population that has none, by name."""
        dialect, given = self.dialect or DIALECTS["nir"], self.filling
        return {
            name: StepRule(
                dialect.name,
                dialect.step_s(node, self.dt_s or 1.0),
                given.fires or dialect.fires,
                dialect.resets(given.reset, node, sees_itself=name in self._recurrent),
                given.start or dialect.start,
                given.spikes or dialect.spikes,
                given.leak or dialect.leak,
                given.norm_input or dialect.norm_of(node),
                dialect.synapse,
            )
            for name, node in self._open.items()
        }


def _takes_events(shape: Shape) -> bool:
    """A plane of pixels for each polarity."""
    return len(shape) == 3 and shape[0] == 2


def _says_its_rule(node: nir.NIRNode, name: str, source: str) -> bool:
    where = f"node {name!r} of {source}"
    is_ours = isinstance(node.metadata, dict) and "order" in node.metadata
    return is_ours or StepRule.of(node.metadata, where) is not None


def _with_rules(
    graph: nir.NIRGraph, rules: Mapping[str, StepRule], prefix: str = ""
) -> nir.NIRGraph:
    """The same graph, its populations with their rules; inner names as `nested` joins them."""
    nodes = {}
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            node = _with_rules(node, rules, f"{prefix}{name}.")
        elif f"{prefix}{name}" in rules:
            node = copy.copy(node)
            node.metadata = {**node.metadata, **rules[f"{prefix}{name}"].to_mapping()}
        nodes[name] = node
    made = nir.NIRGraph(nodes, list(graph.edges), metadata=dict(graph.metadata), type_check=False)
    made.notes = graph.__dict__.get("notes", [])
    return made


def _metadata(
    plan: Plan, filling: Filling, inside: _Inference, name: str, sha256: str
) -> ModelMetadata:
    """Of a graph whose time steps are known, or that takes no events."""
    _, rows, columns = (*plan.input_shape, 1, 1)[:3]
    takes_events = _takes_events(plan.input_shape)
    kind: InputKind = "events" if takes_events else "frames"
    k = filling.downsample or 1
    width, height = _sensor(filling, columns * k, rows * k) if takes_events else (1, 1)
    outputs = math.prod(plan.output_shape)
    numbers = ",".join(map(str, range(outputs))) if outputs <= _MOST_NUMBERED else ""
    metadata = ModelMetadata(
        mpsl=ENCODING_VERSION,
        dataset=filling.dataset or "",
        network="",
        input_kind=kind,
        steps=filling.steps or _FRAME_STEPS,
        step_us=filling.step_us or 1,
        coding=filling.coding or "count",
        origin="zero",
        downsample=k if takes_events else 1,
        sensor_width=width,
        sensor_height=height,
        crop=(filling.crop or "") if takes_events else "",
        image_mean="",
        image_std="",
        input_grid=1.0,
        classes=filling.classes or numbers,
        readout=plan.readout,
        dt_s=inside.dt_s or 1.0,
        recipe_hash="",
        imported_from=inside.dialect_name,
        imported_given=" ".join(f"{key} {value}" for key, value in filling.given.items()),
        imported_inferred="; ".join(inside.lines),
        source_name=plain(name),
        source_sha256=sha256,
    )
    # As a file's metadata is held to its bounds.
    return ModelMetadata.from_mapping(metadata.to_mapping(), plan.source)


def _sensor(filling: Filling, width: int, height: int) -> tuple[int, int]:
    """Pixels of the camera: given, or as many as the window needs."""
    if filling.sensor is not None:
        wide, high = _numbers(filling.sensor.lower(), "x", 2, "--sensor", "WxH")
        return wide, high
    if filling.crop is not None:
        left, top, wide, high = _numbers(filling.crop, ",", 4, "--crop", "L,T,W,H")
        return left + wide, top + high
    return width, height


def _numbers(text: str, between: str, count: int, where: str, form: str) -> tuple[int, ...]:
    parts = text.split(between)
    is_number = [part.isascii() and part.isdigit() and len(part) < 6 for part in parts]
    if len(parts) != count or not all(is_number):
        raise UsageError("not of this form", got=repr(text), expected=form, where=where)
    return tuple(map(int, parts))
