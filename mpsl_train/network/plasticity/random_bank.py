"""A random bank that never changes: the control of every claim that a rule's bank helps."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mpsl_train.network.plasticity.rule import Post, Pre, Rule, register

__all__ = ["RandomBank"]


@register("random")
class RandomBank(Rule):
    """A normal bank, drawn with the first weights, whose size alone follows `rules.current_share`.

    It tells what the same share of the current does that is no rule's.
    """

    fixed: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("stbp",)
    shared: ClassVar[bool] = True

    def update(self, pre: Pre, post: Post) -> Tensor:
        """Never called: the bank is fixed."""
        raise NotImplementedError("a random bank does not change")
