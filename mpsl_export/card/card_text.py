"""A card's report.json as card.md: a pure function, so a test can hold one against the other."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["accuracy_text", "card_text", "limits_of"]

# Of two bank directions: nearer than this, their two coefficients cannot be told apart.
_ALIKE = 0.99


def card_text(card: Mapping[str, Any]) -> str:
    """The card for people, in Markdown."""
    sections = [
        f"# {card['name']}",
        "Written by `mpsl card` from finished runs; every figure stands in [report.json]"
        "(report.json). Do not edit.",
        _summary(card),
        "## Accuracy",
        *_accuracy(card),
        "## Data",
        _data(card),
        "## Recipe",
        *_recipe(card),
        "## Size and work",
        *_work(card),
        "## Verification",
        *_verification(card),
        "## Runs",
        _runs(card),
        "## Limits",
        "\n".join(f"- {line}" for line in limits_of(card)),
    ]
    return "\n\n".join(sections) + "\n"


def accuracy_text(accuracy: Mapping[str, Any]) -> str:
    """`98.67 %`, or `97.41 ± 0.32 %` of several seeds."""
    mean = f"{100 * accuracy['mean']:.2f}"
    return f"{mean} %" if accuracy["sd"] is None else f"{mean} ± {100 * accuracy['sd']:.2f} %"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _seeds(accuracy: Mapping[str, Any]) -> str:
    return ", ".join(map(str, accuracy["seeds"]))


def _summary(card: Mapping[str, Any]) -> str:
    seeds = card["accuracy"]["seeds"]
    which = f"one seed ({seeds[0]})" if len(seeds) == 1 else f"seeds {_seeds(card['accuracy'])}"
    return (
        f"`{card['network']}` on {card['data']['name']}, T = {card['recipe']['data']['steps']}, "
        f"mechanisms {' + '.join(card['mechanisms'])}: **{accuracy_text(card['accuracy'])}** of "
        f"{card['data']['test']:,} test samples, {which}."
    )


def _accuracy(card: Mapping[str, Any]) -> list[str]:
    published = card["published"]
    planned = _planned_epochs(card)
    rows = [_method_row("+".join(card["mechanisms"]) + ", this model", card, planned)]
    rows += [
        _method_row(f"{each['method']}, same recipe", each, planned)
        for each in card["other_methods"]
    ]
    if published["accuracy"] is not None:
        rows.append(
            [f"MPSL as published, `{published['network']}`", "–",
             f"{100 * published['accuracy']:.2f} %", str(published["epochs"]), "–"]
        )  # fmt: skip
    low, high = _interval(card["runs"][0]["accuracy"], card["data"]["test"])
    first = card["runs"][0]
    text = (
        f"The test set is read once, at the end of training. Of the published run (seed "
        f"{first['seed']}), 95 % interval for {card['data']['test']:,} samples (Wilson): "
        f"{100 * low:.2f} … {100 * high:.2f} %."
    )
    if first["validation_accuracy"] is not None:
        text += f" On the held-out samples it has {100 * first['validation_accuracy']:.2f} %."
    return [_table(["method", "seeds", "test accuracy", "epochs", "training"], rows), text]


def _planned_epochs(card: Mapping[str, Any]) -> int | None:
    """Of the recipe, where the runs were given others."""
    change = card.get("changed", {}).get("training.epochs", {})
    planned: int | None = change.get("planned")
    return planned


def _method_row(name: str, group: Mapping[str, Any], planned: int | None) -> list[str]:
    runs = group["runs"]
    seconds = [run["training_seconds"] for run in runs]
    epochs = ", ".join(map(str, sorted({run["epochs"] for run in runs})))
    return [
        name, _seeds(group["accuracy"]), accuracy_text(group["accuracy"]),
        f"{epochs} of {planned}" if planned else epochs, _duration(sum(seconds) / len(seconds)),
    ]  # fmt: skip


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _interval(accuracy: float, samples: int) -> tuple[float, float]:
    """Wilson's interval of a fraction, 95 %."""
    z = 1.959964
    centre = accuracy + z * z / (2 * samples)
    half = z * math.sqrt(accuracy * (1 - accuracy) / samples + z * z / (4 * samples**2))
    scale = 1 + z * z / samples
    return (centre - half) / scale, min(1.0, (centre + half) / scale)


