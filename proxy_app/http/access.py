"""Who may ask: API keys by name, and the admin's.

Keys are kept as SHA-256 and compared in constant time. A header that was found good is remembered,
so that it costs one look-up in a dict the next time; one that was not is hashed and compared again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from proxy_app.settings import Settings
from proxy_app.telemetry import metrics
from proxy_app.telemetry.tallies import Counter

#: What needs no key: a look at whether it works, as TEI's, and a page that holds no data.
OPEN_PATHS = frozenset(("/", "/health", "/livez", "/readyz", "/ping", "/metrics", "/status"))
#: The admin's key opens everything; that is its name in the metrics.
ADMIN = "admin"
#: Headers that are remembered at most.
REMEMBERED = 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Access:
    """The keys of one proxy."""

    def __init__(self, settings: Settings) -> None:
        self._keys = settings.api_keys.pairs()
        if settings.admin_key:
            self._keys.append((ADMIN, hashlib.sha256(settings.admin_key.encode()).digest()))
        self._counts = {name: metrics.count_key(name) for name, _ in self._keys}
        self._good: dict[str, str] = {}

    def name(self, request: web.Request) -> str:
        """Return the name of the key that a request has, or "" for none or a wrong one."""
        return self._name(request.headers.get(hdrs.AUTHORIZATION))

    def counter(self, header: str | None) -> Counter | None:
        """Return what counts the requests of an Authorization header's key; None for no such key.

        Both ways of a request ask here.
        """
        return self._counts.get(self._name(header))

    def is_admin(self, request: web.Request) -> bool:
        """Tell whether the request has the admin's key."""
        return self.name(request) == ADMIN

    def is_ours(self, request: web.Request) -> bool:
        """Tell whether the request's key is for this proxy, and so not for what is behind it."""
        return bool(self._keys) and self.name(request) != ""

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer 401 where a key is needed and none of ours is there."""
        counter = self.counter(request.headers.get(hdrs.AUTHORIZATION))
        if counter is not None:
            counter.inc()
        # A browser asks before a request with a key, by OPTIONS and without the key.
        elif not (request.path in OPEN_PATHS and request.method in ("GET", "HEAD")) and (
            request.method != hdrs.METH_OPTIONS
        ):
            metrics.count_request("other", 401, 0.0)
            return refusal()
        return await handler(request)

    def _name(self, header: str | None) -> str:
        if header is None:
            return ""
        return self._good.get(header) or self._compare(header)

    def _compare(self, header: str) -> str:
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer":
            return ""
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found = ""
        for name, known in self._keys:  # all of them, whichever it is
            if hmac.compare_digest(digest, known):
                found = name
        if found:
            if len(self._good) >= REMEMBERED:
                self._good.clear()
            self._good[header] = found
        return found


def refusal() -> web.Response:
    """Answer 401 as TEI does, with an empty body, and with the header that RFC 9110 asks for."""
    return web.Response(status=401, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
