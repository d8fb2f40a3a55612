"""Which inputs are sent again, and which are refused: the evidence before an input is blamed.

A batch whose connection broke before its reply was whole, or that got the balancer's 502, may have
killed its instance. Its inputs are suspects then: each is sent once more, alone, on a fresh
connection, one after the other over all workers, and only after a known-good request was answered.
So an instance may die unnoticed by clients.

A suspect that breaks its connection again, alone and right after a known-good request was answered,
is refused for an hour, by every worker: an input that kills instances costs two restarts. But it is
blamed for nothing where known-good requests break their connections too, by an outage or a sick
instance: it is only not sent for some seconds. A dead process does not do that to them, since it
takes no connection.

In an outage known-good requests fail. Whatever is sent then fails without being sent again, and
nothing is held against it. What was sent as the outage began stays suspect, which costs one
known-good request afterwards.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from proxy_app.errors import EmbedError, Kind
from proxy_app.upstream.connections import BrokenError
from proxy_app.upstream.instances import Instances
from proxy_app.upstream.trials import (
    BROKE,
    FAILED,
    PAUSED,
    REFUSED,
    SURVIVED,
    SUSPECT,
    Trial,
    Trials,
    refusal,
)
from proxy_app.workers.locks import try_lock, unlock

#: Seconds after a failed known-good request in which nothing is held against an input.
OUTAGE = 0.5
#: Seconds between two attempts to be the one worker that sends suspects.
_ATTEMPT = 0.005
#: Seconds from a broken connection to the next request: a process that dies closes one socket after
#: the other, and while it still listens it would break an innocent one's connection too.
_DEATH = 0.1
#: Known-good requests, sent at once, that have to be answered before an input is refused: one for
#: each instance, and some where there may be more instances than we know of.
_AT_LEAST = 4

T = TypeVar("T")


class Suspects:
    """The suspects of all workers, in files of the ``folder`` that they share.

    ``known_good`` sends a request that no instance breaks on; it raises BrokenError where the
    connection broke, and EmbedError where no instance took it. ``seconds``: what the upstream may
    take for a request.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float,
        instances: Instances,
        known_good: Callable[[], Awaitable[None]],
    ) -> None:
        self._trials = Trials(folder / "trials")
        self._fd = os.open(folder / "suspects.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._turn = asyncio.Lock()
        self._seconds = seconds
        self._instances = instances
        self._known_good = known_good

    def __repr__(self) -> str:
        return repr(self._trials)

    def close(self) -> None:
        """Close the files."""
        self._trials.close()
        os.close(self._fd)

    def trial(self, keys: list[bytes]) -> AbstractAsyncContextManager[Trial]:
        """Return what an ``async with`` has these inputs on trial for (see ``Trials.of``)."""
        return self._trials.of(keys, self._seconds)

    def note(self, trial: Trial) -> None:
        """Note that the connection of a trial's inputs broke; raises EmbedError in an outage."""
        self._refuse_in_outage()
        self._trials.note(BROKE)
        trial.outcome = SUSPECT

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be the only one of all workers that sends suspects, to an upstream that answers.

        Raises EmbedError where it does not, and asyncio.TimeoutError where others take too long.
        The lock ends with the process, whatever ends that.
        """
        self._refuse_in_outage()
        ends = time.monotonic() + self._seconds
        await asyncio.wait_for(self._turn.acquire(), self._seconds)
        try:
            while not try_lock(self._fd):
                if time.monotonic() > ends:
                    raise asyncio.TimeoutError
                await asyncio.sleep(_ATTEMPT)
            try:
                self._refuse_in_outage()  # which who was before us may have found out
                try:
                    await self._ask(1)
                except BrokenError as error:
                    raise EmbedError(Kind.UNHEALTHY, str(error)) from None
                yield
            finally:
                unlock(self._fd)
        finally:
            self._turn.release()

    async def send(self, key: bytes, send: Callable[[], Awaitable[T]]) -> T:
        """Send a suspect alone, in one's turn; raises EmbedError where it is refused."""
        if (verdict := self._trials.verdict(key)) in (PAUSED, REFUSED):
            raise refusal(verdict)
        try:
            answer = await send()
        except BrokenError as error:
            if not error.began:
                await self._blame(key)
            raise EmbedError(Kind.UNHEALTHY, str(error)) from None
        self._trials.judge(key, SURVIVED)
        return answer

    async def _blame(self, key: bytes) -> None:
        """Refuse a suspect, unless known-good requests break as it did; raises EmbedError then."""
        self._trials.note(BROKE)
        self._trials.judge(key, PAUSED)  # until it is known, whatever ends this worker meanwhile
        try:
            await self._ask(max(_AT_LEAST, self._instances.count))
        except BrokenError:
            return
        except EmbedError:
            pass  # no instance is left: it died of the input
        self._trials.judge(key, REFUSED)
        raise refusal(REFUSED)

    async def _ask(self, count: int) -> None:
        """Send so many known-good requests at once.

        Raises BrokenError or EmbedError where one failed.
        """
        await asyncio.sleep(_DEATH - self._trials.since(BROKE))
        asked = (self._known_good() for _ in range(count))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        failures = [outcome for outcome in outcomes if outcome is not None]
        if not failures:
            return
        self._trials.note(FAILED)
        raise next((one for one in failures if isinstance(one, BrokenError)), failures[0])

    def _refuse_in_outage(self) -> None:
        if self._trials.since(FAILED) < OUTAGE:
            raise EmbedError(Kind.UNHEALTHY, "the upstream answers no request now")
