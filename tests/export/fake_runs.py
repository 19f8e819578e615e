"""Run folders as `mpsl train` leaves them, made without it: banks from a seed, a small data set
written on the fly, and a record computed by a slow evaluation of its own (float64, one convolution
for each bank, batch normalisation unfolded)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from mpsl_runtime.data import datasets
from mpsl_runtime.model import readout
from mpsl_runtime.model.metadata import ModelMetadata

BANKS = ("stbp", "hebbian", "sbp")


@dataclass(frozen=True)
class FakeRun:
    """A run folder, where its data lies, and what went into it."""

    path: Path
    data: Path
    tensors: dict[str, np.ndarray]
    description: dict[str, Any]

    def write(self, path: Path) -> FakeRun:
        """The banks once more in another folder, for tests that change them."""
        path.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, path / "banks.safetensors", {"mpsl": json.dumps(self.description)})
        record = self.path / "evaluation.npz"
        if record.is_file() and path != self.path:
            (path / "evaluation.npz").write_bytes(record.read_bytes())
        return replace(self, path=path)

    def frames(self) -> np.ndarray:
        """Input of the whole test set, [T, N, C, H, W]."""
        metadata = ModelMetadata.from_mapping(self.description["model"], "test")
        split = self.test_split()
        return np.stack([split.input(i, metadata) for i in range(len(split))], axis=1)

    def test_split(self) -> datasets.Split:
        """The test set."""
        name = self.description["model"]["dataset"]
        return datasets.open_split(name, datasets.find(name, self.data), "test")

    def record(self, flips: Sequence[tuple[int, int, int, int]] = ()) -> None:
        """Writes the record of the slow evaluation, with some spikes flipped as they arise: each
        (sample, layer, step, neuron)."""
        write_record(self, flips)

    def relabelled(self, data: Path, labels: np.ndarray) -> FakeRun:
        """The same run, of images with other labels in the test set, and its record anew."""
        data.mkdir()
        for path in self.data.iterdir():
            (data / path.name).write_bytes(path.read_bytes())
        write_idx(data / "t10k-labels-idx1-ubyte.gz", labels.astype(np.uint8))
        run = replace(self, data=data)
        run.record()
        return run

    def forge(self, **changes: Any) -> None:
        """Writes the record with other arrays; None leaves one out."""
        path = self.path / "evaluation.npz"
        with np.load(path) as archive:
            arrays = {**dict(archive.items()), **changes}
        np.savez(path, **{key: value for key, value in arrays.items() if value is not None})

    def forge_spikes(self, *places: tuple[int, int, int]) -> None:
        """Flips output spikes of the record, each (sample, step, neuron), with all that follows of
        them in the record itself: scores, predictions and probes; but nothing in the network."""
        path = self.path / "evaluation.npz"
        with np.load(path) as archive:
            arrays = {key: archive[key].copy() for key in archive.files}
        spikes, layers = arrays["spikes"], self.description["layers"]
        for sample, step, neuron in places:
            spikes[sample, step, neuron] ^= 1
            probes = [str(probe) for probe in arrays["probe_ids"]]
            name = str(arrays["ids"][sample])
            if name in probes:
                place = probes.index(name), step, neuron // 8
                arrays[f"probe_L{len(layers) - 1:02d}"][place] ^= np.uint8(128 >> neuron % 8)
        if self.description["model"]["readout"] == "count":
            arrays["scores"] = spikes.sum(axis=1).astype(np.float32)
            arrays["predictions"] = readout.label(arrays["scores"])
        np.savez(path, **arrays)


def layer(
    name: str, kind: str, shape: list[int], neurons: list[int], **more: Any
) -> dict[str, Any]:
    """One entry of the description of banks."""
    same = kind == "conv" and shape[-1] == 3
    return {
        "name": name,
        "kind": kind,
        "shape": shape,
        "stride": [1, 1],
        "padding": [1, 1] if same else [0, 0],
        "pool_before": 1,
        "flatten_before": False,
        "batchnorm_eps": None,
        "mechanisms": list(BANKS),
        "threshold": 0.3,
        "decay": 0.75,
        "reset": "subtract",
        "neurons": neurons,
        **more,
    }


def draw_tensors(
    layers: list[dict[str, Any]], seed: int, gain: float = 2.0
) -> dict[str, np.ndarray]:
    """Banks that keep a network firing."""
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for entry in layers:
        name, shape, m = entry["name"], entry["shape"], len(entry["mechanisms"])
        out, scale = shape[0], gain / np.sqrt(np.prod(shape[1:]))
        for k in range(m):
            tensors[f"{name}.W{k + 1}"] = random.normal(0, scale / (k + 1), shape)
        per_channel = entry.pop("per_channel", False)
        tensors[f"{name}.lambda"] = random.uniform(0.6, 1.2, (m, out) if per_channel else m)
        tensors[f"{name}.bias"] = random.normal(0, 0.05, out)
        if entry["batchnorm_eps"] is not None:
            tensors[f"{name}.bn.weight"] = random.uniform(0.5, 1.5, out)
            tensors[f"{name}.bn.bias"] = random.normal(0.1, 0.1, out)
            tensors[f"{name}.bn.mean"] = random.normal(0, 0.1, out)
            tensors[f"{name}.bn.var"] = random.uniform(0.5, 1.5, out)
    return {key: value.astype(np.float32) for key, value in tensors.items()}


def slow_evaluation(
    description: dict[str, Any],
    tensors: dict[str, np.ndarray],
    frames: np.ndarray,
    flips: Sequence[tuple[int, int, int, int]] = (),
) -> tuple[list[np.ndarray], np.ndarray]:
    """Spikes [T, B, …] of every layer and U of the last, in float64 and bank by bank.

    Args:
        flips: (sample, layer, step, neuron) of spikes that are flipped as they arise.
    """
    x = torch.from_numpy(np.array(frames)).double()
    steps, batch = x.shape[:2]
    spikes: list[np.ndarray] = []
    membrane = x
    for index, entry in enumerate(description["layers"]):
        current = _current(entry, tensors, x.flatten(0, 1)).unflatten(0, (steps, batch))
        # The neuron's constants are float32 in every program.
        threshold = float(np.float32(entry["threshold"]))
        state = torch.zeros_like(current[0])
        fired = []
        for step in range(steps):
            membrane = entry["decay"] * state + current[step]
            spike = (membrane >= threshold).double()
            for sample, layer_index, at, neuron in flips:
                if (layer_index, at) == (index, step):
                    spike[sample].view(-1)[neuron] = 1 - spike[sample].view(-1)[neuron]
            state = (
                membrane - spike * threshold
                if entry["reset"] == "subtract"
                else membrane * (1 - spike)
            )
            fired.append(spike)
        x = torch.stack(fired)
        spikes.append(x.numpy())
    return spikes, membrane.numpy()


def _current(
    entry: dict[str, Any], tensors: dict[str, np.ndarray], flat: torch.Tensor
) -> torch.Tensor:
    """The current of one layer, bank by bank, for inputs [T·B, …]."""
    part = {
        key.split(".", 1)[1]: torch.from_numpy(value).double()
        for key, value in tensors.items()
        if key.startswith(entry["name"] + ".")
    }
    if entry["pool_before"] > 1:
        flat = F.avg_pool2d(flat, entry["pool_before"])
    if entry["flatten_before"]:
        flat = flat.flatten(1)
    tail = (1,) * (len(entry["shape"]) - 2)
    current = part["bias"].reshape(1, -1, *tail)
    for k in range(len(entry["mechanisms"])):
        bank, coefficient = part[f"W{k + 1}"], part["lambda"][k].reshape(-1, *tail)
        passed = (
            F.conv2d(flat, bank, None, entry["stride"], entry["padding"])
            if entry["kind"] == "conv"
            else F.linear(flat, bank)
        )
        current = current + coefficient * passed
    if entry["batchnorm_eps"] is None:
        return current
    return F.batch_norm(
        current,
        part["bn.mean"],
        part["bn.var"],
        part["bn.weight"],
        part["bn.bias"],
        eps=entry["batchnorm_eps"],
    )


def write_record(run: FakeRun, flips: Sequence[tuple[int, int, int, int]] = ()) -> None:
    """evaluation.npz of the slow evaluation."""
    metadata = ModelMetadata.from_mapping(run.description["model"], "test")
    split = run.test_split()
    layers, membrane = slow_evaluation(run.description, run.tensors, run.frames(), flips)
    scores = readout.scores(metadata.readout, layers[-1], membrane.astype(np.float32))
    predictions = readout.label(scores)
    probes = range(0, len(split), max(1, len(split) // 8))[:8]
    packed = {
        f"probe_L{k:02d}": np.packbits(
            spikes.swapaxes(0, 1)[probes].astype(bool).reshape(len(probes), len(spikes), -1),
            axis=-1,
        )
        for k, spikes in enumerate(layers)
    }
    record = {
        "device": "cpu",
        "torch": torch.__version__,
        "flags": {},
        "dataset": metadata.dataset,
        "split": "test",
        "test_hash": datasets.content_hash(split),
        "accuracy": float((predictions == split.labels).mean()),
        "recipe_hash": metadata.recipe_hash,
    }
    np.savez(
        run.path / "evaluation.npz",
        ids=np.array(split.ids),
        labels=split.labels,
        spikes=layers[-1].swapaxes(0, 1).astype(np.uint8),
        scores=scores.astype(np.float32),
        predictions=predictions,
        probe_ids=np.array([split.ids[i] for i in probes]),
        record=json.dumps(record),
        **packed,
    )


def model_metadata(**changes: Any) -> dict[str, Any]:
    """ModelMetadata of an event model as a mapping, with changes."""
    return ModelMetadata(
        **{
            "mpsl": 2,
            "dataset": "nmnist8",
            "network": "8C3-AP2-12C3-AP2-20FC-8",
            "input_kind": "events",
            "steps": 5,
            "step_us": 60_000,
            "coding": "count",
            "origin": "zero",
            "downsample": 2,
            "sensor_width": 34,
            "sensor_height": 34,
            "crop": "",
            "image_mean": "",
            "image_std": "",
            "input_grid": 1.0,
            "classes": "0,1,2,3,4,5,6,7",
            "readout": "count",
            "dt_s": 1e-4,
            "recipe_hash": "ab" * 32,
            **changes,
        }
    ).to_mapping()


def write_recordings(root: Path, seed: int, count: int = 3) -> None:
    """`count` recordings of each of eight classes as N-MNIST .bin files, in Train and Test."""
    random = np.random.default_rng(seed)
    for split in ("Train", "Test"):
        for label in range(8):
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            for index in range(count):
                n = 400
                centre = 6 + 3 * label
                x = np.clip(random.normal(centre, 5, n), 0, 33).astype(np.uint32)
                y = np.clip(random.normal(34 - centre, 5, n), 0, 33).astype(np.uint32)
                p = random.integers(0, 2, n).astype(np.uint32)
                t = np.sort(random.integers(0, 310_000, n)).astype(np.uint32)
                rows = np.stack(
                    [x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255], axis=1
                ).astype(np.uint8)
                (folder / f"{index:05d}.bin").write_bytes(rows.tobytes())


def write_images(root: Path, seed: int, count: int = 24) -> None:
    """Small MNIST files under their official names."""
    random = np.random.default_rng(seed)
    root.mkdir(parents=True)
    for stem in ("train", "t10k"):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[random.random(image.shape) < 0.9] = 0
            image[2 * label : 2 * label + 8, 20 - 2 * label : 28 - 2 * label] = 200
        for what, values in (("images-idx3", images), ("labels-idx1", labels)):
            write_idx(root / f"{stem}-{what}-ubyte.gz", values)


def write_idx(path: Path, values: np.ndarray) -> None:
    """One IDX file."""
    head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    with gzip.open(path, "wb") as file:
        file.write(head + values.tobytes())
