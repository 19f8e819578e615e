"""Are two ways to train different? Paired by seed, with the number of comparisons in mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["collapsed", "compare", "holm"]


def compare(accuracies: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Mean ± sd of each way, and its difference from the first one, over the seeds of both.

    Paired t test, its 95 % interval, Wilcoxon's signed-rank test, and the t test's p after Holm
    1979 for all comparisons. Wilcoxon cannot fall below 2^(1−n): 0.25 for 3 seeds, 0.06 for 5.

    Args:
        accuracies: of each way, by seed.

    Returns:
        one mapping a way, in order; the first one's difference and p are None. So is what needs
        two seeds, or differences that are not all alike.
    """
    first = next(iter(accuracies.values()))
    rows = [_against(first, own) for own in accuracies.values()]
    rows[0].update(dict.fromkeys(("difference", "interval", "p_t", "p_wilcoxon")))
    adjusted = holm([row["p_t"] for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["p_holm"] = p
    return rows


def _against(first: Mapping[str, float], own: Mapping[str, float]) -> dict[str, Any]:
    from scipy import stats

    values = np.array(list(own.values()))
    shared = [seed for seed in own if seed in first]
    differences = np.array([own[seed] - first[seed] for seed in shared])
    row: dict[str, Any] = {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
        "seeds": len(values),
        "pairs": len(shared),
        "difference": float(differences.mean()) if len(shared) else None,
        "interval": None,
        "p_t": None,
        "p_wilcoxon": None,
    }
    if len(shared) > 1 and np.ptp(differences) > 1e-12:
        test = stats.ttest_1samp(differences, 0.0)
        row["p_t"] = float(test.pvalue)
        row["interval"] = [float(value) for value in test.confidence_interval(0.95)]
        # Equal accuracies are no vote; rounding keeps ties of counts ties.
        row["p_wilcoxon"] = float(stats.wilcoxon(np.round(differences, 9)).pvalue)
    return row


def collapsed(accuracies: Sequence[float], usual: float, classes: int) -> int:
    """How many runs are nearer to guessing, 1/classes, than to what is usual on their data.

    Args:
        usual: the median of all runs on the same data, of every method.
    """
    return sum(value < (usual + 1 / classes) / 2 for value in accuracies)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values after Holm's step-down correction; None stays."""
    known = sorted((p, index) for index, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[index] = largest
    return adjusted
