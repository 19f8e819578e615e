"""Words to systemd: READY=1, WATCHDOG=1, STOPPING=1 (sd_notify(3)), by hand."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["notify", "watchdog_s"]


def notify(*words: str) -> bool:
    """Sends words such as `READY=1`; False where nobody asked for them, or nobody hears."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        # @ stands for the null byte of an abstract name.
        sending.sendto("\n".join(words).encode(), "\0" + place[1:] if place[0] == "@" else place)
        return True
    return False


def watchdog_s() -> float | None:
    """How long systemd waits for the next WATCHDOG=1 of this process; None where it does not."""
    asked, whose = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not asked.isdigit() or (whose and whose != str(os.getpid())):
        return None
    return int(asked) / 1e6 or None
