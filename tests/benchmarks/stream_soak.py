"""A stream for as long as a camera runs: memory, time a step and the count of every event.

    python tests/benchmarks/stream_soak.py                      # an hour: 24 h of stream time
    python tests/benchmarks/stream_soak.py --hours 4            # ten minutes: 4 h
    nice -n 19 python tests/benchmarks/stream_soak.py --out soak.jsonl

A sender of its own process sends datagrams of a 640x480 sensor, `--rate` events a second, whose
times run `--speed` times as fast as the clock. The receiver runs network A with int8 weights,
`--fit`, continuous windows, steps of 37.5 ms of stream time, and writes a line a minute.

| what | goal |
|---|---|
| memory | from the second tenth on it grows by less than 2 MiB |
| CPU time | so much a step and so much an event, fitted; it does not drift by more than 20 % |
| events | sent = processed + dropped, by cause + outside the view + behind the last step |

The drift is that of the CPU time over its fit, in the last fifth of the lines against the second.
What a busy machine takes away shows as drops, all counted, and as a longer wall time of a step,
which is printed and not judged. Exit code 1: a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from live_speed import SIZE, model_file, pool
from soak import resident_kb

from mpsl_runtime import Step
from mpsl_runtime.events.events import Events
from mpsl_runtime.live.datagram import END, HEADER, LARGEST_COUNT, LAST, Datagram, encode
from mpsl_runtime.live.options import source_options
from mpsl_runtime.live.source import open_source
from mpsl_runtime.run.latency import LatencyHistogram
from mpsl_runtime.run.opening import load

_NAP_S = 0.002
_MOST_AT_ONCE = 46
_LARGEST_GROWTH_KB, _LARGEST_DRIFT = 2048, 0.20


def send(port: int, rate: float, speed: float, hours: float) -> None:
    """The sender; prints how many events it has sent."""
    sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sending.connect(("127.0.0.1", port))
    datagrams = pool(rate / speed)
    headers = datagrams[:, : HEADER.itemsize].view(HEADER)[:, 0]
    apart_s = LARGEST_COUNT / rate
    total = int(hours * 3600 / speed / apart_s)
    start, number = time.monotonic(), 0
    while number < total:
        due = min(total, int((time.monotonic() - start) / apart_s) + 1, number + _MOST_AT_ONCE)
        for k in range(number, due):
            slot = k % len(datagrams)
            headers["sequence"][slot] = k
            headers["first_event"][slot] = k * LARGEST_COUNT
            headers["time_us"][slot] = int(k * apart_s * speed * 1e6)
            sending.send(datagrams[slot])
        if due == number:
            time.sleep(_NAP_S)
        number = due
    took_s = time.monotonic() - start
    end_us = int(total * apart_s * speed * 1e6)
    last = Datagram(END | LAST, 1, total, total * LARGEST_COUNT, end_us, 0, *SIZE, Events.empty())
    for _ in range(5):
        time.sleep(0.2)
        with suppress(ConnectionRefusedError):  # the first one has arrived
            sending.send(encode(last))
    print(json.dumps({"sent": total * LARGEST_COUNT, "seconds": round(took_s, 1)}))


def huge_pages_kb() -> int:
    """Of the resident memory, what lies in huge pages, which the system merges from small ones.
    Measured: they stay as they are while the memory grows."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1])
    return 0


class Minutes:
    """A line a minute: what has been since the one before."""

    def __init__(self, every_s: float, out: TextIO) -> None:
        self._every_s, self._out = every_s, out
        self._next_s = time.monotonic() + every_s
        self._wall = LatencyHistogram()
        self._cpu_ns, self._steps, self._received = time.process_time_ns(), 0, 0
        self.lines: list[dict[str, Any]] = []

    def see(self, step: Step, stream: Any) -> None:
        self._wall.add(step.compute_us)
        if time.monotonic() >= self._next_s:
            self._next_s += self._every_s
            self.write(step, stream)

    def write(self, step: Step, stream: Any) -> None:
        cpu_ns = time.process_time_ns()
        totals, losses = stream.totals, dict(stream.feed.losses)
        received = totals.events + sum(stream.feed.taken.values())
        line = {
            "stream_h": round(step.t_us / 3.6e9, 3),
            "steps": totals.steps,
            "events": totals.events,
            "dropped": losses,
            "resident_kb": resident_kb(),
            "huge_pages_kb": huge_pages_kb(),
            "cpu_ms": round((cpu_ns - self._cpu_ns) / 1e6, 2),
            "steps_here": totals.steps - self._steps,
            "received_here": received - self._received,
            "step_us": [round(self._wall.percentile(share), 1) for share in (0.5, 0.99)],
        }
        self.lines.append(line)
        print(json.dumps(line), file=self._out, flush=True)
        self._wall, self._cpu_ns = LatencyHistogram(), cpu_ns
        self._steps, self._received = totals.steps, received


