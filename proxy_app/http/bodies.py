"""Requests' bodies and replies: how much of them a worker holds, and how long a client may take.

A body of the largest size is 64 MiB before it is parsed, so their number is bounded by their bytes,
from the announced length, before one is read. What fits into a connection's buffers is not counted.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from proxy_app.errors import EmbedError, Kind
from proxy_app.http.reply import Reply, name_server
from proxy_app.settings import MIB, Settings

#: Bytes from which on a body or reply is a large one.
LARGE = 64 * 1024
#: Bytes a second that a client takes or sends at least, beyond its time-out.
RATE = MIB

#: Bytes of failed requests from which on their memory is given back.
LITTER = 16 * MIB

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Bodies:
    """The large bodies of one worker; ``limit`` and ``size`` are bytes."""

    def __init__(self, settings: Settings) -> None:
        self.limit = settings.body_memory_bytes
        self.size = 0
        self._most = settings.max_body * MIB
        self._seconds = settings.client_timeout
        self._held: dict[int, int] = {}  # by id(request)
        self._failed = 0  # bytes, until their memory is given back
        self._noted = 0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone

    def __repr__(self) -> str:
        return f"<Bodies held={len(self._held)} size={self.size} limit={self.limit}>"

    async def read(self, request: web.Request) -> bytes:
        """Return a request's body.

        A large one counts until the request is answered (``hold``). Raises EmbedError: 413 for
        what is too large, 429 where too much is held already, 408 for what does not arrive in time,
        400 for what is not HTTP.
        """
        content = request.content
        seconds = self._seconds
        timer = None
        try:
            if content.is_eof() and content.total_bytes <= LARGE:
                return content.read_nowait()
            length = request.content_length
            if length is not None and length > LARGE:
                self._count(request, length)
            seconds += (self._most if length is None else length) / RATE
            late = asyncio.TimeoutError()
            timer = asyncio.get_running_loop().call_later(seconds, content.set_exception, late)
            return await self._collect(request, length or 0)
        except asyncio.TimeoutError:
            raise EmbedError(
                Kind.VALIDATION,
                f"the body did not arrive within {seconds:.0f} s (EMBEDRACK_CLIENT_TIMEOUT, and "
                "1 s more per MiB)",
                status=408,
            ) from None
        except ConnectionError:
            raise gone() from None
        except web.RequestPayloadError as error:
            raise EmbedError(
                Kind.VALIDATION, f"the body cannot be read: {error}", status=400
            ) from None
        finally:
            if timer is not None:
                timer.cancel()

    async def pass_on(
        self,
        request: web.Request,
        response: web.StreamResponse,
        beginning: bytes,
        parts: AsyncIterator[bytes],
    ) -> None:
        """Send a reply part by part, as they come, and have the client take each in bounded time.

        A client whose reply does not come to its end loses its connection, so that it knows. Raises
        EmbedError: 499 where the client went away, and what ``parts`` raises.
        """
        transport = request.transport
        if transport is None:
            raise gone()
        loop = asyncio.get_running_loop()

        async def send(part: bytes) -> None:
            timer = loop.call_later(self._seconds + len(part) / RATE, transport.abort)
            try:
                await response.write(part)
            finally:
                timer.cancel()

        try:
            await response.prepare(request)
            await send(beginning)
            async for part in parts:
                await send(part)
            await response.write_eof()
        except ConnectionError:
            raise gone() from None
        except BaseException:
            transport.abort()
            raise

    @web.middleware
    async def hold(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count a body until its request is answered, and send a large reply in bounded time."""
        status = 500
        try:
            response = await handler(request)
            status = response.status
        finally:
            if self._held:
                self._release(request, status)
        size = size_of(response)
        if size > LARGE:
            await self._send(request, response, size)
        return response

    def tidy(self) -> None:
        """Give back the memory of large requests that failed; call it now and then.

        The frames that an error passed keep texts until a full garbage collection, which may be
        long in coming; and glibc keeps what is free between what is not.
        """
        quiet = self._failed == self._noted  # what failed has come to its end
        self._noted = self._failed
        if self._failed >= LITTER and (quiet or self._failed >= self.limit):
            self._failed = 0 if quiet else LITTER
            gc.collect()
            if self._trim is not None:
                self._trim(0)

    def _release(self, request: web.Request, status: int) -> None:
        size = self._held.pop(id(request), 0)
        self.size -= size
        if status >= 400:
            self._failed += size

    async def _collect(self, request: web.Request, counted: int) -> bytes:
        parts = []
        size = 0
        while part := await request.content.readany():
            parts.append(part)
            size += len(part)
            if size > max(counted, LARGE):  # chunked, or compressed
                self._count(request, size - counted)
                counted = size
        return b"".join(parts)

    def _count(self, request: web.Request, count: int) -> None:
        held = self._held.get(id(request), 0)
        if held + count > self._most:
            raise EmbedError(
                Kind.VALIDATION,
                f"the body has more than {self._most // MIB} MiB (EMBEDRACK_MAX_BODY)",
                status=413,
            )
        # A worker that holds no other takes one of any size that is allowed at all.
        if self.size > held and self.size + count > self.limit:
            others = self.size - held
            # At once, so that of several that grow not all are refused.
            self._release(request, 429)
            raise EmbedError(
                Kind.OVERLOADED,
                f"requests of {others} bytes are under way already, and the limit is {self.limit} "
                "(EMBEDRACK_BODY_MEMORY, shared by all workers)",
            )
        self._held[id(request)] = held + count
        self.size += count

    async def _send(self, request: web.Request, response: web.StreamResponse, size: int) -> None:
        transport = request.transport
        if transport is None:
            return
        loop = asyncio.get_running_loop()
        # A timer costs a tenth of what waiting in a task of its own does.
        timer = loop.call_later(self._seconds + size / RATE, transport.abort)
        sent = False
        try:
            name_server(response)
            await response.prepare(request)
            await response.write_eof()
            sent = True
        except ConnectionError:
            transport.abort()
        finally:
            timer.cancel()
            if not sent:
                self._failed += size


def gone() -> EmbedError:
    """Make the error of a client that went away: nobody will see it, but it is counted."""
    return EmbedError(Kind.VALIDATION, "the client went away", status=499)


def size_of(response: web.StreamResponse) -> int:
    """Return the bytes of a reply's body, 0 where there is none."""
    if isinstance(response, Reply):
        return response.size
    body = response.body if isinstance(response, web.Response) else None
    return len(body) if isinstance(body, bytes) else 0
