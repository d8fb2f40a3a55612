"""A stand-in for the balancer: the next instance gets the next request, as nginx is set up here.

An instance that breaks off makes a 502, and no other gets the request. Clients' connections stay
while the list of instances changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import aiohttp
from aiohttp import web


def balancer(urls: list[str]) -> web.Application:
    """Make an application that spreads requests over these instances, in turn.

    The list may change.
    """
    turns = count()

    async def clients(app: web.Application) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            app[SESSION] = session
            yield

    async def spread(request: web.Request) -> web.Response:
        body = await request.read()
        url = urls[next(turns) % len(urls)] + request.path_qs
        headers = {"Content-Type": request.content_type}
        try:
            async with request.app[SESSION].request(
                request.method, url, data=body, headers=headers
            ) as reply:
                kept = {n: v for n, v in reply.headers.items() if n.startswith(("x-", "Content-T"))}
                return web.Response(status=reply.status, headers=kept, body=await reply.read())
        except aiohttp.ClientError:
            return web.Response(status=502, text="<html>Bad Gateway</html>")

    app = web.Application(client_max_size=2_000_000)
    app.cleanup_ctx.append(clients)
    app.router.add_route("*", "/{path:.*}", spread)
    return app


SESSION: web.AppKey[aiohttp.ClientSession] = web.AppKey("session", aiohttp.ClientSession)
