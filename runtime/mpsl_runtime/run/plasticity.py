"""One step of the local rules in plain numpy: Eq. 8–11 for a window of one sample.

Training's own are `mpsl_train/network/plasticity` and `network/regulation.py`; a test holds these
to them.

    g  = tanh(U/V_th),  C = ⟨g sᵀ⟩ over positions,  P = the same with g ≡ 1
    ΔW2 = η·(C + β[out]·P),                   W2 ← d·W2 + ΔW2                             Eq. 8
    ΔW3 = λ_f·(1 + λ_p·δ)[out]·ΔW2,           W3 ← d·W3 + ΔW3                             Eq. 9–11
    δ   = ΔW2 of the layer above, summed for each of its inputs' channels, over its own Σ|·|;
          where nothing above learns: ΔW3 = λ_f·ΔW2
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mpsl_runtime.model.plan import Convolution, Dense, Neuron, Plan, Pooling
from mpsl_runtime.model.plastic import LOCAL_RULES, PlasticLayer
from mpsl_runtime.run.stateless import apply, taps

__all__ = ["LearningLayer"]

Array = NDArray[np.float32]

_EPSILON = np.float32(1e-12)
_LEAST = np.float32(1e-12)


class LearningLayer:
    """The banks of a layer that learns, and the rules that change them.

    Attributes:
        layer: as exported. index: of its neurons in `plan.spiking`.
        banks: W1, W2, … as they stand. windows: that were committed since the banks were reset.
    """

    def __init__(self, layer: PlasticLayer, plan: Plan) -> None:
        at = next(i for i, node in enumerate(plan.nodes) if node.name == layer.node)
        node, neuron = plan.nodes[at], plan.nodes[at + 1]
        if not isinstance(node, Convolution | Dense) or not isinstance(neuron, Neuron):
            raise TypeError("a plastic layer is weights and the neurons behind them")
        self.layer, self._node, self._neuron = layer, node, neuron
        self.index = plan.spiking.index(neuron)
        first = at
        while first and not isinstance(plan.nodes[first - 1], Neuron):
            first -= 1
        self._between = plan.nodes[first:at]
        numbers = layer.numbers
        self._decay = np.float32(math.exp(-1.0 / numbers.tau_w_steps))
        self._eta = np.float32(numbers.eta)
        self._local = [k for k, name in enumerate(numbers.rule_names) if name in LOCAL_RULES]
        self._taps = taps(node) if isinstance(node, Convolution) else None
        self.banks, self._committed = layer.banks, layer.banks
        self.windows = 0

    def reset(self) -> None:
        """The exported banks again."""
        self.banks = self._committed = self.layer.banks
        self.windows = 0

    def roll_back(self) -> None:
        """The banks as they were last committed."""
        self.banks = self._committed

    def change(self, source: Array, U: Array) -> Array:
        """ΔW2 of a step; no bank has changed yet.

        Args:
            source: spikes of the layer before, or the input, [C, H, W] or [n].
            U: of this layer's neurons, before their reset.
        """
        x = source
        for node in self._between:
            x = apply(node, x[None])[0]
            if isinstance(node, Pooling):  # the rules see means, weights the sums
                x = x / np.float32(math.prod(node.kernel) * node.scale)
        g = np.tanh(U / self._neuron.threshold, dtype=np.float32)
        if self.layer.numbers.activity == "clipped":
            g = np.maximum(g, np.float32(0))
        met, alone = self._correlated(x, g)
        tail = (1,) * (met.ndim - 1)
        beta = (self._eta * self.layer.beta).reshape(-1, *tail)
        return np.asarray(self._eta * met + beta * alone, np.float32)

    def _correlated(self, x: Array, g: Array) -> tuple[Array, Array]:
        """C, in the shape of the weights, and P, with 1 in place of the outputs."""
        if self._taps is None:
            return np.outer(g, x), x[None]
        rows, columns = self._taps
        padded = np.pad(x, ((0, 0), (0, 1), (0, 1)))  # what stands for all padding
        seen = padded[:, rows[:, None, :, None], columns[None, :, None, :]]  # [Ci, kh, kw, Ho, Wo]
        count = np.float32(g.shape[1] * g.shape[2])
        flat = seen.reshape(-1, g.shape[1] * g.shape[2])
        met = (g.reshape(len(g), -1) @ flat.T).reshape(len(g), *seen.shape[:3])
        return met / count, seen.sum((3, 4), dtype=np.float32)[None] / count

    def learn(self, change: Array, above: Array | None) -> None:
        """Advances the local banks.

        Args:
            change: ΔW2 of this step. above: that of the next weighted layer, if it learns.
        """
        banks = list(self.banks)
        for k in self._local:
            by = change
            if self.layer.numbers.rule_names[k] == "sbp":
                by = self._steered(change, above)
            banks[k] = by + self._decay * banks[k]
        self.banks = tuple(banks)

    def _steered(self, change: Array, above: Array | None) -> Array:
        numbers = self.layer.numbers
        fraction, steering = np.float32(numbers.fraction), np.float32(numbers.steering)
        if above is None:
            return fraction * change
        channels = len(change)
        if above.ndim == 4:
            received = above.sum((0, 2, 3), dtype=np.float32)
        else:
            received = above.sum(0, dtype=np.float32).reshape(channels, -1).sum(1)
        delta = _normalised(received, numbers.delta)
        factor = (fraction * (1 + steering * delta)).reshape(-1, *(1,) * (change.ndim - 1))
        return np.asarray(factor * change, np.float32)

    def commit(self) -> None:
        """The end of a window: the banks stay, within the layer's bound."""
        banks, numbers = list(self.banks), self.layer.numbers
        learned, local = banks[0], [banks[k] for k in self._local]
        if numbers.cap > 0:
            local = (
                _each_output(local, learned, np.float32(numbers.cap))
                if numbers.bound == "output"
                else [bank * _within(bank, learned, np.float32(numbers.cap)) for bank in local]
            )
        for k, bank in zip(self._local, local, strict=True):
            banks[k] = bank
        self.banks = self._committed = tuple(banks)
        self.windows += 1

    def weight(self) -> Array:
        """The node's weight as the banks stand."""
        return self.layer.merged(self.banks)

    @property
    def node_weight(self) -> Array:
        """The node's weight as exported."""
        return self._node.weight

    @property
    def moved(self) -> float:
        """‖W − W exported‖/‖W exported‖ of the node's weight."""
        before = np.linalg.norm(self._node.weight)
        return float(np.linalg.norm(self.weight() - self._node.weight) / max(before, _LEAST))


