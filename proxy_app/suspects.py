"""Inputs that may kill a TEI instance: whose connection broke, how often, and for how long."""

from __future__ import annotations

import time

from proxy_app.errors import EmbedError, Kind

#: Seconds for which a suspect stays one, and a convicted input is refused.
SUSPICION = 60.0


class Suspects:
    """Inputs whose connection broke: how often, and until when that is remembered."""

    def __init__(self) -> None:
        self._breaks: dict[bytes, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._breaks)

    def breaks(self, key: bytes) -> int:
        """Return 0, 1 (a suspect) or 2 (convicted)."""
        if not self._breaks:
            return 0
        count, until = self._breaks.get(key, (0, 0.0))
        if count and time.monotonic() > until:
            del self._breaks[key]
            return 0
        return count

    def accuse(self, key: bytes) -> None:
        """Remember one more break."""
        now = time.monotonic()
        for old in [k for k, (_, until) in self._breaks.items() if until < now]:
            del self._breaks[old]
        self._breaks[key] = (self.breaks(key) + 1, now + SUSPICION)

    def clear(self, key: bytes) -> None:
        """Forget: the input was embedded."""
        self._breaks.pop(key, None)


def conviction() -> EmbedError:
    """Make the error of an input that is refused."""
    return EmbedError(
        Kind.BACKEND,
        "this input broke two connections to the upstream, as one does that kills an instance; "
        f"it is refused for {SUSPICION:.0f} s",
    )
