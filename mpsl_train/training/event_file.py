"""The curves of a training for TensorBoard, each row on the disk before the next epoch begins.

TensorBoard's own writer is a thread: when the disk is full, its errors reach nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mpsl_runtime.errors import OutputError

__all__ = ["EventFile"]


class EventFile:
    """One event file of a folder; made with the first row, another one after `--resume`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one point of each curve.

        Args:
            step: updates so far. values: by the name of the curve.

        Raises:
            OutputError: the file cannot be written.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        row = Event(wall_time=time.time(), step=step, summary=Summary(value=points))
        self._append(row.SerializeToString())

    def _append(self, record: bytes) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        try:
            if self._path is None:
                self._folder.mkdir(exist_ok=True)
                name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"
                first = Event(wall_time=time.time(), file_version="brain.Event:2")
                with (self._folder / name).open("xb") as file:
                    RecordWriter(file).write(first.SerializeToString())
                self._path = self._folder / name
            with self._path.open("ab") as file:
                RecordWriter(file).write(record)
        except OSError as error:
            raise OutputError(
                "cannot write output", got=error.strerror, where=self._folder
            ) from error
