"""A request for embeddings: its options, its state while it is under way, and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from proxy_app.embedding.control import USUAL, Control
from proxy_app.embedding.permits import Deadline
from proxy_app.entries.entry import Entry
from proxy_app.entries.identity import Identity
from proxy_app.entries.keys import Params
from proxy_app.errors import EmbedError, Kind


class Options(msgspec.Struct, frozen=True):
    """A request's fields as its dialect read them; None is unset.

    ``count_tokens``: the answer is to have each input's tokens.
    """

    truncate: bool | None = None
    left: bool = False
    normalize: bool = True
    dimensions: int | None = None
    prompt_name: str | None = None
    count_tokens: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """One request under way, and what its jobs report of it. Times are seconds."""

    identity: Identity
    params: Params
    count_tokens: bool = False
    control: Control = USUAL
    deadline: Deadline | None = None  # once it waits in the queue for the upstream
    # Its parts ask the store one after the other until one fails: a slow store is waited for once.
    at_store: asyncio.Lock = field(default_factory=asyncio.Lock)
    store_helps: bool = True
    l2_seconds: float = 0.0
    upstream_seconds: float = 0.0


class Answer(msgspec.Struct, eq=False):
    """One key and entry per input, of which model, and how many came from L1, L2 and TEI.

    ``headers`` are TEI's own, of every batch that took part.
    """

    identity: Identity
    params: Params
    keys: list[bytes]
    entries: list[Entry]
    l1: int = 0
    l2: int = 0
    misses: int = 0
    l2_seconds: float = 0.0
    upstream_seconds: float = 0.0
    headers: list[Mapping[str, str]] = []  # msgspec copies an empty list for each

    @property
    def hits(self) -> int:
        """How many inputs were cached."""
        return self.l1 + self.l2

    @property
    def level(self) -> str:
        """The slowest place that an embedding came from, of metrics.LEVELS."""
        return "miss" if self.misses else "l2" if self.l2 else "l1"


class RefusedError(Exception):
    """A batch was refused for its inputs, which concerns the request that formed it."""

    def __init__(self, owner: Request, error: EmbedError) -> None:
        super().__init__(error.message)
        self.owner = owner
        self.error = error


def effective(options: Options, identity: Identity) -> Params:
    """Fill in what the server would, so that equal vectors share a key.

    Raises EmbedError for dimensions that no vector of the model has.
    """
    dimensions = options.dimensions
    if dimensions == 0:
        raise EmbedError(Kind.VALIDATION, "Input validation error: `dimensions` should be positive")
    if dimensions is not None and dimensions > identity.dimension:
        raise EmbedError(
            Kind.VALIDATION,
            "Input validation error: `dimensions` should be smaller than the maximum embedding "
            "dimension.",
        )
    truncate = identity.auto_truncate if options.truncate is None else options.truncate
    return Params(
        normalize=options.normalize,
        truncate=truncate,
        left=options.left and truncate,
        dimensions=0 if dimensions in (None, identity.dimension) else dimensions,
        prompt_name=options.prompt_name,
    )
