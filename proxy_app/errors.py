"""The one error of the proxy; a dialect turns it into its own JSON shape.

The kinds are TEI's own (``router/src/lib.rs`` and the end of ``router/src/http/server.rs`` at
v1.9.3), so that a client sees the same word and status whoever refused it.
"""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """TEI's kinds of error; the value is the word on the wire."""

    EMPTY = "Empty"
    VALIDATION = "Validation"
    TOKENIZER = "Tokenizer"
    BACKEND = "Backend"
    OVERLOADED = "Overloaded"
    UNHEALTHY = "Unhealthy"


STATUS = {
    Kind.EMPTY: 400,
    Kind.VALIDATION: 422,
    Kind.TOKENIZER: 422,
    Kind.BACKEND: 424,
    Kind.OVERLOADED: 429,
    Kind.UNHEALTHY: 503,
}


#: Statuses below 500 that say nothing of what a request held: sent again, it may be taken.
_RETRYABLE = frozenset((401, 403, 404, 408, 429))


def is_refusal(status: int) -> bool:
    """Tell whether a status refuses what the request held, so that sending it again is no use."""
    return 400 <= status < 500 and status not in _RETRYABLE


class EmbedError(Exception):
    """Why a request gets no embeddings.

    ``message`` is for the caller and never holds a text of anyone's. ``status`` is the kind's
    own unless given. ``retry_after`` is in seconds; overload and absence carry one by default.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = STATUS[kind] if status is None else status
        if retry_after is None and kind in (Kind.OVERLOADED, Kind.UNHEALTHY):
            retry_after = "1"
        self.retry_after = retry_after

    def again(self) -> EmbedError:
        """Return another of the same, for one more caller to raise.

        An error that was raised holds the frames that it passed, and all that those hold. One that
        is kept must not be raised itself, or both would stay until the next garbage collection.
        """
        return EmbedError(self.kind, self.message, status=self.status, retry_after=self.retry_after)

    @property
    def concerns_inputs(self) -> bool:
        """Whether the inputs themselves were refused, so that other inputs may do better."""
        return is_refusal(self.status)


class ModelChangedError(Exception):
    """The upstream serves another model than the one a request was keyed for."""
