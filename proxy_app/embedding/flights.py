"""One flight per key and worker: who asks for a key under way waits for the one that flies.

A flight is worked on by a crew, a task of its own that belongs to no request, so that a client that
goes away takes nobody's embedding with it. When nobody waits for any flight of a crew, the crew is
cancelled. A flight always ends: with an entry, with an error, or cancelled with its crew.
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
    """One key under way. ``landed`` gets the entry.

    ``hit`` tells whether the store had it; else ``trace`` has the upstream's reply headers.
    ``kept`` tells whether the entry may be kept: not once its key was purged.
    """

    __slots__ = (
        "crew",
        "hit",
        "item",
        "kept",
        "key",
        "landed",
        "mark",
        "owner",
        "trace",
        "waiters",
    )

    def __init__(
        self,
        key: bytes,
        item: Item,
        owner: object,
        mark: bytes,
        landed: asyncio.Future[Entry],
    ) -> None:
        self.key = key
        self.mark = mark
        self.item = item
        self.owner = owner
        self.waiters = 0
        self.hit = False
        self.kept = True
        self.trace: Mapping[str, str] | None = None
        self.crew: Crew | None = None
        self.landed = landed


class Crew:
    """A task and the flights that it works for."""

    __slots__ = ("flights", "task")

    def __init__(self, flights: list[Flight], task: asyncio.Task[None]) -> None:
        self.flights = flights
        self.task = task

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for one of its flights."""
        return any(f.waiters and not f.landed.done() for f in self.flights if f.crew is self)


class Flights:
    """The flights of one worker, by key."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Flight] = {}
        self._crews: set[Crew] = set()
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._by_key)

    def __repr__(self) -> str:
        waiters = sum(flight.waiters for flight in self._by_key.values())
        return f"<Flights flights={len(self)} waiters={waiters} crews={len(self._crews)}>"

    def board(self, key: bytes, item: Item, owner: object, mark: bytes = b"") -> Flight:
        """Join the key's flight, or make one that ``owner`` has to launch; counts a waiter.

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
        """Stop waiting; crews that nobody waits for any more are cancelled."""
        crews = set()
        for flight in flights:
            flight.waiters -= 1
            if not flight.waiters and not flight.landed.done():
                if flight.crew is None:
                    self.drop(flight)
                else:
                    crews.add(flight.crew)
        for crew in crews:
            if not crew.is_wanted:
                self._dismiss(crew)

    def launch(
        self, flights: list[Flight], work: Callable[[list[Flight]], Coroutine[Any, Any, None]]
    ) -> asyncio.Task[None]:
        """Start ``work(flights)`` as their crew; flights it leaves in the air end with it."""
        task = self._loop.create_task(work(flights))
        crew = Crew(flights, task)
        for flight in flights:
            flight.crew = crew
        self._crews.add(crew)
        task.add_done_callback(lambda _: self._disband(crew))
        return task

    def land(self, flight: Flight, entry: Entry) -> None:
        """End the flight with its entry."""
        self._end(flight)
        if not flight.landed.done():
            flight.landed.set_result(entry)

    def crash(self, flight: Flight, error: BaseException) -> None:
        """End the flight with an error, from which the frames that it passed are taken."""
        self._end(flight)
        error.__traceback__ = error.__context__ = None
        if not flight.landed.done():
            flight.landed.set_exception(error)
            flight.landed.exception()  # seen: perhaps nobody waits, and that is no fault

    def drop(self, flight: Flight) -> None:
        """End a flight that nobody waits for."""
        self._end(flight)
        flight.landed.cancel()

    def purge(self, keys: frozenset[bytes] | None) -> None:
        """Let nothing be kept of the flights of these keys (None: all), and let nobody join them.

        Who waits already is answered.
        """
        for flight in list(self._by_key.values()):
            if keys is None or flight.key in keys:
                flight.kept = False
                self._end(flight)

    async def close(self) -> None:
        """Cancel all crews and wait until they are gone."""
        crews = list(self._crews)
        for crew in crews:
            self._dismiss(crew)
        await asyncio.gather(*(crew.task for crew in crews), return_exceptions=True)

    def _end(self, flight: Flight) -> None:
        name = flight.key + flight.mark
        if self._by_key.get(name) is flight:
            del self._by_key[name]

    def _dismiss(self, crew: Crew) -> None:
        # The flights go first: whoever asks for such a key from now on must not join a dying crew.
        for flight in crew.flights:
            if flight.crew is crew:
                self.drop(flight)
        crew.task.cancel()

    def _disband(self, crew: Crew) -> None:
        self._crews.discard(crew)
        error = None if crew.task.cancelled() else crew.task.exception()
        if error is not None and not isinstance(error, (EmbedError, ModelChangedError)):
            log.error("a crew failed", exc_info=error)
        for flight in crew.flights:
            if flight.crew is crew and not flight.landed.done():
                self.crash(flight, error or RuntimeError("a crew left its flight in the air"))
            if flight.crew is crew:
                flight.crew = None
        # Flights and crew would keep each other, and their texts, until a garbage collection.
        crew.flights = []
