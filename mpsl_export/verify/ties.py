"""When are two runs of the same network the same? The tolerance of DESIGN §8, explained by cause.

Two programs add the same float32 numbers in different orders, so that a membrane potential that
meets its threshold almost exactly may fire in one and not in the other: a tie,

    |U − V_th| ≤ 1e-5 · max(1, V_th)

After a tie the two runs are different runs, and a large network has a dozen neurons so near their
threshold in every sample. So a tie alone explains nothing. A program is explained on a sample when
there are a few ties, named, so that the numpy reference with these spikes flipped gives what the
program gave, all of it, to the end of the sample.

Of a program that shows all its layers the ties are found directly: driven by the program's own
spikes, the reference must want to fire exactly where the program fired, but for ties. That is the
same as flipping each of them in the reference, in (step, layer) order. Of a program of which only
the output is known (training on another device) they are searched for: ties before the first output
that differs are flipped, one after the other, then several together.

The reference runs the merge of the run's own banks, not the file under test, so that a wrong file
cannot move the point of comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpsl_export.verify.backends import Backend, LayerActivity
from mpsl_export.verify.forced import Forced
from mpsl_export.verify.tie_search import Tie, TieSearch, tie_tolerance
from mpsl_runtime.model.plan import Plan

__all__ = ["MOST_TIES", "Difference", "Explanation", "Referee"]

MOST_TIES = 8
"""Neurons with a tie in one sample: more of them are no accident of rounding. One neuron may have a
tie in step after step, where its input is constant."""


@dataclass(frozen=True)
class Difference:
    """Where two runs of one sample part.

    Attributes:
        sample: its id. backend: the program that differs from the reference.
        layer: name of the node; step: 0 … T−1; neuron: index in channel-major order.
        membrane, threshold: U in the reference, and V_th.
        tie: rounding explains it: with this spike flipped the reference gives what the program did.
        seen: U in the program, where not a spike differs but this.
        why: more about a difference that is no tie.
    """

    sample: str
    backend: str
    layer: str
    step: int
    neuron: int
    membrane: float
    threshold: float
    tie: bool
    seen: float | None = None
    why: str = ""

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        return {key: value for key, value in vars(self).items() if key != "why" or value}

    def sentence(self) -> str:
        """For people, of a difference that is no tie."""
        place = (
            f"{self.backend}: sample {self.sample}, layer {self.layer}, step {self.step}: neuron "
            f"{self.neuron} differs first"
        )
        if self.seen is not None:
            return f"{place}, in U alone: {self.seen:.7g} instead of {self.membrane:.7g}"
        reason = self.why or "is no tie"
        return f"{place} and {reason} (U {self.membrane:.7g}, threshold {self.threshold:.7g})"


@dataclass(frozen=True)
class Explanation:
    """Why a program differs from the reference on a sample.

    Attributes:
        ties: which, flipped in the reference, give what the program gave.
        wrong: the first difference that rounding does not explain; None: all are explained.
    """

    ties: tuple[Difference, ...] = ()
    wrong: Difference | None = None


class Referee:
    """Judges what programs did on a sample.

    Args:
        plan: the right network, of any form; its neurons fire at most once a step.
    """

    def __init__(self, plan: Plan) -> None:
        self._neurons = plan.spiking
        self._forced = Forced(plan)
        self._search = TieSearch(plan)

    def explain_program(
        self, sample: str, frames: NDArray[np.float32], backend: Backend, seen: NDArray[np.uint8]
    ) -> Explanation:
        """What a program gave, `seen` [T, K] out of a batch; run again with every layer shown."""
        activity = backend.record(frames)
        if np.array_equal(activity[-1].spikes, seen.astype(np.bool_)):
            return self.explain_activity(sample, frames, backend.name, activity)
        # Batches may be added up in another order than single samples.
        return self.explain_output(sample, frames, backend.name, seen)

    def explain_activity(
        self,
        sample: str,
        frames: NDArray[np.float32],
        program: str,
        activity: Sequence[LayerActivity],
    ) -> Explanation:
        """What a program did in all its layers.

        Args:
            frames: [T, C, H, W]. activity: of every spiking population, in order.
        """
        found: list[Tie] = []
        for index, U in enumerate(self._membranes(frames, activity)):
            found += self._departures(activity[index], U, index)
        differences = [self._difference(sample, program, place) for place in sorted(found)]
        wrong = next((difference for difference in differences if not difference.tie), None)
        neurons = list(dict.fromkeys((d.layer, d.neuron) for d in differences))
        if wrong is None and len(neurons) > MOST_TIES:
            one_more = neurons[MOST_TIES]
            last = next(d for d in differences if (d.layer, d.neuron) == one_more)
            why = f"would be neuron {MOST_TIES + 1} with a tie in one sample"
            wrong = replace(last, tie=False, why=why)
        return Explanation(wrong=wrong) if wrong else Explanation(tuple(differences))

    def explain_output(
        self,
        sample: str,
        frames: NDArray[np.float32],
        program: str,
        output: NDArray[np.uint8],
        potentials: NDArray[np.float32] | None = None,
    ) -> Explanation:
        """What a program gave, of which only the output spikes [T, K] are known, and where asked
        for the last layer's U at the last step [K]."""
        result = self._search.find(frames, output.astype(np.bool_), potentials)
        if result.ties is not None:
            return Explanation(
                tuple(self._difference(sample, program, place) for place in result.ties)
            )
        wrong = self._difference(sample, program, result.first)
        why = "no tie before it, flipped in the reference, gives this output"
        return Explanation(wrong=replace(wrong, tie=False, why=why))

    def hidden(
        self, sample: str, frames: NDArray[np.float32], backend: Backend
    ) -> Difference | None:
        """The first difference in any layer that rounding does not explain, whether or not the
        output shows it: of a spike, else of a membrane potential."""
        activity = backend.record(frames)
        spike = self.explain_activity(sample, frames, backend.name, activity).wrong
        if spike is not None:
            return spike
        found: list[Difference] = []
        driven = self._membranes(frames, activity)
        for index, (layer, expected) in enumerate(zip(activity, driven, strict=True)):
            # A Threshold has no potential to show.
            if layer.membrane is None or self._neurons[index].kind == "threshold":
                continue
            tolerance = tie_tolerance(self._neurons[index])
            scale = np.maximum(tolerance, tolerance * np.abs(expected))
            apart = np.argwhere(np.abs(layer.membrane - expected) > scale)
            if len(apart):
                step, neuron = (int(i) for i in apart[0])
                place = Tie(step, index, neuron, float(expected[step, neuron]))
                difference = self._difference(sample, backend.name, place)
                seen = float(layer.membrane[step, neuron])
                found.append(replace(difference, tie=False, seen=seen))
        return min(found, key=lambda difference: difference.step, default=None)

    def _departures(self, layer: LayerActivity, U: NDArray[np.float32], index: int) -> list[Tie]:
        """Where a layer fired other than the reference would, on the same spikes up to there.

        Args:
            U: [T, n] in the reference on these spikes.
        """
        threshold = self._neurons[index].threshold.reshape(-1)
        places = np.argwhere((threshold <= U) != layer.spikes)
        # A wrong program differs nearly everywhere: no more than are looked at.
        most = (MOST_TIES + 1) * len(U)
        return [Tie(int(t), index, int(i), float(U[t, i])) for t, i in places[:most]]

    def _membranes(
        self, frames: NDArray[np.float32], activity: Sequence[LayerActivity]
    ) -> list[NDArray[np.float32]]:
        """U [T, n] of every population in the reference, driven by given spikes: each sees those of
        the others, and is reset by its own."""
        rows: list[list[NDArray[np.float32]]] = [[] for _ in self._neurons]

        def decide(
            step: int, index: int, U: NDArray[np.float32], fired: NDArray[np.bool_]
        ) -> NDArray[np.bool_]:
            rows[index].append(U[0].copy())
            return np.asarray(activity[index].spikes[step][None], np.bool_)

        self._forced.run_decided(frames[:, None], decide)
        return [np.stack(row) for row in rows]

    def _difference(self, sample: str, program: str, place: Tie) -> Difference:
        neuron = self._neurons[place.layer]
        threshold = float(neuron.threshold.reshape(-1)[place.neuron])
        tolerance = float(tie_tolerance(neuron)[place.neuron])
        return Difference(
            sample=sample,
            backend=program,
            layer=neuron.name,
            step=place.step,
            neuron=place.neuron,
            membrane=place.membrane,
            threshold=threshold,
            tie=abs(place.membrane - threshold) <= tolerance,
        )
