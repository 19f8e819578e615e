"""How fast recordings are read, format by format, beside other readers in the same process.

    python tests/benchmarks/event_rates.py [--events 2000000] [--rounds 5] [--out FOLDER]

Made events of a sensor of 640x480: ten in a microsecond at most, rows in runs, as cameras send
them. Programs take turns; medians count. Rates are per second of processor time of all threads:
what one core reads, also on a machine that others use. `equal` compares all events with those that
were written. Peak memory is of our own reader, piece by piece, on a file and on one ten times as
long.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
Reader = Callable[[Path], Columns | tuple[Any, ...]]
WIDTH, HEIGHT = 640, 480


def made(number: int, seed: int = 0) -> Columns:
    """`number` events with t, x, y, p."""
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.random(number) < 0.1).astype(np.int64) * 2
    rows = np.cumsum(rng.random(number) < 0.3)
    y = rng.integers(0, HEIGHT, int(rows[-1]) + 1)[rows]
    return {
        "t": t,
        "x": rng.integers(0, WIDTH, number),
        "y": y,
        "p": rng.integers(0, 2, number),
    }


def head(*lines: str) -> bytes:
    """Lines that begin with %."""
    return "".join(f"% {line}\n" for line in lines).encode()


def changes(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before; True first."""
    changed: NDArray[np.bool_] = np.diff(column, prepend=column[0] - 1) != 0
    return changed


def flattened(words: NDArray[Any], there: NDArray[np.bool_], dtype: str) -> bytes:
    """Words [events, kinds] without those that are not there, event by event."""
    return words.astype(dtype)[there].tobytes()


def evt2(e: Columns) -> bytes:
    high = e["t"] >> 6
    event = e["p"] << 28 | (e["t"] & 63) << 22 | e["x"] << 11 | e["y"]
    words = np.stack([8 << 28 | high & 0xFFFFFFF, event], axis=1)
    there = np.stack([changes(high), np.ones(len(high), np.bool_)], axis=1)
    size = f"height={HEIGHT};width={WIDTH}"
    return head("evt 2.0", f"format EVT2;{size}", "end") + flattened(words, there, "<u4")


def evt21(e: Columns) -> bytes:
    high = e["t"] >> 6
    upper = e["p"] << 28 | (e["t"] & 63) << 22 | (e["x"] & ~31) << 11 | e["y"]
    words = np.zeros((len(high), 2, 2), np.int64)  # halves: the upper one first, as evutils does
    words[:, 0, 0] = 8 << 28 | high & 0xFFFFFFF
    words[:, 1, 0], words[:, 1, 1] = upper, 1 << (e["x"] & 31)
    there = np.stack([changes(high), np.ones(len(high), np.bool_)], axis=1)
    size = f"height={HEIGHT};width={WIDTH}"
    lines = head("endianness legacy", "evt 2.1", f"format EVT21;{size}", "end")
    return lines + words.astype("<u4")[there].tobytes()


def evt3(e: Columns) -> bytes:
    high, low = e["t"] >> 12, e["t"] & 0xFFF
    words = np.stack(
        [0x8000 | high & 0xFFF, 0x6000 | low, e["y"], 0x2000 | e["p"] << 11 | e["x"]], axis=1
    )
    always = np.ones(len(high), np.bool_)
    there = np.stack([changes(high), changes(e["t"]), changes(e["y"]), always], axis=1)
    size = f"height={HEIGHT};width={WIDTH}"
    return head("evt 3.0", f"format EVT3;{size}", "end") + flattened(words, there, "<u2")


def dat(e: Columns) -> bytes:
    words = np.stack([e["t"], e["x"] | e["y"] << 14 | e["p"] << 28], axis=1).astype("<u4")
    lines = head("Data file containing CD events.", "Version 2", f"Height {HEIGHT}")
    return lines + head(f"Width {WIDTH}") + b"\x0c\x08" + words.tobytes()


def es(e: Columns) -> bytes:
    layout = np.dtype([("t", "u1"), ("x", "<u2"), ("y", "<u2")])
    table = np.empty(len(e["t"]), layout)
    table["t"] = np.diff(e["t"], prepend=0) << 1 | e["p"]
    table["x"], table["y"] = e["x"], HEIGHT - 1 - e["y"]
    return b"Event Stream\x02\0\0\x01" + struct.pack("<HH", WIDTH, HEIGHT) + table.tobytes()


def csv(e: Columns) -> bytes:
    rows = zip(*(e[name].tolist() for name in "txyp"), strict=True)
    return b"t,x,y,p\n" + b"".join(b"%d,%d,%d,%d\n" % row for row in rows)


def write_aedat4(path: Path, e: Columns) -> None:
    """By dv-processing, in packets of 10,000 events, LZ4."""
    import dv_processing as dv

    config = dv.io.MonoCameraWriter.Config("made")
    config.addEventStream((WIDTH, HEIGHT))
    config.compression = dv.CompressionType.LZ4
    writer = dv.io.MonoCameraWriter(str(path), config)
    for start in range(0, len(e["t"]), 10_000):
        store = dv.EventStore()
        part = (e[name][start : start + 10_000].tolist() for name in "txyp")
        for t, x, y, p in zip(*part, strict=True):
            store.push_back(t, x, y, bool(p))
        writer.writeEvents(store)
    del writer