def _data(card: Mapping[str, Any]) -> str:
    data, recipe = card["data"], card["recipe"]["data"]
    text = (
        f"{data['name']}: {data['train']:,} samples trained on, {data['validation']:,} held out "
        f"for validation (stratified, drawn by the seed), {data['test']:,} tested on (sha256 "
        f"{str(data['test_hash'])[:12]}…)."
    )
    if data["kind"] == "events":
        text += f" A step is {recipe['step_us'] / 1000:g} ms, coding {recipe['coding']}"
        text += f", {recipe['downsample']}x downsampled." if recipe["downsample"] > 1 else "."
    return text


def _recipe(card: Mapping[str, Any]) -> list[str]:
    recipe, name = card["recipe"], card["name"]
    training, rules = recipe["training"], recipe["rules"]
    changes = "".join(
        " --set " + shlex.quote(f"{key}={json.dumps(value['trained'], ensure_ascii=False)}")
        for key, value in card.get("changed", {}).items()
    )
    tau_w_steps = rules.get("tau_w_steps", rules.get("tau_w"))  # its name in older recipes
    augmentation = ", ".join(
        f"{key} {value}" for key, value in recipe.get("augmentation", {}).items() if value
    )
    return [
        f"```\nmpsl train {name} --data DIR --out RUN{changes}\nmpsl export RUN --format nir\n"
        "mpsl verify RUN --data DIR\n```",
        f"[recipe.toml](recipe.toml), complete hash {card['recipe_hash'][:12]}…: batch "
        f"{training['batch_size']}, {training['epochs']} epochs, {training['optimiser']} at "
        f"{training['learning_rate']:g}, V_th {recipe['neuron']['threshold']:g}, τ_w "
        f"{tau_w_steps:g}, η̂ {rules['eta_hat']:g}, cap {rules['cap']:g}; augmentation: "
        f"{augmentation or 'none'}.",
    ]


def _work(card: Mapping[str, Any]) -> list[str]:
    work, parameters, model = card["operations"], card["parameters"], card["model"]
    lines = [
        f"Parameters: {parameters['merged']:,} merged, which is what runs; "
        f"{parameters['banks']:,} in all banks while it learns.",
        f"A sample takes {work['synops']:,.0f} synaptic operations (mean of {work['samples']:,} "
        f"test samples, the engine's count), {100 * work['ratio']:.1f} % of the "
        f"{work['dense_macs']:,.0f} multiply-accumulates of the same "
        f"{card['recipe']['data']['steps']} steps computed densely. The same network without time "
        f"would take {work['one_pass_macs']:,} once.",
    ]
    if model["published"]:
        lines.append(
            f"[{model['file']}]({model['file']}): {model['bytes']:,} bytes, sha256 "
            f"{model['sha256'][:12]}…."
        )
    else:
        lines.append(f"{model['file']} has {model['bytes']:,} bytes and is not kept here.")
    return [*lines, *_layers(card["layers"])]


