"""A good reply, head and body written in one piece.

aiohttp's own response builds a dictionary of headers and copies the body twice on its way out,
which costs more than looking an embedding up does.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11

_SERVER = f"Server: {SERVER_SOFTWARE}\r\n"


class Reply(web.StreamResponse):
    """Status 200 and JSON: ``pieces``, joined by commas between ``opening`` and ``closing``.

    ``head`` is further header lines, each with its CRLF.
    """

    def __init__(
        self, head: str, pieces: list[bytes], opening: bytes = b"[", closing: bytes = b"]"
    ) -> None:
        super().__init__()
        self._head = head
        self._pieces = pieces
        self._opening = opening
        self._closing = closing

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all of it; raises ConnectionResetError where the client is gone."""
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if self._keep_alive:
            connection = "" if request.version == HttpVersion11 else "Connection: keep-alive\r\n"
        else:
            connection = "Connection: close\r\n"
        pieces = self._pieces
        length = sum(map(len, pieces)) + len(pieces) - 1 + len(self._opening) + len(self._closing)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
            f"{self._head}{connection}Date: {rfc822_formatted_time()}\r\n{_SERVER}\r\n"
        )
        # One copy of the vectors: what stands around them is added to the first and the last.
        last = pieces[-1] + self._closing
        pieces = [*pieces[:-1], last]
        pieces[0] = head.encode() + self._opening + pieces[0]
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(b",".join(pieces) if len(pieces) > 1 else pieces[0])
        self._pieces = []
        self._writer = request.writer
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until the client has taken enough of it, so that no second one piles up on it."""
        await self._writer.drain()
