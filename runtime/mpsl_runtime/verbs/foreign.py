"""Options that fill in what a file of another framework does not say, the same for every verb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mpsl_runtime.model.filling import Filled, Filling

__all__ = [
    "NAMES",
    "Classes",
    "CodingWord",
    "DataSet",
    "FiresWord",
    "From",
    "LeakWord",
    "NormInput",
    "ResetWord",
    "SpikesWord",
    "StartWord",
    "StepSeconds",
    "filled_model",
    "filling_of",
    "show_inferred",
]

From = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="NAME",
        help="Which framework wrote a .nir without our metadata, and so how it steps: snntorch, "
        "norse, spikingjelly, sinabs, nir (the equations as they stand), auto (by its numbers).",
    ),
]
ResetWord = Annotated[
    str | None,
    typer.Option(
        "--reset",
        metavar="WORD",
        help="After a spike: value or subtract, as that framework does it; subtract-undecayed, "
        "lost. [the framework's default]",
    ),
]
FiresWord = Annotated[
    str | None,
    typer.Option("--fires", metavar="'>'|'>='", help="Than the threshold. [the framework's]"),
]
SpikesWord = Annotated[
    str | None,
    typer.Option("--spikes", metavar="one|many", help="Of a neuron in a step. [the framework's]"),
]
LeakWord = Annotated[
    str | None,
    typer.Option("--leak", metavar="euler|exact", help="1 − dt/tau or exp(−dt/tau)."),
]
StartWord = Annotated[
    str | None,
    typer.Option("--start", metavar="leak|zero|reset", help="What v starts from."),
]
NormInput = Annotated[
    str | None,
    typer.Option("--norm-input", metavar="yes|no", help="exact: sinabs' LIF(norm_input=…)."),
]
StepSeconds = Annotated[
    float | None,
    typer.Option(
        "--dt-s",
        metavar="S",
        min=1e-12,
        max=1e6,
        help="Seconds of a step in the file's tau. [by its numbers, else the framework's]",
    ),
]
CodingWord = Annotated[
    str | None,
    typer.Option(
        "--coding", metavar="count|binary", help="Events of a pixel in a step, or whether any."
    ),
]
Classes = Annotated[
    str | None, typer.Option(metavar="A,B,…", help="Names in the order of the outputs. [0,1,…]")
]
DataSet = Annotated[
    str | None,
    typer.Option(
        "--dataset", metavar="NAME", help="What it was trained on: a name of `mpsl data list`."
    ),
]

NAMES = (
    *("source_dialect", "reset", "fires", "spikes", "leak", "start", "norm_input", "dt_s"),
    *("steps", "step_us", "coding", "classes", "dataset"),
)
"""The parameters of a verb that are of these types, by which `filling_of` knows them."""

_WORDS = {
    "reset": ("value", "subtract", "subtract-undecayed", "lost"),
    "fires": (">", ">="),
    "spikes": ("one", "many"),
    "leak": ("euler", "exact"),
    "start": ("leak", "zero", "reset"),
    "norm_input": ("yes", "no"),
    "coding": ("count", "binary"),
}


def filling_of(given: Mapping[str, Any], **more: Any) -> Filling:
    """What a command line says of a file.

    Args:
        given: the verb's parameters; only `NAMES` are looked at. more: other fields of `Filling`.

    Raises:
        UsageError: a word that is not known.
    """
    from mpsl_runtime.errors import UsageError
    from mpsl_runtime.model.filling import Filling

    values = {name: given[name] for name in NAMES if name in given} | more
    for name, words in _WORDS.items():
        if values.get(name) is not None and values[name] not in words:
            raise UsageError(
                "word is not known",
                got=repr(values[name]),
                expected=" or ".join(words),
                where=f"--{name.replace('_', '-')}",
            )
    return Filling(dialect=values.pop("source_dialect"), **values)


def filled_model(
    model: str,
    given: Mapping[str, Any],
    *,
    timed: bool = True,
    labelled: bool = False,
    overrules: bool = False,
) -> Filled:
    """The model of a command line, filled in where it was never imported; what was inferred, and
    what its file says and was not taken at its word, is said on stderr.

    Args:
        model: a file or a name. given: the verb's parameters.
        timed, labelled, overrules: see `filling.fill`.

    Raises:
        UsageError: a word that is not known, or something that is missing: all of it is named.
        ModelError: see `mpsl_runtime.model.graph`; or it would take too much memory.
    """
    from mpsl_runtime.model.filling import load_filled
    from mpsl_runtime.run.engine_memory import check_engine
    from mpsl_runtime.zoo import find_model

    filled = load_filled(
        find_model(model),
        filling_of(given),
        timed=timed,
        labelled=labelled,
        overrules=overrules,
    )
    # What was taken is said of a model that can run: one that cannot gets its one line alone.
    if filled.lines or filled.plan.notes:
        check_engine(filled.plan)
    show_inferred(filled)
    return filled


def show_inferred(filled: Filled) -> None:
    """What was not said and was taken from a file's numbers, and its notes: lines on stderr."""
    from mpsl_runtime.terminal import tell
    from mpsl_runtime.verbs.notes import show_notes

    for line in filled.lines:
        tell(f"taken {line}")
    show_notes(filled.plan)
