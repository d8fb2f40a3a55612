"""How many inputs may be sent to the upstream at once.

TEI takes one permit per input without waiting and answers 429 when it has none left, so a worker
never hands over more than its share; what exceeds it waits here, in order, up to a bound.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from proxy_app.errors import EmbedError, Kind


class Deadline:
    """How long (seconds) a request's batches wait in the queue; each that gets permits renews it.

    So a request waits that long for others at most, and a large one as long as it makes progress.
    """

    __slots__ = ("ends", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Start anew."""
        self.ends = time.monotonic() + self.seconds


class Place:
    """A batch's place in the queue: ``granted`` is done once its permits are there."""

    __slots__ = ("_permits", "count", "granted")

    def __init__(self, permits: Permits, count: int) -> None:
        self._permits = permits
        self.count = count
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self, deadline: Deadline) -> None:
        """Wait for the permits; raises EmbedError (Overloaded) when the deadline has passed."""
        while not self.granted.done():
            seconds = deadline.ends - time.monotonic()
            if seconds <= 0:
                raise EmbedError(
                    Kind.OVERLOADED,
                    f"the upstream took none of the request's inputs for {deadline.seconds:g} s "
                    "(EMBEDRACK_QUEUE_TIMEOUT)",
                )
            await asyncio.wait([self.granted], timeout=seconds)
        deadline.renew()

    def leave(self, _: object = None) -> None:
        """Give the permits back, or leave the queue; the second time nothing happens.

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
        self._queue: OrderedDict[Place, None] = OrderedDict()

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

    def join(self, count: int) -> Place:
        """Queue for ``count`` permits; whoever joins must leave."""
        place = Place(self, count)
        self._queue[place] = None
        self.queued += count
        self._grant()
        return place

    def release(self, place: Place) -> None:
        """Take back what a place in the queue holds; ``Place.leave`` calls it once."""
        if place in self._queue:
            del self._queue[place]
            self.queued -= place.count
        else:
            self.in_flight -= place.count
        self._grant()

    def _grant(self) -> None:
        # A batch larger than all permits (they were made fewer meanwhile) goes when it is alone.
        while self._queue:
            place = next(iter(self._queue))
            if self.in_flight and self.in_flight + place.count > self.total:
                return
            del self._queue[place]
            self.queued -= place.count
            self.in_flight += place.count
            if not place.granted.done():
                place.granted.set_result(None)
