"""Recipes: everything that decides what a training run becomes, in one TOML file, read strictly.

The defaults are those of the design's table of choices. A run folder holds the complete recipe as
it was used, defaults included.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mpsl_runtime.errors import RecipeError
from mpsl_runtime.model.scale import is_exact_decay
from mpsl_train.methods import changes_of

__all__ = [
    "Augmentation",
    "Data",
    "Neuron",
    "Recipe",
    "Rules",
    "Training",
    "find_recipe",
    "load",
    "to_toml",
]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

# models/ of the checkout travels in the wheel as mpsl_train/models, its recipes alone.
_PACKAGED = Path(__file__).resolve().parent / "models"
_CHECKOUT = _PACKAGED.parents[1] / "models"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(_Section):
    """`[data]`: which data set, and how it becomes the network's input.

    Attributes:
        dataset: a name of `mpsl_runtime.data.datasets`.
        steps: T. step_us: length of a step in microseconds (images have none: 1).
        coding: `count` events, or `binary`, once per pixel and polarity.
        downsample: k, pixels are summed k x k. crop: [left, top, width, height] in sensor pixels.
        image_mean, image_std: normalise images; empty: pixel/256.
        validation: part of the training samples that is held out, stratified and seeded; 0 = none.
        train_limit: use only the first n training samples of a seeded order; 0 = all.
    """

    dataset: str
    steps: Count = 8
    step_us: Count = 1
    coding: Literal["count", "binary"] = "count"
    downsample: Count = 1
    crop: list[int] | None = Field(default=None, min_length=4, max_length=4)
    image_mean: list[float] = []
    image_std: list[Positive] = []
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    train_limit: Annotated[int, Field(ge=0)] = 0


class Neuron(_Section):
    """`[neuron]`: ρ_m, V_th, the width a of the rectangular surrogate, the reset."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.75
    threshold: Positive = 0.3
    surrogate_width: Positive = 1.0
    reset: Literal["subtract", "zero"] = "subtract"


class Rules(_Section):
    """`[rules]`: banks, their coefficients λ and the local rules.

    Attributes:
        coefficients: λ `learnable`, `fixed`, or `frozen` after `freeze_epoch` epochs.
        coefficient_scope: one λ for each `layer`, for all (`global`), or for each `channel`.
        coefficient_init: one number for each mechanism; empty: 1.
        eta_hat: η̂ in η = η̂·(1−d)/fan_in. eta_learnable: back-propagation changes it.
        beta: first value of β. sign: + (Eq. 8) or − (anti-Hebbian).
        tau_w: τ_w in steps. delta: normalisation of δ.
        cap: largest ‖Wk‖/‖W1‖ of a committed bank, 0 = none.
        local_gradient: s and U `detached` inside C and P, or `flow`.
        plastic_layers: `all`, or `fc`: convolutions learn by back-propagation alone.
    """

    coefficients: Literal["learnable", "fixed", "frozen"] = "learnable"
    coefficient_scope: Literal["layer", "global", "channel"] = "layer"
    coefficient_init: list[float] = []
    freeze_epoch: Count = 1
    eta_hat: float = 1.0
    eta_learnable: bool = True
    beta: float = 0.0
    sign: Literal["+", "-"] = "+"
    tau_w: Positive = 40.0
    delta: Literal["l1", "split", "literal"] = "l1"
    cap: NotNegative = 0.25
    local_gradient: Literal["detached", "flow"] = "detached"
    plastic_layers: Literal["all", "fc"] = "all"


class Training(_Section):
    """`[training]`: the optimisation.

    Attributes:
        loss: `mse` of the mean spike rate against one-hot; `ce` cross-entropy on the rate;
            `ce-membrane` on the last membrane potential (the read-out is then `membrane`).
        rule_learning_rate: of λ, η̂, β, λ_f, λ_p and users' rules.
        weight_decay: of W1 only. momentum: of `sgd`.
        schedule: `constant`, or `cosine` to 0; after `warmup_epochs` of a linear rise,
            without which a high rate can silence the network for good (*measured*).
        gradient_clip: largest norm of the gradient, 0 = none.
        patience: epochs without a better validation accuracy before it stops, 0 = never.
        checkpoint: which epoch the run ends with, the `last` or the `best` on validation.
        quantize_epochs: with `quantize`, how many epochs at the end train on the int8 grid; 0 = the
            last third.
        init_gain: first weights are uniform within ±init_gain/√fan_in. Many layers without batch
            norm need more than 1, or no spike reaches the last (*measured*).
        precision: `bf16` runs the layers' multiplications in bfloat16; banks stay float32.
        step: how a window with plastic banks is trained: `fused`, exact and faster; `autograd`, the
            reference, which every rule can take; `auto`, fused where it can. The run says which.
    """

    epochs: Count = 10
    batch_size: Count = 50
    loss: Literal["mse", "ce", "ce-membrane"] = "mse"
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    rule_learning_rate: NotNegative = 5e-4
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: NotNegative = 1.0
    gradient_clip: NotNegative = 0.0
    patience: Annotated[int, Field(ge=0)] = 0
    checkpoint: Literal["last", "best"] = "last"
    quantize_epochs: Annotated[int, Field(ge=0)] = 0
    init_gain: Positive = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    step: Literal["auto", "fused", "autograd"] = "auto"


class Augmentation(_Section):
    """`[augmentation]`: random changes of training samples, in pixels of the network's input.

    Attributes:
        shift: up to that many pixels in each direction, zeros move in.
        flip: mirrored left to right with probability 1/2.
        crop: pad by that many pixels, cut the old size out anywhere (a shift in CIFAR's manner).
    """

    shift: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    crop: Annotated[int, Field(ge=0)] = 0


