"""After the last epoch: the one look at the test set, and what the run folder keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mpsl_runtime.data import datasets
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.run_folder import RunFolder
from mpsl_train.data.batches import Samples
from mpsl_train.data.frames import input_shape, load_frames
from mpsl_train.network.network import Network
from mpsl_train.recipe import Recipe
from mpsl_train.training.checkpoints import best_epoch, write_history
from mpsl_train.training.current_shares import current_shares
from mpsl_train.training.record import (
    Evaluation,
    evaluate,
    exact_arithmetic,
    save_banks,
    save_evaluation,
)
from mpsl_train.training.report import (
    commit_of_checkout,
    layer_facts,
    parameter_counts,
    save_report,
)
from mpsl_train.training.report_plot import draw_report

__all__ = ["finish"]


def finish(
    network: Network,
    recipe: Recipe,
    run: RunFolder,
    metadata: ModelMetadata,
    root: Path,
    device: str,
    history: Sequence[dict[str, float]],
) -> dict[str, Any]:
    """Evaluates on the test set and writes every file of the run folder but the checkpoints.

    Args:
        root: the data set's folder. history: one row an epoch, as `fit` returned it.

    Returns:
        what report.json says.

    Raises:
        MpslError: the test set cannot be read, or a file cannot be written.
    """
    test = datasets.open_split(recipe.data.dataset, root, "test")
    test_hash = datasets.content_hash(test)
    frames = load_frames(test, metadata, test_hash)
    samples = Samples(frames, test.labels, metadata)
    evaluation = evaluate(network, samples, metadata)
    with exact_arithmetic():
        shares = current_shares(network, samples, metadata)
    device_name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    report = _report(network, recipe, evaluation, shares, history)
    report |= {
        "device": device_name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit_of_checkout(),
        "recipe_hash": metadata.recipe_hash,
        "quantize": recipe.quantize,
    }
    report["warnings"] = [
        f"{layer['name']} {layer['warning']}" for layer in report["layers"] if layer["warning"]
    ]
    facts = {
        "device": device_name,
        "torch": torch.__version__,
        "flags": {"tf32": False, "autocast": False, "compile": False},
        "dataset": recipe.data.dataset,
        "split": "test",
        "test_hash": test_hash,
        "recipe_hash": metadata.recipe_hash,
        "weights": "int8" if recipe.quantize == "int8" else "float32",
    }
    write_history(run.metrics, history)
    save_banks(run.banks, network, metadata, input_shape(metadata))
    save_evaluation(run.evaluation, evaluation, test.ids, facts)
    draw_report(run.picture, report, history)
    save_report(run.report, report)
    return report


def _report(
    network: Network,
    recipe: Recipe,
    evaluation: Evaluation,
    shares: Sequence[float | None],
    history: Sequence[dict[str, float]],
) -> dict[str, Any]:
    best = best_epoch(history, recipe.float_epochs)
    kept = best if recipe.training.checkpoint == "best" and best else len(history)
    return {
        "name": recipe.name,
        "dataset": recipe.data.dataset,
        "network": recipe.network,
        "mechanisms": recipe.mechanisms,
        "seed": recipe.seed,
        "accuracy": evaluation.accuracy,
        "test_samples": len(evaluation.labels),
        "validation_accuracy": history[kept - 1].get("validation_accuracy"),
        "best_epoch": best,
        "kept_epoch": kept,
        "checkpoint": recipe.training.checkpoint,
        "epochs": len(history),
        "step": network.taken or None,
        "parameters": parameter_counts(network),
        "layers": [
            layer_facts(layer, rate, share)
            for layer, rate, share in zip(network.layer_list, evaluation.rates, shares, strict=True)
        ],
        "training_seconds": round(sum(row["seconds"] for row in history), 1),
    }
