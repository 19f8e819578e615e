"""`mpsl train … --method stdp`: no labels while it learns, then each neuron is given a class."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from mpsl_runtime.atomic import replacing
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.data.frames import input_shape, metadata_of
from mpsl_train.network.winner_take_all import WinnerTakeAll, class_scores, labels_of, neurons_in
from mpsl_train.recipe import Recipe
from mpsl_train.training.checkpoints import write_history
from mpsl_train.training.report import commit_of_checkout, save_report

__all__ = ["check_stdp", "train_stdp"]

# Samples that give the neurons their classes, as many as in the paper; images shown at once then.
_LABELLED, _BATCH = 10_000, 100


def check_stdp(recipe: Recipe) -> None:
    """Refuses what learning by spike timing is not defined for.

    Raises:
        RecipeError, UsageError: another network, other mechanisms beside it, or no images.
    """
    neurons_in(recipe.network)
    if recipe.mechanisms != ["stdp"]:
        raise UsageError("stdp learns without the others", got=recipe.mechanisms,
                         expected=["stdp"], where="mechanisms")  # fmt: skip
    if metadata_of(recipe).input_kind != "image":
        raise UsageError("stdp is implemented for images, coded as Poisson spikes",
                         got=recipe.data.dataset, where="data.dataset")  # fmt: skip


def _responses(network: WinnerTakeAll, images: Tensor, steps: int) -> Tensor:
    """Spike counts [samples, N], nothing learned."""
    counts = [
        network.present(network.encode(part, steps), learn=False).sum(0)
        for part in torch.split(images, _BATCH)
    ]
    return torch.cat(counts) if counts else torch.zeros(0, len(network.theta))


def _pixels(split: datasets.Split) -> Tensor:
    images = split.images()
    return torch.from_numpy(images.reshape(len(images), -1).copy())


def train_stdp(
    recipe: Recipe, run: RunFolder, root: Path, metadata: ModelMetadata
) -> dict[str, Any]:
    """Learns without labels, assigns classes on training samples, evaluates on the test set once.

    Writes `stdp.safetensors` (weights [pixels, N], theta, assigned classes), `evaluation.npz`
    without output spikes, `metrics.csv`, `report.json` and, as `report.png`, what every neuron has
    become sensitive to. It runs on the CPU; a run that was stopped begins anew with `resume`.

    Args:
        recipe: checked. run: a folder that holds `recipe.toml`. root: of the data set.
        metadata: of the recipe and the run.

    Raises:
        MpslError: the data cannot be read or the run cannot be written.
    """
    steps, classes = recipe.data.steps, len(metadata.class_names)
    split = datasets.open_split(recipe.data.dataset, root, "train")
    training, held_out = stratified_split(
        split.labels, recipe.data.validation, recipe.seed, recipe.data.train_limit
    )
    images, labels = _pixels(split), torch.from_numpy(split.labels)
    pixels, neurons = int(np.prod(input_shape(metadata))), neurons_in(recipe.network)
    generator = torch.Generator().manual_seed(recipe.seed)
    network = WinnerTakeAll.fresh(pixels, neurons, generator)
    history = _learn(network, images, training, recipe)
    mixed = np.random.default_rng([recipe.seed, 5]).permutation(training)
    known = torch.from_numpy(mixed[:_LABELLED])
    assigned = labels_of(_responses(network, images[known], steps), labels[known], classes)
    held = torch.from_numpy(held_out)
    guesses = class_scores(_responses(network, images[held], steps), assigned, classes).argmax(1)
    validation = float((guesses == labels[held]).float().mean()) if len(held) else None
    test = datasets.open_split(recipe.data.dataset, root, "test")
    counts = _responses(network, _pixels(test), steps)
    scores = class_scores(counts, assigned, classes).numpy()
    predictions = scores.argmax(1).astype(np.int64)
    report = {
        **_report(recipe, metadata, history, pixels * neurons),
        "accuracy": float(np.mean(predictions == test.labels)),
        "test_samples": len(test),
        "validation_accuracy": validation,
        "spikes_per_test_sample": float(counts.sum()) / max(1, len(test)),
        "neurons_of_class": torch.bincount(assigned, minlength=classes).tolist(),
    }
    write_history(run.metrics, history)
    _save_weights(run.stdp_weights, network, assigned, metadata)
    _save_answers(run, recipe, test, scores, predictions, report)
    _draw(run.picture, network, assigned, input_shape(metadata), report)
    save_report(run.report, report)
    return {**report, "run": str(run.path)}


def _learn(
    network: WinnerTakeAll, images: Tensor, training: NDArray[np.int64], recipe: Recipe
) -> list[dict[str, float]]:
    """All epochs; the history, one row an epoch."""
    history = []
    for epoch in range(recipe.training.epochs):
        begun, spikes = time.monotonic(), 0.0
        order = np.random.default_rng([recipe.seed, 2, epoch]).permutation(training)
        for part in torch.split(torch.from_numpy(order), recipe.training.batch_size):
            encoded = network.encode(images[part], recipe.data.steps)
            spikes += float(network.present(encoded, learn=True).sum())
        history.append({"epoch": epoch + 1.0, "spikes_per_sample": spikes / max(1, len(order)),
                        "seconds": round(time.monotonic() - begun, 3)})  # fmt: skip
    return history


def _report(
    recipe: Recipe, metadata: ModelMetadata, history: list[dict[str, float]], weights: int
) -> dict[str, Any]:
    """What is known before the test set is read."""
    return {
        "name": recipe.name,
        "dataset": recipe.data.dataset,
        "network": recipe.network,
        "mechanisms": recipe.mechanisms,
        "seed": recipe.seed,
        "best_epoch": None,
        "checkpoint": "last",
        "epochs": len(history),
        "parameters": {"banks": weights, "merged": weights, "trainable": 0},
        "layers": [],
        "training_seconds": round(sum(row["seconds"] for row in history), 1),
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit_of_checkout(),
        "recipe_hash": metadata.recipe_hash,
        "warnings": [],
    }


def _save_weights(
    path: Path, network: WinnerTakeAll, assigned: Tensor, metadata: ModelMetadata
) -> None:
    content = save(
        {"weights": network.weights, "theta": network.theta, "assigned": assigned},
        metadata={"recipe_hash": metadata.recipe_hash},
    )
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _save_answers(
    run: RunFolder,
    recipe: Recipe,
    test: datasets.Split,
    scores: NDArray[np.float32],
    predictions: NDArray[np.int64],
    report: dict[str, Any],
) -> None:
    facts = {
        "device": "cpu",
        "torch": torch.__version__,
        "dataset": recipe.data.dataset,
        "split": "test",
        "test_hash": datasets.content_hash(test),
        "recipe_hash": report["recipe_hash"],
        "accuracy": report["accuracy"],
    }
    with replacing(run.evaluation) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, ids=np.array(test.ids, dtype=np.str_), labels=test.labels,
            scores=scores.astype(np.float32), predictions=predictions,
            record=np.array(json.dumps(facts)),
        )  # fmt: skip


def _draw(
    path: Path,
    network: WinnerTakeAll,
    assigned: Tensor,
    shape: tuple[int, int, int],
    report: dict[str, Any],
) -> None:
    """The weights of up to 400 neurons as pictures, in the order of their classes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    order = assigned.argsort(stable=True)[:400]
    side = int(np.ceil(np.sqrt(len(order))))
    fields = network.weights.t()[order].view(-1, *shape).mean(1)
    _, rows, columns = shape
    canvas = torch.zeros(side * rows, side * columns)
    for place, picture in enumerate(fields):
        top, left = place // side * rows, place % side * columns
        canvas[top : top + rows, left : left + columns] = picture
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.subplots()
    plot.imshow(canvas.numpy(), cmap="Greys", interpolation="nearest")
    plot.set(xticks=[], yticks=[], title="weights of each neuron, in the order of their classes")
    figure.suptitle(f"{report['name']}: {report['network']} · stdp · test accuracy "
                    f"{report['accuracy']:.2%} ({report['test_samples']} samples)")  # fmt: skip
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
