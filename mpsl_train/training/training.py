"""`mpsl train`: from a recipe and a data set to a run folder."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from mpsl_runtime.atomic import replacing
from mpsl_runtime.data import datasets
from mpsl_runtime.data.holdout import stratified_split
from mpsl_runtime.errors import OutputError, RunError, UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_train.data.acquire import locate
from mpsl_train.data.batches import Batch, BatchOrder, Samples
from mpsl_train.data.frames import input_shape, load_frames, metadata_of
from mpsl_train.network.layers import NeuronSettings
from mpsl_train.network.local_learning import check_local
from mpsl_train.network.network import Network, build_network
from mpsl_train.network.plasticity import RuleSettings, find_rule, load_plugin
from mpsl_train.network.ranks import Ranks, find_ranks
from mpsl_train.network.step_choice import detour
from mpsl_train.notation import parse
from mpsl_train.recipe import Recipe
from mpsl_train.training.keeper import Keeper, write_history
from mpsl_train.training.module import TrainingModule
from mpsl_train.training.progress import TrainingBar
from mpsl_train.training.record import evaluate, save_banks, save_evaluation
from mpsl_train.training.report import (
    commit_of_checkout,
    draw_report,
    layer_facts,
    parameter_counts,
    save_report,
)
from mpsl_train.training.stdp_training import check_stdp, train_stdp

__all__ = ["Result", "build", "train"]

_OWN_FILES = (
    "recipe.toml", "banks.safetensors", "evaluation.npz", "metrics.csv", "last.ckpt", "best.ckpt",
    "report.json", "report.png", "stdp.safetensors",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and what report.json says, nothing in processes but the first."""

    run: Path
    report: dict[str, Any]


def build(recipe: Recipe, shape: tuple[int, int, int], classes: int) -> Network:
    """The network of a recipe with fresh weights, which the seed alone decides.

    Raises:
        RecipeError: notation, mechanism or number of outputs is wrong.
    """
    for plugin in recipe.plugins:
        load_plugin(plugin)
    rules, neuron = recipe.rules, recipe.neuron
    specs = parse(recipe.network, shape)
    if specs[-1].neurons != (classes,):
        raise UsageError(
            "network does not end in the number of classes",
            got=specs[-1].neurons[0], expected=classes, where="recipe key network",
        )  # fmt: skip
    before: set[str] = set()
    for name in recipe.mechanisms:
        missing = set(find_rule(name).needs) - before
        if missing:
            raise UsageError(
                f"mechanism {name!r} needs another before it",
                got=recipe.mechanisms, expected=" and ".join(sorted(missing)), where="recipe",
            )  # fmt: skip
        before.add(name)
    if not any(find_rule(name).learned for name in recipe.mechanisms):
        raise UsageError(
            "no mechanism learns from the error", got=recipe.mechanisms, expected="'stbp' too",
            where="recipe",
        )  # fmt: skip
    if recipe.first_int8_epoch < 1 and any(spec.batchnorm for spec in specs):
        raise UsageError(
            "BN has no statistics to fold into int8 weights before it was trained",
            got=f"quantize_epochs {recipe.training.quantize_epochs} of {recipe.training.epochs}",
            expected="at least one epoch in float first", where="recipe",
        )  # fmt: skip
    torch.manual_seed(recipe.seed)
    network = build_network(
        specs,
        recipe.mechanisms,
        NeuronSettings(neuron.decay, neuron.threshold, neuron.surrogate_width, neuron.reset),
        RuleSettings(
            tau_w=rules.tau_w,
            eta_hat=rules.eta_hat,
            eta_learnable=rules.eta_learnable,
            beta=rules.beta,
            sign=1 if rules.sign == "+" else -1,
            delta=rules.delta,
        ),
        plastic_layers=rules.plastic_layers,
        coefficient_scope=rules.coefficient_scope,
        coefficient_init=rules.coefficient_init or None,
        coefficients_learned=rules.coefficients != "fixed",
        cap=rules.cap,
        flow=rules.local_gradient == "flow",
        bf16=recipe.training.precision == "bf16",
        init_gain=recipe.training.init_gain,
    )
    check_local(network, recipe.network)
    network.step = recipe.training.step
    if network.plastic:
        detour(network.step, network.layer_list)
    return network


