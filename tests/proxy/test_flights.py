"""A flight always ends, whoever fails, is cancelled, or goes away."""

from __future__ import annotations

import asyncio

import pytest

from proxy_app.embedding.flights import Flight, Flights
from proxy_app.entries.entry import Entry


async def test_two_who_ask_share_one_flight() -> None:
    flights = Flights()
    entry = Entry(b"[1]")
    mine = flights.board(b"k", "text", "me")

    async def work(crew: list[Flight]) -> None:
        await asyncio.sleep(0)
        flights.land(crew[0], entry)

    flights.launch([mine], work)
    yours = flights.board(b"k", "text", "you")
    assert yours is mine
    assert await asyncio.shield(mine.landed) is entry
    flights.leave([mine, yours])
    assert repr(flights) == "<Flights flights=0 waiters=0 crews=0>"


async def test_an_error_reaches_all_and_the_next_one_flies_anew() -> None:
    flights = Flights()
    flight = flights.board(b"k", "text", "me")

    async def work(_: list[Flight]) -> None:
        raise ValueError("broken")

    flights.launch([flight], work)
    with pytest.raises(ValueError, match="broken"):
        await asyncio.shield(flight.landed)
    assert flights.board(b"k", "text", "you") is not flight


async def test_a_crew_that_forgets_a_flight_does_not_hang_it() -> None:
    flights = Flights()
    flight = flights.board(b"k", "text", "me")

    async def work(_: list[Flight]) -> None:
        return

    flights.launch([flight], work)
    with pytest.raises(RuntimeError, match="in the air"):
        await asyncio.shield(flight.landed)


async def test_a_crew_goes_on_while_anybody_waits() -> None:
    flights = Flights()
    one, two = (flights.board(key, "text", "me") for key in (b"1", b"2"))
    cancelled = asyncio.Event()

    async def work(_: list[Flight]) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    flights.launch([one, two], work)
    await asyncio.sleep(0)
    flights.leave([one])
    await asyncio.sleep(0.01)
    assert not cancelled.is_set()
    flights.leave([two])
    # Who asks now must not join the dying crew.
    assert flights.board(b"2", "text", "you") is not two
    await asyncio.wait_for(cancelled.wait(), 1)


async def test_a_second_crew_takes_over_the_rest() -> None:
    flights = Flights()
    entries = [Entry(b"[1]"), Entry(b"[2]")]
    found, missed = (flights.board(key, "text", "me") for key in (b"1", b"2"))

    async def compute(crew: list[Flight]) -> None:
        await asyncio.sleep(0.01)
        flights.land(crew[0], entries[1])

    async def look_up(crew: list[Flight]) -> None:
        flights.land(crew[0], entries[0])
        flights.launch(crew[1:], compute)

    flights.launch([found, missed], look_up)
    landed = await asyncio.gather(*map(asyncio.shield, (found.landed, missed.landed)))
    assert landed == entries


async def test_closing_ends_everything() -> None:
    flights = Flights()
    flight = flights.board(b"k", "text", "me")
    flights.launch([flight], lambda _: asyncio.sleep(60))
    await flights.close()
    assert flight.landed.cancelled()
    assert len(flights) == 0
