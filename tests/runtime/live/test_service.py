"""`mpsl run --serve`: senders come and go, strangers end nothing, SIGTERM gives the totals."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpsl_runtime import Events
from mpsl_runtime.live.datagram import END, LAST, Datagram, encode
from mpsl_runtime.live.replay import replay
from mpsl_runtime.live.source import open_source

RECORDINGS = Path(__file__).parents[2] / "recordings"


def run(*words: str) -> subprocess.Popen[str]:
    program = "import sys; from mpsl_runtime.cli import main; main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", program, "run", "nmnist8-small", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_service_outlives_its_senders_and_ends_with_its_totals() -> None:
    with run(
        "udp://127.0.0.1:0", "--serve", "127.0.0.1:0", "--fit", "--policy", "tumbling", "--json"
    ) as service:
        assert service.stderr is not None
        assert service.stdout is not None
        line = service.stderr.readline()
        address = line.strip().removeprefix("mpsl: listening at ")
        port = int(address.rsplit(":", 1)[1])
        for _ in range(2):
            replay([RECORDINGS / "gesture.es"], address, speed=20.0)
        bare = Datagram(END | LAST, 9, 0, 0, 0, 0, 128, 128, Events.empty())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for data in (encode(bare), b"junk" * 20):
                stranger.sendto(data, ("127.0.0.1", port))
        predictions = 0
        while predictions < 2:
            item = json.loads(service.stdout.readline())
            predictions += item.get("prediction", {}).get("events", 0) > 0
        time.sleep(0.2)
        assert service.poll() is None
        service.send_signal(signal.SIGTERM)
        # `communicate` would pass over what a `readline` before it has taken into its buffer.
        out, err = service.stdout.read(), service.stderr.read()
    assert service.returncode == 0
    assert "Traceback" not in err
    summary = json.loads(out.splitlines()[-1])["summary"]
    assert summary["events"] > 1000
    assert summary["lost"] == {}
    assert re.search(r"ignored: not an mpsl datagram", err)
    assert re.search(r"messages ignored: .*1 not an mpsl datagram", err)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system lists no threads")
def test_the_receiving_thread_ends_and_the_socket_closes() -> None:
    def counts() -> tuple[int, int]:
        return len(list(Path("/proc/self/task").iterdir())), len(
            list(Path("/proc/self/fd").iterdir())
        )

    before = counts()
    sources = [open_source("udp://127.0.0.1:0") for _ in range(5)]
    for source in sources:
        source.open()
    assert counts()[0] == before[0] + 5
    for source in sources:
        source.close()
        source.close()
    del source, sources
    assert counts() == before
