"""A turn of the event loop that holds it too long is reported, and fails the tests of `serving`."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy_app.telemetry import turns


def burn(seconds: float) -> None:
    """Use the processor for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def wait(seconds: float) -> None:
    """Hold the loop for so long without using the processor."""
    time.sleep(seconds)


async def test_a_long_turn_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    watching = asyncio.create_task(turns.watch())
    await asyncio.sleep(0.1)
    burn(turns.LONG + 0.2)
    await asyncio.sleep(0.2)
    watching.cancel()
    assert "the event loop was held for" in caplog.text


async def test_many_short_turns_are_not(caplog: pytest.LogCaptureFixture) -> None:
    watching = asyncio.create_task(turns.watch())
    for _ in range(100):
        burn(0.01)
        await asyncio.sleep(0)
    wait(turns.LONG + 0.2)  # as where somebody else has the processor
    await asyncio.sleep(0.2)
    watching.cancel()
    assert caplog.text == ""
