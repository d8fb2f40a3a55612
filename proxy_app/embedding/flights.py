"""Single flight: one computation per key and worker, however many requests wait for it.

A flight is computed by a job, a task that belongs to no request, so that a client that goes away
ends nobody else's computation. When no request waits for any flight of a job, the job is cancelled.
A flight always ends: with an entry, with an error, or cancelled with its job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from proxy_app.entries.entry import Entry
from proxy_app.entries.keys import Item
from proxy_app.errors import EmbedError, ModelChangedError

log = logging.getLogger("embedrack")


class Flight:
    """One key that is looked up or computed. ``result`` gets the entry.

    ``hit``: the store had it; else ``trace`` has the upstream's reply headers. ``kept``: the entry
    may be kept, which it may not once its key was purged.
    """

    __slots__ = (
        "hit",
        "item",
        "job",
        "kept",
        "key",
        "mark",
        "owner",
        "result",
        "trace",
        "waiters",
    )

    def __init__(
        self,
        key: bytes,
        item: Item,
        owner: object,
        mark: bytes,
        result: asyncio.Future[Entry],
    ) -> None:
        self.key = key
        self.mark = mark
        self.item = item
        self.owner = owner
        self.waiters = 0
        self.hit = False
        self.kept = True
        self.trace: Mapping[str, str] | None = None
        self.job: Job | None = None
        self.result = result


class Job:
    """A task and the flights that it works for."""

    __slots__ = ("flights", "task")

    def __init__(self, flights: list[Flight], task: asyncio.Task[None]) -> None:
        self.flights = flights
        self.task = task

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for one of its flights."""
        return any(f.waiters and not f.result.done() for f in self.flights if f.job is self)


class Flights:
    """The flights of one worker, by key."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Flight] = {}
        self._jobs: set[Job] = set()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._by_key)

    def __repr__(self) -> str:
        waiters = sum(flight.waiters for flight in self._by_key.values())
        return f"<Flights flights={len(self)} waiters={waiters} jobs={len(self._jobs)}>"

    def join(self, key: bytes, item: Item, owner: object, mark: bytes = b"") -> Flight:
        """Join the key's flight, or make one that ``owner`` has to start; counts a waiter.

        Only flights of the same ``mark`` are joined.
        """
        flight = self._by_key.get(key + mark)
        if flight is None:
            flight = self._by_key[key + mark] = Flight(
                key, item, owner, mark, self._loop.create_future()
            )
        flight.waiters += 1
        return flight

    def leave(self, flights: Iterable[Flight]) -> None:
        """Stop waiting; jobs that nobody waits for any more are cancelled."""
        jobs = set()
        for flight in flights:
            flight.waiters -= 1
            if not flight.waiters and not flight.result.done():
                if flight.job is None:
                    self.cancel(flight)
                else:
                    jobs.add(flight.job)
        for job in jobs:
            if not job.is_wanted:
                self._cancel_job(job)

    def start(
        self, flights: list[Flight], work: Callable[[list[Flight]], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        """Start ``work(flights)`` as their job; flights that it leaves open fail with it."""
        task = self._loop.create_task(work(flights))
        job = Job(flights, task)
        for flight in flights:
            flight.job = job
        self._jobs.add(job)
        task.add_done_callback(lambda _: self._job_ended(job))
        return task

    def finish(self, flight: Flight, entry: Entry) -> None:
        """End the flight with its entry."""
        self._end(flight)
        if not flight.result.done():
            flight.result.set_result(entry)

    def fail(self, flight: Flight, error: BaseException) -> None:
        """End the flight with an error, from which the frames that it passed are taken."""
        self._end(flight)
        error.__traceback__ = error.__context__ = None
        if not flight.result.done():
            flight.result.set_exception(error)
            flight.result.exception()  # seen: perhaps nobody waits, and that is no fault

    def cancel(self, flight: Flight) -> None:
        """End a flight that nobody waits for."""
        self._end(flight)
        flight.result.cancel()

    def purge(self, keys: frozenset[bytes] | None) -> None:
        """Let nothing be kept of the flights of these keys (None: all), and let nobody join them.

        Who waits already is answered.
        """
        for flight in list(self._by_key.values()):
            if keys is None or flight.key in keys:
                flight.kept = False
                self._end(flight)

    async def close(self) -> None:
        """Cancel all jobs and wait until they are gone."""
        jobs = list(self._jobs)
        for job in jobs:
            self._cancel_job(job)
        await asyncio.gather(*(job.task for job in jobs), return_exceptions=True)

    def _end(self, flight: Flight) -> None:
        name = flight.key + flight.mark
        if self._by_key.get(name) is flight:
            del self._by_key[name]

    def _cancel_job(self, job: Job) -> None:
        # The flights go first: whoever asks for such a key from now on must not join a dying job.
        for flight in job.flights:
            if flight.job is job:
                self.cancel(flight)
        job.task.cancel()

    def _job_ended(self, job: Job) -> None:
        self._jobs.discard(job)
        error = None if job.task.cancelled() else job.task.exception()
        if error is not None and not isinstance(error, (EmbedError, ModelChangedError)):
            log.error("a job failed", exc_info=error)
        for flight in job.flights:
            if flight.job is job and not flight.result.done():
                self.fail(flight, error or RuntimeError("a job left its flight open"))
            if flight.job is job:
                flight.job = None
        # Flights and job would keep each other, and their texts, until a garbage collection.
        job.flights = []
