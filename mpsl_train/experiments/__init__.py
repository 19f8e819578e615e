"""Experiments on recipes and runs: sweeps, ablation, robustness, features.

Nothing heavy is imported here; each verb of `cli` imports what it needs.
"""

__all__: list[str] = []
