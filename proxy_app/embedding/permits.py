"""How many inputs may be in the upstream's hands at once.

TEI takes one permit per input without waiting and answers 429 when it has none left, so a worker
never hands over more than its share; what comes on top waits here, in order, up to a bound.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from proxy_app.errors import EmbedError, Kind


class Patience:
    """How long (seconds) a request's batches wait in line; each that gets its turn renews it.

    So a request waits for others that long at most, and one that is large for as long as it gets
    on.
    """

    __slots__ = ("ends", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Start anew."""
        self.ends = time.monotonic() + self.seconds


class Turn:
    """A batch in line: ``granted`` is done once its permits are there."""

    __slots__ = ("_permits", "count", "granted")

    def __init__(self, permits: Permits, count: int) -> None:
        self._permits = permits
        self.count = count
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self, patience: Patience) -> None:
        """Wait for the permits; raises EmbedError (Overloaded) when patience ends."""
        while not self.granted.done():
            seconds = patience.ends - time.monotonic()
            if seconds <= 0:
                raise EmbedError(
                    Kind.OVERLOADED,
                    f"the upstream took none of the request's inputs for {patience.seconds:g} s "
                    "(EMBEDRACK_QUEUE_TIMEOUT)",
                )
            await asyncio.wait([self.granted], timeout=seconds)
        patience.renew()

    def leave(self, _: object = None) -> None:
        """Give the permits back, or leave the line; the second time nothing happens.

        Can be the callback of a task that is done.
        """
        if self.count:
            self._permits.release(self)
            self.count = 0


class Permits:
    """``total`` permits, first come first served; none joins from ``queue_limit`` inputs on."""

    def __init__(self, total: int, queue_limit: int) -> None:
        self.total = total
        self.queue_limit = queue_limit
        self.in_flight = 0
        self.queued = 0
        # Any of them may leave, at the same cost as the first.
        self._line: OrderedDict[Turn, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Permits in_flight={self.in_flight}/{self.total} queued={self.queued}>"

    def refuse_overload(self) -> None:
        """Raise EmbedError (Overloaded) where the queue is full.

        Where it is not, a request of any size is taken: one that is large has the same chance as
        many small ones. So at most ``queue_limit`` inputs wait, and those of one request more.
        """
        if self.queued >= self.queue_limit:
            raise EmbedError(
                Kind.OVERLOADED,
                f"{self.queued} inputs are waiting already, and the queue takes no more from "
                f"{self.queue_limit} on (EMBEDRACK_MAX_QUEUE)",
            )

    def resize(self, total: int) -> None:
        """Set the number of permits; fewer take effect as batches come back."""
        self.total = total
        self._grant()

    def join(self, count: int) -> Turn:
        """Get in line for ``count`` permits; whoever joins must leave."""
        turn = Turn(self, count)
        self._line[turn] = None
        self.queued += count
        self._grant()
        return turn

    def release(self, turn: Turn) -> None:
        """Take back what a turn holds; ``Turn.leave`` calls it once."""
        if turn in self._line:
            del self._line[turn]
            self.queued -= turn.count
        else:
            self.in_flight -= turn.count
        self._grant()

    def _grant(self) -> None:
        # A batch larger than all permits (they were made fewer meanwhile) goes when it is alone.
        while self._line:
            turn = next(iter(self._line))
            if self.in_flight and self.in_flight + turn.count > self.total:
                return
            del self._line[turn]
            self.queued -= turn.count
            self.in_flight += turn.count
            if not turn.granted.done():
                turn.granted.set_result(None)
