"""The end of a worker: what has arrived is answered, and replies say that their connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy_app.http import lane
from proxy_app.http.lane import Lane
from proxy_app.http.shortcut import Shortcut
from proxy_app.http.unread import has_unread

#: Seconds in which replies ask clients that use their connections to open others.
GRACE = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Drain:
    """Knows which connections have a request under way.

    aiohttp closes a connection after the request under way without saying so in the reply, reads
    no more of a body that is still arriving, and closes an idle connection at once, also when a
    request is on its way to it: clients that keep their connections would lose requests at every
    restart.
    """

    def __init__(self) -> None:
        self._leaving = False
        self._busy: set[RequestHandler] = set()
        self._idle = asyncio.Event()

    @web.middleware
    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note the request; in a worker that ends, tell the client not to send another here."""
        self._busy.add(request.protocol)
        try:
            response = await handler(request)
        finally:
            self._busy.discard(request.protocol)
            if not self._busy:
                self._idle.set()
        if self._leaving:
            response.force_close()
        return response

    async def leave(self, server: web.Server, seconds: float) -> None:
        """Close what is idle, and wait for the rest; `server` must not accept any more."""
        self._leaving = True
        # Clients that use their connections send one more request in it, whose reply ends the
        # connection; after it only quiet connections are left.
        for _ in range(round(GRACE / 0.02)):
            if not server.connections:
                break
            await asyncio.sleep(0.02)
        for connection in server.connections:
            if connection not in self._busy and not has_unread(connection):
                # At once: what arrived during aiohttp's own way of closing would be lost.
                connection.force_close()
            # One by one: what arrives meanwhile is read, and is no longer idle.
            await asyncio.sleep(0)
        self._idle.clear()
        if self._busy:
            try:
                await asyncio.wait_for(self._idle.wait(), seconds)
            except asyncio.TimeoutError:
                return  # aiohttp cancels what is left


class Runner(web.AppRunner):
    """aiohttp's runner that drains before it ends."""

    def __init__(
        self,
        app: web.Application,
        shortcut: Shortcut,
        lane: Lane,
        drain: Drain,
        client_timeout: float,
        seconds: float,
    ) -> None:
        # Requests die with their clients. A connection that is idle, or in the middle of a head,
        # ends with the keep-alive time.
        super().__init__(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=client_timeout,
            shutdown_timeout=1,
        )
        self._shortcut = shortcut
        self._lane = lane
        self._drain = drain
        self._seconds = seconds

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.request_handler = self._shortcut.before(server.request_handler)
        return lane.Server(server, self._lane)

    async def cleanup(self) -> None:
        """Stop listening, let requests under way end, then take the application apart."""
        # From now on replies have to say that the connection ends, which those of the lane do not.
        self._lane.is_open = False
        for site in list(self.sites):
            await site.stop()
        if self.server is not None:
            await self._drain.leave(self.server, self._seconds)
        await super().cleanup()
