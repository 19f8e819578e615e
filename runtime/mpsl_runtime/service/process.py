"""Figures of this process, under the names that Prometheus' clients give them.

https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from mpsl_runtime.service.exposition import Family

__all__ = ["process_families"]

_PROC = Path("/proc/self")


def process_families() -> list[Family]:
    """Those that this system tells."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = Family("process_cpu_seconds_total", "counter", "Time of all cores.")
    cpu.add(used.ru_utime + used.ru_stime)
    found = [cpu]
    try:
        pages = int((_PROC / "statm").read_text("ascii").split()[1])
        open_files = sum(1 for _ in (_PROC / "fd").iterdir())
        # Behind the name, which may hold blanks and brackets.
        ticks = int((_PROC / "stat").read_bytes().rpartition(b")")[2].split()[19])
        uptime_s = float(Path("/proc/uptime").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return found
    started_s = time.time() - uptime_s + ticks / os.sysconf("SC_CLK_TCK")
    for name, text, value in (
        ("process_resident_memory_bytes", "Memory.", pages * os.sysconf("SC_PAGE_SIZE")),
        ("process_open_fds", "Open files and sockets.", open_files),
        ("process_start_time_seconds", "When it began, since 1970.", round(started_s, 2)),
    ):
        family = Family(name, "gauge", text)
        family.add(value)
        found.append(family)
    return found
