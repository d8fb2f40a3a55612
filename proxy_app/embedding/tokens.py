"""How many tokens TEI counts for an input: exactly, or not at all.

TEI tells one number per request, ``x-compute-tokens``, which is an input's own where it came alone.
For several texts there is ``/tokenize``: it adds the default prompt and the special tokens as
embedding does, and cuts nothing, so that the model's length is the rest (``core/src/
tokenization.rs`` of v1.9.3). It takes no token ids, and no text that TEI would cut before it counts
tokens; these are embedded alone.
"""

from __future__ import annotations

import asyncio

from proxy_app.embedding.permits import Permits
from proxy_app.entries.identity import Identity
from proxy_app.entries.keys import Item, Params
from proxy_app.errors import EmbedError
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import UPSTREAM_ERRORS
from proxy_app.upstream.batches import Load, encode, split
from proxy_app.upstream.client import Result, Upstream

#: TEI cuts a text, or refuses to tokenize it, beyond so many characters per token of its length.
CHARACTERS_PER_TOKEN = 250
#: Calls of /tokenize that one request has under way.
_AT_ONCE = 4


def is_countable(item: Item, identity: Identity) -> bool:
    """Tell whether ``/tokenize`` counts this input as embedding does."""
    if not isinstance(item, str):
        return False
    return len(item) <= identity.max_input_length * CHARACTERS_PER_TOKEN


def tokens_of(result: Result) -> int:
    """Return what TEI counted for a batch, 0 where it did not say."""
    value = result.headers.get("x-compute-tokens", "")
    return int(value) if value.isdigit() else 0


class Tokens:
    """Counts by asking the upstream; 0 is always "not known"."""

    def __init__(self, settings: Settings, upstream: Upstream, permits: Permits) -> None:
        self._upstream = upstream
        self._permits = permits
        self._patience = min(10.0, settings.upstream_timeout)

    async def count(self, batch: list[Load], params: Params, identity: Identity) -> list[int]:
        """Count countable texts, one batch within TEI's limits."""
        try:
            counts = await self._upstream.tokenize(batch)
        except EmbedError as error:
            UPSTREAM_ERRORS[error.kind.value].inc()
            return [0] * len(batch)
        if params.truncate:
            return [min(count, identity.max_input_length) for count in counts]
        return counts

    async def count_all(
        self, items: dict[bytes, Item], params: Params, identity: Identity
    ) -> dict[bytes, int]:
        """Count any inputs, given by key; what took too long to count is missing."""
        counts: dict[bytes, int] = {}
        loads = [Load(key, item, encode(item)) for key, item in items.items()]
        countable = [load for load in loads if is_countable(load.item, identity)]
        batches = split(countable, identity.max_batch, self._upstream.payload_limit)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def count(batch: list[Load]) -> None:
            async with turns:
                told = await self.count(batch, params, identity)
            counts.update((load.key, n) for load, n in zip(batch, told, strict=True))

        async def embed(load: Load) -> None:
            counts[load.key] = await self._embed_alone(load, params, identity)

        alone = [load for load in loads if not is_countable(load.item, identity)]
        work = [*map(count, batches), *map(embed, alone)]
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        try:
            # The embeddings are there already: nobody is to wait long for their tokens.
            done, _ = await asyncio.wait(tasks, timeout=self._patience)
        finally:
            for task in tasks:
                task.cancel()
        for task in done:
            task.result()
        return counts

    async def _embed_alone(self, load: Load, params: Params, identity: Identity) -> int:
        turn = self._permits.join(1)
        try:
            await turn.granted
            dimension = params.dimensions or identity.dimension
            result = await self._upstream.embed([load], params, dimension)
        finally:
            turn.leave()
        if isinstance(result.outcomes[0], EmbedError):
            UPSTREAM_ERRORS[result.outcomes[0].kind.value].inc()
            return 0
        return tokens_of(result)
