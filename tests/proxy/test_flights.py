"""A flight always ends, whoever fails, is cancelled, or goes away."""

from __future__ import annotations

import asyncio

import pytest

from proxy_app.embedding.flights import Flight, Flights
from proxy_app.entries.entry import Entry


async def test_two_who_ask_share_one_flight() -> None:
    flights = Flights()
    entry = Entry(b"[1]")
    mine = flights.join(b"k", "text", "me")

    async def work(job: list[Flight]) -> None:
        await asyncio.sleep(0)
        flights.finish(job[0], entry)

    flights.start([mine], work)
    yours = flights.join(b"k", "text", "you")
    assert yours is mine
    assert await asyncio.shield(mine.result) is entry
    flights.leave([mine, yours])
    assert repr(flights) == "<Flights flights=0 waiters=0 jobs=0>"


async def test_an_error_reaches_all_and_the_next_one_flies_anew() -> None:
    flights = Flights()
    flight = flights.join(b"k", "text", "me")

    async def work(_: list[Flight]) -> None:
        raise ValueError("broken")

    flights.start([flight], work)
    with pytest.raises(ValueError, match="broken"):
        await asyncio.shield(flight.result)
    assert flights.join(b"k", "text", "you") is not flight


async def test_a_crew_that_forgets_a_flight_does_not_hang_it() -> None:
    flights = Flights()
    flight = flights.join(b"k", "text", "me")

    async def work(_: list[Flight]) -> None:
        return

    flights.start([flight], work)
    with pytest.raises(RuntimeError, match="left its flight open"):
        await asyncio.shield(flight.result)


async def test_a_crew_goes_on_while_anybody_waits() -> None:
    flights = Flights()
    one, two = (flights.join(key, "text", "me") for key in (b"1", b"2"))
    cancelled = asyncio.Event()

    async def work(_: list[Flight]) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    flights.start([one, two], work)
    await asyncio.sleep(0)
    flights.leave([one])
    await asyncio.sleep(0.01)
    assert not cancelled.is_set()
    flights.leave([two])
    # Who asks now must not join the cancelled job.
    assert flights.join(b"2", "text", "you") is not two
    await asyncio.wait_for(cancelled.wait(), 1)


async def test_a_second_crew_takes_over_the_rest() -> None:
    flights = Flights()
    entries = [Entry(b"[1]"), Entry(b"[2]")]
    found, missed = (flights.join(key, "text", "me") for key in (b"1", b"2"))

    async def compute(job: list[Flight]) -> None:
        await asyncio.sleep(0.01)
        flights.finish(job[0], entries[1])

    async def look_up(job: list[Flight]) -> None:
        flights.finish(job[0], entries[0])
        flights.start(job[1:], compute)

    flights.start([found, missed], look_up)
    result = await asyncio.gather(*map(asyncio.shield, (found.result, missed.result)))
    assert result == entries


async def test_closing_ends_everything() -> None:
    flights = Flights()
    flight = flights.join(b"k", "text", "me")
    flights.start([flight], lambda _: asyncio.sleep(60))
    await flights.close()
    assert flight.result.cancelled()
    assert len(flights) == 0
