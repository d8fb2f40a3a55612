"""A front that demands an API key before all but the page and the probes."""

from __future__ import annotations

from aiohttp import web

from tests.proxy.conftest import Proxy

OPEN = ("/status", "/health", "/livez", "/readyz", "/ping")


def demanding(key: str, proxy: Proxy) -> web.Application:
    """Return a server that passes on what comes with the key, and answers 401 to the rest."""

    async def answer(request: web.Request) -> web.Response:
        if request.path not in OPEN and request.headers.get("Authorization") != f"Bearer {key}":
            return web.json_response({"error": "an API key is needed"}, status=401)
        async with proxy.session.request(
            request.method,
            proxy.url + request.path_qs,
            data=await request.read(),
            headers={"Content-Type": request.headers.get("Content-Type", "text/plain")},
        ) as reply:
            kept = ("Content-Type", "Content-Security-Policy", "X-Cache")
            headers = {name: reply.headers[name] for name in kept if name in reply.headers}
            return web.Response(status=reply.status, headers=headers, body=await reply.read())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app
