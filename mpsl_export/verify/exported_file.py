"""A file to be verified: its format, what its exporter would have written, and who runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsl_export.verify.backends import Backend
from mpsl_export.write.alteration import Alteration
from mpsl_export.write.format import BackendKind, ExportFormat, Network, format_of, formats
from mpsl_runtime.errors import RunError, UsageError
from mpsl_runtime.model.plan import Plan

__all__ = ["ExportedFile", "backend_names"]


def backend_names() -> list[str]:
    """Every back end of every format."""
    return list(dict.fromkeys(kind.name for f in formats().values() for kind in f.backends))


@dataclass(frozen=True)
class ExportedFile:
    """One exported file, or folder of a format that writes several.

    Attributes:
        path: where it lies. format: by its suffix, or by what the folder holds.
    """

    path: Path
    format: ExportFormat

    @classmethod
    def at(cls, path: Path) -> ExportedFile:
        """Raises UsageError: there is no such file, or no format has its suffix."""
        found = format_of(path)
        if not (path.is_dir() if found is not None and found.is_folder else path.is_file()):
            raise UsageError("no such model", got=path, where="--model")
        if found is None:
            raise UsageError(
                "no back end reads this model",
                got=path.name,
                expected=f"a {' or '.join(f.suffix for f in formats().values())} file",
                where="--model",
            )
        return cls(path, found)

    @property
    def says_int8(self) -> bool:
        """Its metadata says that it is an int8 model. Raises ModelError: it cannot be read."""
        return self.metadata().get("weights") == "int8"

    def metadata(self) -> Mapping[str, Any]:
        """See `ExportFormat.metadata`."""
        return self.format.metadata(self.path)

    def alterations(self, network: Network) -> list[Alteration]:
        """See `ExportFormat.alterations`."""
        return self.format.alterations(self.path, network)

    def kinds(self, names: tuple[str, ...] = ()) -> list[BackendKind]:
        """The back ends of these names that run it; without names those that run by default."""
        return [k for k in self.format.backends if (k.name in names if names else k.by_default)]

    def open(self, name: str) -> Backend:
        """Loads it into a back end.

        Raises:
            UsageError: no such back end, it does not run such a file, or a program is missing.
            ModelError: the file is damaged. MissingExtraError: ONNX Runtime is not installed.
        """
        for kind in self.format.backends:
            if kind.name == name:
                return kind.open(self.path)
        known = backend_names()
        if name not in known:
            raise UsageError("unknown back end", got=name, expected=", ".join(known))
        raise UsageError(
            f"back end {name} does not read this file",
            got=self.path.name,
            expected=", ".join(kind.name for kind in self.format.backends),
        )

    def check_shapes(self, plan: Plan) -> None:
        """Raises RunError when it takes another input, or gives other classes, than the run."""
        shapes = self.format.shapes(self.path)
        if shapes is not None and shapes != (plan.input_shape, plan.output_shape):
            raise RunError(
                "model does not fit the run",
                got=f"{list(shapes[0])} → {list(shapes[1])}",
                expected=f"{list(plan.input_shape)} → {list(plan.output_shape)}",
                where=self.path,
            )
