"""What others have published of the data sets: sizes of their splits, and the paper's own results.

The only figures of a model card that no run of ours produced; each says whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["PUBLISHED", "Published"]

_CONVOLUTIONS = "128C3-AP2-256C3-AP2-256C3-AP2-512FC-10"


@dataclass(frozen=True)
class Published:
    """A data set in the literature.

    Attributes:
        train, test: samples of the official splits; 0 where the data set is ours.
        accuracy: of MPSL in the paper's Table 1; None: the paper does not have this data set.
        network: that the paper reached it with; epochs: in so many.
        note: what a score on this data must not be taken for.
    """

    train: int = 0
    test: int = 0
    accuracy: float | None = None
    network: str = ""
    epochs: int = 0
    note: str = ""


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "mnist": Published(60_000, 10_000, 0.9952, _CONVOLUTIONS, 100),
        "fashion-mnist": Published(60_000, 10_000, 0.9372, _CONVOLUTIONS, 100),
        "nmnist": Published(60_000, 10_000, 0.9937, _CONVOLUTIONS, 100),
        "cifar10": Published(
            50_000,
            10_000,
            0.9212,
            "128C3-256C3-AP2-512C3-AP2-1024C3-512C3-1024FC-512FC-10",
            150,
        ),
        "dvs-gesture": Published(
            1_077,
            264,
            0.9722,
            "64C3S2-BN-128C3S1-BN-256C3S1-BN-256C3S1-BN-256C3S1-BN-256C3S1-AP2-800FC-512FC-11FC",
            150,
        ),
        "nmnist8": Published(
            note="nmnist8 is the digits 0–7 of recordings of N-MNIST's training split, denoised: "
            "its score is not N-MNIST's."
        ),
        "dvs-digits": Published(
            note="dvs-digits is simulated from real 8x8 digits, and its two splits share their "
            "writers: a smoke test, no benchmark."
        ),
        "dvs-gesture-made": Published(
            note="dvs-gesture-made is made: two bars before a simulated camera. The score says "
            "that the path works; it is no accuracy on DVS-Gesture."
        ),
    }
)
