"""How many inputs may be in the upstream's hands at once.

TEI takes one permit per input without waiting and answers 429 when it has none left, so a worker
never hands over more than its share; what comes on top waits here, in order, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy_app.errors import EmbedError, Kind


class Permits:
    """``total`` permits, first come first served; at most ``queue_limit`` inputs wait."""

    def __init__(self, total: int, queue_limit: int) -> None:
        self.total = total
        self.queue_limit = queue_limit
        self.in_flight = 0
        self.queued = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __repr__(self) -> str:
        return f"<Permits in_flight={self.in_flight}/{self.total} queued={self.queued}>"

    def refuse_overload(self, count: int) -> None:
        """Raise EmbedError (Overloaded) where ``count`` more inputs would overfill the queue.

        An idle worker takes a request of any size that is allowed at all.
        """
        if self.queued and self.queued + count > self.queue_limit:
            raise EmbedError(
                Kind.OVERLOADED,
                f"{self.queued} inputs are waiting already; {count} more exceed the queue of "
                f"{self.queue_limit} (EMBEDRACK_MAX_QUEUE)",
            )

    def resize(self, total: int) -> None:
        """Set the number of permits; fewer take effect as batches come back."""
        self.total = total
        self._wake()

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        """Hold ``count`` permits for the body's time, waiting for them in turn."""
        await self._take(count)
        try:
            yield
        finally:
            self.in_flight -= count
            self._wake()

    def _fits(self, count: int) -> bool:
        # A batch larger than all permits (they were made fewer meanwhile) goes when it is alone.
        return self.in_flight + count <= self.total or not self.in_flight

    async def _take(self, count: int) -> None:
        if not self._waiting and self._fits(count):
            self.in_flight += count
            return
        turn = asyncio.get_running_loop().create_future()
        entry = (count, turn)
        self._waiting.append(entry)
        self.queued += count
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(entry)
                self.queued -= count
            else:
                self.in_flight -= count  # the turn came in the same moment: hand it on
            self._wake()
            raise

    def _wake(self) -> None:
        for count, turn in list(self._waiting):
            if turn.cancelled():
                continue  # its task is about to take it out
            if not self._fits(count):
                break
            self._waiting.remove((count, turn))
            self.queued -= count
            self.in_flight += count
            turn.set_result(None)
