"""Makes the recordings of this folder again: `python tests/recordings/make.py`; see README.md.

The events are those of our own made data sets; what writes them is other people's, or plain numpy
after the format's description, never our own encoders: a reader is held to what others write.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
SENSOR = (128, 128)
SMALL_SENSOR = (34, 34)
EVENTS = 1_000
LOOP_US = 1 << 24  # EVT3 counts so far; half of the gesture's events come later

Columns = dict[str, NDArray[np.int64]]


def digit() -> Columns:
    """The first 3 of dvs-digits' test split, as `mpsl data make dvs-digits` records it."""
    from mpsl_train.data.dvs_digits import digits, sample_rng, split_indices
    from mpsl_train.data.saccades import camera, simulate_batch

    images, labels = digits()
    tested = split_indices(labels, "test")
    index = int(tested[labels[tested] == 3][0])
    sensor = camera(np.random.Generator(np.random.PCG64(np.random.SeedSequence(0, spawn_key=(0,)))))
    (events,) = simulate_batch(images[[index]], [sample_rng(0, index)], sensor)
    return {name: getattr(events, name).astype(np.int64) for name in "txyp"}


def gesture() -> Columns:
    """An eighth of a second or so of dvs-gesture-made's first person, around 2^24 µs."""
    from mpsl_train.data.made_gestures import record_person

    events, _ = record_person(0, 1)
    middle = int(np.searchsorted(events.t, LOOP_US))
    part = slice(middle - EVENTS // 2, middle + EVENTS // 2)
    return {name: getattr(events, name)[part].astype(np.int64) for name in "txyp"}


def rows(events: Columns) -> Columns:
    """The same with a time every 16.384 ms and each pixel once: many events of a row at a time,
    which is what vector words are for. In the order t, y, p, x."""
    t = (events["t"] >> 14 << 14) + 77
    table = np.stack([t, events["y"], events["p"], events["x"]], axis=1)
    t, y, p, x = np.unique(table, axis=0)[:EVENTS].T
    return {"t": t, "x": x, "y": y, "p": p}


def write_nmnist(path: Path, events: Columns) -> None:
    """x, y, then 24 bits big-endian: polarity, and 23 bits of time in µs (Orchard 2015)."""
    word = events["p"] << 23 | events["t"]
    columns = [events["x"], events["y"], word >> 16, word >> 8 & 255, word & 255]
    path.write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())


def write_faery(path: Path, events: Columns, version: Any = None, **options: Any) -> None:
    """EVT2, EVT3, DAT, ES and CSV in faery's manner."""
    import faery

    table = np.zeros(len(events["t"]), faery.EVENTS_DTYPE)
    for name in "txyp":
        table[name] = events[name]
    faery.events_stream_from_array(table, SENSOR).to_file(path, version=version, **options)


