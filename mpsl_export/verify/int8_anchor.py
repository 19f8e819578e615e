"""What an int8 file is held against: the banks on its grids, and the reference that runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpsl_export.int8.quantize import quantised_graph, stages, stored_scales
from mpsl_export.verify.backend_run import BackendRun
from mpsl_export.verify.backends.runtime import RuntimeProgram
from mpsl_export.verify.exported_file import ExportedFile
from mpsl_export.write.format import Network
from mpsl_runtime.errors import ModelError, MpslError
from mpsl_runtime.model.scale import Scale

__all__ = ["Anchor", "Anchors"]


@dataclass(frozen=True, eq=False)
class Anchor:
    """What an int8 file is held against.

    Attributes:
        fault: why the grids of the file cannot be read; empty when they can.
        expected: what the run's banks become on its grids; None with a fault.
        reference: the numpy reference on that; None with a fault.
        trained: training used these grids, so that its record says what is right.
    """

    fault: str
    expected: Network | None = None
    reference: BackendRun | None = None
    trained: bool = False


class Anchors:
    """The anchors of int8 files; files on the same grids share one, so that it runs once.

    Args:
        merged: the network in float32. trained: the scales that training used, if any.
    """

    def __init__(self, merged: Network, trained: Sequence[Scale] | None = None) -> None:
        self._merged = merged
        self._trained = trained
        self._known: dict[tuple[Any, ...], Anchor] = {}

    def of(self, file: ExportedFile) -> Anchor:
        """The anchor of an int8 file.

        Raises:
            ModelError: the file cannot be read.
        """
        properties = file.metadata()
        try:
            scales, input_max = self._grids(properties, str(file.path))
            key = (*scales, input_max)
            if key not in self._known:
                graph = quantised_graph(self._merged.graph, scales, input_max)
                expected = Network.of(graph, str(file.path))
                run = BackendRun(RuntimeProgram(expected.plan, "reference"))
                self._known[key] = Anchor("", expected, run, self._trained is not None)
            return self._known[key]
        except MpslError as error:
            return Anchor(str(error))

    def _grids(self, properties: Mapping[str, Any], where: str) -> tuple[tuple[Scale, ...], int]:
        """The grids of training, or else those that a file names; and its bound on the input."""
        found = stages(self._merged.plan)
        try:
            grids = {
                s.weighted.name: int(properties[f"weight_grid.{s.weighted.name}"]) for s in found
            }
            names = [stage.neuron.name for stage in found if stage.neuron is not None]
            limits = {name: float(properties[f"threshold.{name}"]) for name in names}
            input_max = int(properties["input_max"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError("int8 model does not say its grid", got=error, where=where) from error
        scales = self._trained or stored_scales(found, grids, limits, where)
        return tuple(scales), input_max
