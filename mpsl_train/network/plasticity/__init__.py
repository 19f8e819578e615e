"""Plasticity rules, one file each. Every module of this folder registers itself on import."""

from __future__ import annotations

from mpsl_train.network.plasticity.rule import (
    Post,
    Pre,
    Rule,
    RuleSettings,
    find_rule,
    load_rules,
    names,
    register,
)

__all__ = [
    "Post",
    "Pre",
    "Rule",
    "RuleSettings",
    "find_rule",
    "load_rules",
    "names",
    "register",
]
