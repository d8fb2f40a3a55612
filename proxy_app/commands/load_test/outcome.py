"""What became of a request."""

from __future__ import annotations

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """One request; times are seconds, and ``at`` is below 0 in the warm-up.

    ``at`` is when it was due and ``seconds`` what passed from then to the end of the reply, so that
    an open loop counts what a request had to wait for. ``kind`` is empty for a good reply;
    ``status`` 0 where none came. ``late`` is how much after ``at`` it was sent.
    """

    at: float
    seconds: float
    texts: int
    kind: str = ""
    status: int = 0
    message: str = ""
    hits: int = 0
    misses: int = 0
    size: int = 0
    retry_after: bool = False
    late: float = 0.0


#: Due while as many as may be were under way.
NOT_SENT = "not-sent"
#: Kinds without any reply.
UNREACHABLE = ("timeout", "certificate", "tls", "name", "refused", "connect", "reset")
