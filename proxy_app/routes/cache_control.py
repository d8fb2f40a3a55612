"""What a request's ``Cache-Control`` header asks of the cache (RFC 9111, 5.2.1)."""

from __future__ import annotations

from aiohttp import hdrs
from multidict import CIMultiDictProxy

from proxy_app.embedding.control import USUAL, Control


def read(headers: CIMultiDictProxy[str]) -> Control:
    """Read the directives that concern us; the others change nothing here."""
    if hdrs.CACHE_CONTROL not in headers:
        return USUAL
    directives = ",".join(headers.getall(hdrs.CACHE_CONTROL)).lower().split(",")
    names = {directive.partition("=")[0].strip() for directive in directives}
    return Control("no-cache" in names, "no-store" in names)
