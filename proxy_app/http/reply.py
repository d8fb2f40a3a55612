"""A reply, head and body written in one piece, or a large one in several.

aiohttp's own response builds a dictionary of headers and copies the body twice on its way out,
which costs more than looking an embedding up does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import lru_cache
from http import HTTPStatus

import orjson
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11

from proxy_app.errors import EmbedError
from proxy_app.http import cors
from proxy_app.telemetry import metrics

#: Bytes that are written at once. A reply of 1024 vectors has 13 million, and while they are copied
#: nobody else is served.
CHUNK = 512 * 1024
#: What the ``Server`` header names: no versions, which would help only an attacker.
SERVER = "embedrack"
#: A header line for what is true for this moment alone.
NOT_STORED = "Cache-Control: no-store\r\n"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Reply(web.StreamResponse):
    """JSON in pieces; ``lines`` is further header lines, each with its CRLF."""

    def __init__(self, pieces: list[bytes], lines: str = "", status: int = 200) -> None:
        super().__init__(status=status)
        self._lines = lines
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
        head = head_of(self.status, self.size, self._lines + connection)
        pieces = [head] if request.method == hdrs.METH_HEAD else [head, *self._pieces]
        if self.size <= CHUNK:
            _write(request, pieces)
        else:
            for chunk in chunks(pieces):
                _write(request, chunk)
                await self._writer.drain()
                await asyncio.sleep(0)
        self._pieces = []
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until the client has taken enough of it, so that no second one piles up on it."""
        if self._writer is not None:
            await self._writer.drain()


def head_of(status: int, size: int, lines: str) -> bytes:
    """Write the head of a reply with ``size`` bytes of body and some header lines of its own."""
    return (
        f"{_first_lines(status)}{lines}"
        f"Date: {rfc822_formatted_time()}\r\nContent-Length: {size}\r\n\r\n"
    ).encode()


@lru_cache
def _first_lines(status: int) -> str:
    """Write what all heads of a status begin with."""
    return (
        f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n"
        f"Server: {SERVER}\r\nContent-Type: application/json\r\n{cors.LINES}"
    )


def whole(pieces: list[bytes], lines: str = "", status: int = 200) -> list[bytes]:
    """Return what ``Reply`` of the same would write on an HTTP/1.1 connection that stays open."""
    return [head_of(status, sum(map(len, pieces)), lines), *pieces]


def failure(error: EmbedError, body: bytes) -> Reply:
    """Return an error's reply; ``body`` is the error in a dialect's shape."""
    return Reply([body], retry_line(error), error.status)


def retry_line(error: EmbedError) -> str:
    """Write an error's header line that says when to come back, "" where there is none."""
    return "" if error.retry_after is None else f"Retry-After: {error.retry_after}\r\n"


async def refuse(error: EmbedError) -> Reply:
    """Answer, and count, a request of which nothing more is read; the connection ends."""
    metrics.count_request("other", error.status, 0.0)
    response = failure(error, error_body(error))
    response.force_close()
    return response


def name_server(response: web.StreamResponse) -> None:
    """Have a response of aiohttp's name the server as ours do."""
    if not isinstance(response, Reply):
        response.headers.setdefault(hdrs.SERVER, SERVER)


def error_body(error: EmbedError) -> bytes:
    """Write an error in TEI's shape, which is that of every error outside OpenAI's routes."""
    return orjson.dumps({"error": error.message, "error_type": error.kind.value})


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
