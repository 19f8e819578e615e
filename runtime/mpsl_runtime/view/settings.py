"""What may be changed while it runs: the policy and its rule, the filters, and how it is shown.

The words come from a page, that is from a stranger: they are checked here, and what cannot be
changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mpsl_runtime.errors import UsageError
from mpsl_runtime.live.options import StreamOptions
from mpsl_runtime.run.policies import POLICIES, Policy

__all__ = ["Settings"]

_LARGEST_US = 3_600_000_000
_FADES_MS = (1, 10_000)


@dataclass(frozen=True)
class Settings:
    """All that a page may change.

    Attributes:
        policy: its name; every: of `sliding`; early_margin: None is off; hold_ms.
        hot_pixels: whether they are left out; background_us, refractory_us: None is off;
        merge: all events count as brighter.
        fade_ms: after which an event of the picture has faded to a third.
        loops: a file begins anew at its end.
    """

    policy: str = "auto"
    every: int = 1
    early_margin: float | None = None
    hold_ms: float = 0.0
    hot_pixels: bool = False
    background_us: int | None = None
    refractory_us: int | None = None
    merge: bool = False
    fade_ms: int = 40
    loops: bool = False

    def changed(self, words: Mapping[str, Any]) -> Settings:
        """The same with some values changed.

        Raises:
            UsageError: a name that there is not, or a value that cannot be.
        """
        found: dict[str, Any] = {}
        for name, value in words.items():
            check = _CHECKS.get(name)
            if check is None or not check(value):
                raise UsageError("no such setting", got=f"{name!s:.40} = {value!r:.40}")
            found[name] = value
        return replace(self, **found)

    def is_answered_alike(self, other: Settings) -> bool:
        """Whether the models answer as they did: only what is shown has changed."""
        return replace(other, fade_ms=self.fade_ms, loops=self.loops) == self

    def policy_from(self, given: Policy) -> Policy:
        """The policy that is meant; what a page does not change comes from the command line."""
        rule = given.rule.changed(
            early_margin=self.early_margin, hold_us=round(self.hold_ms * 1000)
        )
        return Policy.of(self.policy, every=self.every, onset=given.onset, rule=rule)

    def options_from(self, given: StreamOptions) -> StreamOptions:
        """The options of the source that are meant, likewise."""
        listed = given.get("hot_pixels")
        return {
            **given,
            "hot_pixels": (listed or "auto") if self.hot_pixels else None,
            "background_us": self.background_us,
            "refractory_us": self.refractory_us,
            "polarity": "merge" if self.merge else "keep",
        }

    @classmethod
    def of(cls, policy: Policy, options: StreamOptions) -> Settings:
        """Those of a command line."""
        return cls(
            policy=policy.name,
            every=policy.every,
            early_margin=policy.rule.early_margin,
            hold_ms=policy.rule.hold_us / 1000,
            hot_pixels=options.get("hot_pixels") is not None,
            background_us=options.get("background_us"),
            refractory_us=options.get("refractory_us"),
            merge=options.get("polarity") == "merge",
        )


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: Any, high: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= high


_CHECKS: dict[str, Any] = {
    "policy": lambda value: isinstance(value, str) and value in POLICIES,
    "every": lambda value: _whole(value, 1, 100_000),
    "early_margin": lambda value: value is None or _number(value, 1e9),
    "hold_ms": lambda value: _number(value, 3_600_000),
    "hot_pixels": lambda value: isinstance(value, bool),
    "background_us": lambda value: value is None or _whole(value, 1, _LARGEST_US),
    "refractory_us": lambda value: value is None or _whole(value, 1, _LARGEST_US),
    "merge": lambda value: isinstance(value, bool),
    "fade_ms": lambda value: _whole(value, *_FADES_MS),
    "loops": lambda value: isinstance(value, bool),
}
