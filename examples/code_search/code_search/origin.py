"""Only the page itself may call it: other sites' scripts run in the same browser as the page.

On loopback a foreign ``Host`` is refused as well (a name of somebody else's that was made to lead
here); elsewhere this machine's names are not known.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from code_search.settings import LOOPBACK


class OwnOrigin:
    """ASGI middleware that answers 403 to requests that come from elsewhere than the page."""

    def __init__(self, app: ASGIApp, loopback: bool) -> None:
        """Guard ``app``; ``loopback`` where it listens there alone."""
        self._app = app
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket") and not self._is_own(Headers(scope=scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                refusal = PlainTextResponse("This page answers its own origin alone.\n", 403)
                await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_own(self, headers: Headers) -> bool:
        host = headers.get("host", "")
        origin = headers.get("origin")
        if self._loopback and (urlsplit(f"//{host}").hostname or "") not in LOOPBACK:
            return False
        return origin is None or urlsplit(origin).netloc == host
