"""`mpsl inspect`: what a file holds, as one plain mapping that is printed as a table or as JSON.

Keys of every description: `kind` (`nir`, `onnx`, `run`), `file`, `bytes`, `parameters`,
`input_shape`, `output_shape`, `layers` (a list of mappings, at least `name` and `type`) and
`metadata` (a mapping, empty when there is none). A describer may add keys of its own.

This distribution knows NIR. Others join through the entry-point group `mpsl.inspectors`: a function
of a path that returns such a mapping, or None when the path is not its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpsl_runtime.errors import DataError, MissingExtraError, UsageError

if TYPE_CHECKING:
    from mpsl_runtime.model.filling import Filling
    from mpsl_runtime.model.plan import Neuron, Plan

__all__ = ["describe", "describe_nir", "lines", "read_plan"]


def describe(path: Path, *, filling: Filling | None = None) -> dict[str, Any]:
    """What a NIR file, an ONNX file or a run folder holds.

    Args:
        filling: what a NIR file of another framework does not say.

    Raises:
        DataError: no such file, or no kind that anyone knows. ModelError: a damaged file.
        MissingExtraError: the distribution that knows this kind is not installed.
    """
    if not path.exists():
        raise DataError("no such file or folder", where=path)
    if path.is_file() and path.suffix.lower() != ".onnx":
        return describe_nir(path, filling=filling)
    found = list(entry_points(group="mpsl.inspectors"))
    if not found:
        kind = "a run folder" if path.is_dir() else "an ONNX file"
        raise MissingExtraError(f"what inspects {kind}", "mpsl")
    for entry in found:
        try:
            description = entry.load()(path)
        except ImportError as error:
            raise MissingExtraError(f"{error.name or entry.value}", "mpsl") from None
        if description is not None:
            result: dict[str, Any] = description
            return result
    raise DataError(
        "nothing here that can be inspected", expected="a .nir, .onnx or run folder", where=path
    )


def describe_nir(path: Path, *, filling: Filling | None = None) -> dict[str, Any]:
    """The layers of a NIR file in their order of execution.

    Raises:
        UsageError: something is given, and more is missing.
        ModelError: see `mpsl_runtime.model.graph`.
    """
    from mpsl_runtime.model.graph import load_graph
    from mpsl_runtime.model.nested import flatten_graph
    from mpsl_runtime.model.plan import Neuron

    graph = load_graph(path)
    plan, missing = _plan(graph, path, filling)
    flat = flatten_graph(graph, str(path)).nodes
    layers = []
    total = 0
    for node in plan.nodes:
        row: dict[str, Any] = {
            "name": node.name,
            "type": type(flat.get(node.name, node)).__name__,
            "output_shape": list(node.output_shape),
            "parameters": 0,
        }
        if not plan.is_chain:
            row["sees"] = _sees(plan, node)
        for part in ("weight", "bias"):
            row["parameters"] += getattr(getattr(node, part, None), "size", 0)
        total += row["parameters"]
        if hasattr(node, "weight"):
            row["weight_shape"] = list(node.weight.shape)
            row["weight_type"] = str(node.weight.dtype)
            # Of an int8 model: its weights are whole multiples of two to this.
            row["weight_grid"] = getattr(node, "weight_grid", None)
        if isinstance(node, Neuron):
            row |= _of_neurons(node, is_known=not missing)
        layers.append(row)
    metadata = {}
    if plan.metadata is not None:
        # As it is read, but with the version that the file has.
        version = graph.metadata.get("mpsl", plan.metadata.mpsl)
        metadata = {**plan.metadata.to_mapping(), "mpsl": int(version)}
    notes: dict[str, Any] = {"notes": list(plan.notes)} if plan.notes else {}
    if missing:
        notes["not_said"] = missing
    notes |= _origin(graph.metadata, path) | _plastic(plan)
    return {
        "kind": "nir",
        "file": str(path),
        "bytes": path.stat().st_size,
        "parameters": total,
        "input_shape": list(plan.input_shape),
        "output_shape": list(plan.output_shape),
        "neurons": sum(_size(node.output_shape) for node in plan.nodes if isinstance(node, Neuron)),
        "steps": metadata.get("steps"),
        "step_us": metadata.get("step_us"),
        **notes,
        "layers": layers,
        "metadata": metadata,
    }


def _origin(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Where a file says that it comes from, its probe, and whether it is as it was sealed."""
    from mpsl_runtime.model.provenance import provenance_of
    from mpsl_runtime.model.seal import broken_parts
    from mpsl_runtime.run.probe import Probe

    provenance, probe = provenance_of(metadata, str(path)), Probe.of(metadata, str(path))
    found: dict[str, Any] = {"provenance": provenance} if provenance else {}
    if probe is not None:
        found["probe"] = f"{probe.probe_steps} steps, sha256 {probe.probe_sha256}"
    broken = broken_parts(path)
    if broken is not None:
        found["seal"] = f"broken: {', '.join(broken)}" if broken else "whole"
    return found