def _normalised(received: Array, how: str) -> Array:
    if how == "literal":
        return np.asarray(received / received.sum(), np.float32)
    if how == "split":
        gain, loss = np.maximum(received, 0), np.minimum(received, 0)
        parts = gain / (gain.sum() + _EPSILON) + loss / (np.abs(loss).sum() + _EPSILON)
        return np.asarray(parts, np.float32)
    return np.asarray(received / (np.abs(received).sum() + _EPSILON), np.float32)


def _within(bank: Array, learned: Array, cap: np.float32) -> np.float32:
    """What brings a bank within `cap` of the learned one's norm."""
    most = cap * np.linalg.norm(learned) / np.maximum(np.linalg.norm(bank), _LEAST)
    return np.float32(np.minimum(most, 1))


def _each_output(local: list[Array], learned: Array, cap: np.float32) -> list[Array]:
    """Each output's W2 at just `cap` of its W1's norm, and the others with it; one that is empty
    has no direction to keep."""
    own = np.linalg.norm(local[0].reshape(len(learned), -1), axis=1)
    wanted = cap * np.linalg.norm(learned.reshape(len(learned), -1), axis=1)
    scale = np.where(own > _LEAST, wanted / np.maximum(own, _LEAST), 1.0).astype(np.float32)
    return [bank * scale.reshape(-1, *(1,) * (bank.ndim - 1)) for bank in local]
