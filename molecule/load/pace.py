"""When the next request is due, and when the run is over."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """Hands out turns: at once, or by a schedule that slow replies do not hold up."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate if rate else 0.0
        self._next = time.monotonic()
        self._over = asyncio.Event()

    @property
    def over(self) -> bool:
        """Tell whether no further request is to be sent."""
        return self._over.is_set()

    def stop(self) -> None:
        """Hand out no more turns; who sleeps wakes up."""
        self._over.set()

    async def turn(self) -> bool:
        """Wait for the next turn; False when the run is over."""
        if self._step:
            # While every connection waits, turns pass by; at most a second's worth is made up for.
            due = max(self._next, time.monotonic() - 1)
            self._next = due + self._step
            await self.sleep(due - time.monotonic())
        return not self.over

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self._over.wait(), seconds)
            except asyncio.TimeoutError:
                return
