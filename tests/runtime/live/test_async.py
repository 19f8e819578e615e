"""`astream`: the same items for asyncio, and nothing left running when it is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpsl_runtime import Events
from mpsl_runtime.live.replay import replay
from mpsl_runtime.run.opening import load

RECORDINGS = Path(__file__).parents[2] / "recordings"
Listen = Callable[..., Any]
MakeEvents = Callable[..., Events]


def test_the_items_are_those_of_stream(make_events: MakeEvents, model_file: Path) -> None:
    model = load(model_file)
    wanted = [item.scores.tolist() for item in model.stream(make_events(1))]

    async def collect() -> list[Any]:
        return [item.scores.tolist() async for item in model.astream(make_events(1))]

    assert asyncio.run(collect()) == wanted


def test_the_loop_goes_on_meanwhile_and_leaving_it_lets_the_source_go(
    listening: Listen,
) -> None:
    path = RECORDINGS / "gesture.es"
    source = listening("udp://127.0.0.1:0", timeout_s=None)
    model = load("nmnist8-small", fit=True)
    sender = threading.Thread(target=replay, args=([path, path], source.address))

    async def some() -> tuple[int, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        seen = 0
        async for _ in model.astream(source, "tumbling"):
            seen += 1
            if seen == 10:
                break
        ticking.cancel()
        return seen, ticks

    sender.start()
    seen, ticks = asyncio.run(some())
    source.close()
    sender.join(timeout=10)
    assert seen == 10
    assert ticks > 3


def test_a_cancelled_task_ends_a_source_that_is_silent(listening: Listen, model_file: Path) -> None:
    source = listening("udp://127.0.0.1:0", timeout_s=None)
    model = load(model_file)

    async def wait_for_ever() -> None:
        async for _ in model.astream(source):
            pass

    async def main() -> None:
        task = asyncio.create_task(wait_for_ever())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert source._stop.is_set()
