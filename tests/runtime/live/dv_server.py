"""A real dv-processing server: sends a recording to the first who connects, then is gone.

    python dv_server.py PORT RECORDING.npz [lz4|zstd|none]

In a process of its own: the destructor of NetworkWriter waits for its thread with the interpreter's
lock held, and that thread wants the lock (2.0.4).
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import dv_processing
import numpy as np


def main() -> None:
    port, path, packing = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    dv: Any = dv_processing
    columns = np.load(path)
    width, height = (int(side) for side in columns["size"])
    stream = dv.io.Stream.EventStream(0, "events", "TEST_000", (width, height))
    kinds = dv.CompressionType
    packings = {"none": kinds.NONE, "lz4": kinds.LZ4, "zstd": kinds.ZSTD}
    stream.setCompression(packings[packing])
    writer = dv.io.NetworkWriter("127.0.0.1", port, stream)
    print("up", flush=True)
    while not writer.getClientCount():
        time.sleep(0.005)
    rows = zip(*(columns[name].tolist() for name in "txyp"), strict=True)
    store = dv.EventStore()
    for number, (t, x, y, p) in enumerate(rows, 1):
        store.push_back(t, x, y, bool(p))
        if number % 700 == 0:
            writer.writeEvents(store)
            store = dv.EventStore()
    if len(store):
        writer.writeEvents(store)
    while writer.getQueuedPacketCount():
        time.sleep(0.005)
    time.sleep(0.1)
    os._exit(0)


main()
