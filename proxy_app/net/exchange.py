"""A request and its reply over a kept connection, for what is asked thousands of times a second.

aiohttp's client makes a task, a request, a response and a timer's handle for each request: 110 to
200 µs, more than a third of what an embedding out of the store costs. This writes a request in one
piece and takes a reply whose head says where it ends: by a length or in chunks (RFC 9112, 6),
whatever encoding its body has. Of any other it says so, and the caller asks again in the usual way.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

#: Bytes of a reply's head that are looked at, and of the line before a chunk.
LARGEST_HEAD = 16 * 1024
_LARGEST_LINE = 256
#: Seconds for a connection to be made, at most.
CONNECT = 5.0
#: Bytes of a reply where the caller does not say.
MOST = 256 * 1024 * 1024
_HEAD_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*(?=\r)")
_FRAMING = re.compile(rb"\r\ntransfer-encoding[ \t]*:([^\r]*)")
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close")
#: Statuses whose replies have no body (RFC 9112, 6.3).
_BODILESS = (b"204", b"304")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\Z")


class NotPlainError(Exception):
    """The server's reply is none that is understood here."""


class TooLargeError(Exception):
    """The reply has more bytes than were allowed."""


class UnreachableError(OSError):
    """No connection could be made, so that the server saw nothing of the request."""


class PartialError(ConnectionError):
    """The connection ended within the reply."""


class _StaleError(ConnectionError):
    """The server had closed a kept connection, perhaps just when the request was sent."""


class Reply(NamedTuple):
    """A whole reply; ``head`` is its status line and its headers, in small letters."""

    status: int
    head: bytes
    body: bytes

    def fields(self) -> dict[str, str]:
        """Return the headers by their names in small letters; of several of a name the last."""
        fields = {}
        for line in self.head.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon:
                fields[name.decode("latin-1")] = value.strip().decode("latin-1")
        return fields