def _prepare_run(run: Path, recipe: Recipe, resume: bool) -> None:
    """Makes the folder and puts the complete recipe into it."""
    path = run / "recipe.toml"
    if resume:
        if not path.is_file():
            raise RunError("no run to resume", expected="a run folder with recipe.toml", where=run)
        if path.read_text("utf-8") != recipe.text():
            raise RunError(
                "run was started with another recipe; give the same RECIPE and --set",
                where=path,
            )
        return
    if (run / "last.ckpt").is_file() and not (run / "report.json").is_file():
        raise RunError(
            "run is unfinished", expected="--resume to go on, or another --out", where=run
        )
    if run.is_dir() and not path.is_file() and any(run.iterdir()):
        raise OutputError("folder holds something else", expected="a new folder", where=run)
    try:
        run.mkdir(parents=True, exist_ok=True)
        # Exports of the weights that are about to go must not outlive them.
        stale = [run / name for name in _OWN_FILES]
        stale += [file for file in run.glob("model*") if file.suffix in (".nir", ".onnx")]
        for file in stale:
            file.unlink(missing_ok=True)
        for file in (run / "tensorboard").glob("events.out.*"):
            file.unlink()
    except OSError as error:
        raise OutputError("cannot write output", got=error.strerror, where=run) from error
    with replacing(path) as temporary:
        temporary.write_text(recipe.text(), encoding="utf-8")


def _device(name: str) -> str:
    available = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    if name not in ("cpu", "cuda"):
        raise UsageError("unknown device", got=repr(name), expected="auto, cpu or cuda")
    if name == "cuda" and not available:
        raise UsageError("no CUDA device is there", got="--device cuda", expected="auto or cpu")
    return name


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning announces devices, advertises, and warns of choices that are made on purpose."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning.*")
            warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _loader(samples: Samples, order: BatchOrder) -> DataLoader[Batch]:
    return DataLoader(samples, batch_size=None, sampler=order)


def _float_epochs(recipe: Recipe) -> int:
    """Epochs of another network than the one that the recipe asks for."""
    return recipe.first_int8_epoch if recipe.quantize == "int8" else 0


def _fit(
    network: Network,
    recipe: Recipe,
    run: Path,
    loaders: tuple[DataLoader[Batch], DataLoader[Batch]],
    device: str,
    ranks: Ranks,
    resume: bool,
) -> list[dict[str, float]]:
    """Trains `network` in place, from the last checkpoint if there is one; returns the history."""
    training, (train_batches, validation_batches) = recipe.training, loaders
    module = TrainingModule(network, recipe, len(train_batches))
    bar = TrainingBar(training.epochs)
    bar.enabled = ranks.first
    keeper = Keeper(run, training.patience, bar, _float_epochs(recipe))
    last = run / "last.ckpt"
    resume = resume and last.is_file()
    if resume:
        state = _load(last)
        keeper.load_state_dict(state["callbacks"][keeper.state_key])
        if keeper.finished_early or len(keeper.history) >= training.epochs:
            module.load_state_dict(state["state_dict"])
            module.quantise(recipe.quantize == "int8")
            return keeper.history
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        **ranks.trainer_options(device),
        max_epochs=training.epochs,
        logger=TensorBoardLogger(run, name="tensorboard", version=""),
        callbacks=[bar, keeper],
        gradient_clip_val=training.gradient_clip or None,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=True,
        log_every_n_steps=1 << 30,
        default_root_dir=run,
    )
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(
            module,
            train_batches,
            validation_batches if len(validation_batches) else None,
            ckpt_path=last if resume else None,
            weights_only=True,
        )
    except SystemExit:
        # Lightning turns Ctrl-C into exit code 1 and leaves SIGINT ignored.
        signal.signal(signal.SIGINT, interrupt)
        raise KeyboardInterrupt from None
    if ranks.first and recipe.training.checkpoint == "best" and (run / "best.ckpt").is_file():
        module.load_state_dict(_load(run / "best.ckpt")["state_dict"])
    module.quantise(recipe.quantize == "int8")
    return keeper.history


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises whatever unpickling meets; every one of them means the same to a user.
        raise RunError("checkpoint cannot be read", got=type(error).__name__, where=path) from error
    return loaded


