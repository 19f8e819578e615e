"""From a recipe's name or file, and `--set`, to a `Recipe`."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mpsl_runtime.errors import RecipeError
from mpsl_train.methods import changes_of
from mpsl_train.recipe.fields import Recipe
from mpsl_train.recipe.plugins import allow, pinned
from mpsl_train.recipe.toml import parse_toml, read_toml

__all__ = ["find_recipe", "load", "parse"]

# Keys that had another name before, and are still read: by old run folders and recipes.
_RENAMED = {"rules.tau_w": "rules.tau_w_steps"}
# What complete recipes meant before they had these keys, whose default is another today.
_BEFORE = {"rules.warmup_epochs": 0.0}
# models/ of the checkout travels in the wheel as mpsl_train/models, its recipes alone.
_PACKAGED = Path(__file__).resolve().parents[1] / "models"
_CHECKOUT = _PACKAGED.parents[1] / "models"
_LONGEST_KEY = 200
_LONGEST_SHOWN = 100


def find_recipe(recipe: str) -> Path:
    """The file behind RECIPE: a path to a `.toml` file, or a name in `models/`.

    Names are looked for in `$MPSL_MODELS`, among the recipes that were installed with this package,
    in `models/` of the checkout that it was installed from, and in `./models`.

    Raises:
        RecipeError: no such file or name.
    """
    if recipe.endswith(".toml") or os.sep in recipe:
        path = Path(recipe)
        path = path / "recipe.toml" if path.is_dir() else path
        if not path.is_file():
            raise RecipeError("no such recipe file", where=recipe)
        return path
    places = [_PACKAGED, _CHECKOUT, Path("models")]
    if os.environ.get("MPSL_MODELS"):
        places.insert(0, Path(os.environ["MPSL_MODELS"]))
    for place in places:
        if (place / recipe / "recipe.toml").is_file():
            return place / recipe / "recipe.toml"
    known = sorted({path.parent.name for place in places for path in place.glob("*/recipe.toml")})
    near = difflib.get_close_matches(recipe, known, 1)
    raise RecipeError(
        "no such recipe",
        got=repr(recipe),
        expected=f"{near[0]!r}" if near else f"a .toml file or one of {', '.join(known) or 'none'}",
    )


def load(path: Path, overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies `--set path.key=value` in that order; `method=name` stands for
    all the changes of that method.

    Values are TOML; what is not valid TOML is a text, or a list of texts in `[a,b]`, since shells
    swallow quotes. Nothing of a plug-in is run here; those in `plugins` and `overrides` may be, for
    it is the user who names them.

    Args:
        plugins: files or modules that the recipe needs besides its own.

    Raises:
        RecipeError: unreadable, an unknown key (names the nearest known one), a wrong value.
    """
    values = _with_new_names(read_toml(path), path)
    places: dict[str, str] = {}
    if values.get("method"):
        stated, values = values, changes_of(values["method"], values)
        _merge(values, stated)
    for override in overrides:
        key, value = _override(override)
        if key == "plugins" and isinstance(value, list):
            value = [_named(item, path.parent) for item in value]
        if key == "method":
            _merge(values, changes_of(value, values))
        _merge(values, _nested(key, value))
        places[key] = _option(override)
    _check_keys(values, str(path))
    recipe = _checked(values, path, places)
    more = [_named(plugin, Path()) for plugin in plugins]
    entries = [pinned(entry, path.parent) for entry in [*recipe.plugins, *more]]
    return recipe.model_copy(update={"plugins": _each_once(entries, path)})


def parse(text: str, where: object) -> Recipe:
    """The recipe that complete text says, as `Recipe.text` wrote it, here or in an earlier version.

    Args:
        where: it came from, for the message.

    Raises:
        RecipeError: as `load`.
    """
    values = _with_new_names(parse_toml(text, where), where)
    _check_keys(values, str(where))
    for key, value in _BEFORE.items():
        earlier = _nested(key, value)
        _merge(earlier, values)
        values = earlier
    return _checked(values, where, {})


