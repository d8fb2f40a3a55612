"""The fast lane: requests that L1 alone can answer, answered as soon as their bytes are there.

aiohttp takes a task, a request object and three rounds of its loop for each request, which is more
than all that a cached embedding needs. So a request on a connection with nothing under way is
looked at first, if it comes whole in one read, or its head in one and its body in the next, as many
clients send them: if it is a plain one (``Head``) and every input is in L1, its reply is written at
once. Everything else, errors included, goes aiohttp's way. A connection whose bytes cannot be told
apart as requests (pipelined, chunked, broken) stays there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy_app.http import reply

#: Bytes of a body that is looked at.
LARGEST = 256 * 1024
#: Bytes of a head that is looked at, and how many heads are known: a client's hardly differ.
LARGEST_HEAD = 4096
HEADS = 1024
#: Seconds in which a body follows its head.
FOLLOWS = 0.05
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d{1,12})\r\n")
_BODILESS = (b"GET ", b"HEAD ")
#: What makes the end of a request uncertain: other framing, folded or broken lines.
_UNCERTAIN = re.compile(rb"\r\n(?:transfer-encoding|upgrade)[ \t]*:|\r\n[ \t]|[^\r]\n|\r[^\n]|\0")
#: A head with one of these is not a plain one: it asks for more than an answer to its body.
_SPECIAL = re.compile(
    rb"\r\n(?:authorization|cache-control|connection|content-encoding|expect)[ \t]*:"
)
#: ``Connection._rest`` where nobody knows where the next request begins.
_LOST = -1

#: Takes a body and returns a whole reply in pieces, or None where L1 alone cannot answer.
Answer = Callable[[bytes], list[bytes] | None]


class Head(NamedTuple):
    """A request's head: its bytes, its body's, and who may answer the body, if it is plain."""

    size: int
    length: int
    answer: Answer | None


class Lane:
    """The routes that have a fast lane: a POST's path, and who answers it."""

    def __init__(self, routes: Mapping[str, Answer]) -> None:
        self._routes = {f"POST {path} HTTP/1.1".encode(): answer for path, answer in routes.items()}
        self._heads: dict[bytes, Head | None] = {}
        self.is_open = True

    def head(self, data: bytes) -> Head | None:
        """Read the head that ``data`` begins with; None where it cannot be told what it means."""
        end = data.find(_HEAD_END, 0, LARGEST_HEAD) + len(_HEAD_END)
        if end < len(_HEAD_END):
            return None
        text = data[:end]
        try:
            return self._heads[text]
        except KeyError:
            if len(self._heads) >= HEADS:
                self._heads.clear()
            head = self._heads[text] = self._read(text)
            return head

    def _read(self, text: bytes) -> Head | None:
        lowered = text[:-2].lower()
        if _UNCERTAIN.search(lowered):
            return None
        if b"content-length" not in lowered and text.startswith(_BODILESS):
            return Head(len(text), 0, None)
        length = _LENGTH.search(lowered) if lowered.count(b"content-length") == 1 else None
        if length is None:
            return None
        size = int(length[1])
        if size > LARGEST or _SPECIAL.search(lowered):
            return Head(len(text), size, None)
        return Head(len(text), size, self._routes.get(text[: text.find(b"\r\n")]))


class Connection(RequestHandler):
    """aiohttp's connection with a lane beside it."""

    lane: Lane
    # Bytes still to come of the request that aiohttp has the beginning of.
    _rest = 0
    # Requests that aiohttp was given and has not answered whole: theirs are the next replies.
    _under_way = 0
    # A head whose body has not come yet, and what ends the wait for it.
    _held = b""
    _waiting: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Answer at once what can be, or leave it to aiohttp."""
        if self._held:
            data = self._released() + data
        if not data:
            pass  # aiohttp calls it so for itself, to go on with what it has
        elif self._rest:
            self._rest = max(self._rest - len(data), _LOST)
        elif (head := self.lane.head(data)) is None:
            self._rest = _LOST
        else:
            missing = head.size + head.length - len(data)
            if missing >= 0 and head.answer is not None and self._is_idle():
                if not missing:
                    pieces = head.answer(data[head.size :])
                    if pieces is not None:
                        assert self.transport is not None
                        reply.send(self.transport, pieces)
                        self._stay()
                        return
                elif len(data) == head.size:
                    self._held = data
                    self._waiting = self._loop.call_later(FOLLOWS, self._give_up)
                    return
            self._rest = max(missing, _LOST)
            self._under_way += 1
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget what was held."""
        self._released()
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write aiohttp's reply."""
        finished = await super().finish_response(request, resp, start_time)
        self._under_way -= 1
        return finished

    def _process_keepalive(self) -> None:
        """End the connection if it is idle, which it is not once a head is here."""
        if self._held:
            self._give_up()
        super()._process_keepalive()

    def _is_idle(self) -> bool:
        busy = self._under_way or self._upgraded or self._payload_parser is not None
        closing = self._close or self._force_close or not self.lane.is_open
        return not (busy or closing or self._paused)

    def _released(self) -> bytes:
        held, self._held = self._held, b""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        return held

    def _give_up(self) -> None:
        """Leave a head to aiohttp, which waits for its body as long as is allowed."""
        held = self._released()
        head = self.lane.head(held)
        assert head is not None
        self._rest = head.length
        self._under_way += 1
        super().data_received(held)

    def _stay(self) -> None:
        """Have the connection end when it was idle for the keep-alive time, as aiohttp does."""
        self._keepalive = True
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