def _layers(layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of the layers, and what its last column is; older runs have not measured that."""
    head = ["layer", "weight", "neurons", "firing rate", "λ", "share of the banks in %"]
    rows = [
        [layer["name"], "x".join(map(str, layer["weight_shape"])), f"{layer['neurons']:,}",
         f"{100 * layer['firing_rate']:.2f} %",
         ", ".join(f"{value:.3f}" for value in layer["lambda"]),
         ", ".join(f"{100 * value:.1f}" for value in layer["share"])]
        for layer in layers
    ]  # fmt: skip
    if not any(layer.get("current_share") is not None for layer in layers):
        return [_table(head, rows)]
    head.append("local banks of the whole in %: norm, current")
    for row, layer in zip(rows, layers, strict=True):
        shares = [layer.get("norm_share"), layer.get("current_share")]
        row.append(", ".join("–" if share is None else f"{100 * share:.1f}" for share in shares))
    said = (
        "Norm is ‖λ2W2 + λ3W3‖/‖λ1W1 + λ2W2 + λ3W3‖; current is the same of what they drive with "
        "the inputs s of test samples, ‖(λ2W2 + λ3W3)·s‖/‖I‖, I without bias."
    )
    return [_table(head, rows), said]


def _verification(card: Mapping[str, Any]) -> list[str]:
    found = card["verification"]
    of = card["data"]["test"]
    lines = [
        f"`mpsl verify`, {found['samples']:,} of {of:,} test samples, against the record of "
        f"training: {'passed' if found['passed'] else 'FAILED'}."
    ]
    rows = []
    for model in found["models"]:
        for name, mismatch in model["spike_mismatch"].items():
            rows.append(
                [model["file"], name, f"{100 * model['accuracy'][name]:.2f} %",
                 f"{100 * model['argmax_agreement'][name]:.2f} %",
                 "none" if mismatch == 0 else f"{mismatch:.1e}", model["devices"][name]]
            )  # fmt: skip
    head = ["file", "program", "accuracy", "same label", "output spikes that differ", "on"]
    lines.append(_table(head, rows))
    ties = sum(model["explained_ties"] for model in found["models"])
    if ties:
        lines.append(f"Differing samples, summed over programs, each explained by ties: {ties}.")
    return lines


def _runs(card: Mapping[str, Any]) -> str:
    groups = [("+".join(card["mechanisms"]), card["runs"])]
    groups += [(each["method"], each["runs"]) for each in card["other_methods"]]
    rows = [
        [method, str(run["seed"]), f"{100 * run['accuracy']:.2f} %",
         f"{run['training_seconds']:,.0f} s", f"{run['device']}, {_threads(run['threads'])}",
         run["torch"], str(run["commit"] or "unknown")[:10]]
        for method, runs in groups for run in runs
    ]  # fmt: skip
    head = ["method", "seed", "test accuracy", "training", "device", "torch", "commit"]
    return _table(head, rows)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def limits_of(card: Mapping[str, Any]) -> list[str]:
    """What must not be read out of the figures, from the figures."""
    data, published, accuracy = card["data"], card["published"], card["accuracy"]
    lines = []
    if published["note"]:
        lines.append(published["note"])
    for split, seen in (("train", data["train"] + data["validation"]), ("test", data["test"])):
        if published[split] > seen:
            lines.append(
                f"Its {split} split has {seen:,} of the data set's {published[split]:,} samples: "
                "the score is not comparable with published ones."
            )
    if planned := _planned_epochs(card):
        lines.append(
            f"Trained for {card['recipe']['training']['epochs']} of the {planned} epochs of its "
            "recipe, the learning rate's schedule over these alone."
        )
    if len(accuracy["seeds"]) == 1:
        lines.append("One seed: nothing here tells of the spread over seeds.")
    if not card["other_methods"]:
        lines.append("No other method was trained on the same budget.")
    for other in card["other_methods"]:
        ahead = 100 * (accuracy["mean"] - other["accuracy"]["mean"])
        lines.append(
            f"{other['method']} at the same budget: {accuracy_text(other['accuracy'])}; this model "
            f"is {abs(ahead):.2f} points {'above' if ahead > 0 else 'below'} it"
            + (
                "."
                if accuracy["sd"] is not None and other["accuracy"]["sd"] is not None
                else ", which single seeds cannot make a finding of."
            )
        )
    if published["accuracy"] is not None:
        behind = 100 * (published["accuracy"] - accuracy["mean"])
        larger = published["network"] != card["network"]
        longer = published["epochs"] > card["recipe"]["training"]["epochs"]
        more = ["a larger network"] * larger + ["more epochs"] * longer
        lines.append(
            f"{abs(behind):.2f} points {'below' if behind > 0 else 'above'} the paper's figure"
            + (f", which is of {' and '.join(more)}." if more else ".")
        )
    cosines = [layer["cosine_w2_w3"] for layer in card["layers"]]
    alike = [value for value in cosines if value is not None and value > _ALIKE]
    if alike:
        lines.append(
            f"W2 and W3 point the same way in {len(alike)} of {len(cosines)} layers (cosine > "
            f"{_ALIKE}): λ2 and λ3 are hardly identifiable."
        )
    lines += [f"Layer {warning}." for warning in card["warnings"]]
    said = card["verification"].get("warnings", ())
    lines += [f"{warning[:1].upper()}{warning[1:]}." for warning in said]
    return lines