def by_mpsl(path: Path) -> Columns:
    from mpsl_runtime.events.readers import read_events

    events = read_events(path)
    return {name: getattr(events, name) for name in "txyp"}


def by_evt3(path: Path) -> tuple[Any, ...]:
    import evt3 as library

    events = library.decode_file(str(path))
    return events.timestamp, events.x, events.y, events.polarity


def by_evutils(path: Path) -> Any:
    from evutils.io import EventReader

    with EventReader(str(path), max_events=1 << 40) as reader:
        return reader.read_all()


def by_expelliarmus(path: Path) -> Any:
    from expelliarmus import Wizard

    encoding = "dat" if path.suffix == ".dat" else path.stem
    return Wizard(encoding=encoding).read(str(path))


def by_faery(path: Path) -> Any:
    import faery

    packets = list(faery.events_stream_from_file(path, dimensions_fallback=(WIDTH, HEIGHT)))
    return np.concatenate(packets)


def by_event_stream(path: Path) -> tuple[Any, ...]:
    import event_stream

    with event_stream.Decoder(str(path)) as decoder:
        table = np.concatenate(list(decoder))
    return table["t"], table["x"], HEIGHT - 1 - table["y"], table["on"]


def by_dv(path: Path) -> Any:
    import dv_processing as dv

    recording = dv.io.MonoCameraRecording(str(path))
    packets = []
    while recording.isRunning():
        batch = recording.getNextEventBatch()
        if batch is not None:
            packets.append(batch.numpy())
    table = np.concatenate(packets)
    return table["timestamp"], table["x"], table["y"], table["polarity"]


def by_aedat(path: Path) -> tuple[Any, ...]:
    import aedat

    table = np.concatenate([p["events"] for p in aedat.Decoder(str(path)) if "events" in p])
    return table["t"], table["x"], table["y"], table["on"]


ENCODERS: dict[str, tuple[Callable[[Columns], bytes] | None, list[Reader]]] = {
    "evt2.raw": (evt2, [by_mpsl, by_evutils, by_expelliarmus, by_faery]),
    "evt21.raw": (evt21, [by_mpsl, by_evutils]),
    "evt3.raw": (evt3, [by_mpsl, by_evt3, by_evutils, by_expelliarmus, by_faery]),
    "dat.dat": (dat, [by_mpsl, by_evutils, by_expelliarmus, by_faery]),
    "es.es": (es, [by_mpsl, by_event_stream, by_faery]),
    "lz4.aedat4": (None, [by_mpsl, by_dv, by_aedat, by_evutils, by_faery]),
    "text.csv": (csv, [by_mpsl, by_evutils, by_faery]),
}


def is_equal(found: Any, events: Columns) -> bool:
    """Whether a reader gave the events that were written."""
    if isinstance(found, tuple):
        found = dict(zip("txyp", found, strict=True))
    return all(
        len(found[name]) == len(events[name])
        and bool((np.asarray(found[name]).astype(np.int64) == events[name]).all())
        for name in "txyp"
    )


def measured(path: Path, events: Columns, readers: list[Reader], rounds: int) -> list[Any]:
    """(program, Mev/s, equal) of each reader that is installed and reads the file."""
    rates: dict[Reader, list[float]] = {}
    equal: dict[Reader, bool] = {}
    for reader in readers:
        try:
            equal[reader] = is_equal(reader(path), events)
            rates[reader] = []
        except Exception as error:  # a peer that is absent or fails is left out, and said
            print(f"{reader.__name__[3:]} on {path.name}: {error}"[:200], file=sys.stderr)
    for _ in range(rounds):
        for reader, found in rates.items():
            start = time.process_time()
            reader(path)
            found.append(len(events["t"]) / (time.process_time() - start) / 1e6)
    return [
        (reader.__name__[3:], statistics.median(found), equal[reader])
        for reader, found in rates.items()
    ]


def peak_mb(path: Path) -> float:
    """Peak memory of a process that goes through a file piece by piece and keeps nothing."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mpsl_runtime.events.readers import read_chunks\n"
        "for _ in read_chunks(Path(sys.argv[1])): pass\n"
        "print([x for x in open('/proc/self/status') if x.startswith('VmHWM')][0].split()[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True
    )
    return int(done.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (encode, readers) in ENCODERS.items():
            path = Path(folder) / name
            number = options.events // 4 if encode in (csv, None) else options.events
            events = made(number)
            try:
                if encode is None:
                    write_aedat4(path, events)
                else:
                    path.write_bytes(encode(events))
            except ImportError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            for program, rate, equal in measured(path, events, readers, options.rounds):
                rows.append(
                    {"file": name, "program": program, "mev_s": round(rate, 1), "equal": equal}
                )
                print(
                    f"{name:12} {program:13} {rate:8.1f} Mev/s  {'equal' if equal else 'DIFFERS'}"
                )
        memory = {}
        for times in (1, 10):
            path = Path(folder) / f"long{times}.dat"
            path.write_bytes(dat(made(options.events * times)))
            memory[f"{options.events * times:,} events"] = round(peak_mb(path), 1)
        print("peak memory, MB:", memory)
    document = {
        "device": platform.processor() or platform.machine(),
        "events": options.events,
        "rows": rows,
        "peak_mb": memory,
        "command": " ".join(sys.argv),
    }
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "event_rates.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
