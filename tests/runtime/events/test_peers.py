"""Real and made recordings, event by event, beside independent readers (`make peers`).

Where a reader is known to be wrong about a file, that is not what it is asked. EVT3's TIME_LOW is
OpenEB's rule: the new value holds also where it falls; faery and expelliarmus have another.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.events.events import Events
from mpsl_runtime.events.readers import read_events

Columns = tuple[Any, Any, Any, Any]
Encode = Callable[..., bytes]


def by_evt3(path: Path) -> Columns:
    evt3 = pytest.importorskip("evt3")
    events = evt3.decode_file(str(path))
    return events.timestamp, events.x, events.y, events.polarity


def by_evutils(path: Path) -> Columns:
    io = pytest.importorskip("evutils.io")
    with io.EventReader(str(path)) as reader:
        table = reader.read_all()
    return table["t"], table["x"], table["y"], table["p"]


def by_expelliarmus(path: Path) -> Columns:
    expelliarmus = pytest.importorskip("expelliarmus")
    encoding = "dat" if path.suffix == ".dat" else "evt2"
    table = expelliarmus.Wizard(encoding=encoding).read(str(path))
    return table["t"], table["x"], table["y"], table["p"]


def by_faery(path: Path) -> Columns:
    faery = pytest.importorskip("faery")
    stream = faery.events_stream_from_file(path, dimensions_fallback=(65535, 65535))
    table = stream.to_array()
    return table["t"], table["x"], table["y"], table["p"]


def by_event_stream(path: Path) -> Columns:
    event_stream = pytest.importorskip("event_stream")
    with event_stream.Decoder(str(path)) as decoder:
        table = np.concatenate(list(decoder))
        return table["t"], table["x"], decoder.height - 1 - table["y"].astype(int), table["on"]


def by_aedat(path: Path) -> Columns:
    aedat = pytest.importorskip("aedat")
    packets = [packet["events"] for packet in aedat.Decoder(str(path)) if "events" in packet]
    table = np.concatenate(packets)
    return table["t"], table["x"], table["y"], table["on"]


def by_dv(path: Path) -> Columns:
    dv = pytest.importorskip("dv_processing")
    recording = dv.io.MonoCameraRecording(str(path))
    packets = []
    while recording.isRunning():
        batch = recording.getNextEventBatch()
        if batch is not None:
            packets.append(batch.numpy())
    table = np.concatenate(packets)
    return table["timestamp"], table["x"], table["y"], table["polarity"]


def by_numpy(path: Path) -> Columns:
    """AEDAT 2.0 of a DVS128 or DAVIS346, after jAER's description: no program at hand reads it.

    tonic 1.7.0 fails on every such file, evutils 0.3.18 leaves half of the events out.
    """
    content = path.read_bytes()
    start = 0
    while content[start : start + 1] == b"#":
        start = content.index(b"\n", start) + 1
    words = np.frombuffer(content, ">u4", offset=start).reshape(-1, 2).astype(np.int64)
    address, t = words.T
    if "davis" in path.name:
        return t, 345 - (address >> 12 & 0x3FF), 259 - (address >> 22 & 0x1FF), address >> 11 & 1
    change = address >> 15 & 1 == 0
    address, t = address[change], t[change]
    return t, 127 - (address >> 1 & 0x7F), 127 - (address >> 8 & 0x7F), 1 - (address & 1)


def by_rosbags(path: Path) -> Columns:
    rosbag1 = pytest.importorskip("rosbags.rosbag1")
    layout = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])
    parts = []
    with rosbag1.Reader(path) as reader:
        for connection, _, data in reader.messages():
            if connection.msgtype.endswith("/EventArray"):
                start = 16 + int.from_bytes(data[12:16], "little") + 12
                parts.append(np.frombuffer(data[start:], layout))
    table = np.concatenate(parts)
    t = table["s"].astype(np.int64) * 10**6 + table["ns"] // 1000
    return t, table["x"], table["y"], table["p"]


def assert_equal(path: Path, theirs: Columns) -> None:
    events = read_events(path)
    assert len(events) > 0
    ours = (events.t, events.x, events.y, events.p)
    for name, mine, other in zip("txyp", ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, np.asarray(other).astype(np.int64), name)


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("evt3/street_gen41.raw", by_evt3),
        ("evt3/street_gen41.raw", by_evutils),
        ("evt2/street_gen3.raw", by_evutils),
        ("evt2/street_gen3.raw", by_expelliarmus),
        ("evt2/street_gen3.raw", by_faery),
        ("dat/ncars.dat", by_evutils),
        ("dat/ncars.dat", by_expelliarmus),
        ("es/dvs.es", by_event_stream),
        ("es/dvs.es", by_faery),
        ("aedat4/sample.aedat4", by_aedat),
        ("aedat4/sample.aedat4", by_dv),
        ("aedat4/sample.aedat4", by_evutils),
        ("aedat4/sample.aedat4", by_faery),
        ("aedat2/neal_walking.aedat", by_numpy),
        ("aedat2/cam298_left_clamp_test1_alex.aedat", by_numpy),
        ("aedat2/mnist_0_scale04_0002.aedat", by_numpy),
    ],
)
def test_recordings_of_real_cameras_equal_an_independent_reader(
    shared_data: Path, name: str, reader: Callable[[Path], Columns]
) -> None:
    assert_equal(shared_data / "events" / name, reader(shared_data / "events" / name))


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("gesture-evt3.raw", by_evt3),
        ("rows-evt3.raw", by_evt3),
        ("rows-evt3.raw", by_evutils),
        ("rows-evt3.raw", by_faery),
        ("gesture-evt2.raw", by_evutils),
        ("gesture-evt21-legacy.raw", by_evutils),
        ("gesture.dat", by_faery),
        ("gesture-nosize.dat", by_expelliarmus),
        ("gesture.es", by_event_stream),
        ("gesture-lz4.aedat4", by_dv),
        ("gesture-zstd.aedat4", by_aedat),
        ("gesture-aedat31.aedat", by_evutils),
        ("gesture-aedat2.aedat", by_numpy),
        ("gesture.csv", by_evutils),
        ("gesture-faery.csv", by_faery),
    ],
)
def test_made_recordings_equal_an_independent_reader(
    recordings_folder: Path, name: str, reader: Callable[[Path], Columns]
) -> None:
    assert_equal(recordings_folder / name, reader(recordings_folder / name))


@pytest.mark.parametrize(
    ("encoder", "suffix", "reader"),
    [
        ("evt2", ".raw", by_evutils),
        ("evt2", ".raw", by_expelliarmus),
        ("evt21-legacy", ".raw", by_evutils),
        ("evt3", ".raw", by_evt3),
        ("evt3", ".raw", by_evutils),
        ("dat", ".dat", by_expelliarmus),
        ("es", ".es", by_event_stream),
        ("aedat2-plain", ".aedat", by_numpy),
        ("aedat2-davis-plain", ".davis.aedat", by_numpy),
        ("aedat4-one", ".aedat4", by_aedat),
        ("aedat4-one", ".aedat4", by_dv),
    ],
)
def test_random_events_of_many_rates_equal_an_independent_reader(
    tmp_path: Path,
    encode: Encode,
    some_events: Callable[..., Events],
    encoder: str,
    suffix: str,
    reader: Callable[[Path], Columns],
) -> None:
    """Our test encoders are held to others' readers by the way."""
    for seed, last_us in enumerate((500, 60_000, 9_000_000)):
        path = tmp_path / f"{seed}{suffix}"
        path.write_bytes(encode(encoder, some_events(seed, 3_000, last_us)))
        assert_equal(path, reader(path))


def test_a_bag_equals_what_rosbags_reads() -> None:
    path = Path(__file__).resolve().parents[4] / "shared" / "cases" / "events" / "dvs.bag"
    if not path.is_file():
        pytest.skip("no ../shared/cases here")
    assert_equal(path, by_rosbags(path))
