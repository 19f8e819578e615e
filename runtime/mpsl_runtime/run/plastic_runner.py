"""A network whose local rules go on while it runs: Eq. 8–11 after every step.

It is an engine or a reference, whose weights are replaced step by step. What a window of T steps
does to the banks is what training's does with one sample: they change at every step, and where the
window ends they are brought within their cap and kept. No labels, no gradient, and not Eq. 12: an
answer depends on what came before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.errors import ModelError, UsageError
from mpsl_runtime.model.plan import Convolution, Dense, Plan
from mpsl_runtime.run.checks import checked_frames
from mpsl_runtime.run.lane import Runner
from mpsl_runtime.run.plasticity import LearningLayer

__all__ = ["BankReset", "PlasticRunner", "Program", "chosen_layers"]

Array = NDArray[np.float32]

BankReset = Literal["never", "window"]
"""When banks are as exported again: never, or before every window."""


class Program(Runner, Protocol):
    """What `engine.Engine` and `reference.Reference` offer to who changes their weights."""

    def step(self, frame: Array) -> Array:
        """One step; returns the last population's spikes [K]."""

    def keep_membranes(self) -> None:
        """U of every spiking population is kept from now on."""

    def population(self, index: int) -> tuple[Array, Array]:
        """U before its reset, and S, of `plan.spiking[index]` in the last step."""

    def replace_weight(self, name: str, weight: Array) -> None:
        """Another weight for a node, from the next step on."""


def chosen_layers(plan: Plan, words: str) -> tuple[str, ...]:
    """Names of the plastic nodes that are asked for, in the order in which they run.

    Args:
        words: `all`, or names of layers (`L03`) or nodes, separated by ",".

    Raises:
        UsageError: the model has no such plastic layer, or none at all.
    """
    if not plan.plastic:
        raise UsageError(
            "model has no banks that could go on learning", got=f"--plastic {words}",
            expected="a .nir file of `mpsl export --plastic`", where=plan.source,
        )  # fmt: skip
    named = {layer.numbers.layer: layer.node for layer in plan.plastic}
    named |= {node: node for node in named.values()}
    asked = list(named) if words == "all" else words.split(",")
    for word in asked:
        if word not in named:
            raise UsageError(
                "no such plastic layer", got=word,
                expected=", ".join(["all", *(layer.numbers.layer for layer in plan.plastic)]),
                where="--plastic",
            )  # fmt: skip
    nodes = {named[word] for word in asked}
    return tuple(layer.node for layer in plan.plastic if layer.node in nodes)


