"""When windows begin in a stream, and what becomes of the state: the policy.

| policy | windows | state |
|---|---|---|
| `tumbling` | one after another, T steps each: the training protocol | reset at each |
| `continuous` | the last T steps at every step; one answer a recording, at its end | runs on |
| `sliding` | one begins every `every` steps, so that they overlap | each from rest |
| `onset` | begin where something begins (`run.onset`) | reset at each |
| `auto` | `onset` in a stream | |

A **trial**, a recording cut to one sample, is one window of T steps under all but `continuous`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mpsl_runtime.errors import UsageError
from mpsl_runtime.model.metadata import ModelMetadata
from mpsl_runtime.run.answers import AnswerRule
from mpsl_runtime.run.onset import Onset

__all__ = ["POLICIES", "Policy", "PolicyName", "calibrated"]

PolicyName = Literal["auto", "tumbling", "continuous", "sliding", "onset"]
POLICIES: tuple[str, ...] = get_args(PolicyName)


@dataclass(frozen=True)
class Policy:
    """A policy with its settings.

    Attributes:
        name: see the module.
        every: of `sliding`: steps from the beginning of a window to that of the next, at most T.
        onset: of `onset`: what begins a window.
        rule: when a window is answered, and by which class or `none`.
    """

    name: PolicyName = "auto"
    every: int = 1
    onset: Onset = field(default_factory=Onset)
    rule: AnswerRule = field(default_factory=AnswerRule)

    @classmethod
    def of(cls, policy: Policy | str, **settings: Any) -> Policy:
        """A policy by its name, or as it is.

        Raises:
            UsageError: there is no policy of this name.
        """
        if isinstance(policy, Policy):
            return policy
        if policy not in POLICIES:
            raise UsageError("unknown policy", got=repr(policy), expected=" or ".join(POLICIES))
        return cls(policy, **settings)  # type: ignore[arg-type]

    def check(self, steps: int) -> None:
        """Raises UsageError when the settings do not fit windows of so many steps."""
        if not 1 <= self.every <= steps:
            raise UsageError(
                "windows cannot begin so often",
                got=f"every {self.every} steps",
                expected=f"1 … {steps}, the steps of a window",
                where="--every",
            )

    def in_stream(self, trial: bool) -> PolicyName:
        """What it comes to for a trial, or for a stream."""
        if trial and self.name != "continuous":
            return "tumbling"
        return "onset" if self.name == "auto" else self.name


def calibrated(metadata: ModelMetadata | None) -> Policy:
    """The policy with the limits that `mpsl calibrate` left in a model, where it did.

    The early margin stays out: answering early is asked for.
    """
    if metadata is None:
        return Policy()
    rule = AnswerRule(least_margin=metadata.least_margin)
    if metadata.least_events:
        rule = rule.changed(least_events=metadata.least_events)
    if metadata.least_score:
        rule = rule.changed(least_score=metadata.least_score)
    onset = Onset.parse(metadata.onset) if metadata.onset else Onset()
    return Policy(onset=onset, rule=rule)
