"""What a request wants of the cache beside an answer."""

from __future__ import annotations

from dataclasses import dataclass


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