def train(
    recipe: Recipe,
    run: Path,
    *,
    data: Path | None = None,
    device: str = "auto",
    devices: int | None = None,
    resume: bool = False,
) -> Result:
    """Trains, evaluates on the test set once, and writes the run folder.

    Args:
        recipe: as `mpsl_train.recipe.load` returned it.
        run: the folder to write. data: the data set's folder or its parent.
        device: `auto`, `cpu` or `cuda`.
        devices: processes on this host, each with a device of its own and its share of every batch;
            None: as many as torchrun started, else one. The program that called is started again
            for each but the first.
        resume: go on from the last finished epoch; ends at the same banks, bit for bit on CPU.

    Raises:
        MpslError: anything a user can cause. KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    started = time.monotonic()
    commit_of_checkout()  # now, of the code that is loaded: a long run outlives it
    device, ranks = _device(device), find_ranks(devices)
    if "stdp" in recipe.mechanisms:
        check_stdp(recipe)
        root = locate(recipe.data.dataset, data)
        _prepare_run(run, recipe, resume)
        return Result(run, train_stdp(recipe, run, root))
    metadata = metadata_of(recipe)
    shape = input_shape(metadata)
    network = build(recipe, shape, len(metadata.class_names))
    normalised = any(layer.batchnorm is not None for layer in network.layer_list)
    ranks.check(recipe.training.batch_size, normalised, device)
    root = locate(recipe.data.dataset, data)
    split = datasets.open_split(recipe.data.dataset, root, "train")
    training, held_out = stratified_split(
        split.labels, recipe.data.validation, recipe.seed, recipe.data.train_limit
    )
    if len(training) < recipe.training.batch_size:
        raise UsageError(
            "fewer training samples than one batch",
            got=len(training), expected=f"≥ {recipe.training.batch_size}",
            where="recipe key training.batch_size",
        )  # fmt: skip
    if ranks.first:
        _prepare_run(run, recipe, resume)
    frames = load_frames(split, metadata, datasets.content_hash(split))
    share = (ranks.rank, ranks.world)
    samples = Samples(frames, split.labels, metadata, recipe.augmentation, share)
    if len(held_out) >= ranks.world:  # fewer: each process takes all of them, the means are equal
        held_out = held_out[ranks.rank :: ranks.world]
    size = recipe.training.batch_size
    loaders = (
        _loader(samples, BatchOrder(training, size, recipe.seed)),
        _loader(samples, BatchOrder(held_out, max(size, 100))),
    )
    with _quiet():
        history = _fit(network, recipe, run, loaders, device, ranks, resume)
    if not ranks.first:
        return Result(run, {})
    network.check_parameters()
    del frames, samples, loaders
    network = network.to(device)
    report = _finish(network, recipe, run, metadata, shape, root, device, history)
    report["run"], report["processes"] = str(run), ranks.world
    report["seconds_now"] = round(time.monotonic() - started, 1)
    return Result(run, report)


def _finish(
    network: Network,
    recipe: Recipe,
    run: Path,
    metadata: ModelMetadata,
    shape: tuple[int, int, int],
    root: Path,
    device: str,
    history: list[dict[str, float]],
) -> dict[str, Any]:
    """The one look at the test set, and every file of the run folder but the checkpoints."""
    test = datasets.open_split(recipe.data.dataset, root, "test")
    test_hash = datasets.content_hash(test)
    frames = load_frames(test, metadata, test_hash)
    evaluation = evaluate(network, Samples(frames, test.labels, metadata), metadata)
    candidates = history[_float_epochs(recipe) :]
    best = max(candidates, key=lambda row: row.get("validation_accuracy", 0.0), default=None)
    device_name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    report: dict[str, Any] = {
        "name": recipe.name,
        "dataset": recipe.data.dataset,
        "network": recipe.network,
        "mechanisms": recipe.mechanisms,
        "seed": recipe.seed,
        "accuracy": evaluation.accuracy,
        "test_samples": len(test),
        "validation_accuracy": history[-1].get("validation_accuracy") if history else None,
        "best_epoch": int(best["epoch"]) if best else None,
        "checkpoint": recipe.training.checkpoint,
        "epochs": len(history),
        "step": network.taken or None,
        "parameters": parameter_counts(network),
        "layers": [
            layer_facts(layer, rate)
            for layer, rate in zip(network.layer_list, evaluation.rates, strict=True)
        ],
        "training_seconds": round(sum(row["seconds"] for row in history), 1),
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
    write_history(run / "metrics.csv", history)
    save_banks(run / "banks.safetensors", network, metadata, shape)
    save_evaluation(run / "evaluation.npz", evaluation, test.ids, facts)
    draw_report(run / "report.png", report, history)
    save_report(run / "report.json", report)
    return report
