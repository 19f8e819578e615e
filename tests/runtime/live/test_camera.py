"""Cameras on USB, through a driver of the same interface that is made up."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpsl_runtime.errors import DataError, MissingExtraError
from mpsl_runtime.live.options import source_options
from mpsl_runtime.live.source import open_source
from mpsl_runtime.run.opening import load

DTYPE = np.dtype([("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])


def packet(t: list[int], overflows: list[int] | None = None) -> SimpleNamespace:
    events = np.zeros(len(t), DTYPE)
    events["t"], events["x"], events["y"], events["on"] = t, 3, 4, True
    return SimpleNamespace(
        polarity_events=events if t else None,
        polarity_events_overflow_indices=None if overflows is None else np.array(overflows),
    )


class Device:
    """What `neuromorphic_drivers.open` gives."""

    def __init__(self, packets: list[Any]) -> None:
        self.packets = packets
        self.opened_with: dict[str, Any] = {}
        self.closed = False

    def properties(self) -> SimpleNamespace:
        return SimpleNamespace(width=346, height=260)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> bool:
        self.closed = True
        return False

    def __next__(self) -> tuple[Any, Any]:
        if not self.packets:
            raise StopIteration
        item = self.packets.pop(0)
        if isinstance(item, Exception):
            raise item
        return SimpleNamespace(system_time=0.0, ring=None), item


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("neuromorphic_drivers")
    module.device = Device([])  # type: ignore[attr-defined]
    module.listed = ["one"]  # type: ignore[attr-defined]
    module.list_devices = lambda: module.listed  # type: ignore[attr-defined]

    def open_device(**words: Any) -> Device:
        module.device.opened_with = words
        return module.device  # type: ignore[no-any-return]

    module.open = open_device  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "neuromorphic_drivers", module)
    return module


def test_a_camera_is_read_and_closed_and_its_overflows_are_counted(driver: Any) -> None:
    driver.device.packets = [
        packet([10, 20]), None, packet([]), packet([30], [0]), packet([40], []),
    ]  # fmt: skip
    source = open_source("camera://DAVIS-0001")
    events = [t for chunk in source for t in chunk.events.t.tolist()]
    assert events == [10, 20, 30, 40]
    assert source.sensor_size == (346, 260)
    assert driver.device.opened_with["serial"] == "DAVIS-0001"
    assert dict(source.ignored) == {"packets that the driver's queue has lost": 1}
    assert driver.device.closed


def test_a_camera_of_another_size_runs_with_fit_and_says_so_without(driver: Any) -> None:
    packets = [packet(list(range(1000 * k, 1000 * k + 900, 10))) for k in range(500)]
    driver.device.packets = list(packets)
    model = load("nmnist8-small")
    with pytest.raises(DataError, match=r"346x260 pixels; expected 34x34: --fit"):
        list(model.stream("camera://"))
    driver.device.packets = list(packets)
    summary = model.stream("camera://", "tumbling", crop="0,0,34,34").run()
    assert summary.events == 500 * 90


def test_a_clock_that_is_reset_begins_anew(driver: Any) -> None:
    driver.device.packets = [packet([9_000_000]), packet([5]), packet([6])]
    source = open_source("camera://")
    found = [[t for c in r.chunks for t in c.events.t.tolist()] for r in source.recordings()]
    assert found == [[9_000_000], [5, 6]]
    assert source.resynchronised == 1


def test_a_camera_that_is_pulled_out_leaves_what_has_come(driver: Any) -> None:
    said: list[str] = []
    driver.device.packets = [packet([1]), RuntimeError("Pipe\nerror"), packet([2])]
    source = open_source("camera://", say=said.append)
    assert [t for chunk in source for t in chunk.events.t.tolist()] == [1]
    assert said == ["the camera is gone: Pipe error"]


def test_silence_ends_it_with_a_timeout(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.device.packets = [packet([1]), *[None] * 10_000_000][:200_000]
    source = open_source("camera://", source_options({"timeout_s": 0.05}))
    assert sum(len(chunk.events) for chunk in source) == 1


@pytest.mark.parametrize("how", ["no USB", "none", "another serial"])
def test_no_camera_is_one_line(driver: Any, how: str) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("Other error")

    if how == "no USB":
        driver.list_devices = fail
    elif how == "none":
        driver.listed = []
    else:
        driver.open = fail
    with pytest.raises(
        DataError, match=r"no camera; got (Other error|none is connected); expected"
    ):
        open_source("camera://X1").open()


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neuromorphic_drivers", None)
    with pytest.raises(MissingExtraError, match=r"mpsl-runtime\[camera\]"):
        open_source("camera://").open()
