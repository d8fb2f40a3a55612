"""How many tokens TEI counts for an input: exactly, or not at all.

TEI tells one number per request, ``x-compute-tokens``, which is an input's own where it came alone.
For several texts there is ``/tokenize``: it adds the default prompt and the special tokens as
embedding does, and cuts nothing, so that the model's length is the rest (``core/src/
tokenization.rs`` of v1.9.3). It takes no token ids, and no text that TEI would cut before it counts
tokens; these are embedded alone.

Nobody waits long for a count: what is answered without it is counted on the side, and the entry
keeps the count for the next time. After a failure nothing is counted for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from proxy_app.embedding.permits import Permits
from proxy_app.entries.entry import Entry
from proxy_app.entries.identity import Identity
from proxy_app.entries.keys import Item, Params
from proxy_app.errors import EmbedError, Kind
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import UPSTREAM_ERRORS
from proxy_app.upstream.batches import Load, encode, split
from proxy_app.upstream.client import Result, Upstream
from proxy_app.upstream.model import Model

#: TEI cuts a text, or refuses to tokenize it, beyond so many characters per token of its length.
CHARACTERS_PER_TOKEN = 250
#: A number with as many digits counts nothing real.
_DIGITS = 19
#: Calls of /tokenize that a worker has under way on the side.
_AT_ONCE = 4
#: Seconds that an answer waits for its counts: one that was there already, and one that was
#: computed, whose counts mostly come before it.
WAIT, WAIT_COMPUTED = 0.05, 1.0
#: Seconds without any counting after one that failed, and after one that was late or refused for
#: overload.
PAUSE, SHORT_PAUSE = 30.0, 1.0


def is_countable(item: Item, identity: Identity) -> bool:
    """Tell whether ``/tokenize`` counts this input as embedding does."""
    if not isinstance(item, str):
        return False
    return len(item) <= identity.max_input_length * CHARACTERS_PER_TOKEN


def tokens_of(result: Result) -> int:
    """Return what TEI counted for a batch, 0 where it did not say."""
    value = result.headers.get("x-compute-tokens", "")
    return int(value) if value.isdecimal() and len(value) < _DIGITS else 0


class Tokens:
    """Counts by asking the upstream; 0 is always "not known"."""

    def __init__(
        self, settings: Settings, upstream: Upstream, permits: Permits, model: Model
    ) -> None:
        self._upstream = upstream
        self._permits = permits
        self._model = model
        self._patience = min(10.0, settings.upstream_timeout)
        self._pause_ends = 0.0
        self._turns = asyncio.Semaphore(_AT_ONCE)
        # By key, what counts it on the side.
        self._counting: dict[bytes, asyncio.Task[dict[bytes, int]]] = {}

    @property
    def is_paused(self) -> bool:
        """Whether nothing is counted now, since counting failed a while ago."""
        return time.monotonic() < self._pause_ends

    async def beside(
        self,
        embedding: Coroutine[Any, Any, Result],
        batch: list[Load],
        params: Params,
        identity: Identity,
    ) -> tuple[Result, list[int]]:
        """Embed a batch of countable texts, and count them meanwhile."""
        if self.is_paused:
            return await embedding, [0] * len(batch)
        counting = asyncio.create_task(self._count(batch, params, identity))
        try:
            result = await embedding
            done, _ = await asyncio.wait([counting], timeout=WAIT_COMPUTED)
        finally:
            counting.cancel()
        if not done:
            self._pause(PAUSE)
        return result, counting.result() if done else [0] * len(batch)

    async def complete(
        self, inputs: dict[bytes, tuple[Item, Entry]], params: Params, identity: Identity
    ) -> None:
        """Set the tokens of entries that have none; those that do not come soon are set later."""
        if self.is_paused:
            return
        new = {key: one for key, one in inputs.items() if key not in self._counting}
        if new:
            task = asyncio.create_task(self._complete(new, params, identity))
            self._counting |= dict.fromkeys(new, task)
            task.add_done_callback(lambda _: [self._counting.pop(key) for key in new])
        done, late = await asyncio.wait({self._counting[key] for key in inputs}, timeout=WAIT)
        if late:
            self._pause(SHORT_PAUSE)
        for task in done:
            set_tokens(inputs, task.result())

    async def close(self) -> None:
        """End what is counted on the side."""
        tasks = set(self._counting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _complete(
        self, inputs: dict[bytes, tuple[Item, Entry]], params: Params, identity: Identity
    ) -> dict[bytes, int]:
        """Count inputs of any kind, and set their entries' tokens; what failed is missing."""
        counts: dict[bytes, int] = {}
        loads = [Load(key, item, encode(item)) for key, (item, _) in inputs.items()]
        countable = [load for load in loads if is_countable(load.item, identity)]
        alone = [load for load in loads if not is_countable(load.item, identity)]
        batches = split(countable, identity.max_batch, self._upstream.payload_limit)

        async def count(batch: list[Load]) -> None:
            async with self._turns:
                found = await self._count(batch, params, identity)
            counts.update((load.key, n) for load, n in zip(batch, found, strict=True))

        async def embed(load: Load) -> None:
            async with self._turns:
                counts[load.key] = await self._embed_alone(load, params, identity)

        try:
            await asyncio.wait_for(
                asyncio.gather(*map(count, batches), *map(embed, alone)), self._patience
            )
            if not await self._model.confirm(identity):
                return {}  # another model's tokens
        except asyncio.TimeoutError:
            self._pause(PAUSE)
            return {}
        except EmbedError:
            return {}  # away meanwhile: nobody knows who counted
        set_tokens(inputs, counts)
        return counts

    async def _count(self, batch: list[Load], params: Params, identity: Identity) -> list[int]:
        """Count countable texts, one batch within TEI's limits."""
        try:
            counts = await self._upstream.tokenize(batch)
        except EmbedError as error:
            self._note(error)
            return [0] * len(batch)
        if params.truncate:
            return [min(count, identity.max_input_length) for count in counts]
        return counts

    async def _embed_alone(self, load: Load, params: Params, identity: Identity) -> int:
        turn = self._permits.join(1)
        try:
            await turn.granted
            dimension = params.dimensions or identity.dimension
            result = await self._upstream.embed([load], params, dimension)
        finally:
            turn.leave()
        [outcome] = result.outcomes
        if isinstance(outcome, EmbedError):
            self._note(outcome)
            return 0
        return tokens_of(result)

    def _note(self, error: EmbedError) -> None:
        UPSTREAM_ERRORS[error.kind.value].inc()
        self._pause(SHORT_PAUSE if error.kind is Kind.OVERLOADED else PAUSE)

    def _pause(self, seconds: float) -> None:
        self._pause_ends = max(self._pause_ends, time.monotonic() + seconds)


def set_tokens(inputs: dict[bytes, tuple[Item, Entry]], counts: dict[bytes, int]) -> None:
    """Set the tokens of entries whose count is known now."""
    for key, (_, entry) in inputs.items():
        entry.tokens = entry.tokens or counts.get(key, 0)