def write_expelliarmus(path: Path, events: Columns, encoding: Any) -> None:
    """EVT2 and DAT again, with headers of another kind that state no size."""
    from expelliarmus import Wizard

    table = np.zeros(len(events["t"]), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
    for name in "txyp":
        table[name] = events[name]
    Wizard(encoding=encoding).save(path, table)


def write_evutils(path: Path, events: Columns) -> None:
    """EVT2.1 with the halves of each word swapped, one event a word."""
    from evutils.io import EventWriter
    from evutils.io._evt import EventEncoder_EVT

    table = np.zeros(len(events["t"]), [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
    for name in "txyp":
        table[name] = events[name]
    with path.open("wb") as file:
        encoder = EventEncoder_EVT(
            file, *SENSOR, dt=datetime(2026, 1, 1, tzinfo=UTC), format="evt21"
        )
        with EventWriter(file, *SENSOR, file_encoder=encoder) as writer:
            writer.write(table)


def _bursts(events: Columns, width: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(t, y, p, x of the first, mask) of events of a row that fit `width` neighbours."""
    first: tuple[int, int, int, int] | None = None
    mask = 0
    for t, y, p, x in zip(*(events[name].tolist() for name in "typx"), strict=True):
        if first is not None and first[:3] == (t, y, p) and x - first[3] < width:
            mask |= 1 << (x - first[3])
            continue
        if first is not None:
            yield (*first, mask)
        first, mask = (t, y, p, x), 1
    if first is not None:
        yield (*first, mask)


def write_evt21(path: Path, events: Columns) -> None:
    """EVT2.1 as the newer cameras write it: 64 bits little-endian, 32 pixels of a row a word."""
    words: list[int] = []
    high = -1
    for t, y, p, x, mask in _bursts(events, 32):
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 60 | (high & (1 << 28) - 1) << 32)
        words.append(p << 60 | (t & 63) << 54 | x << 43 | y << 32 | mask)
    header = f"% evt 2.1\n% format EVT21;height={SMALL_SENSOR[1]};width={SMALL_SENSOR[0]}\n% end\n"
    path.write_bytes(header.encode() + np.array(words, "<u8").tobytes())


def write_evt3(path: Path, events: Columns) -> None:
    """EVT3 with vectors of 12 and 8 pixels, a trigger and other words that are no events."""
    words: list[int] = []
    time, row = -1, -1
    for t, y, p, x, mask in _bursts(events, 32):
        if t != time:
            time = t
            words += [0x8 << 12 | t >> 12 & 0xFFF, 0x6 << 12 | t & 0xFFF]
        if y != row:
            row = y
            words.append(0x0 << 12 | y)
        if mask == 1:
            words.append(0x2 << 12 | p << 11 | x)
            continue
        words.append(0x3 << 12 | p << 11 | x)
        words += [0x4 << 12 | mask & 0xFFF, 0x4 << 12 | mask >> 12 & 0xFFF]
        words.append(0x5 << 12 | mask >> 24)
        if len(words) % 7 == 0:
            words += [0xA << 12 | 1, 0xE << 12 | 0x42, 0x7 << 12 | 0x123]
    header = f"% evt 3.0\n% format EVT3;height={SMALL_SENSOR[1]};width={SMALL_SENSOR[0]}\n% end\n"
    path.write_bytes(header.encode() + np.array(words, "<u2").tobytes())


def write_aedat2(path: Path, events: Columns) -> None:
    """jAER on a DVS128: x from the right, y from below, a set bit is OFF; big-endian."""
    address = (127 - events["y"]) << 8 | (127 - events["x"]) << 1 | (1 - events["p"])
    table = np.stack([address, events["t"]], axis=1).astype(">u4")
    header = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# AEChip: DVS128\r\n"
    path.write_bytes(header + table.tobytes())


def write_aedat31(path: Path, events: Columns) -> None:
    """cAER: packets of up to 400 polarity events, and one packet of special events."""
    data = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    word = events["x"] << 17 | events["y"] << 2 | events["p"] << 1 | 1
    table = np.stack([word, events["t"]], axis=1).astype("<u4")
    data += struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<Ii", 0x03, 0)
    for start in range(0, len(table), 400):
        part = table[start : start + 400]
        data += struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, len(part), len(part), len(part))
        data += part.tobytes()
    path.write_bytes(data)


def write_dv(path: Path, events: Columns, compression: str) -> None:
    """AEDAT4 by its makers' library."""
    import dv_processing as dv

    config = dv.io.MonoCameraWriter.Config("made")
    config.addEventStream(SENSOR)
    config.compression = getattr(dv.CompressionType, compression)
    writer = dv.io.MonoCameraWriter(str(path), config)
    writer.setPackagingCount(400)
    store = dv.EventStore()
    for t, x, y, p in zip(*(events[name].tolist() for name in "txyp"), strict=True):
        store.push_back(t, x, y, bool(p))
    writer.writeEvents(store)
    del writer


def write_dsec(path: Path, events: Columns) -> None:
    """HDF5 in DSEC's layout: times are 32 bits from an offset."""
    import h5py

    t = events["t"] - events["t"][0]
    starts = np.searchsorted(t, np.arange(0, int(t[-1]) // 1000 + 2) * 1000)
    with h5py.File(path, "w") as file:
        for name, kind in (("x", "<u2"), ("y", "<u2"), ("p", "u1")):
            file.create_dataset(f"events/{name}", data=events[name].astype(kind), compression=4)
        file.create_dataset("events/t", data=t.astype("<u4"), compression=4)
        file.create_dataset("ms_to_idx", data=starts.astype("<u8"), compression=4)
        file.create_dataset("t_offset", data=np.int64(events["t"][0]))


def write_v2e(path: Path, events: Columns) -> None:
    """HDF5 as v2e writes it: one table [N, 4] of t, x, y, p."""
    import h5py

    table = np.stack([events[name] for name in "txyp"], axis=1).astype("<u4")
    with h5py.File(path, "w") as file:
        file.create_dataset("events", data=table, chunks=True, compression="gzip")


def write_prophesee(path: Path, events: Columns) -> None:
    """HDF5 as Metavision writes it, but for its ECF compression."""
    import h5py

    table = np.zeros(len(events["t"]), [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    for name in "txyp":
        table[name] = events[name]
    with h5py.File(path, "w") as file:
        file.create_dataset("CD/events", data=table, compression="gzip")
        file.attrs["geometry"] = f"{SENSOR[0]}x{SENSOR[1]}"


def write_numpy(folder: Path, events: Columns) -> None:
    """A structured array as tonic gives them, and one array a column."""
    table = np.zeros(len(events["t"]), [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
    for name in "txyp":
        table[name] = events[name]
    np.save(folder / "gesture.npy", table)
    np.savez_compressed(folder / "gesture.npz", **{name: events[name] for name in "txyp"})


def write_texts(folder: Path, events: Columns) -> None:
    """CSV with names, and the event camera data set's text: seconds, x, y, p (Mueggler 2017)."""
    lines = list(zip(*(events[name].tolist() for name in "txyp"), strict=True))
    text = "t,x,y,p\n" + "".join(f"{t},{x},{y},{p}\n" for t, x, y, p in lines)
    (folder / "gesture.csv").write_text(text, "utf-8")
    text = "".join(f"{t // 10**6}.{t % 10**6:06d} {x} {y} {p}\n" for t, x, y, p in lines)
    (folder / "gesture.txt").write_text(text, "utf-8")


def make(folder: Path) -> None:
    """Writes every recording, and `truth.npz` with the events that they hold."""
    number, hand = digit(), gesture()
    burst = rows(number)
    truth = {"digit": number, "gesture": hand, "rows": burst}
    np.savez_compressed(
        folder / "truth.npz",
        **{f"{name}_{c}": column for name, made in truth.items() for c, column in made.items()},
    )
    write_nmnist(folder / "digit.bin", number)
    write_faery(folder / "gesture-evt2.raw", hand, "evt2", zero_t0=False)
    write_faery(folder / "gesture-evt3.raw", hand, "evt3", zero_t0=False)
    write_faery(folder / "gesture.dat", hand, "dat2", zero_t0=False)
    write_faery(folder / "gesture.es", hand)
    write_faery(folder / "gesture-faery.csv", hand)
    write_expelliarmus(folder / "gesture-nosize.dat", hand, "dat")
    write_evutils(folder / "gesture-evt21-legacy.raw", hand)
    write_evt21(folder / "rows-evt21.raw", burst)
    write_evt3(folder / "rows-evt3.raw", burst)
    write_aedat2(folder / "gesture-aedat2.aedat", hand)
    write_aedat31(folder / "gesture-aedat31.aedat", hand)
    write_dv(folder / "gesture-lz4.aedat4", hand, "LZ4")
    write_dv(folder / "gesture-zstd.aedat4", hand, "ZSTD")
    write_dsec(folder / "gesture-dsec.h5", hand)
    write_v2e(folder / "gesture-v2e.h5", hand)
    write_prophesee(folder / "gesture-prophesee.hdf5", hand)
    write_numpy(folder, hand)
    write_texts(folder, hand)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write((folder / "gesture-evt2.raw").read_bytes())
    (folder / "gesture-evt2.raw.gz").write_bytes(packed.getvalue())


if __name__ == "__main__":
    make(HERE)
