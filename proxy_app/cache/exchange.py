"""A request and its reply over a kept connection, for what is asked thousands of times a second.

aiohttp's client makes a task, a request, a response and a timer's handle for each request: 110 µs,
more than a third of what an embedding out of the store costs. This writes a POST in one piece and
takes a reply whose length its head tells (RFC 9112, 6.2); of any other it says so, and the caller
asks again in the usual way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

#: Bytes of a reply's head that are looked at.
LARGEST_HEAD = 16 * 1024
_HEAD_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*(?=\r)")
_OTHER = re.compile(rb"\r\n(?:transfer-encoding|content-encoding|upgrade)[ \t]*:")
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close")


class NotPlainError(Exception):
    """The server's reply is none that is understood here."""


class _StaleError(ConnectionError):
    """The server had closed a kept connection; it saw nothing of the request."""


class Exchange:
    """The connections to one server, over TCP without TLS; ``url`` may have a path."""

    def __init__(self, url: str, headers: Mapping[str, str], keep: float) -> None:
        """Connect on demand; a connection is used again within ``keep`` seconds."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._before = f"POST {parts.path.rstrip('/')}"
        self._after = f" HTTP/1.1\r\nHost: {parts.netloc}\r\n{lines}Content-Length: "
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._is_closed = False

    async def post(self, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
        """Return a reply's status and body.

        Raises asyncio.TimeoutError after ``seconds``, OSError where the connection fails, and
        NotPlainError.
        """
        head = f"{self._before}{path}{self._after}{len(body)}\r\n\r\n"
        request = head.encode() + body
        kept = self._kept()
        if kept is not None:
            try:
                return await self._ask(kept, request, seconds)
            except _StaleError:
                pass  # a new one has not been closed
        started = time.monotonic()
        connection = await self._connect(seconds)
        return await self._ask(connection, request, seconds - (time.monotonic() - started))

    def close(self) -> None:
        """Close what is idle, and what is under way as soon as it is over."""
        self._is_closed = True
        while self._idle:
            self._idle.pop()[1].close()

    async def _connect(self, seconds: float) -> _Connection:
        connection = _Connection(self._loop)
        connecting = self._loop.create_task(
            self._loop.create_connection(lambda: connection, self._host, self._port)
        )
        try:
            # Not wait_for: before Python 3.12 it may swallow a cancellation.
            await asyncio.wait([connecting], timeout=seconds)
            if not connecting.done():
                raise asyncio.TimeoutError
            connecting.result()
        except BaseException:
            if not connecting.cancel():
                connecting.exception()  # else asyncio logs that nobody has looked at it
            connection.close()
            raise
        return connection

    async def _ask(
        self, connection: _Connection, request: bytes, seconds: float
    ) -> tuple[int, bytes]:
        try:
            answer = await connection.ask(request, seconds)
        except BaseException:
            # The rest of a reply must not be taken for the next one's. A cancellation ends up here
            # also where the reply is whole.
            connection.close()
            raise
        if connection.is_open and not self._is_closed:
            self._keep_idle(connection)
        else:
            connection.close()
        return answer

    def _keep_idle(self, connection: _Connection) -> None:
        now = time.monotonic()
        self._idle.append((now, connection))
        # Those at the other end are not used while there are enough at this one.
        if now - self._idle[0][0] > self._keep:
            self._idle.popleft()[1].close()

    def _kept(self) -> _Connection | None:
        while self._idle:
            since, connection = self._idle.pop()
            if connection.is_open and time.monotonic() - since < self._keep:
                return connection
            connection.close()
        return None


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = b""  # until the head is whole
        self._status = 0  # 0 until then
        self._parts: list[bytes] = []  # of the body, joined once it is whole
        self._missing = 0  # bytes of it
        self.is_open = True

    async def ask(self, request: bytes, seconds: float) -> tuple[int, bytes]:
        """Send a request and return the reply; whoever asked closes it where there is none."""
        if self._transport is None:
            raise _StaleError
        reply: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        self._reply = reply
        self._transport.write(request)
        timer = self._loop.call_later(seconds, self._fail, asyncio.TimeoutError())
        try:
            return await reply
        finally:
            timer.cancel()
            self._reply = None
            # An idle connection holds nothing of its last reply.
            self._received, self._status, self._parts = b"", 0, []

    def close(self) -> None:
        """Cut the connection."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        if not self.is_open:  # closed before it was made
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take a part of the reply."""
        if self._reply is None or self._reply.done():
            self.close()  # nobody asked
            return
        if self._status:
            self._parts.append(data)
            self._missing -= len(data)
        else:
            self._received += data
            if not self._read_head():
                return
        if not self._missing:
            self._reply.set_result((self._status, b"".join(self._parts)))
        elif self._missing < 0:
            self._fail(NotPlainError("more bytes than announced"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way."""
        self.is_open = False
        self._transport = None
        if self._received or self._status:
            self._fail(exc or ConnectionResetError("the reply ended early"))
        else:
            self._fail(_StaleError("the connection was closed"))

    def _read_head(self) -> bool:
        """Tell whether the head is there and is understood."""
        end = self._received.find(_HEAD_END, 0, LARGEST_HEAD)
        if end < 0:
            if len(self._received) >= LARGEST_HEAD:
                self._fail(NotPlainError("no head"))
            return False
        head = self._received[: end + 2].lower()
        status, lengths = _STATUS.match(self._received), _LENGTH.findall(head)
        if status is None or len(lengths) != 1 or _OTHER.search(head):
            self._fail(NotPlainError("a reply without a length"))
            return False
        self._status = int(status[1])
        self._parts = [self._received[end + len(_HEAD_END) :]]
        self._missing = int(lengths[0]) - len(self._parts[0])
        self._received = b""
        if _CLOSE.search(head):
            self.is_open = False
        return True

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)
