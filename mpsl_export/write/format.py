"""An export format: one object that says what it writes, and which programs run it.

A format is a module `to_<name>.py` of this room that has a `FORMAT`, or one that an installed
distribution names in the entry-point group `mpsl.formats`. `mpsl export`, `verify` and `card` find
everything about it here, and none of them knows a format by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mpsl_export.write.alteration import Alteration
from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.graph import plan_of
from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Plan, Shape
from mpsl_runtime.model.plastic import PLASTIC_KEY

if TYPE_CHECKING:
    import nir

    from mpsl_export.verify.backends import Backend

__all__ = [
    "BackendKind",
    "ExportFormat",
    "Measures",
    "Network",
    "find_format",
    "format_names",
    "format_of",
    "formats",
    "grid_properties",
]

_PREFIX = "to_"
_GROUP = "mpsl.formats"


@dataclass(frozen=True, eq=False)
class Network:
    """What is written: a NIR graph, and the plan that follows from it.

    Attributes:
        plastic: what a file that may go on learning says besides, see `write.plastic`; whether it
            is written is another matter.
    """

    graph: nir.NIRGraph
    plan: Plan
    plastic: Mapping[str, Any] = field(default_factory=dict)

    def going_on(self) -> Network:
        """The network whose file says all that."""
        import nir

        metadata = {**self.graph.metadata, PLASTIC_KEY: dict(self.plastic)}
        graph = nir.NIRGraph(
            self.graph.nodes, self.graph.edges, metadata=metadata, type_check=False
        )
        return replace(self, graph=graph)

    @classmethod
    def of(cls, graph: nir.NIRGraph, source: str) -> Network:
        """Lays out a graph. What the loader would refuse is never written: raises ModelError."""
        return cls(graph, plan_of(graph, source=source))


class Measures(Protocol):
    """What was measured of an export, for JSON and for people."""

    def to_mapping(self) -> dict[str, Any]: ...

    def lines(self) -> list[str]: ...


@dataclass(frozen=True)
class BackendKind:
    """A program that runs files of a format, for `mpsl verify`.

    Attributes:
        name: on the command line.
        open: loads a file; imports what it needs itself.
        needs: the package that must be installed for it.
        by_default: it runs when no `--backend` is given.
        own_units: it rescales what it reads, so that it may round where an int8 model does not.
    """

    name: str
    open: Callable[[Path], Backend]
    needs: str = "numpy"
    by_default: bool = True
    own_units: bool = False


class ExportFormat(ABC):
    """One export format.

    Attributes:
        name: for `--format`. suffix: of the file that `--out` names, with its dot.
        weights: the kinds of weights that it can hold, `float32` and `int8`.
        is_folder: an export is a folder, known by `model<suffix>` in it, not a file.
    """

    name: str
    suffix: str
    weights: tuple[str, ...] = ("float32", "int8")
    is_folder: bool = False

    def with_options(self, **options: Any) -> ExportFormat:
        """The same format, set up by options of the command line that not every format has, such as
        `prefix` and `batch`.

        Raises:
            UsageError: it has no such option, or the value cannot be.
        """
        for name, value in options.items():
            raise UsageError(f"format {self.name} has no {name}", got=value, where=f"--{name}")
        return self

    @property
    @abstractmethod
    def backends(self) -> Sequence[BackendKind]:
        """The programs that run it back: a format without one is not proven."""

    @abstractmethod
    def files(self, network: Network, name: str) -> dict[str, bytes]:
        """Everything that an export writes, by file name: `name` first, then what goes beside it.

        The same network must always give the same bytes.

        Args:
            name: ends in `suffix`; of a folder, in which the names of the files lie.

        Raises:
            ModelError: the format cannot hold the network.
        """

    def measured(self, network: Network, files: Mapping[str, bytes]) -> Measures | None:
        """What the files take where they run, as far as the tools to tell it are installed; None
        where there is nothing to tell.

        Args:
            files: as `files` made them.
        """
        return None

    def alterations(self, path: Path, network: Network) -> list[Alteration]:
        """What a file holds that `files` would not have written; empty for an honest export.

        Here the bytes are compared. A format that can name what differs overrides it.

        Raises:
            ModelError: the file cannot be read.
        """
        found: list[Alteration] = []
        for name, expected in self.files(network, path.name).items():
            file = path / name if self.is_folder else path.with_name(name)
            if not file.is_file():
                found.append(Alteration(name, "is not there", runs=False))
            elif (got := file.read_bytes()) != expected:
                pairs = enumerate(zip(got, expected, strict=False))
                shorter = min(len(got), len(expected))
                at = next((i for i, (one, other) in pairs if one != other), shorter)
                text = f"differs from byte {at} on ({len(got)} bytes instead of {len(expected)})"
                found.append(Alteration(name, text, runs=False))
        return found

    def metadata(self, path: Path) -> Mapping[str, Any]:
        """The metadata of `ModelMetadata` that stands in a file, as numbers or as text; of an int8
        model also `weight_grid.<node>` and `threshold.<node>`. Empty: a float32 model.

        Raises:
            ModelError: the file cannot be read.
        """
        return {}

    def stamp(self, path: Path, verified: str) -> None:
        """Writes what `mpsl verify` found into a file that has a seal, and seals it again.

        A format whose files say nothing of themselves, or a file without a seal, stays as it is.

        Raises:
            OutputError: the file cannot be written.
        """
        return

    def shapes(self, path: Path) -> tuple[Shape, Shape] | None:
        """The shapes of input and output in a file; None where it does not say them.

        Raises:
            ModelError: the file cannot be read.
        """
        return None


def grid_properties(plan: Plan) -> dict[str, Any]:
    """Of an int8 model the exponent of each layer's grid, and its threshold, which lies on it; as
    `ExportFormat.metadata` names them."""
    found: dict[str, Any] = {}
    for node in plan.nodes:
        if isinstance(node, Convolution | Dense) and node.weight_grid is not None:
            found[f"weight_grid.{node.name}"] = node.weight_grid
        elif isinstance(node, Neuron) and plan.metadata and plan.metadata.weights == "int8":
            found[f"threshold.{node.name}"] = float(node.threshold.flat[0])
    return found


def formats() -> dict[str, ExportFormat]:
    """Every format by name.

    Raises:
        UsageError: an installed format cannot be loaded.
    """
    return {name: find_format(name) for name in format_names()}


def format_names() -> list[str]:
    """Names of the formats, without loading any."""
    return [*_own(), *_installed()]


def find_format(name: str) -> ExportFormat:
    """The format of that name.

    Raises:
        UsageError: there is none, or it cannot be loaded.
    """
    if name in _own():
        module = importlib.import_module(f"{__package__}.{_PREFIX}{name}")
        own: ExportFormat = module.FORMAT
        return own
    entry = _installed().get(name)
    if entry is None:
        raise UsageError(
            "no such export format",
            got=name,
            expected=" or ".join(format_names()),
            where="--format",
        )
    try:
        found = entry.load()
    except Exception as error:  # a stranger's module may raise anything
        raise UsageError(
            f"export format {name} cannot be loaded",
            got=f"{type(error).__name__}: {error}",
            where=entry.value,
        ) from error
    if not isinstance(found, ExportFormat) or found.name != name:
        raise UsageError(
            "entry point is no export format of its name",
            got=repr(found),
            expected=f"an ExportFormat named {name!r}",
            where=entry.value,
        )
    return found


def format_of(path: Path) -> ExportFormat | None:
    """The format of a file, by its suffix, or of a folder, which may have any name, by the file
    that it is known by; None for a file of no format."""
    each = [find_format(name) for name in format_names()]
    holding = (f for f in each if f.is_folder and (path / f"model{f.suffix}").is_file())
    named = (f for f in each if f.suffix == path.suffix)
    return next(holding, None) or next(named, None)


@cache
def _own() -> tuple[str, ...]:
    """Formats of this room: its modules `to_*`."""
    package = importlib.import_module(str(__package__))
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(n.removeprefix(_PREFIX) for n in names if n.startswith(_PREFIX)))


def _installed() -> dict[str, EntryPoint]:
    """Formats that other distributions bring."""
    return {entry.name: entry for entry in entry_points(group=_GROUP) if entry.name not in _own()}
