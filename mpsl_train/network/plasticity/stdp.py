"""The name `stdp` in recipes; its network and rule are in `mpsl_train.network.winner_take_all`."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mpsl_train.network.plasticity.rule import Post, Pre, Rule, register

__all__ = ["Stdp"]


@register("stdp")
class Stdp(Rule):
    """Spike-timing-dependent plasticity of neurons that compete (Diehl & Cook 2015), alone in a
    network of its own, `100WTA`: its inhibition is recurrent, which no layer here is."""

    learned: ClassVar[bool] = True

    def update(self, pre: Pre, post: Post) -> Tensor:
        """Never called."""
        raise NotImplementedError("stdp has a network of its own")
