"""`mpsl data`: what each data set needs, where it is, whether it is sound; and making it."""

# Only typer and the standard library up here: `mpsl --help` imports this file.
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpsl_runtime.purposes import Purpose
from mpsl_runtime.terminal import clear_progress, show, show_json, show_progress

if TYPE_CHECKING:
    from mpsl_runtime.data.datasets import Split

__all__ = ["register_data"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="A data set; `mpsl data list`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The data set's folder or its parent. [$MPSL_DATA/NAME, then ~/.cache/mpsl/NAME]",
    ),
]


def register_data(app: typer.Typer) -> None:
    """Adds `data list`, `data check` and `data make` to the command."""
    data = typer.Typer(
        no_args_is_help=False,
        rich_markup_mode=None,
        help="List, check and make data sets.",
        epilog="Example: mpsl data make dvs-digits && mpsl data check dvs-digits",
    )
    data.command("list")(list_)
    data.command("check")(check)
    data.command("make")(make)
    app.add_typer(data, name="data", rich_help_panel=Purpose.MAKE)


def list_(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder of data sets. [$MPSL_DATA, then ~/.cache/mpsl]",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the data sets: what each needs and whether it is there.

    Example: mpsl data list --data ../shared/data
    """
    from mpsl_runtime.data import datasets
    from mpsl_train.data.sources import source_of

    rows: list[dict[str, Any]] = []
    for name, facts in datasets.DATASETS.items():
        # With --data only DIR/NAME: every folder of events would pass for three data sets.
        found = datasets.look_for(name, None if data is None else data / name)
        source = source_of(name)
        rows.append(
            {
                "name": name,
                "kind": facts.kind,
                "classes": list(facts.class_names),
                "found": None if found is None else str(found),
                "needs": facts.missing,
                "made_by": None if source is None else source.kind,
            }
        )
    where = "$MPSL_DATA/NAME, ~/.cache/mpsl/NAME" if data is None else f"{data}/NAME"
    if as_json:
        show_json({"looked_in": where, "datasets": rows})
        return
    show(f"looked in {where}")
    for row in rows:
        state = row["found"] or f"not there; {row['needs']}"
        show(f"{row['name']:<14} {row['kind']:<7} {len(row['classes']):>3} classes  {state}")


def check(name: Name, data: Data = None, as_json: Json = False) -> None:
    """Read every sample: counts, classes, events, and the hash that names this very data.

    Example: mpsl data check nmnist8 --data ../shared/data/nmnist8
    """
    from mpsl_runtime.data import datasets
    from mpsl_train.data.sources import Download, source_of

    root, source = datasets.find(name, data), source_of(name)
    result: dict[str, Any] = {"dataset": name, "root": str(root), "published": None, "splits": {}}
    train = datasets.open_split(name, root, "train")
    test = datasets.open_split(name, root, "test")
    if isinstance(source, Download) and source.published is not None:
        result["published"] = source.published(root)
    for split in (train, test):
        result["splits"][split.split] = _described(split)
    if as_json:
        show_json(result)
        return
    show(f"{name} in {root}")
    if result["published"] is not None:
        show(f"content {'as published' if result['published'] else 'NOT the published one'}")
    for title, row in result["splits"].items():
        show(f"{title:<6} {row['samples']} samples  {row['hash']}")
        show("       " + "  ".join(f"{key}: {n}" for key, n in row["classes"].items()))
        if "events" in row:
            events = row["events"]
            show(
                f"       events a sample: mean {events['mean']:.0f}, "
                f"{events['min']}…{events['max']}; last event at {events['last_us'] / 1e3:.0f} ms"
            )


def make(
    name: Name,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to make. [$MPSL_DATA/NAME, or ~/.cache/mpsl/NAME]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of a simulated data set. [0]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make or download a data set, unless it is there.

    Example: mpsl data make dvs-digits --data runs/data/dvs-digits
    """
    from mpsl_runtime.data import datasets
    from mpsl_runtime.errors import DataError, UsageError
    from mpsl_train.data import acquire
    from mpsl_train.data.sources import Simulation, source_of

    facts, source = datasets.facts_of(name), source_of(name)
    if seed is not None and not isinstance(source, Simulation):
        raise UsageError(f"data set {name} has no seed", got=f"--seed {seed}")
    root = datasets.look_for(name, data) or acquire.default_root(name, data)
    if isinstance(source, Simulation) or not _is_complete(name, root):
        if source is None:
            raise DataError(
                f"data set {name} can be neither made nor downloaded; {facts.missing}", where=root
            )
        acquire.make(name, root, seed=seed or 0)
    if as_json:
        show_json({"dataset": name, "root": str(root)})
    else:
        show(f"{name} is in {root}")


def _is_complete(name: str, root: Path) -> bool:
    from mpsl_runtime.data import datasets
    from mpsl_runtime.errors import DataError

    try:
        datasets.open_split(name, root, "train")
        datasets.open_split(name, root, "test")
    except DataError:
        return False
    return True


def _described(split: Split) -> dict[str, Any]:
    """Reads every sample of a split; raises DataError at the first that is damaged."""
    import numpy as np

    from mpsl_runtime.data import datasets

    row: dict[str, Any] = {"samples": len(split)}
    histogram = np.bincount(split.labels, minlength=len(split.class_names))
    row["classes"] = dict(zip(split.class_names, map(int, histogram), strict=True))
    if split.kind == "events":
        show = _progress(split, "reading")
        counts, last = [], 0
        for index in range(len(split)):
            events = split.events(index)
            counts.append(len(events))
            last = max(last, int(events.t[-1]) if len(events) else 0)
            show(index)
        row["events"] = {
            "mean": float(np.mean(counts)),
            "min": min(counts),
            "max": max(counts),
            "last_us": last,
        }
    else:
        row["image_shape"] = list(split.images().shape[1:])
    row["hash"] = datasets.content_hash(split, _progress(split, "hashing"))
    return row


def _progress(split: Split, verb: str) -> Callable[[int], None]:
    """A counter on stderr that is written over; silent where nobody looks."""

    def count(index: int) -> None:
        done = index + 1
        if not sys.stderr.isatty():
            return
        if done == len(split):
            clear_progress()
        elif done % 500 == 0:
            show_progress(f"{verb} {split.name} {split.split}: {done}/{len(split)}")

    return count
