"""How many inputs may be in the upstream's hands at once.

TEI takes one permit per input without waiting and answers 429 when it has none left, so a worker
never hands over more than its share; what comes on top waits here, in order, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque

from proxy_app.errors import EmbedError, Kind


class Turn:
    """A batch in line: ``granted`` is done once its permits are there."""

    __slots__ = ("_permits", "count", "granted")

    def __init__(self, permits: Permits, count: int) -> None:
        self._permits = permits
        self.count = count
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def leave(self, _: object = None) -> None:
        """Give the permits back, or leave the line; the second time nothing happens.

        Can be the callback of a task that is done.
        """
        if self.count:
            self._permits.release(self)
            self.count = 0


class Permits:
    """``total`` permits, first come first served; at most ``queue_limit`` inputs wait."""

    def __init__(self, total: int, queue_limit: int) -> None:
        self.total = total
        self.queue_limit = queue_limit
        self.in_flight = 0
        self.queued = 0
        self._line: deque[Turn] = deque()

    def __repr__(self) -> str:
        return f"<Permits in_flight={self.in_flight}/{self.total} queued={self.queued}>"

    def refuse_overload(self, count: int) -> None:
        """Raise EmbedError (Overloaded) where ``count`` more inputs would overfill the queue.

        A worker whose queue is empty takes a request of any size that is allowed at all.
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
        self._grant()

    def join(self, count: int) -> Turn:
        """Get in line for ``count`` permits; whoever joins must leave."""
        turn = Turn(self, count)
        self._line.append(turn)
        self.queued += count
        self._grant()
        return turn

    def release(self, turn: Turn) -> None:
        """Take back what a turn holds; ``Turn.leave`` calls it once."""
        if turn in self._line:
            self._line.remove(turn)
            self.queued -= turn.count
        else:
            self.in_flight -= turn.count
        self._grant()

    def _grant(self) -> None:
        # A batch larger than all permits (they were made fewer meanwhile) goes when it is alone.
        while self._line and (
            not self.in_flight or self.in_flight + self._line[0].count <= self.total
        ):
            turn = self._line.popleft()
            self.queued -= turn.count
            self.in_flight += turn.count
            if not turn.granted.done():
                turn.granted.set_result(None)