class PlasticRunner:
    """Runs a network and lets layers of it learn; the interface of `lane.Runner`.

    Attributes:
        plan: of the network as exported.
        layers: those that learn, in the order in which they run.
        banks_reset: see `BankReset`.
    """

    def __init__(
        self,
        program: Program,
        plan: Plan,
        nodes: Sequence[str],
        *,
        steps: int,
        banks_reset: BankReset = "never",
    ) -> None:
        """
        Args:
            program: of the plan, at rest. nodes: of `chosen_layers`.
            steps: T of a window, after which banks are bounded and kept.

        Raises:
            UsageError: `banks_reset` is no word of `BankReset`.
        """
        if banks_reset not in get_args(BankReset):
            raise UsageError("banks are not reset then", got=repr(banks_reset),
                             expected=" or ".join(get_args(BankReset)))  # fmt: skip
        self.plan, self.banks_reset = plan, banks_reset
        self._program, self._length, self._since = program, steps, 0
        self.layers = [LearningLayer(each, plan) for each in plan.plastic if each.node in nodes]
        weighted = [node.name for node in plan.nodes if isinstance(node, Convolution | Dense)]
        place = {name: number for number, name in enumerate(weighted)}
        # For each layer the one above it, where that learns too.
        by_place = {place[each.layer.node]: number for number, each in enumerate(self.layers)}
        self._above = [by_place.get(place[each.layer.node] + 1) for each in self.layers]
        self._seen = sorted(
            {i for each in self.layers for i in (each.index - 1, each.index)} - {-1}
        )
        program.keep_membranes()

    @property
    def membrane(self) -> Array:
        """See `Runner`; so are the properties and methods that follow."""
        return self._program.membrane

    @property
    def synops(self) -> int:
        return self._program.synops

    @property
    def fired(self) -> tuple[int, ...]:
        return self._program.fired

    def reset(self) -> None:
        """The end of a window, and the network at rest; banks stay unless `banks_reset` says so."""
        self._end_window()
        if self.banks_reset == "window":
            self.reset_banks()
        self._program.reset()

    def reset_banks(self) -> None:
        """The exported weights again, bit for bit."""
        self._since = 0
        for each in self.layers:
            each.reset()
            self._program.replace_weight(each.layer.node, each.node_weight)

    def step(self, frame: Array) -> Array:
        """One step, after which the layers learn.

        Raises:
            ModelError: a bank is no longer finite; all are as the last window left them.
        """
        output = self._learned(self._program.step(frame), frame)
        self._tick()
        return output

    def step_sparse(self, address: NDArray[np.int32], value: Array) -> Array:
        """One step on the inputs that are not zero; see `step`."""
        output = self._program.step_sparse(address, value)
        frame = np.zeros(math.prod(self.plan.input_shape), np.float32)
        np.add.at(frame, address, value)
        self._learned(output, frame.reshape(self.plan.input_shape))
        self._tick()
        return output

    def run(self, frames: Array) -> Array:
        """Resets, then one window of all the frames [T, *input_shape] -> [T, K]."""
        frames = checked_frames(frames, self.plan)
        self.reset()
        steps = [self._learned(self._program.step(frame), frame) for frame in frames]
        self._since = len(frames)
        self._end_window()
        outputs = math.prod(self.plan.output_shape)
        return np.stack(steps) if steps else np.zeros((0, outputs), np.float32)

    def state(self) -> bytes:
        """Raises UsageError: the state of a network does not hold its weights."""
        raise UsageError("the banks of a network that learns are not kept in a state file",
                         got="--plastic", expected="no --state")  # fmt: skip

    def restore(self, state: bytes) -> None:
        """Raises UsageError, as `state`."""
        self.state()

    def fork(self) -> PlasticRunner:
        """Raises UsageError: windows side by side would share their banks."""
        raise UsageError("banks that learn belong to one window at a time", got="--policy sliding",
                         expected="another policy, or no --plastic")  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """For the summary: of each layer the windows it learned from, and how far its weight has
        moved from the exported one, ‖ΔW‖/‖W‖."""
        return {
            "banks_reset": self.banks_reset,
            "layers": {
                each.layer.numbers.layer: {"windows": each.windows, "moved": round(each.moved, 6)}
                for each in self.layers
            },
        }

    def _learned(self, output: Array, frame: Array) -> Array:
        activity = {index: self._program.population(index) for index in self._seen}
        with np.errstate(all="ignore"):
            changes = [
                each.change(frame if each.index == 0 else activity[each.index - 1][1],
                            activity[each.index][0])
                for each in self.layers
            ]  # fmt: skip
            for each, change, above in zip(self.layers, changes, self._above, strict=True):
                each.learn(change, None if above is None else changes[above])
            weights = [each.weight() for each in self.layers]
        for each, weight in zip(self.layers, weights, strict=True):
            if not np.isfinite(weight).all():
                self._give_up(each)
        self._replace(weights)
        return output

    def _give_up(self, layer: LearningLayer) -> None:
        self._since = 0
        for each in self.layers:
            each.roll_back()
        self._replace([each.weight() for each in self.layers])
        raise ModelError(
            "a bank that stays plastic is not finite",
            where=f"layer {layer.layer.numbers.layer} of {self.plan.source}",
        )

    def _tick(self) -> None:
        self._since += 1
        if self._since >= self._length:
            self._end_window()

    def _end_window(self) -> None:
        if not self._since:
            return
        self._since = 0
        for each in self.layers:
            each.commit()
        self._replace([each.weight() for each in self.layers])

    def _replace(self, weights: Sequence[Array]) -> None:
        for each, weight in zip(self.layers, weights, strict=True):
            self._program.replace_weight(each.layer.node, weight)
