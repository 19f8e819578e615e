"""Writes a plan as C99 for microcontrollers: a folder with model.h, model.c and a probe.

The text is made in `c`; here it becomes an export format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpsl_export.write.alteration import Alteration
from mpsl_export.write.c.files import header_text, layout_of, model_text, read_metadata
from mpsl_export.write.c.lower import lowered
from mpsl_export.write.c.names import checked_prefix
from mpsl_export.write.c.probe import probe_of, probe_text
from mpsl_export.write.c.program import Program
from mpsl_export.write.c.text import fill
from mpsl_export.write.format import BackendKind, ExportFormat, Network, grid_properties
from mpsl_export.write.marks import marked_as, marks_of
from mpsl_runtime.errors import ModelError
from mpsl_runtime.model.plan import Plan, Shape

if TYPE_CHECKING:
    from mpsl_export.verify.backends import Backend
    from mpsl_export.write.c.footprint import Footprint

__all__ = ["FORMAT", "PREFIX", "CFormat", "c_files", "model_files"]

PREFIX = "mpsl"
_HEADER = "model.h"
_LARGEST_HEADER = 1 << 22


class CFormat(ExportFormat):
    """A folder of C99 for a microcontroller: event-driven, nothing allocated."""

    name = "c"
    suffix = ".c"
    is_folder = True

    def __init__(self, prefix: str = PREFIX) -> None:
        self._prefix = checked_prefix(prefix)

    def with_options(self, **options: Any) -> CFormat:
        """See `ExportFormat.with_options`: `prefix`, of every name in the files."""
        prefix = str(options.pop("prefix", self._prefix))
        super().with_options(**options)
        return CFormat(prefix)

    @property
    def backends(self) -> Sequence[BackendKind]:
        """The system's C compiler."""
        return (BackendKind("c", _open_c),)

    def files(self, network: Network, name: str) -> dict[str, bytes]:
        """See `ExportFormat.files`; names are those in the folder."""
        return c_files(network.plan, self._prefix, marks_of(network))

    def measured(self, network: Network, files: Mapping[str, bytes]) -> Footprint:
        """See `ExportFormat.measured`: on a Cortex-M4."""
        from mpsl_export.write.c.footprint import footprint_of

        return footprint_of(network.plan, files, self._prefix, marks_of(network))

    def alterations(self, path: Path, network: Network) -> list[Alteration]:
        """See `ExportFormat.alterations`; the prefix is the one that the files have."""
        prefix = self.metadata(path).get("prefix", PREFIX)
        writer = CFormat(prefix) if isinstance(prefix, str) else self
        expected = marked_as(network, self.metadata(path), str(path))
        return ExportFormat.alterations(writer, path, expected)

    def metadata(self, path: Path) -> Mapping[str, Any]:
        """See `ExportFormat.metadata`: the comment of model.h."""
        return read_metadata(_read_header(path))

    def shapes(self, path: Path) -> tuple[Shape, Shape] | None:
        """See `ExportFormat.shapes`."""
        found = self.metadata(path)
        try:
            shapes = [tuple(int(size) for size in found[key]) for key in _SHAPES]
        except (KeyError, TypeError, ValueError):
            return None
        return shapes[0], shapes[1]


_SHAPES = ("input_shape", "output_shape")
FORMAT = CFormat()


def c_files(
    plan: Plan, prefix: str = PREFIX, marks: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """Everything of the folder, by name.

    Args:
        marks: the probe, as `write.marks` has it; None: one is looked for.

    Raises:
        ModelError: a node that cannot be said in C.
    """
    program, marks = lowered(plan, prefix), marks or {}
    texts = {
        "probe.c": probe_text(program, _title(plan), probe_of(plan, marks)),
        "Makefile": fill("Makefile", prefix=prefix),
        "CMakeLists.txt": fill("CMakeLists.txt", prefix=prefix),
    }
    files = {name: text.encode("ascii") for name, text in texts.items()}
    return {**model_files(program, marks), **files}


def model_files(program: Program, marks: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """model.h and model.c, all that a firmware needs."""
    more = {**layout_of(program), **grid_properties(program.plan), **(marks or {})}
    title = _title(program.plan)
    texts = {_HEADER: header_text(program, title, more), "model.c": model_text(program, title)}
    return {name: text.encode("ascii") for name, text in texts.items()}


def _title(plan: Plan) -> str:
    metadata = plan.metadata
    if metadata is None or not metadata.dataset:
        return "a spiking network as C99, written by mpsl"
    return f"{metadata.dataset}, {metadata.network} as C99, written by mpsl"


def _read_header(path: Path) -> str:
    try:
        with (path / _HEADER).open("rb") as file:
            return file.read(_LARGEST_HEADER).decode("utf-8", "replace")
    except OSError as error:
        raise ModelError("cannot read model", got=error.strerror, where=path / _HEADER) from error


def _open_c(path: Path) -> Backend:
    from mpsl_export.verify.backends.c_compiler import CompiledC

    return CompiledC(path)