class Exchange:
    """The connections to one server, over TCP without TLS; ``url`` may have a path.

    ``made`` is how many connections were made.
    """

    def __init__(self, url: str, headers: Mapping[str, str], keep: float) -> None:
        """Connect on demand; a connection is used again within ``keep`` seconds."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._path = parts.path.rstrip("/")
        self._after = f" HTTP/1.1\r\nHost: {parts.netloc}\r\n{lines}"
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._is_closed = False
        self.made = 0

    async def get(self, path: str, seconds: float, most: int = MOST) -> Reply:
        """Send a GET, once more where a kept connection was closed; raises as ``post``."""
        request = f"GET {self._path}{path}{self._after}\r\n".encode()
        return await self._send(request, seconds, most, again=True)

    async def post(
        self, path: str, body: bytes, seconds: float, most: int = MOST, *, again: bool = True
    ) -> Reply:
        """Send a POST and return its reply of at most ``most`` bytes.

        A request that ended with a kept connection, without a reply, is sent once more on a new one
        unless ``again`` is False: the server may have seen it.

        Raises asyncio.TimeoutError after ``seconds``, UnreachableError, PartialError, another
        OSError where the connection ended without a reply, TooLargeError, and NotPlainError.
        """
        head = f"POST {self._path}{path}{self._after}Content-Length: {len(body)}\r\n\r\n"
        return await self._send(head.encode() + body, seconds, most, again=again)

    def close(self) -> None:
        """Close what is idle, and what is under way as soon as it is over."""
        self._is_closed = True
        while self._idle:
            self._idle.pop()[1].close()

    async def _send(self, request: bytes, seconds: float, most: int, *, again: bool) -> Reply:
        kept = self._kept()
        if kept is not None:
            try:
                return await self._ask(kept, request, seconds, most)
            except _StaleError:
                if not again:
                    raise
        started = time.monotonic()
        connection = await self._connect(min(seconds, CONNECT))
        return await self._ask(connection, request, seconds - (time.monotonic() - started), most)

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
            try:
                connecting.result()
            except OSError as error:
                raise UnreachableError(error.strerror or str(error)) from None
        except BaseException:
            if not connecting.cancel():
                connecting.exception()  # else asyncio logs that nobody has looked at it
            connection.close()
            raise
        self.made += 1
        return connection

    async def _ask(
        self, connection: _Connection, request: bytes, seconds: float, most: int
    ) -> Reply:
        try:
            answer = await connection.ask(request, seconds, most)
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
        self._reply: asyncio.Future[Reply] | None = None
        self._most = 0
        self._received = b""  # until the head is whole; then what is not yet a whole chunk
        self._head = b""
        self._status = 0  # 0 until the head is whole
        self._parts: list[bytes] = []  # of the body, joined once it is whole
        self._missing = 0  # bytes of it, or of the chunk under way with the line's end behind it
        self._size = 0  # bytes of the chunks so far
        self._is_chunked = self._is_last = False
        self.is_open = True

    async def ask(self, request: bytes, seconds: float, most: int) -> Reply:
        """Send a request and return the reply; whoever asked closes it where there is none."""
        if self._transport is None:
            raise _StaleError("the connection was closed")
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._reply, self._most = reply, most
        self._transport.write(request)
        timer = self._loop.call_later(seconds, self._fail, asyncio.TimeoutError())
        try:
            return await reply
        finally:
            timer.cancel()
            self._reply = None
            # An error would hold this frame, with the request, and the frame the error.
            del reply
            # An idle connection holds nothing of its last reply.
            self._received, self._head, self._status, self._parts = b"", b"", 0, []
            self._missing = self._size = 0
            self._is_chunked = self._is_last = False

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
        if not self._status:
            self._received += data
            if not self._read_head():
                return
            data, self._received = self._received, b""
        if self._is_chunked:
            self._take_chunks(data)
        else:
            self._parts.append(data)
            self._missing -= len(data)
            if not self._missing:
                self._finish()
            elif self._missing < 0:
                self._fail(NotPlainError("more bytes than announced"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way."""
        self.is_open = False
        self._transport = None
        if self._received or self._status:
            self._fail(PartialError("the reply ended early"))
        else:
            self._fail(_StaleError("the connection was closed"))

    def _read_head(self) -> bool:
        """Tell whether the head is there and is understood; what follows it stays received."""
        end = self._received.find(_HEAD_END, 0, LARGEST_HEAD)
        if end < 0:
            if len(self._received) >= LARGEST_HEAD:
                self._fail(NotPlainError("no head"))
            return False
        head = self._received[: end + 2].lower()
        status, lengths = _STATUS.match(self._received), _LENGTH.findall(head)
        framing = _FRAMING.findall(head)
        if status is not None and status[1] in _BODILESS and not framing:
            lengths = [b"0"]
        if status is None or len(lengths) + len(framing) != 1:
            self._fail(NotPlainError("a reply without a length"))
            return False
        if framing and framing[0].strip() != b"chunked":
            self._fail(NotPlainError("another transfer coding than chunks"))
            return False
        self._status, self._head = int(status[1]), head
        self._received = self._received[end + len(_HEAD_END) :]
        self._is_chunked = bool(framing)
        self._missing = 0 if framing else int(lengths[0])
        if self._missing > self._most:
            self._fail(TooLargeError())
            return False
        if _CLOSE.search(head):
            self.is_open = False
        return True

    def _take_chunks(self, data: bytes) -> None:
        """Take a part of a body in chunks (RFC 9112, 7.1); trailers are not understood."""
        data = self._received + data
        while True:
            if not self._missing:
                line, end, rest = data.partition(b"\r\n")
                if not end and len(line) < _LARGEST_LINE:
                    break
                size = _CHUNK.match(line) if end else None
                if size is None:
                    self._fail(NotPlainError("broken chunks"))
                    return
                self._missing = int(size[1], 16) + 2
                self._is_last = self._missing == 2
                self._size += self._missing - 2
                if self._size > self._most:
                    self._fail(TooLargeError())
                    return
                data = rest
            if len(data) < self._missing:
                break
            if data[self._missing - 2 : self._missing] != b"\r\n":
                self._fail(NotPlainError("broken chunks"))
                return
            self._parts.append(data[: self._missing - 2])
            data, self._missing = data[self._missing :], 0
            if self._is_last:
                if data:
                    self._fail(NotPlainError("more bytes than announced"))
                else:
                    self._finish()
                return
        self._received = data

    def _finish(self) -> None:
        assert self._reply is not None
        self._reply.set_result(Reply(self._status, self._head, b"".join(self._parts)))

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error)


def is_plain(url: str) -> bool:
    """Tell whether an exchange can be had with a server: without TLS, without a password."""
    parts = urlsplit(url)
    return parts.scheme == "http" and "@" not in parts.netloc
