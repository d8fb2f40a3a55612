"""One connection of the load: sends, has the reply judged, and never sends anything twice."""

from __future__ import annotations

import asyncio
import time

import aiohttp
from judge import Judge, WrongReply
from pace import Pace
from tally import Tally
from texts import Texts

TIMEOUT = aiohttp.ClientTimeout(total=30)
#: After a failure, so that a refused connection does not become thousands within a second.
REST = 0.05


class Client:
    """A client of ``/embed`` with a connection of its own, kept or made anew for each request."""

    def __init__(self, url: str, texts: Texts, judge: Judge, tally: Tally) -> None:
        self._url = url.rstrip("/") + "/embed"
        self._texts = texts
        self._judge = judge
        self._tally = tally

    async def run(self, pace: Pace, *, connect_each: bool) -> None:
        """Send whenever it is this client's turn, until the run is over."""
        connector = (
            aiohttp.TCPConnector(limit=1, force_close=True)
            if connect_each
            else aiohttp.TCPConnector(limit=1, keepalive_timeout=3600)
        )
        async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
            while await pace.turn():
                if not await self._send(session, self._texts.batch()):
                    await pace.sleep(REST)

    async def _send(self, session: aiohttp.ClientSession, texts: list[str]) -> bool:
        self._tally.requests += 1
        self._tally.inputs += len(texts)
        began = time.monotonic()
        try:
            # A POST: aiohttp does not send it again over another connection.
            async with session.post(
                self._url, json={"inputs": texts}, allow_redirects=False
            ) as reply:
                body = await reply.read()
            seconds = time.monotonic() - began
            if reply.status != 200:
                raise WrongReply(f"status-{reply.status}", body[:200].decode("utf-8", "replace"))
            self._judge.check(texts, reply.content_type, body)
        except WrongReply as wrong:
            self._tally.failed(wrong.kind, str(wrong))
            return False
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            self._tally.failed(_kind(error), f"{type(error).__name__}: {error}")
            return False
        self._tally.good(seconds, reply.headers.get("X-Cache", ""))
        return True


def _kind(error: Exception) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "refused" if isinstance(error.os_error, ConnectionRefusedError) else "connect"
    return "reset"
