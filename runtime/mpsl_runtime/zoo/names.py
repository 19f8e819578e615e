"""Where a model lies that is asked for by name."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from mpsl_runtime.errors import ModelError

__all__ = ["find_model", "known_models"]

_PACKAGED = Path(__file__).resolve().parent
# runtime/mpsl_runtime/zoo of a checkout, when this was installed from there with `pip install -e`.
_CHECKOUT = _PACKAGED.parents[2] / "models"


def find_model(word: str | Path, *, folders: bool = False) -> Path:
    """The file behind MODEL: a path, or the name of a model.

    A file that exists is taken as it is. A name is looked for in `$MPSL_MODELS`, among the models
    that were installed with this package, in `models/` of the checkout that it was installed from,
    and in `./models`.

    Args:
        word: `model.nir`, or a name such as `nmnist8-small`. What has a suffix or a separator is
            never a name, and comes back as a path.
        folders: a folder that exists goes before a model of the same name.

    Raises:
        ModelError: no file and no model of that name; says which there are.
    """
    path, text = Path(word), str(word)
    if path.is_file() or path.suffix or os.sep in text or "/" in text:
        return path
    if folders and path.is_dir():
        return path
    models = known_models()
    if text in models:
        return models[text]
    near = difflib.get_close_matches(text, models, 1)
    raise ModelError(
        "no such file and no model of that name",
        got=repr(text),
        expected=f"{near[0]!r}" if near else f"a .nir file or one of {', '.join(models) or 'none'}",
    )


def known_models() -> dict[str, Path]:
    """The models that are here, by name, in the order of their names."""
    found = {path.stem: path for path in _PACKAGED.glob("*.nir")}
    for folder in (_CHECKOUT, Path("models")):
        found = _inside(folder) | found
    if os.environ.get("MPSL_MODELS"):
        found |= _inside(Path(os.environ["MPSL_MODELS"]))
    return dict(sorted(found.items()))


def _inside(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path for path in folder.glob("*/model.nir")}