class Recipe(_Section):
    """A whole recipe.

    Attributes:
        name: of the model. network: in the paper's notation.
        method: name in `mpsl_train.methods`: in a file it sets what the file leaves out, by
            `--method` and `--set method=` it changes the file.
        mechanisms: one bank for each, in this order; a text is split at `+`.
        plugins: Python files or modules that register a user's rules.
        seed: of weights, split, order of samples and dropout.
        quantize: `int8` trains the last epochs with the weights rounded to the grid of the int8
            model, which is then exported without any loss; `none`.
    """

    name: str
    network: str
    method: str = ""
    mechanisms: list[str] = Field(default=["stbp", "hebbian", "sbp"], min_length=1)
    plugins: list[str] = []
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    quantize: Literal["none", "int8"] = "none"
    data: Data
    neuron: Neuron = Neuron()
    rules: Rules = Rules()
    training: Training = Training()
    augmentation: Augmentation = Augmentation()

    @field_validator("mechanisms", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split("+") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if len(set(self.mechanisms)) != len(self.mechanisms):
            raise ValueError("mechanisms are listed twice")
        init = self.rules.coefficient_init
        if init and len(init) != len(self.mechanisms):
            raise ValueError("rules.coefficient_init needs one number for each mechanism")
        shared = self.rules.coefficient_scope == "global" and self.rules.plastic_layers == "fc"
        if shared and self.mechanisms[0] != "stbp":
            raise ValueError("a global λ over fc layers needs stbp as the first mechanism")
        epochs, last = self.training.epochs, self.training.quantize_epochs
        if last and self.quantize == "none":
            raise ValueError("training.quantize_epochs needs quantize = 'int8'")
        if last > epochs:
            raise ValueError(f"training.quantize_epochs {last} is more than {epochs} epochs")
        if self.quantize == "int8" and self.training.step == "fused":
            raise ValueError("training.step = 'fused' has no int8 epochs; expected 'auto'")
        if self.quantize == "int8" and not is_exact_decay(self.neuron.decay):
            raise ValueError(
                f"quantize = 'int8' needs a neuron.decay that float32 holds exactly, such as 0.5, "
                f"0.75 or 0.875; got {self.neuron.decay}"
            )
        return self

    @property
    def first_int8_epoch(self) -> int:
        """How many epochs run in float before those on the int8 grid: all without `quantize`."""
        epochs = self.training.epochs
        if self.quantize == "none":
            return epochs
        return epochs - (self.training.quantize_epochs or -(-epochs // 3))

    @property
    def float_epochs(self) -> int:
        """Epochs at the start that train another network than the one asked for: with `quantize`
        those in float, else none."""
        return self.first_int8_epoch if self.quantize == "int8" else 0

    def dump(self) -> dict[str, Any]:
        """The complete recipe as plain values, without what is None."""
        return self.model_dump(exclude_none=True)

    def text(self) -> str:
        """The complete recipe as TOML."""
        return to_toml(self.dump())

    def hash(self) -> str:
        """sha256 of `text()`, hexadecimal: the same as of the run's recipe.toml."""
        return hashlib.sha256(self.text().encode()).hexdigest()


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


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies `--set path.key=value` in that order; `method=name` stands for
    all the changes of that method.

    Values are TOML; what is not valid TOML is a text, or a list of texts in `[a,b]`, since shells
    swallow quotes.

    Raises:
        RecipeError: unreadable, an unknown key (names the nearest known one), a wrong value.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError("recipe cannot be read", got=error, where=path) from error
    places: dict[str, str] = {}
    if values.get("method"):
        stated, values = values, changes_of(values["method"], values)
        _merge(values, stated)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise RecipeError("--set needs key=value", got=repr(override), where="--set")
        _check_keys(_nested(key.strip(), None), f"--set {override}")
        value = _value(text.strip())
        if key.strip() == "plugins" and isinstance(value, list):
            value = [_inside(Path(), item) if Path(str(item)).is_file() else item for item in value]
        if key.strip() == "method":
            _merge(values, changes_of(value, values))
        _merge(values, _nested(key.strip(), value))
        places[key.strip()] = f"--set {override}"
    _check_keys(values, str(path))
    plugins = values.get("plugins")
    if isinstance(plugins, list):
        values["plugins"] = [_inside(path.parent, plugin) for plugin in plugins]
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "recipe"
        message = first["msg"].removeprefix("Value error, ")
        got = None if first["type"] in ("missing", "value_error") else repr(first["input"])
        raise RecipeError(f"{key}: {message}", got=got, where=places.get(key, path)) from None


def _inside(folder: Path, plugin: object) -> object:
    """A plug-in's file is named relative to the recipe, in `--set` first to the current folder; the
    run must still find it later."""
    if isinstance(plugin, str) and plugin.endswith(".py"):
        return str((folder / plugin).resolve())
    return plugin


def _nested(key: str, value: object) -> dict[str, Any]:
    first, dot, rest = key.partition(".")
    return {first: _nested(rest, value) if dot else value}


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
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


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Plain values as TOML: keys first, then one table for each nested mapping."""
    lines = [f"{key} = {_scalar(value)}" for key, value in values.items()
             if not isinstance(value, Mapping)]  # fmt: skip
    text = "\n".join(lines) + "\n"
    for key, value in values.items():
        if isinstance(value, Mapping):
            text += f"\n[{prefix}{key}]\n" + to_toml(value, f"{prefix}{key}.")
    return text


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    return repr(value)