def _checked(values: dict[str, Any], where: object, places: Mapping[str, str]) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "recipe"
        message = first["msg"].removeprefix("Value error, ")
        got = None if first["type"] in ("missing", "value_error") else _shown(first["input"])
        raise RecipeError(f"{key}: {message}", got=got, where=places.get(key, where)) from None


def _shown(value: object) -> str:
    """A value for a message, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists within lists
        return type(value).__name__
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _option(override: str) -> str:
    """`--set key=value` for a message."""
    plain = override.isprintable() and len(override) <= _LONGEST_SHOWN
    return f"--set {override if plain else _shown(override)}"


def _override(override: str) -> tuple[str, object]:
    """Key and value of `--set key=value`."""
    key, equals, text = override.partition("=")
    key, where = key.strip(), _option(override)
    if not equals or not key or len(key) > _LONGEST_KEY:
        raise RecipeError("--set needs key=value", got=_shown(override), where="--set")
    key = _RENAMED.get(key, key)
    _check_keys(_nested(key, None), where)
    return key, _value(text.strip(), where)


def _with_new_names(values: dict[str, Any], where: object) -> dict[str, Any]:
    """The same values, where keys have the names that they have now."""
    found = {name: dict(part) if isinstance(part, dict) else part for name, part in values.items()}
    for old, new in _RENAMED.items():
        section, _, key = old.rpartition(".")
        part, name = found.get(section), new.rpartition(".")[2]
        if isinstance(part, dict) and key in part:
            if name in part:
                raise RecipeError(f"{new!r} is there twice", got=f"{old!r} too", where=where)
            part[name] = part.pop(key)
    return found


def _named(plugin: object, folder: Path) -> Any:
    """A plug-in that the user names, in `--set` first from the current folder, then from the
    recipe's."""
    if not isinstance(plugin, str):
        return plugin
    source = plugin
    if plugin.endswith(".py"):
        source = str((Path(plugin) if Path(plugin).is_file() else folder / plugin).resolve())
    allow(source)
    return source


def _each_once(entries: Sequence[str], where: Path) -> list[str]:
    """The same without repetition; two files of one name cannot lie in one run folder."""
    found = list(dict.fromkeys(entries))
    names = [entry.partition("#")[0] for entry in found]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError("two plug-ins have one name", got=name, where=where)
    return found


def _nested(key: str, value: object) -> dict[str, Any]:
    first, dot, rest = key.partition(".")
    return {first: _nested(rest, value) if dot else value}


def _value(text: str, where: str) -> object:
    try:
        found = tomllib.loads(f"value = {text}")
        if found.keys() == {"value"}:
            return found["value"]
        raise RecipeError("--set needs one value", got=_shown(text), where=where)
    except RecursionError:
        raise RecipeError("value is nested too deeply", where=where) from None
    except ValueError:  # no TOML, or a number of thousands of digits
        if text.startswith("[") and text.endswith("]"):
            return [part.strip() for part in text[1:-1].split(",") if part.strip()]
        return text


def _merge(values: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _known(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _known(field.annotation, f"{prefix}{name}.")


def _check_keys(values: Mapping[str, Any], where: str, prefix: str = "") -> None:
    known = list(_known(Recipe))
    for key, value in values.items():
        path = prefix + key
        if path not in known:
            here = [name for name in known if name.startswith(prefix) and "." not in
                    name[len(prefix):]]  # fmt: skip
            elsewhere = [name for name in known if name.rpartition(".")[2] == key]
            near = elsewhere or [name for name in here if name.startswith(path)]
            near = near or difflib.get_close_matches(path, here, 1, 0.5)
            near = near or difflib.get_close_matches(path, known, 1, 0.3) or here
            raise RecipeError(
                f"unknown key {path!r}", expected=f"nearest known key {near[0]!r}", where=where
            )
        if isinstance(value, Mapping):
            _check_keys(value, where, f"{path}.")
