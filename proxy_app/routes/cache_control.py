"""What a request's ``Cache-Control`` header asks of the cache (RFC 9111, 5.2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import hdrs
from multidict import CIMultiDictProxy


@dataclass(frozen=True, slots=True)
class Control:
    """``no_cache``: compute anew, and keep that. ``no_store``: keep nothing of this request.

    A request with ``no_store`` may be answered from what is kept already: RFC 9111, 5.2.1.5,
    says that the directive does not apply to a response that was stored before.
    """

    no_cache: bool = False
    no_store: bool = False

    @property
    def mark(self) -> bytes:
        """Keep flights of different wishes apart; empty for a request without any."""
        return bytes([self.no_cache + 2 * self.no_store]) if self.no_cache or self.no_store else b""


USUAL = Control()


def read(headers: CIMultiDictProxy[str]) -> Control:
    """Read the directives that concern us; the others change nothing here."""
    if hdrs.CACHE_CONTROL not in headers:
        return USUAL
    directives = ",".join(headers.getall(hdrs.CACHE_CONTROL)).lower().split(",")
    names = {directive.partition("=")[0].strip() for directive in directives}
    return Control("no-cache" in names, "no-store" in names)
