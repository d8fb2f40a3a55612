"""Why a request gets no embedding, in TEI's kinds."""

from __future__ import annotations

STATUS = {
    "Empty": 400,
    "Validation": 422,
    "Tokenizer": 422,
    "Backend": 424,
    "Overloaded": 429,
    "Unhealthy": 503,
}


class TeiError(Exception):
    """An error of TEI's own. ``kind`` is its word on the wire; ``cause`` is its metric's label."""

    def __init__(self, kind: str, message: str, cause: str) -> None:
        super().__init__(message)
        self.kind, self.message, self.cause = kind, message, cause

    @property
    def status(self) -> int:
        """The HTTP status of the kind."""
        return STATUS[self.kind]


class StartError(Exception):
    """Why there is nothing to serve, in one sentence."""


class ModelError(StartError):
    """A model that cannot be served; the text says in one sentence why."""
