"""A run in, an exported network out: what `mpsl export` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsl_export.checkpoint import Checkpoint, read_checkpoint
from mpsl_export.int8.to_int8 import Int8, report_bytes, report_path, report_table, to_int8
from mpsl_export.merge import ParameterCounts, parameter_counts
from mpsl_export.write.format import ExportFormat, Network, find_format
from mpsl_export.write.to_nir import graph_of, rounded_layers
from mpsl_runtime.atomic import replacing_together
from mpsl_runtime.errors import OutputError, UsageError
from mpsl_runtime.run_folder import RunFolder

__all__ = ["Exported", "export"]


@dataclass(frozen=True, eq=False)
class Exported:
    """What an export wrote.

    Attributes:
        written: the file that was asked for, what its format puts beside it, and the report of an
            int8 model.
        parameters: of the banks, and merged. rounded: layers whose fold had to round.
        int8: how an int8 model came about; None of a float32 model.
    """

    written: tuple[Path, ...]
    parameters: ParameterCounts
    rounded: tuple[str, ...]
    int8: Int8 | None

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "written": [str(path) for path in self.written],
            "parameters": {"banks": self.parameters.banks, "merged": self.parameters.merged},
            "rounded": list(self.rounded),
            "int8": self.int8.to_mapping() if self.int8 is not None else None,
        }

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"wrote {path} ({path.stat().st_size:,} bytes)" for path in self.written]
        counts = self.parameters
        lines.append(f"parameters: {counts.banks:,} with banks, {counts.merged:,} merged")
        if self.int8 is not None:
            lines += report_table(self.int8)
        elif self.rounded:
            lines.append(f"folding rounded the weights once in: {', '.join(self.rounded)}")
        return lines


def export(
    run: Path,
    format: str = "nir",
    *,
    weights: str | None = None,
    out: Path | None = None,
    data: Path | None = None,
    samples: int = 64,
    seed: int = 0,
) -> Exported:
    """Merges the banks of a run and writes the network in one format, all files in one step.

    Args:
        run: the run folder. format: name of an export format.
        weights: `float32` or `int8`; default: as the run was trained.
        out: the file; default `RUN/model.<format>`, or `RUN/model.int8.<format>`.
        data, samples, seed: of int8, see `to_int8`.

    Raises:
        RunError: the run is absent or damaged. DataError: int8 needs the data set, and it is not
            there. ModelError: the network has no int8 form, or none in this format.
        UsageError: no such format, weights that it or the run does not have, a wrong suffix.
        OutputError: the files cannot be written.
    """
    writer = find_format(format)
    checkpoint = read_checkpoint(run)
    kind = _kind_of_weights(checkpoint, writer, weights, run)
    target = out or RunFolder(run).export(writer.suffix, int8=kind == "int8")
    if target.suffix != writer.suffix:
        raise UsageError(
            "output has the wrong suffix",
            got=target.name,
            expected=f"a name that ends in {writer.suffix}",
            where="--out",
        )
    report = None
    if kind == "int8":
        report = to_int8(run, checkpoint, data=data, samples=samples, seed=seed)
        network = Network(report.graph, report.plan)
    else:
        network = Network.of(graph_of(checkpoint), str(checkpoint.path))
    files = writer.files(network, target.name)
    if report is not None:
        files[report_path(target).name] = report_bytes(report)
    return Exported(
        written=_write(target, files),
        parameters=parameter_counts(checkpoint),
        rounded=tuple(rounded_layers(checkpoint)),
        int8=report,
    )


def _kind_of_weights(
    checkpoint: Checkpoint, writer: ExportFormat, asked: str | None, run: Path
) -> str:
    kind = asked or ("int8" if checkpoint.scales else "float32")
    if kind not in writer.weights:
        raise UsageError(
            f"format {writer.name} does not hold these weights",
            got=kind,
            expected=" or ".join(writer.weights),
            where="--weights",
        )
    if kind == "float32" and checkpoint.scales:
        raise UsageError(
            "run was trained in int8; no record says what it does in float32",
            got="--weights float32",
            expected="--weights int8",
            where=run,
        )
    return kind


def _write(target: Path, files: dict[str, bytes]) -> tuple[Path, ...]:
    """Writes files beside each other, all or none."""
    if any(Path(name).name != name for name in files):
        raise OutputError("format names a file elsewhere", got=list(files), where=target)
    with replacing_together(target.parent, list(files)) as stage:
        for name, content in files.items():
            (stage / name).write_bytes(content)
    return tuple(target.with_name(name) for name in files)
