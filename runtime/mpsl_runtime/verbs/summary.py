"""The totals of a stream, as every verb that runs one prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpsl_runtime.terminal import show, show_json, show_lines, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mpsl_runtime.run.decisions import Summary

__all__ = ["print_losses", "print_summary"]


def print_summary(
    summary: Summary, learned: Mapping[str, Any] | None = None, *, as_json: bool
) -> None:
    """Steps, events, latency and operations: some lines on stdout, or one of JSON.

    Args:
        learned: of a network that learns, `plastic_runner.PlasticRunner.facts`.
    """
    if as_json:
        found = summary.to_mapping()
        if learned is not None:
            found["summary"]["plastic"] = learned
        show_json(found)
        return
    latency = summary.latency_us
    what, speed = f"{summary.samples} predictions, {summary.steps} steps", ""
    if summary.real_time_factor is not None:
        what += (
            f", {summary.events:,} events ({summary.truncated:,} after the last step, "
            f"{summary.idle:,} outside windows, {summary.dropped:,} lost)"
        )
        speed = (
            f"{summary.events_per_s:,.0f} events/s, {summary.real_time_factor:.1f} times real "
            "time, "
        )
    show_lines(
        [
            "",
            what,
            f"latency of a step: p50 {latency['p50']:.0f} µs, p95 {latency['p95']:.0f}, "
            f"p99 {latency['p99']:.0f}, max {latency['max']:.0f}",
            f"{speed}{summary.synops:,} synaptic operations",
        ]
    )
    if summary.accuracy is not None:
        show(f"accuracy {summary.accuracy:.2%}")
    if learned is not None:
        layers = learned["layers"].items()
        words = ", ".join(f"{name} {layer['moved']:.1%}" for name, layer in layers)
        show(
            f"plastic, banks reset: {learned['banks_reset']}; "
            f"how far weights are from the exported ones: {words}"
        )


def print_losses(counts: Mapping[str, Mapping[str, int]]) -> None:
    """What did not come through, a line for each kind, on stderr."""
    for title, causes in counts.items():
        found = {cause: number for cause, number in causes.items() if number}
        if found:
            words = ", ".join(f"{number:,} {cause}" for cause, number in found.items())
            tell(f"{title}: {words}", level="warning", **{title.replace(" ", "_"): found})
