"""The entry of one exported file in the report of `mpsl verify` (DESIGN §3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mpsl_export.verify.ties import Difference
from mpsl_export.write.alteration import Alteration

__all__ = ["Verdict"]

# A file that is wrong throughout is told in a page.
_MOST_REASONS = 20
_MOST_TIES = 50


@dataclass
class Verdict:
    """What was found of one file.

    Attributes:
        file: its path. against: what it is held against.
        accuracy: by program, with `trained`. argmax_agreement, spike_mismatch: by program, the
            part of the predictions that agree, and of the output spikes that differ.
        devices: what each program ran on.
        ties: differences that rounding explains. reasons: why it fails; none: it passes.
        first_difference: the first place that differs.
        drift: of an int8 model, how far each population leaves float32, in order.
    """

    file: str
    against: Literal["trained", "reference"]
    accuracy: dict[str, float]
    argmax_agreement: dict[str, float] = field(default_factory=dict)
    spike_mismatch: dict[str, float] = field(default_factory=dict)
    devices: dict[str, str] = field(default_factory=dict)
    ties: list[Difference] = field(default_factory=list)
    explained: int = 0
    reasons: list[str] = field(default_factory=list)
    first_difference: dict[str, Any] | None = None
    drift: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Nothing speaks against it."""
        return not self.reasons

    def fail(self, reason: str, difference: Difference | None = None) -> None:
        """One reason more; the first difference of all is kept."""
        self.reasons.append(reason)
        if difference is not None and self.first_difference is None:
            self.first_difference = difference.to_mapping()

    def fail_by_content(self, altered: Sequence[Alteration], what: str) -> None:
        """Reasons for what a file holds that it should not."""
        for alteration in altered:
            self.fail(f"is not {what}: {alteration}")

    def place_by_content(self, altered: Sequence[Alteration]) -> None:
        """Names the first alteration as the difference when no sample showed one."""
        if altered and self.first_difference is None:
            self.first_difference = {
                "sample": None,
                "layer": altered[0].place or "model",
                "step": None,
                "detail": str(altered[0]),
            }

    def to_mapping(self) -> dict[str, Any]:
        """For JSON."""
        reasons = self.reasons[:_MOST_REASONS]
        if len(self.reasons) > len(reasons):
            reasons.append(f"… and {len(self.reasons) - len(reasons)} more")
        first = self.first_difference
        if first is None and self.ties:
            first = self.ties[0].to_mapping()
        return {
            "file": self.file,
            "against": self.against,
            "accuracy": self.accuracy,
            "argmax_agreement": self.argmax_agreement,
            "spike_mismatch": self.spike_mismatch,
            "explained_ties": self.explained,
            "ties": [tie.to_mapping() for tie in self.ties[:_MOST_TIES]],
            "first_difference": first,
            "reasons": reasons,
            "devices": self.devices,
            **({"drift": self.drift} if self.drift else {}),
            "passed": self.passed,
        }
