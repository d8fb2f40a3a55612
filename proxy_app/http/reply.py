"""A good reply, head and body written in one piece, or a large one in several.

aiohttp's own response builds a dictionary of headers and copies the body twice on its way out,
which costs more than looking an embedding up does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11

#: Bytes that are written at once. A reply of 1024 vectors has 13 million, and while they are copied
#: nobody else is served.
CHUNK = 512 * 1024
_SERVER = f"Server: {SERVER_SOFTWARE}\r\n"


class Reply(web.StreamResponse):
    """Status 200 and JSON in pieces; ``head`` is further header lines, each with its CRLF."""

    def __init__(self, head: str, pieces: list[bytes]) -> None:
        super().__init__()
        self._head = head
        self._pieces = pieces
        self._writer: AbstractStreamWriter | None = None
        #: Bytes of the body.
        self.size = sum(map(len, pieces))

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all of it, once; raises ConnectionResetError where the client is gone."""
        if self._writer is not None:
            return self._writer
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if not self._keep_alive:
            connection = "Connection: close\r\n"
        else:
            connection = "" if request.version == HttpVersion11 else "Connection: keep-alive\r\n"
        self._writer = request.writer
        self._pieces.insert(0, head_of(self.size, self._head + connection))
        if self.size <= CHUNK:
            _write(request, self._pieces)
        else:
            for chunk in chunks(self._pieces):
                _write(request, chunk)
                await self._writer.drain()
                await asyncio.sleep(0)
        self._pieces = []
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until the client has taken enough of it, so that no second one piles up on it."""
        if self._writer is not None:
            await self._writer.drain()


def head_of(size: int, lines: str) -> bytes:
    """Write the head of a reply with ``size`` bytes of body and some header lines of its own."""
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
        f"{lines}Date: {rfc822_formatted_time()}\r\n{_SERVER}\r\n"
    ).encode()


def send(transport: asyncio.WriteTransport, pieces: list[bytes]) -> None:
    """Write pieces as they are, of which the kernel gathers many; TLS would make a record each."""
    if transport.get_extra_info("sslcontext") is None:
        transport.writelines(pieces)
    else:
        transport.write(b"".join(pieces))


def chunks(pieces: list[bytes]) -> Iterator[list[bytes]]:
    """Cut a list of pieces into lists of about CHUNK bytes."""
    start = size = 0
    for end, piece in enumerate(pieces, 1):
        size += len(piece)
        if size >= CHUNK or end == len(pieces):
            yield pieces[start:end]
            start, size = end, 0


def _write(request: web.BaseRequest, pieces: list[bytes]) -> None:
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    send(transport, pieces)
