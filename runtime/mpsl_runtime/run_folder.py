"""What a run folder holds: the name of each file, who writes it and who reads it.

`mpsl train` makes the folder and `mpsl export` adds the models, so that the folder is all that the
two share. Both find every file through `RunFolder`; its names stand nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import overload

from mpsl_runtime.errors import RunError

__all__ = ["PARTS", "Part", "RunFolder"]

_EXPORT_STEM = "model"
# Exports under another name than `model.…`, such as `model-old.nir`, are known by these.
_EXPORT_SUFFIXES = (".nir", ".onnx")
# Exports that are folders of files.
_EXPORT_FOLDERS = (".c",)


@dataclass(frozen=True)
class Part:
    """One file, or folder, of a run folder. As an attribute of `RunFolder`: its path.

    Attributes:
        name: in the run folder. holds: what stands in it.
        written_by, read_by: the verbs of `mpsl` that do.
    """

    name: str
    holds: str
    written_by: str
    read_by: tuple[str, ...]

    @overload
    def __get__(self, folder: None, owner: type) -> Part: ...
    @overload
    def __get__(self, folder: RunFolder, owner: type) -> Path: ...
    def __get__(self, folder: RunFolder | None, owner: type) -> Part | Path:
        return self if folder is None else folder.path / self.name


class RunFolder:
    """The files of one run; each part is the path at which it lies, whether or not it is there.

    Exports come besides: `model.nir`, `model.onnx` with `model.step.onnx`, the same with `.int8`,
    `model.c`, a folder, and `model.int8.json`, what the calibration measured. `export` writes them;
    `verify`, `card`, `run`, `bench` and `inspect` read them.

    Attributes:
        path: the folder.
    """

    recipe = Part(
        "recipe.toml",
        "the complete recipe, as used; its sha256 is the recipe hash of the other parts",
        "train",
        ("train --resume", "export", "card", "robustness", "features"),
    )
    banks = Part(
        "banks.safetensors",
        "weight banks, coefficients, and what the network is",
        "train",
        ("export", "verify", "card", "inspect", "robustness", "features"),
    )
    stdp_weights = Part(
        "stdp.safetensors",
        "weights of a run of the method stdp, which has no banks",
        "train",
        ("robustness", "features"),
    )
    evaluation = Part(
        "evaluation.npz",
        "what the trained network did on every test sample",
        "train",
        ("verify", "card", "inspect"),
    )
    metrics = Part("metrics.csv", "loss and accuracy of every epoch", "train", ("ablate",))
    last_checkpoint = Part(
        "last.ckpt", "the state of training, to resume from", "train", ("train --resume",)
    )
    best_checkpoint = Part(
        "best.ckpt", "the state of the best epoch so far", "train", ("train --resume", "features")
    )
    report = Part(
        "report.json",
        "accuracy, times, layers, warnings; written last, so that it marks a finished run",
        "train",
        ("card", "ablate", "compare"),
    )
    picture = Part("report.png", "the curves of training", "train", ())
    plugins = Part(
        "plugins",
        "a folder with copies of the plug-ins that the recipe names with their sha256",
        "train",
        ("train --resume", "robustness", "features"),
    )
    tensorboard = Part("tensorboard", "a folder with the event files of TensorBoard", "train", ())

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_begun(self) -> bool:
        """Training has started here."""
        return self.recipe.is_file()

    @property
    def is_finished(self) -> bool:
        """Training has ended here."""
        return self.report.is_file()

    def require(self, path: Path) -> Path:
        """`path`, a file of this folder, if it is there.

        Raises:
            RunError: the folder or the file is absent.
        """
        if not self.path.is_dir():
            raise RunError(
                "no such run folder", got=self.path, expected="a folder that `mpsl train` made"
            )
        if not path.is_file():
            raise RunError(
                f"run has no {path.name}",
                expected="a run that `mpsl train` ended",
                where=self.path,
            )
        return path

    def export(self, suffix: str, *, int8: bool = False) -> Path:
        """Where an export lies: `model.nir`, or `model.int8.nir`, for the suffix `.nir`."""
        return self.path / f"{_EXPORT_STEM}{'.int8' if int8 else ''}{suffix}"

    def exports(self) -> list[Path]:
        """Everything that `mpsl export` left, sorted by name: models, step graphs, reports."""
        return sorted(
            path
            for path in self.path.glob(f"{_EXPORT_STEM}*")
            if (
                path.is_file()
                and (path.name.startswith(f"{_EXPORT_STEM}.") or path.suffix in _EXPORT_SUFFIXES)
            )
            or (path.is_dir() and path.suffix in _EXPORT_FOLDERS)
        )

    def clear(self) -> None:
        """Removes every part, for a new training: exports go with the weights that they are of.

        Other files stay, and so does the folder.

        Raises:
            OSError: a file cannot be removed.
        """
        for path in self.exports():
            if path.is_dir():
                _empty(path)
            else:
                path.unlink()
        for path in self.tensorboard.glob("events.out.*"):
            path.unlink()
        for path in self.plugins.glob("*.py"):
            path.unlink()
        for part in PARTS:
            path = self.path / part.name
            if not path.is_dir():
                path.unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    """Removes the files of a folder, and it, unless a folder is left in it."""
    if folder.is_symlink():
        folder.unlink()
        return
    for path in folder.iterdir():
        if path.is_symlink() or not path.is_dir():
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


# Every part that training makes.
PARTS: tuple[Part, ...] = tuple(part for part in vars(RunFolder).values() if isinstance(part, Part))
