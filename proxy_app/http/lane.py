"""The fast lane: requests that L1 alone can answer, answered as soon as their bytes are there.

aiohttp takes a task, a request object and three rounds of its loop for each request, which is more
than all that a cached embedding needs. So a request on a connection with nothing under way is
looked at first, if it comes whole in one read, or its head in one and its body in the next, as many
clients send them. If its head is a plain one (``Lane._read``) and its route can answer the body
without waiting, the reply is written at once. Everything else goes aiohttp's way, and what was
parsed of the body goes with it (``parsed_of``). A connection on which it is not certain where the
next request begins (pipelined, chunked or broken requests) stays with aiohttp.

What the lane uses of aiohttp's inside, which pyproject.toml therefore pins below the next minor
version:

- ``RequestHandler``: its attributes ``_close``, ``_force_close``, ``_keepalive``,
  ``_keepalive_handle``, ``_keepalive_timeout``, ``_loop``, ``_next_keepalive_close_time``,
  ``_paused``, ``_payload_parser`` and ``_upgraded``; that ``data_received`` gets every read, and
  ``b""`` from itself; that ``finish_response`` is called once for each request that is answered,
  errors of the parser included, which ``_make_error_handler`` answers; that ``_process_keepalive``
  ends an idle connection.
- ``web.Server``: its attributes ``_kwargs`` and ``_loop``, and that it makes a connection's
  protocol by ``__call__``.
- ``web.AppRunner._make_server`` (in ``drain``), and ``request.protocol``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy_app.http import heads, reply
from proxy_app.http.access import Access
from proxy_app.http.unread import has_unread
from proxy_app.telemetry.metrics import LANE_REQUESTS
from proxy_app.telemetry.tallies import Counter

#: Bytes of a body that is looked at.
LARGEST = 256 * 1024
#: Bytes of a head that is looked at, and how many heads are known: a client's hardly differ.
LARGEST_HEAD = 4096
HEADS = 1024
#: Seconds in which a body follows its head.
FOLLOWS = 0.05
_HEAD_END = b"\r\n\r\n"
#: Headers with which a request asks for more than an answer to its body.
_SPECIAL = frozenset(
    (
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"expect",
        b"proxy-connection",
        b"sec-websocket-key1",
    )
)
#: ``Connection._rest`` where nobody knows where the next request begins.
_LOST = -1


#: What came of a look at a body: a whole reply in pieces, or None and what was parsed of it.
Looked = tuple[list[bytes] | None, object]
#: Answers a body without waiting, or only parses it.
Answer = Callable[[bytes], Looked]


class Head(NamedTuple):
    """A request's head: its bytes, its body's, who may answer the body, and what counts its key."""

    size: int
    length: int
    answer: Answer | None
    key: Counter | None


class Lane:
    """The routes that have a fast lane: a POST's path, and who answers it.

    ``access`` is whom every request's key is asked of; None where no key is needed.
    """

    def __init__(self, routes: Mapping[str, Answer], access: Access | None = None) -> None:
        self._routes = {f"POST {path} HTTP/1.1".encode(): answer for path, answer in routes.items()}
        self._access = access
        self._heads: dict[bytes, Head | None] = {}
        self.is_open = True

    def head(self, data: bytes) -> Head | None:
        """Read the head that ``data`` begins with; None where the request's end is not certain."""
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
        head = heads.read(text)
        if head is None:
            return None
        answer = self._routes.get(head.first)
        key = None
        if (
            head.length > LARGEST
            or head.repeats
            or not head.headers.keys().isdisjoint(_SPECIAL)
            or not heads.is_host(head.headers.get(b"host", b"/").decode())
        ):
            answer = None
        elif answer is not None and self._access is not None:
            key = self._access.counter(head.headers.get(b"authorization", b"").decode())
            answer = answer if key is not None else None
        return Head(len(text), head.length, answer, key)


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
    # A body that the lane could not answer, and what it has parsed of it.
    _parsed: tuple[bytes, object] | None = None
    # The end of the keep-alive time at which unread bytes were found.
    _second_look = 0.0

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
                    body = data[head.size :]
                    pieces, parsed = head.answer(body)
                    if pieces is not None:
                        assert self.transport is not None
                        reply.send(self.transport, pieces)
                        LANE_REQUESTS.value += 1
                        if head.key is not None:
                            head.key.value += 1
                        self._stay()
                        return
                    self._parsed = body, parsed
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
        reply.name_server(resp)
        finished = await super().finish_response(request, resp, start_time)
        self._under_way -= 1
        self._parsed = None  # if nobody took it
        return finished

    def take_parsed(self, body: bytes) -> object:
        """Return what the lane has parsed of the request under way, once; None if nothing."""
        parsed, self._parsed = self._parsed, None
        return parsed[1] if parsed is not None and parsed[0] == body else None

    def _make_error_handler(
        self, err_info: Any
    ) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """Answer what aiohttp's parser refuses as every other error is answered."""
        return lambda _: reply.refuse(heads.unreadable(err_info.status, err_info.message))

    def _process_keepalive(self) -> None:
        """End the connection if it is idle, which it is not once a head is here.

        Where the loop was held up, a request may have arrived in time and be unread. One more round
        of the loop reads it; no more than one, or a client that sends bytes one by one could stay.
        """
        if self._held:
            self._give_up()
        if self._second_look != self._next_keepalive_close_time and has_unread(self):
            self._second_look = self._next_keepalive_close_time
            self._keepalive_handle = self._loop.call_later(FOLLOWS, self._process_keepalive)
            return
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


def parsed_of(request: web.BaseRequest, body: bytes) -> object:
    """Return what the lane has parsed of a request's body before it left it to aiohttp, or None."""
    connection = request.protocol
    return connection.take_parsed(body) if isinstance(connection, Connection) else None


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
