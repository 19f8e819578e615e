"""Spatio-temporal back-propagation: the bank W1, learned by the global error alone."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mpsl_train.network.plasticity.rule import Post, Pre, Rule, register

__all__ = ["Stbp"]


@register("stbp")
class Stbp(Rule):
    """∂L/∂W1 through the surrogate of Eq. 7; no change within a window."""

    learned: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    def update(self, pre: Pre, post: Post) -> Tensor:
        """Never called: the optimiser changes this bank."""
        raise NotImplementedError("stbp is learned by back-propagation")
