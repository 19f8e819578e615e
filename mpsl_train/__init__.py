"""Training: networks whose weights are several banks, each changed by a plasticity rule of its own.

Nothing heavy is imported here; `mpsl_train.training.training.train` is the entrance.
"""

__all__: list[str] = []
