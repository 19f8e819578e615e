"""A run or a model file in, an exported network out: what `mpsl export` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mpsl_export.checkpoint import Checkpoint, read_checkpoint
from mpsl_export.int8.to_int8 import (
    Int8,
    model_to_int8,
    report_bytes,
    report_path,
    report_table,
    to_int8,
)
from mpsl_export.merge import parameter_counts
from mpsl_export.model_file import read_network
from mpsl_export.provenance import WRITTEN_BY
from mpsl_export.write.format import ExportFormat, Measures, Network, find_format
from mpsl_export.write.marks import marked
from mpsl_export.write.older_nir import as_read_by
from mpsl_export.write.plastic import check_plastic
from mpsl_export.write.to_nir import rounded_layers, run_network
from mpsl_runtime.atomic import replacing_together
from mpsl_runtime.errors import OutputError, UsageError
from mpsl_runtime.model.filling import Filling
from mpsl_runtime.model.grid import is_int8
from mpsl_runtime.model.plan import Convolution, Dense, Plan
from mpsl_runtime.run_folder import RunFolder
from mpsl_runtime.zoo import known_models

__all__ = ["Exported", "export"]


@dataclass(frozen=True, eq=False)
class Exported:
    """What an export wrote.

    Attributes:
        written: the file that was asked for, what its format puts beside it, and the report of an
            int8 model.
        parameters: weights and biases: `merged`, as exported; of a run also `banks`.
        rounded: layers whose fold had to round.
        int8: how an int8 model came about; None of a float32 model.
        notes: what a model file says and was not taken at its word.
        measured: what it takes where it runs, of a format that can tell, where it was asked for.
    """

    written: tuple[Path, ...]
    parameters: Mapping[str, int]
    rounded: tuple[str, ...] = ()
    int8: Int8 | None = None
    notes: tuple[str, ...] = ()
    measured: Measures | None = None

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "written": [str(path) for path in self.written],
            "parameters": dict(self.parameters),
            "rounded": list(self.rounded),
            "int8": self.int8.to_mapping() if self.int8 is not None else None,
            "notes": list(self.notes),
            "measured": self.measured.to_mapping() if self.measured is not None else None,
        }

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"wrote {path} ({path.stat().st_size:,} bytes)" for path in self.written]
        words = {"banks": "with banks", "merged": "merged" if "banks" in self.parameters else ""}
        counts = (f"{count:,} {words[key]}".rstrip() for key, count in self.parameters.items())
        lines.append(f"parameters: {', '.join(counts)}")
        if self.int8 is not None:
            lines += report_table(self.int8)
        elif self.rounded:
            lines.append(f"folding rounded the weights once in: {', '.join(self.rounded)}")
        if self.measured is not None:
            lines += self.measured.lines()
        lines += [f"note: {note}" for note in self.notes]
        return lines


def export(
    source: str | Path,
    format: str = "nir",
    *,
    weights: str | None = None,
    out: Path | None = None,
    data: Path | None = None,
    samples: int = 64,
    seed: int = 0,
    calibrate: str | Path | None = None,
    filling: Filling | None = None,
    compat: str | None = None,
    prefix: str | None = None,
    batch: int | None = None,
    plastic: bool = False,
    measure: bool = False,
) -> Exported:
    """Writes the network of a run, its banks merged, or that of a model file in one format, all
    files in one step.

    Args:
        source: the run folder, a `.nir` file, or the name of a model. format: of an export format.
        weights: `float32` or `int8`; default: as the run was trained, or the file has it.
        out: the file; default `RUN/model.<format>`, `RUN/model.int8.<format>`, or beside the model
            file, or `NAME.<format>` here for a model by name; a folder, where the format writes
            one.
        data: of int8, where the data set of a run lies. samples, seed: see `to_int8`.
        calibrate: of int8, recordings or an `.npz` to calibrate on; a model file needs it.
        filling: what a model file of another framework that was never imported does not say.
        compat: of nir, the version that must read the file; see `write.older_nir`.
        plastic: of a run, as nir in float32: its banks apart stand in the file too, so that their
            rules may go on where it runs.
        prefix: of every name in the files of the format c. batch: of the step graph of onnx.
        measure: also what these take where they run, which takes a second or two.

    Raises:
        RunError: the run is absent or damaged. DataError: int8 needs the data set, and it is not
            there. ModelError: the model is damaged; the network has no int8 form, or none in this
            format. UsageError: no such format, weights that it or the run does not have, a wrong
            suffix. OutputError: the files cannot be written.
    """
    writer = find_format(format)
    if compat is not None and writer.name != "nir":
        raise UsageError(
            "only a .nir file is written for a version of nir",
            got=f"--format {writer.name}",
            expected="--format nir",
            where="--compat",
        )
    options = {"prefix": prefix, "batch": batch}
    writer = writer.with_options(**{key: o for key, o in options.items() if o is not None})
    run = Path(source)
    by_name = known_models().get(str(source)) if not run.exists() else None
    asked = _Asked(
        writer, weights, out, data, calibrate, samples, seed, compat, plastic=plastic,
        measure=measure,
    )  # fmt: skip
    if by_name is not None or run.is_file() or run.suffix == ".nir":
        beside = run if by_name is None else Path(f"{source}.nir")
        return _export_model(read_network(by_name or run, filling), beside, asked)
    if filling is not None and filling.given:
        raise UsageError("a run says itself how it steps", got=", ".join(filling.given), where=run)
    return _export_run(run, asked)


def _report_name(writer: ExportFormat, target: Path) -> str:
    """Of the report of an int8 model: beside the file, or in the folder."""
    return "int8.json" if writer.is_folder else report_path(target).name


def _for(network: Network, compat: str | None) -> Network:
    """The network as an older nir reads it, where that is asked."""
    if compat is None:
        return network
    return Network(as_read_by(network.graph, compat, network.plan.source), network.plan)


@dataclass(frozen=True)
class _Asked:
    """What is asked for; see `export`."""

    writer: ExportFormat
    weights: str | None
    out: Path | None
    data: Path | None
    calibrate: str | Path | None
    samples: int
    seed: int
    compat: str | None
    plastic: bool
    measure: bool


def _export_run(run: Path, asked: _Asked) -> Exported:
    writer, checkpoint = asked.writer, read_checkpoint(run)
    if asked.plastic:
        _check_plain(asked)
        check_plastic(checkpoint)
    kind = _kind_of_weights(checkpoint, writer, asked.weights, run)
    default = RunFolder(run).export(writer.suffix, int8=kind == "int8")
    target = _target(writer, asked.out or default)
    network, report, told = run_network(run, checkpoint), None, {}
    if kind == "int8":
        report = to_int8(
            run, checkpoint, data=asked.data, samples=asked.samples, seed=asked.seed,
            source=asked.calibrate,
        )  # fmt: skip
        network, told = Network(report.graph, report.plan), {"calibrated_on": report.words}
    network = marked(network.going_on() if asked.plastic else network, told)
    files = writer.files(_for(network, asked.compat), target.name)
    if report is not None:
        files[_report_name(writer, target)] = report_bytes(report)
    counts = parameter_counts(checkpoint)
    return Exported(
        written=_write(writer, target, files),
        parameters={"banks": counts.banks, "merged": counts.merged},
        rounded=tuple(rounded_layers(checkpoint)),
        int8=report,
        measured=writer.measured(network, files) if asked.measure else None,
    )


def _check_plain(asked: _Asked) -> None:
    """What a plastic file can be."""
    if asked.writer.name != "nir" or asked.weights == "int8" or asked.compat is not None:
        raise UsageError(
            "only a .nir file in float32 holds banks that go on learning",
            got=f"--format {asked.writer.name}, {asked.weights or 'float32'} weights",
            expected="--format nir, no --weights int8 and no --compat", where="--plastic",
        )  # fmt: skip


def _export_model(network: Network, beside: Path, asked: _Asked) -> Exported:
    """Args: beside: the model, or where it would lie here, for the default of `out`."""
    if asked.plastic:
        raise UsageError("only a run has its banks apart", got=network.plan.source,
                         expected="a run folder", where="--plastic")  # fmt: skip
    source, has = network.plan.source, "int8" if is_int8(network.plan) else "float32"
    kind = asked.weights or has
    _check_held(asked.writer, kind)
    _check_weights(has, kind, asked, source)
    named = beside if kind == has else beside.with_name(f"{beside.stem}.int8{beside.suffix}")
    target = _target(asked.writer, asked.out or named.with_suffix(asked.writer.suffix))
    if target.resolve() == Path(source).resolve():
        raise UsageError("model would be written over itself", expected="--out FILE", where=source)
    report, notes = None, network.plan.notes
    if kind != has and asked.calibrate is not None:
        report = model_to_int8(network, asked.calibrate, samples=asked.samples, seed=asked.seed)
        network = Network(report.graph, report.plan)
    network = marked(network, _from_file(Path(source), report))
    files = asked.writer.files(_for(network, asked.compat), target.name)
    if report is not None:
        files[_report_name(asked.writer, target)] = report_bytes(report)
    return Exported(
        written=_write(asked.writer, target, files),
        parameters={"merged": _parameters(network.plan)},
        int8=report,
        notes=notes,
        measured=asked.writer.measured(network, files) if asked.measure else None,
    )


def _from_file(path: Path, report: Int8 | None) -> dict[str, str]:
    """What a file made of a model file says: what that one says of its run stays."""
    found = {"written_by": WRITTEN_BY, "exported_from": sha256(path.read_bytes()).hexdigest()}
    return found if report is None else {**found, "calibrated_on": report.words}


def _check_weights(has: str, kind: str, asked: _Asked, source: str) -> None:
    """Whether a model file can become what is asked for."""
    if kind == has and asked.calibrate is not None:
        raise UsageError(
            "only float32 becomes int8 by calibration",
            got=f"--calibrate for {kind} weights",
            expected="--weights int8" if kind == "float32" else "no --calibrate",
            where=source,
        )
    if has == "int8" and kind != has:
        raise UsageError(
            "model is int8: what its float32 weights were is not in it",
            got=f"--weights {kind}",
            expected="the float32 model",
            where=source,
        )
    if kind != has and asked.calibrate is None:
        raise UsageError(
            "int8 is calibrated on samples, and none are given",
            expected="--calibrate RECORDINGS, or an .npz with `input` [T, B, …]",
            where=source,
        )


def _parameters(plan: Plan) -> int:
    """Weights and biases."""
    weighted = [node for node in plan.nodes if isinstance(node, Convolution | Dense)]
    return sum(node.weight.size + node.bias.size for node in weighted)


def _target(writer: ExportFormat, target: Path) -> Path:
    """The file to be written, if its name suits the format; a folder may have any."""
    if writer.is_folder:
        return target
    if target.suffix != writer.suffix:
        raise UsageError(
            "output has the wrong suffix",
            got=target.name,
            expected=f"a name that ends in {writer.suffix}",
            where="--out",
        )
    return target


def _kind_of_weights(
    checkpoint: Checkpoint, writer: ExportFormat, asked: str | None, run: Path
) -> str:
    kind = asked or ("int8" if checkpoint.scales else "float32")
    _check_held(writer, kind)
    if kind == "float32" and checkpoint.scales:
        raise UsageError(
            "run was trained in int8; no record says what it does in float32",
            got="--weights float32",
            expected="--weights int8",
            where=run,
        )
    return kind


def _check_held(writer: ExportFormat, kind: str) -> None:
    if kind not in writer.weights:
        raise UsageError(
            f"format {writer.name} does not hold these weights",
            got=kind,
            expected=" or ".join(writer.weights),
            where="--weights",
        )


def _write(writer: ExportFormat, target: Path, files: dict[str, bytes]) -> tuple[Path, ...]:
    """Writes files beside each other, or into a folder, all or none."""
    if any(Path(name).name != name for name in files):
        raise OutputError("format names a file elsewhere", got=list(files), where=target)
    folder = target.parent
    if writer.is_folder:
        folder = target
        try:
            folder.mkdir(exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
            reason = getattr(error, "strerror", None) or error
            raise OutputError("cannot write output", got=reason, where=target) from error
    with replacing_together(folder, list(files)) as stage:
        for name, content in files.items():
            (stage / name).write_bytes(content)
    return tuple(folder / name for name in files)