def _plastic(plan: Plan) -> dict[str, Any]:
    """The layers that may go on learning, with the rules of their banks."""
    layers = {layer.numbers.layer: "+".join(layer.numbers.rule_names) for layer in plan.plastic}
    return {"plastic": layers} if layers else {}


def read_plan(path: Path, *, filling: Filling | None = None) -> tuple[Plan, str]:
    """A NIR file as a plan to look at, and what it does not say of its steps.

    Where that is something, shapes and weights are right and decays are not.

    Raises:
        ModelError: see `mpsl_runtime.model.graph`. UsageError: see `describe_nir`.
    """
    from mpsl_runtime.model.graph import load_graph

    return _plan(load_graph(path), path, filling)


def _plan(graph: Any, path: Path, filling: Filling | None) -> tuple[Plan, str]:
    from mpsl_runtime.model.filling import Filling, fill, plan_of_shapes

    said = filling or Filling()
    try:
        return fill(graph, str(path), said, timed=False).plan, ""
    except UsageError as error:
        if said.given:
            raise
        return plan_of_shapes(graph, str(path)), str(error.expected)


def _of_neurons(node: Neuron, *, is_known: bool) -> dict[str, Any]:
    """How a population steps, as far as that is known."""
    row: dict[str, Any] = {"reset": None}
    if is_known and node.kind == "spiking":
        row["reset"] = node.reset
    if is_known and node.many:
        row["spikes"] = "many"
    if is_known:
        row["decay"] = _value(node.decay)
    row["threshold"] = _value(node.threshold) if node.kind != "integrating" else None
    return row


def _sees(plan: Any, node: Any) -> str:
    """The names of a node's sources; those of the step before in brackets."""
    index = plan.nodes.index(node)
    names = ["input" if i < 0 else plan.nodes[i].name for i, _ in plan.wiring[index]]
    return " + ".join(
        f"({name})" if delayed else name
        for name, (_, delayed) in zip(names, plan.wiring[index], strict=True)
    )


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _value(array: Any) -> float | list[float]:
    """One number where all neurons share it, else the range."""
    low, high = float(array.min()), float(array.max())
    return low if low == high else [low, high]


def lines(description: Mapping[str, Any]) -> list[str]:
    """A description as a table for people."""
    text = [f"{description.get('file', '')}  ({description.get('kind', '')})"]
    for key, value in description.items():
        if key not in ("file", "kind", "layers", "metadata") and value is not None:
            text.append(f"  {key.replace('_', ' '):<14} {_show(value)}")
    rows = description.get("layers") or []
    columns = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(key) is not None for row in rows)
    ]
    if rows:
        cells = [[key.replace("_", " ") for key in columns]]
        cells += [[_show(row.get(key)) for key in columns] for row in rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        text.append("")
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            text.append("  " + "  ".join(padded).rstrip())
    metadata = description.get("metadata") or {}
    if metadata:
        text.append("")
        text.extend(f"  {key:<14} {_show(value)}" for key, value in metadata.items())
    return text


def _show(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_show(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        if all(isinstance(item, int) for item in value):
            return "x".join(str(item) for item in value)
        return ", ".join(_show(item) for item in value)
    return str(value)
