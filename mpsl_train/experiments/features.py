"""`mpsl features`: how well the penultimate layer tells the classes apart (Fig. 5)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpsl_runtime.atomic import replacing
from mpsl_runtime.data import datasets
from mpsl_runtime.errors import DataError, UsageError
from mpsl_train.data.batches import Samples, to_window
from mpsl_train.data.frames import load_frames
from mpsl_train.experiments.inference import potentials
from mpsl_train.experiments.raw_numbers import write_raw
from mpsl_train.experiments.runs import TrainedRun, check_png, choose, load_run, open_test

__all__ = ["features"]

_BATCH = 100
# Of a row, what the CSV has: no path of this machine, no sample by itself.
_NUMBERS = (
    "name", "dataset", "mechanisms", "training_seed", "layer", "neurons", "samples",
    "silhouette_features", "silhouette_embedding", "kl_divergence",
)  # fmt: skip


def features(
    folders: Sequence[Path],
    out: Path,
    *,
    data: Path | None = None,
    limit: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Embeds the membrane potentials of each run in the plane; writes `out`, and beside it the same
    as `.json` and a `.csv` with a row for each run.

    The features of a sample are U of the penultimate layer, the mean over the T steps. t-SNE
    (van der Maaten and Hinton 2008) starts from their principal components. The silhouette score
    (Rousseeuw 1987), −1…1, is taken with the true classes, on the features and on the embedding.

    Args:
        folders: of runs; drawn side by side. out: the picture, `.png`.
        data: the data set's folder or its parent. limit: test samples, 0 = all.
        seed: of the choice of samples and of t-SNE.

    Raises:
        MpslError: a run or its data cannot be read, or too few samples.
    """
    check_png(out, folders)
    runs = [load_run(folder) for folder in folders]
    rows = []
    for run in runs:
        values, labels = _features(run, data, limit, seed)
        rows.append(_embedded(run, values, labels, seed))
    with replacing(out) as temporary:
        _draw(temporary, rows)
    result = {"limit": limit, "seed": seed, "features": "mean of U over the steps", "runs": rows}
    with replacing(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(result) + "\n", "utf-8")
    numbers = [
        {key: row[key] for key in _NUMBERS} | {"mechanisms": "+".join(row["mechanisms"])}
        for row in rows
    ]
    write_raw(out.with_suffix(".csv"), numbers)
    return result


def _features(
    run: TrainedRun, data: Path | None, limit: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if len(run.network.layer_list) < 2:
        raise UsageError("network has no penultimate layer", got=run.recipe.network,
                         where=run.folder)  # fmt: skip
    split, _ = open_test(run, data)
    indices = choose(split.labels, limit, seed)
    counts = np.bincount(split.labels[indices])
    if len(indices) < 10 or (counts > 0).sum() < 2:
        raise DataError(
            "too few samples for t-SNE", got=len(indices), expected="≥ 10 of two classes"
        )
    frames = load_frames(split, run.metadata, datasets.content_hash(split))
    samples = Samples(frames, split.labels, run.metadata)
    parts = []
    for start in range(0, len(indices), _BATCH):
        values, _ = samples[(None, indices[start : start + _BATCH])]
        parts.append(potentials(run.network, to_window(values), run.metadata.steps))
    return torch.cat(parts).numpy(), split.labels[indices]


def _embedded(
    run: TrainedRun, values: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> dict[str, Any]:
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    tsne = TSNE(
        perplexity=min(30.0, (len(values) - 1) / 3), init="pca", learning_rate="auto",
        random_state=seed,
    )  # fmt: skip
    plane = tsne.fit_transform(values.astype(np.float64))
    return {
        "run": str(run.folder),
        "name": run.recipe.name,
        "dataset": run.recipe.data.dataset,
        "mechanisms": run.recipe.mechanisms,
        "training_seed": run.recipe.seed,
        "layer": run.network.layer_list[-2].spec.name,
        "neurons": values.shape[1],
        "samples": len(values),
        "silhouette_features": float(silhouette_score(values, labels)),
        "silhouette_embedding": float(silhouette_score(plane, labels)),
        "kl_divergence": float(tsne.kl_divergence_),
        "classes": list(run.metadata.class_names),
        "labels": labels.tolist(),
        "embedding": np.round(plane.astype(np.float64), 3).tolist(),
    }


def _draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(3, len(rows))
    lines = ceil(len(rows) / columns)
    figure = Figure(figsize=(max(4.6 * columns, 6), 4.9 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    names: dict[str, Any] = {}
    for panel, row in zip(panels, rows, strict=False):
        points, labels = np.array(row["embedding"]), np.array(row["labels"])
        colours = colormaps["tab10" if len(row["classes"]) <= 10 else "tab20"]
        for label, name in enumerate(row["classes"]):
            chosen = points[labels == label]
            panel.scatter(*chosen.T, s=9, color=colours(label % colours.N), linewidths=0)
            names.setdefault(name, colours(label % colours.N))
        panel.set(xticks=[], yticks=[])
        panel.set_aspect("equal", adjustable="datalim")
        panel.set_title(
            f"{row['name']}: {' + '.join(row['mechanisms'])}, seed {row['training_seed']}\n"
            f"silhouette {row['silhouette_features']:.2f} on {row['neurons']} features, "
            f"{row['silhouette_embedding']:.2f} in the plane",
            fontsize=9,
        )
    for panel in panels[len(rows) :]:
        panel.axis("off")
    handles = [
        Line2D([], [], ls="", marker="o", ms=5, color=colour, label=name)
        for name, colour in names.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(10, len(handles)), frameon=False,
        fontsize=9, handletextpad=0.1, columnspacing=1.0,
    )  # fmt: skip
    figure.savefig(path, dpi=90)
