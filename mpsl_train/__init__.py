"""Training: networks whose weights are several banks, each changed by a plasticity rule of its own.

Nothing heavy is imported here; `mpsl_train.training.training.train` is the entrance. A plug-in
begins with `from mpsl_train import Rule, register`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpsl_train.network.plasticity import Rule, register

__all__ = ["Rule", "register"]


def __getattr__(name: str) -> Any:
    """Imports torch with the first rule."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mpsl_train.network import plasticity

    return getattr(plasticity, name)
