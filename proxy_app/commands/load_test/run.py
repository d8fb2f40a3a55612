"""Sends the requests of a plan: closed, one after another on each connection, or open, on time."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator

import aiohttp

from proxy_app.commands import client
from proxy_app.commands.load_test.mix import Body
from proxy_app.commands.load_test.outcome import NOT_SENT, Outcome
from proxy_app.commands.load_test.plan import Plan
from proxy_app.commands.load_test.replies import Check, WrongReply, check_embed, check_openai

#: Seconds that a client of a closed loop rests after a request without a reply, so that a refused
#: connection does not become thousands within a second.
REST = 0.05
#: Bytes of a body from which on aiohttp wants it as a file.
_LARGE = 2**20


class Run:
    """One run; ``keep`` is called with each outcome. Nothing is ever sent twice."""

    def __init__(
        self,
        plan: Plan,
        bodies: Iterator[Body],
        keep: Callable[[Outcome], None],
        key: str = "",
    ) -> None:
        self._plan = plan
        self._bodies = bodies
        self._keep = keep
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._check: Check = check_openai if plan.is_openai else check_embed
        self._session: aiohttp.ClientSession
        self._work: asyncio.Task[None] | None = None
        self._began = 0.0
        self._counted = 0
        self._stopped = False
        #: Requests that were under way when the run was stopped; they have no outcome.
        self.abandoned = 0
        #: CPU seconds of this process over seconds of the run.
        self.busy = 0.0

    @property
    def now(self) -> float:
        """Seconds since the warm-up's end."""
        return time.perf_counter() - self._began

    async def go(self) -> None:
        """Send all requests and wait for their ends."""
        connector = aiohttp.TCPConnector(
            limit=self._plan.concurrency, ssl=client.trust(self._plan.url) or True
        )
        timeout = aiohttp.ClientTimeout(total=self._plan.timeout)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as self._session:
            cpu, began = time.process_time(), time.perf_counter()
            self._began = began + self._plan.warm_up
            self._work = asyncio.create_task(self._open() if self._plan.is_open else self._closed())
            try:
                await self._work
            except asyncio.CancelledError:
                if not self._stopped:
                    raise
            self.busy = (time.process_time() - cpu) / (time.perf_counter() - began)

    def stop(self) -> None:
        """Send nothing more, and wait for nothing."""
        self._stopped = True
        if self._work is not None:
            self._work.cancel()

    async def _closed(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._plan.concurrency)))

    async def _client(self) -> None:
        while not self._plan.is_over(at := self.now, self._counted):
            self._counted += at >= 0
            if not await self._send(next(self._bodies), at):
                await asyncio.sleep(REST)

    async def _open(self) -> None:
        under_way: set[asyncio.Task[bool]] = set()
        try:
            for due in self._plan.dues():
                await asyncio.sleep(max(0.0, due - self.now))
                body = next(self._bodies)
                if len(under_way) >= self._plan.concurrency:
                    self._keep(Outcome(due, 0.0, body.texts, NOT_SENT))
                    continue
                task = asyncio.create_task(self._send(body, due))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.gather(*under_way)
        except asyncio.CancelledError:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
            raise

    async def _send(self, body: Body, due: float) -> bool:
        """Send a request and keep its outcome; tells whether there was a reply."""
        # The loop's clock has milliseconds, so a request may be sent a little before it is due.
        due = min(due, self.now)
        late = self.now - due
        data = io.BytesIO(body.content) if len(body.content) >= _LARGE else body.content
        try:
            async with self._session.post(
                self._plan.url, data=data, headers=self._headers, allow_redirects=False
            ) as reply:
                content = await reply.read()
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            message = f"{type(error).__name__}: {error}"
            took = self.now - due
            self._keep(Outcome(due, took, body.texts, kind_of(error), message=message, late=late))
            return False
        took = self.now - due
        kind = message = ""
        if reply.status != 200:
            kind, message = f"status-{reply.status}", content[:200].decode("utf-8", "replace")
        else:
            try:
                self._check(content, body.texts)
            except WrongReply as wrong:
                kind, message = wrong.kind, str(wrong)
        hits, misses = client.hits_and_misses(reply.headers.get("X-Cache", ""))
        self._keep(
            Outcome(
                *(due, took, body.texts, kind, reply.status, message, hits, misses, len(content)),
                retry_after="Retry-After" in reply.headers,
                late=late,
            )
        )
        return True


def kind_of(error: Exception) -> str:
    """Name why there is no reply."""
    if isinstance(error, asyncio.TimeoutError):
        return "timeout"
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.SSLError)):
        return "certificate"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, socket.gaierror):
            return "name"
        return "refused" if isinstance(error.os_error, ConnectionRefusedError) else "connect"
    return "reset"
