"""`camera://` and `camera://SERIAL`: a camera on USB, through neuromorphic-drivers.

Needs the extra `camera`. Prophesee EVK3 and EVK4, iniVation DAVIS346 and DVXplorer and others, with
the driver's own configuration. What the driver's queue loses is packets, whose events nobody can
count: they are counted as packets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpsl_runtime.errors import DataError, MissingExtraError
from mpsl_runtime.events.events import Events
from mpsl_runtime.kept import Kept
from mpsl_runtime.live.address import Address
from mpsl_runtime.live.flow import FlowingSource, Piece
from mpsl_runtime.live.options import SourceOptions
from mpsl_runtime.live.source import LONGEST_GAP_US
from mpsl_runtime.live.timeline import Arrival, Timeline

__all__ = ["Source"]

_LOOK_AGAIN_S = 0.2


class Source(FlowingSource):
    """Opens the camera with a serial number, or the first that is found."""

    def __init__(
        self,
        address: Address,
        options: SourceOptions,
        *,
        longest_gap_us: int = LONGEST_GAP_US,
        say: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(address, options, longest_gap_us=longest_gap_us, say=say)
        address.check_options()
        self._serial = address.place.strip("/") or None
        self._device: Any = None
        self._timeline = Timeline(self, reorder_s=0, gap_us=longest_gap_us)
        self._heard_s = 0.0

    def open(self) -> None:
        if self._device is not None:
            return
        try:
            import neuromorphic_drivers as drivers
        except ImportError:
            raise MissingExtraError("a driver for cameras", "mpsl-runtime[camera]") from None
        try:
            found = drivers.list_devices()
            # The driver's errors are RuntimeErrors; without USB, "Other error".
            if not found:
                raise RuntimeError("none is connected")
            self._device = drivers.open(serial=self._serial, iterator_timeout=_LOOK_AGAIN_S)
            properties = self._device.properties()
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            self.close()
            raise DataError(
                "no camera",
                got=" ".join(str(error).split())[:120] or type(error).__name__,
                expected="a camera on USB"
                + (f" with the serial number {self._serial}" if self._serial else ""),
                where=self.name,
            ) from None
        self.sensor_size = (int(properties.width), int(properties.height))

    def close(self) -> None:
        super().close()
        device, self._device = self._device, None
        if device is not None:
            device.__exit__(None, None, None)

    def kept(self) -> dict[str, Any]:
        return {**super().kept(), "timeline": self._timeline.kept()}

    def restore(self, kept: Kept) -> None:
        super().restore(kept)
        self._timeline.restore(kept.inner("timeline"))

    def begin(self) -> None:
        self._heard_s = time.monotonic()
        self._device.__enter__()

    def rest(self) -> Iterator[Piece]:
        return self._timeline.finish()

    def arrived(self) -> Iterator[Piece] | None:
        try:
            _, packet = next(self._device)
        except StopIteration:
            return None
        except (RuntimeError, OSError) as error:
            self.note(f"the camera is gone: {' '.join(str(error).split())[:120]}")
            return None
        now_s = time.monotonic()
        events = None if packet is None else packet.polarity_events
        if packet is not None:
            overflows = getattr(packet, "polarity_events_overflow_indices", None)
            if overflows is not None and len(overflows):
                self.ignore("packets that the driver's queue has lost", len(overflows))
        if events is not None and len(events):
            self._heard_s = now_s
            return self._timeline.take(Arrival(self._columns(events), now_s))
        if self.options.timeout_s is not None and now_s - self._heard_s > self.options.timeout_s:
            self.note(f"nothing came for {self.options.timeout_s:g} s")
            return None
        return self._timeline.take(Arrival(Events.empty(self.sensor_size), now_s))

    def _columns(self, events: Any) -> Events:
        return Events(
            t=np.ascontiguousarray(events["t"]).astype(np.int64),
            x=np.ascontiguousarray(events["x"]).astype(np.uint16),
            y=np.ascontiguousarray(events["y"]).astype(np.uint16),
            p=np.ascontiguousarray(events["on"]).astype(np.uint8),
            sensor_size=self.sensor_size,
        )
