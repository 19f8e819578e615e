"""The sections of a recipe and what each key means; its defaults, and its text.

A run folder holds the complete recipe as it was used, defaults included.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from mpsl_runtime.model.scale import is_exact_decay
from mpsl_train.recipe.toml import to_toml

__all__ = ["Augmentation", "Data", "Neuron", "Recipe", "Rules", "Training"]

# What float32 holds, and what a machine could hold: larger numbers come from mistakes and attacks.
_LARGEST = 1e30
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=_LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=_LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Index = Annotated[int, Field(ge=0, le=1_000_000_000)]
# Of the network's input, which a shift must not leave.
Shift = Annotated[int, Field(ge=0, le=1_000)]
Pixels = Annotated[int, Field(ge=0, le=65_535)]
# Names become parts of paths and of lines that are printed.
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f\x7f]*$")
]
Word = Annotated[str, StringConstraints(max_length=1000)]


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

    dataset: Name
    steps: Annotated[int, Field(ge=1, le=100_000)] = 8
    step_us: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1
    coding: Literal["count", "binary"] = "count"
    downsample: Count = 1
    crop: list[Pixels] | None = Field(default=None, min_length=4, max_length=4)
    image_mean: list[Number] = []
    image_std: list[Positive] = []
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    train_limit: Index = 0


class Neuron(_Section):
    """`[neuron]`: ρ_m (1: integrate and fire, no leak), V_th, the width a of the rectangular
    surrogate, the reset."""

    decay: Annotated[float, Field(ge=0, le=1)] = 0.75
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
        eta_hat_layers: η̂ of each weighted layer in order; empty: `eta_hat` in all.
        current_share: the local banks' part of a layer's current, ‖(λ2W2 + λ3W3)·s‖/‖I‖, that each
            layer's η̂ is led to after every batch, in place of being learned; 0: it is not led.
        warmup_epochs: over which η rises from 0; without it some seeds fall silent (*measured*).
        beta: first value of β. sign: + (Eq. 8), − (anti-Hebbian), or `learned`: η times tanh θ of
            each layer, θ = 0 at first.
        activity: ρ(U) of Eq. 8, `tanh`, or `clipped` at 0.
        tau_w_steps: τ_w, the time constant of the local banks, in steps. delta: normalisation of δ.
        cap: largest ‖Wk‖/‖W1‖ of a committed bank, 0 = none. normalise: `output`: W2 of each
            output is brought to just that size, as Oja's rule would, and W3 with it.
        local_gradient: s and U `detached` inside C and P, or `flow`.
        plastic_layers: `all`, or `fc`: convolutions learn by back-propagation alone.
    """

    coefficients: Literal["learnable", "fixed", "frozen"] = "learnable"
    coefficient_scope: Literal["layer", "global", "channel"] = "layer"
    coefficient_init: list[Number] = []
    freeze_epoch: Count = 1
    eta_hat: Number = 1.0
    eta_learnable: bool = True
    eta_hat_layers: Annotated[list[Number], Field(max_length=1000)] = []
    current_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    warmup_epochs: NotNegative = 1.0
    beta: Number = 0.0
    sign: Literal["+", "-", "learned"] = "+"
    activity: Literal["tanh", "clipped"] = "tanh"
    tau_w_steps: Positive = 40.0
    delta: Literal["l1", "split", "literal"] = "l1"
    cap: NotNegative = 0.25
    normalise: Literal["none", "output"] = "none"
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
        precision: of the layers' products: `fp32`, on a GPU also `tf32`, or `bf16`, which gains on
            a CPU with AVX512-BF16 too. Banks, membranes and summed gradients stay float32; the
            fused window rounds the correlation of Eq. 8 as well; int8 epochs are exact.
        step: how a window with plastic banks is trained: `fused`, exact and faster; `autograd`, the
            reference, which every rule can take; `graphed`, the fused one as CUDA graphs (on a CPU
            it is `fused`); `auto`, fused where it can. The run says which.
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
    patience: Index = 0
    checkpoint: Literal["last", "best"] = "last"
    quantize_epochs: Index = 0
    init_gain: Positive = 1.0
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    step: Literal["auto", "fused", "graphed", "autograd"] = "auto"


class Augmentation(_Section):
    """`[augmentation]`: random changes of training samples, in pixels of the network's input.

    Attributes:
        shift: up to that many pixels in each direction, zeros move in.
        flip: mirrored left to right with probability 1/2, where labels survive it.
        crop: pad by that many pixels, cut the old size out anywhere (a shift in CIFAR's manner).
        cutout: of images, a square of that many pixels around a pixel anywhere becomes black, or
            the mean colour of normalised ones (DeVries & Taylor 2017).
        colour_jitter: of images, brightness, contrast and saturation times a factor of up to
            1 ± so much, each its own.
        mixup: of images, α: each is mixed with another of its batch, λ of Beta(α, α) for itself
            (Zhang et al. 2018); the rounded mixture learns both labels.
        drop: of events, each is lost with a probability that is drawn for each recording, up to so
            much. drop_area: those in a rectangle anywhere are lost, whose sides are a part of the
            map's that is drawn up to so much (EventDrop's drop by area, Gu et al. 2021).
        time_shift: of events, up to that many steps later or earlier.
    """

    shift: Shift = 0
    flip: bool = False
    crop: Shift = 0
    cutout: Shift = 0
    colour_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=1000)] = 0.0
    drop: Annotated[float, Field(ge=0, le=1)] = 0.0
    drop_area: Annotated[float, Field(ge=0, le=1)] = 0.0
    time_shift: Shift = 0


class Recipe(_Section):
    """A whole recipe.

    Attributes:
        name: of the model. network: in the paper's notation.
        method: name in `mpsl_train.methods`: in a file it sets what the file leaves out, by
            `--method` and `--set method=` it changes the file.
        mechanisms: one bank for each, in this order; a text is split at `+`.
        plugins: Python files, seen from the recipe, or modules that register a user's rules; in a
            complete recipe with the hash of their content. They run only where the user names them.
        seed: of weights, split, order of samples and dropout.
        quantize: `int8` trains the last epochs with the weights rounded to the grid of the int8
            model, which is then exported without any loss; `none`.
    """

    name: Name
    network: Annotated[str, StringConstraints(max_length=10_000)]
    method: Word = ""
    mechanisms: list[Word] = Field(default=["stbp", "hebbian", "sbp"], min_length=1, max_length=16)
    plugins: list[Word] = Field(default=[], max_length=16)
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
        if self.rules.normalise == "output" and not self.rules.cap:
            raise ValueError(
                "rules.normalise = 'output' needs a rules.cap, the size of each output"
            )
        if "random" in self.mechanisms and not self.rules.current_share:
            raise ValueError("mechanism 'random' needs rules.current_share, the size of its bank")
        epochs, last = self.training.epochs, self.training.quantize_epochs
        if last and self.quantize == "none":
            raise ValueError("training.quantize_epochs needs quantize = 'int8'")
        if last > epochs:
            raise ValueError(f"training.quantize_epochs {last} is more than {epochs} epochs")
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