def receive(path: Path, arguments: argparse.Namespace, out: TextIO) -> dict[str, Any]:
    """Runs the network on what the sender sends; returns the totals."""
    model = load(path, fit=True)
    minutes = Minutes(arguments.every, out)
    with open_source("udp://127.0.0.1:0", source_options({"timeout_s": 60.0})) as source:
        words = [source.port, arguments.rate, arguments.speed, arguments.hours]  # type: ignore[attr-defined]
        sender = subprocess.Popen(
            [sys.executable, __file__, "--send", *map(str, words)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        stream = model.stream(source, "continuous")
        for item in stream:
            if isinstance(item, Step):
                minutes.see(item, stream)
        printed, _ = sender.communicate()
    sent = json.loads(printed)
    summary = stream.summary
    counted = summary.events + summary.dropped + sum(summary.left_out.values()) + summary.truncated
    return {
        **sent,
        "sent_per_s": round(sent["sent"] / sent["seconds"]),
        "stream_h": round(summary.steps * model.binning.step_us / 3.6e9, 3),
        "steps": summary.steps,
        "events": summary.events,
        "outside_the_view": sum(summary.left_out.values()),
        "lost": summary.lost,
        "uncounted": sent["sent"] - counted,
        "lines": minutes.lines,
    }


def verdict(row: dict[str, Any]) -> dict[str, Any]:
    """The measures of the table, and the goals that were missed."""
    lines = row["lines"]
    if len(lines) < 10:
        return {"missed": [f"{len(lines)} lines are too few to judge: --every S, or more hours"]}
    memory = [line["resident_kb"] for line in lines]
    tenth, fifth = len(lines) // 10, len(lines) // 5
    growth = max(memory[tenth:]) - memory[tenth]
    taken = np.array([line["cpu_ms"] for line in lines[1:]])
    load = np.array([[line["steps_here"], line["received_here"]] for line in lines[1:]])
    cost, *_ = np.linalg.lstsq(load.astype(float), taken, rcond=None)
    fitted = load @ cost
    early = taken[fifth : 2 * fifth].sum() / fitted[fifth : 2 * fifth].sum()
    late = taken[-fifth:].sum() / fitted[-fifth:].sum()
    drift = float(late / early - 1)
    missed = []
    if growth >= _LARGEST_GROWTH_KB:
        missed.append(f"memory grew by {growth} KiB")
    if abs(drift) > _LARGEST_DRIFT:
        missed.append(f"CPU time drifted by {drift:.0%}")
    if row["uncounted"]:
        missed.append(f"{row['uncounted']} events neither processed nor counted")
    return {
        "grown_kb": growth,
        "us_a_step": round(float(cost[0]) * 1000, 1),
        "ns_an_event": round(float(cost[1]) * 1e6, 1),
        "drift": round(drift, 3),
        "missed": missed,
    }


def main() -> int:
    """Exit code: 0, or 1 where a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--send", nargs=4, metavar="X", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--hours", type=float, default=24.0, help="of stream time")
    parser.add_argument("--speed", type=float, default=24.0, help="stream time by wall time")
    parser.add_argument("--rate", type=float, default=1e6, help="events a second of wall time")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two lines")
    parser.add_argument("--density", type=float, default=0.05, help="of the network's layers")
    parser.add_argument("--out", type=Path, help="where the lines go; by default stdout")
    arguments = parser.parse_args()
    if arguments.send:
        port, *rest = arguments.send
        send(int(port), *rest)
        return 0
    out = sys.stdout if arguments.out is None else arguments.out.open("w", encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        row = receive(model_file(Path(folder), arguments.density), arguments, out)
    judged = verdict(row)
    row.pop("lines")
    print(json.dumps({**row, **judged}), file=out, flush=True)
    if arguments.out is not None:
        out.close()
    return int(bool(judged["missed"]))


if __name__ == "__main__":
    sys.exit(main())
