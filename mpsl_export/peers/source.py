"""What a loader needs of a file: the graph, and of each population what NIR does not say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.graph import load_graph, plan_of

if TYPE_CHECKING:
    import nir

__all__ = ["Population", "Source", "importing", "read_source"]


@dataclass(frozen=True)
class Population:
    """A spiking population of a model that mpsl wrote (Eq. 1–3).

    Attributes:
        name: of the node.
        decay: ρ_m. threshold: V_th, in the units of U.
        reset: `subtract` or `zero`.
    """

    name: str
    decay: float
    threshold: float
    reset: Literal["subtract", "zero"]


@dataclass(frozen=True, eq=False)
class Source:
    """A file, read and checked.

    Attributes:
        graph: as it stands in the file. dt_s: seconds that a step stands for there.
    """

    graph: nir.NIRGraph
    dt_s: float
    populations: tuple[Population, ...]


def read_source(path: Path) -> Source:
    """Reads a file with our own checks first: the frameworks trust a file.

    Raises:
        ModelError: the file is damaged, or has a neuron that mpsl did not write.
    """
    graph = load_graph(path)
    plan = plan_of(graph, source=str(path)) if graph.metadata else None
    if plan is None or plan.metadata is None:
        raise ModelError(
            "other frameworks need to be told how neurons reset",
            got="no mpsl metadata",
            expected="a model that mpsl wrote",
            where=path,
        )
    populations = []
    for neuron in plan.spiking:
        if neuron.rho is None or neuron.V_th is None:
            raise ModelError(
                "neuron is not as mpsl writes it", where=f"node {neuron.name!r} of {path}"
            )
        reset: Literal["subtract", "zero"] = "subtract" if neuron.reset == "subtract" else "zero"
        populations.append(Population(neuron.name, neuron.rho, neuron.V_th, reset))
    return Source(graph, plan.metadata.dt_s, tuple(populations))


@contextmanager
def importing(framework: str, path: Path) -> Iterator[None]:
    """Around a framework's own import of a file.

    Raises:
        UsageError: the framework is not installed. ModelError: it cannot read the file.
    """
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        # Deprecated calls of one into the other, and notes on machines without a GPU.
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        except ImportError as error:
            raise UsageError(
                f"{framework} is not installed here",
                got=error,
                expected="`make peers` in the checkout",
            ) from error
        except (
            AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError,
            TypeError, ValueError,
        ) as error:  # fmt: skip
            raise ModelError(f"{framework} cannot read the model", got=error, where=path) from error
        finally:
            logging.disable(disabled)
