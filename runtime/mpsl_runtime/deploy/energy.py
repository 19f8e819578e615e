"""An estimate of energy from operations and the constants of one paper.

Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, Figure 1.1.9: in a
45 nm process at 0.9 V a 32-bit floating-point multiplication takes 3.7 pJ and an addition 0.9 pJ.
Nothing was measured here, and no memory, clock or network is counted: on a chip they cost more
than the sums. The estimate compares networks, not chips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["AC_PJ", "MAC_PJ", "energy_estimate"]

MAC_PJ = 4.6
AC_PJ = 0.9


def energy_estimate(operations: Mapping[str, float]) -> dict[str, Any]:
    """Energy of the sums of one sample.

    Args:
        operations: NeuroBench's `SynapticOperations`, of one sample.

    Returns:
        `sample_nj`, `dense_sample_nj` (every operation of `Dense` a multiply-accumulate), in
        nanojoules, the two constants in picojoules, and where they come from.
    """
    effective = operations["Effective_MACs"] * MAC_PJ + operations["Effective_ACs"] * AC_PJ
    return {
        "sample_nj": effective / 1000,
        "dense_sample_nj": operations["Dense"] * MAC_PJ / 1000,
        "mac_pj": MAC_PJ,
        "ac_pj": AC_PJ,
        "source": "estimate, not measured: 45 nm, 32-bit float, arithmetic alone (Horowitz 2014)",
    }
