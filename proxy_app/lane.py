"""The fast lane: requests that L1 alone can answer, answered as soon as their bytes are there.

aiohttp takes a task, a request object and three rounds of its loop for each request, which is more
than all that a cached embedding needs. So a request that arrives whole in one read on a connection
with nothing under way is looked at first: if it is a plain one (``plain_body``) and every input is
in L1, its reply is written at once. Everything else, errors included, goes aiohttp's way, and a
connection whose bytes were not whole requests once stays there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

#: Bytes of a request that is looked at: a read brings at most 64 KiB or 256 KiB.
LARGEST = 256 * 1024
#: Bytes of a head that is looked at.
LARGEST_HEAD = 4096
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d{1,7})\r\n")
#: A head with one of these is not a plain one: it asks for more than an answer to its body.
_SPECIAL = re.compile(
    rb"\r\n(?:authorization|cache-control|connection|content-encoding|expect|transfer-encoding"
    rb"|upgrade)[ \t]*:|\r\n[ \t]"
)

#: Takes a body and returns a whole reply, or None where L1 alone cannot answer.
Answer = Callable[[bytes], bytes | None]


class Lane:
    """The routes that have a fast lane: a POST's path, and who answers it."""

    def __init__(self, routes: Mapping[str, Answer]) -> None:
        self._routes = {f"POST {path} HTTP/1.1".encode(): answer for path, answer in routes.items()}
        self.is_open = True

    def answer(self, data: bytes, head_end: int) -> bytes | None:
        """Return the reply to a whole request, or None where it is to go aiohttp's way."""
        answer = self._routes.get(data[: data.find(b"\r\n")])
        if answer is None or not self.is_open or _SPECIAL.search(data[:head_end].lower()):
            return None
        return answer(data[head_end + 4 :])


def head_end_of(data: bytes) -> int:
    """Return where the head ends if ``data`` is exactly one request with a body, else -1."""
    if len(data) > LARGEST:
        return -1
    head_end = data.find(_HEAD_END, 0, LARGEST_HEAD)
    if head_end < 0:
        return -1
    head = data[: head_end + 2].lower()
    length = _LENGTH.search(head) if head.count(b"content-length") == 1 else None
    if length is None or head_end + 4 + int(length[1]) != len(data):
        return -1
    return head_end


class Connection(RequestHandler):
    """aiohttp's connection with a lane beside it."""

    lane: Lane
    # Whether aiohttp's parser is between two requests, as far as can be told from outside.
    _between = True
    # Requests that aiohttp was given and has not answered whole: theirs are the next replies.
    _under_way = 0

    def data_received(self, data: bytes) -> None:
        """Answer at once what can be, or leave it to aiohttp."""
        if self._between:
            head_end = head_end_of(data)
            if head_end < 0:
                self._between = False
            elif self._is_idle() and (reply := self.lane.answer(data, head_end)) is not None:
                assert self.transport is not None
                self.transport.write(reply)
                self._stay()
                return
            else:
                self._under_way += 1
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write aiohttp's reply."""
        finished = await super().finish_response(request, resp, start_time)
        self._under_way -= 1
        return finished

    def _is_idle(self) -> bool:
        busy = self._under_way or self._upgraded or self._payload_parser is not None
        return not (busy or self._paused or self._close or self._force_close)

    def _stay(self) -> None:
        """Have the connection end when it was idle for the keep-alive time, as aiohttp does."""
        self.keep_alive(True)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )


class Server(web.Server):
    """aiohttp's server, whose connections have the lane."""

    def __init__(self, server: web.Server, lane: Lane) -> None:
        super().__init__(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            loop=server._loop,
            **server._kwargs,
        )
        self._lane = lane

    def __call__(self) -> RequestHandler:
        """Make what serves one connection."""
        arguments: dict[str, Any] = self._kwargs
        connection = Connection(self, loop=self._loop, **arguments)
        connection.lane = self._lane
        return connection
