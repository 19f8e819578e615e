"""mpsl_runtime: run a merged spiking network event by event; numpy and nir, nothing heavier.

    import mpsl_runtime
    model = mpsl_runtime.load("model.nir")
    for step in model.stream("recording.bin"):
        print(step.t_us, step.label, step.confidence)

The public names below are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

# Type checkers know this name as true; `typing` itself takes longer to load than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mpsl_runtime.errors import MpslError
    from mpsl_runtime.events.events import Events
    from mpsl_runtime.events.readers import read_events
    from mpsl_runtime.model.filling import Filling
    from mpsl_runtime.run.decisions import Prediction, Step, Summary
    from mpsl_runtime.run.model import Model, Result
    from mpsl_runtime.run.opening import load
    from mpsl_runtime.run.policies import Policy
    from mpsl_runtime.run.stream import Stream
    from mpsl_runtime.zoo import find_model

__all__ = [
    "Events",
    "Filling",
    "Model",
    "MpslError",
    "Policy",
    "Prediction",
    "Result",
    "Step",
    "Stream",
    "Summary",
    "__version__",
    "find_model",
    "load",
    "read_events",
]

__version__ = "0.1.0"

_HOME = {
    "Events": "events.events",
    "Filling": "model.filling",
    "Model": "run.model",
    "MpslError": "errors",
    "Policy": "run.policies",
    "Prediction": "run.decisions",
    "Result": "run.model",
    "Step": "run.decisions",
    "Stream": "run.stream",
    "Summary": "run.decisions",
    "find_model": "zoo",
    "load": "run.opening",
    "read_events": "events.readers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
