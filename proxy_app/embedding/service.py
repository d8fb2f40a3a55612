"""The rules: from inputs to embeddings, by way of L1, flights, L2 and the upstream.

All or nothing: an answer has one embedding per input, in order, or there is an error. Nothing here
knows HTTP or a dialect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from proxy_app.cache.memory import Memory
from proxy_app.cache.store import Store
from proxy_app.cache.writes import Writes
from proxy_app.embedding.control import USUAL, Control
from proxy_app.embedding.flights import Flight, Flights
from proxy_app.embedding.permits import Permits
from proxy_app.embedding.request import Answer, Options, RefusedError, Request, effective
from proxy_app.embedding.sender import Sender
from proxy_app.embedding.tokens import Tokens
from proxy_app.entries.entry import Entry
from proxy_app.entries.identity import Identity
from proxy_app.entries.keys import Item, Keyer, Params
from proxy_app.errors import EmbedError, Kind, ModelChangedError
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import STAGE_SECONDS
from proxy_app.upstream.client import Upstream
from proxy_app.upstream.instances import Instances
from proxy_app.upstream.model import Model

#: Inputs of a request that are prepared before others get their turn, half a millisecond's work,
#: and that are looked up in the store together.
TURN = 128


class Service:
    """One worker's service over its own L1 and flights, and everybody's L2 and upstream."""

    def __init__(
        self,
        settings: Settings,
        model: Model,
        upstream: Upstream,
        instances: Instances,
        permits: Permits,
        store: Store | None,
        writes: Writes | None,
    ) -> None:
        self._hash = settings.hash_function
        self._model = model
        self._store = store
        self._tokens = Tokens(settings, upstream, permits, model)
        self._keyers: dict[str, Keyer] = {}
        self._params: tuple[Options, Identity | None, Params] = Options(), None, Params()
        self.memory = Memory(settings.memory_bytes, settings.cache_ttl)
        self.flights = Flights()
        self._sender = Sender(
            settings,
            model,
            upstream,
            instances,
            permits,
            self._tokens,
            self.flights,
            self.memory,
            store,
            writes,
        )

    async def close(self) -> None:
        """End all flights, and what is counted on the side."""
        await self.flights.close()
        await self._tokens.close()

    async def embed(self, items: list[Item], options: Options, control: Control = USUAL) -> Answer:
        """Embed the items (at least one) in order; raises EmbedError."""
        for _ in range(3):
            try:
                identity = self._model.identity or await self._model.present()
                answer = await self._embed(items, options, control, identity)
                if options.count_tokens:
                    await self._count_tokens(items, answer)
                return answer
            except ModelChangedError:
                continue  # keyed for a model that is gone: once more for the present one
        raise EmbedError(Kind.UNHEALTHY, "the upstream's model keeps changing")

    def at_once(self, items: list[Item], options: Options) -> Answer | None:
        """Answer out of L1 alone, without waiting; None where that cannot be.

        Raises EmbedError as ``embed`` does.
        """
        identity = self._model.identity
        if identity is None:
            return None
        params = self._effective(options, identity)
        # If the first of many is a miss, the keys of the others are not needed yet.
        if len(items) > 1 and None in self.memory.get_all(self._keys(items[:1], params, identity)):
            return None
        keys = self._keys(items, params, identity)
        answer = _from_memory(identity, params, keys, self.memory.get_all(keys))
        if answer is None:
            return None
        # What is not known is asked for on the other way, unless counting is paused.
        counts = options.count_tokens and not self._tokens.is_paused
        if counts and not all(entry.tokens for entry in answer.entries):
            return None
        return answer

    def keys(self, items: list[Item], options: Options, identity: Identity) -> list[bytes]:
        """Return each item's key under a model; raises EmbedError as ``effective`` does."""
        return self._keys(items, effective(options, identity), identity)

    def _effective(self, options: Options, identity: Identity) -> Params:
        """Return ``effective``, kept from one request to the next: most have the same options."""
        known_options, known_identity, params = self._params
        if options != known_options or identity is not known_identity:
            params = effective(options, identity)
            self._params = options, identity, params
        return params

    def _keys(self, items: list[Item], params: Params, identity: Identity) -> list[bytes]:
        return self._keyer(identity.namespace).keys(params, items)

    async def _embed(
        self, items: list[Item], options: Options, control: Control, identity: Identity
    ) -> Answer:
        params = self._effective(options, identity)
        keys: list[bytes] = []
        cached: list[Entry | None] = []
        for start in range(0, len(items), TURN):
            if start:
                await asyncio.sleep(0)
            part = self._keys(items[start : start + TURN], params, identity)
            keys += part
            cached += [None] * len(part) if control.no_cache else self.memory.get_all(part)
        answer = _from_memory(identity, params, keys, cached)
        if answer is not None:
            return answer
        missing = {
            key: item for key, item, entry in zip(keys, items, cached, strict=True) if entry is None
        }
        request = Request(identity, params, options.count_tokens, control)
        obtained = await self._obtain(request, missing)
        return self._assemble(request, keys, cached, obtained)

    def _assemble(
        self,
        request: Request,
        keys: list[bytes],
        cached: list[Entry | None],
        obtained: dict[bytes, Flight],
    ) -> Answer:
        entries = [
            obtained[key].result.result() if entry is None else entry
            for key, entry in zip(keys, cached, strict=True)
        ]
        misses = sum(
            1
            for key, entry in zip(keys, cached, strict=True)
            if entry is None and not obtained[key].hit
        )
        from_memory = sum(entry is not None for entry in cached)
        traces = {id(f.trace): f.trace for f in obtained.values() if f.trace is not None}
        return Answer(
            request.identity,
            request.params,
            keys,
            entries,
            l1=from_memory,
            l2=len(keys) - from_memory - misses,
            misses=misses,
            l2_seconds=request.l2_seconds,
            upstream_seconds=request.upstream_seconds,
            headers=list(traces.values()),
        )

    async def _count_tokens(self, items: list[Item], answer: Answer) -> None:
        """Find out the tokens of what was cached without them; some may stay 0, not known."""
        unknown = {
            key: (item, entry)
            for key, item, entry in zip(answer.keys, items, answer.entries, strict=True)
            if not entry.tokens
        }
        if unknown:
            await self._tokens.complete(unknown, answer.params, answer.identity)

    async def _obtain(self, request: Request, missing: dict[bytes, Item]) -> dict[bytes, Flight]:
        """Wait for a flight of every key, our own or another request's; raises the first error."""
        ended: dict[bytes, Flight] = {}
        while missing:
            joined: list[Flight] = []
            try:
                inputs = list(missing.items())
                for start in range(0, len(inputs), TURN):
                    if start:
                        await asyncio.sleep(0)
                    joined += self._join(request, inputs[start : start + TURN])
                refused = await self._wait(joined, request)
            finally:
                self.flights.leave(joined)
            ended.update((f.key, f) for f in joined if f.key not in refused)
            missing = {key: item for key, item in missing.items() if key in refused}
        return ended

    def _join(self, request: Request, inputs: list[tuple[bytes, Item]]) -> list[Flight]:
        """Join a flight for each key, and start those that are new."""
        mark = request.control.mark
        joined = [self.flights.join(key, item, request, mark) for key, item in inputs]
        own = [flight for flight in joined if flight.owner is request and not flight.job]
        if own:
            self.flights.start(own, self._look_up)
        return joined

    async def _wait(self, joined: list[Flight], request: Request) -> set[bytes]:
        """Wait for all flights; returns the keys refused for others, raises what concerns us.

        It waits for their jobs, which are fewer; a job that failed a flight ends with an error.
        """
        while True:
            refused = first_errors(joined, request)
            jobs = {f.job.task for f in joined if f.job and not f.result.done()}
            if not jobs:
                return refused
            await asyncio.wait(jobs, return_when=asyncio.FIRST_EXCEPTION)

    async def _look_up(self, flights: list[Flight]) -> None:
        """Look a request's new flights up in the store, and send the rest upstream."""
        request = flights[0].owner
        assert isinstance(request, Request)
        if (
            self._store is not None
            and not request.params.dimensions
            and not request.control.no_cache
        ):
            async with request.at_store:
                found = (
                    await self._fetch(self._store, request, flights) if request.store_helps else {}
                )
            for flight in flights:
                if (entry := found.get(flight.key)) is not None:
                    flight.hit = True
                    if flight.kept and not request.control.no_store:
                        self.memory.put(flight.key, entry)
                    self.flights.finish(flight, entry)
        left = []
        for flight in flights:
            if not flight.result.done():
                if flight.waiters:
                    left.append(flight)
                else:
                    self.flights.cancel(flight)
        if left:
            self._sender.send(left, request)

    async def _fetch(
        self, store: Store, request: Request, flights: list[Flight]
    ) -> dict[bytes, Entry]:
        started = time.perf_counter()
        keys = [flight.key for flight in flights]
        found, request.store_helps = await store.fetch(request.identity, keys)
        seconds = time.perf_counter() - started
        request.l2_seconds += seconds
        STAGE_SECONDS["l2"].observe(seconds)
        return found

    def _keyer(self, namespace: str) -> Keyer:
        if namespace not in self._keyers:
            self._keyers = {namespace: Keyer(namespace, self._hash)}
        return self._keyers[namespace]


def _from_memory(
    identity: Identity, params: Params, keys: list[bytes], cached: list[Entry | None]
) -> Answer | None:
    """Return the answer where all entries were in L1."""
    if not all(cached):
        return None
    return Answer(identity, params, keys, cached, len(keys))  # type: ignore[arg-type]  # none is None


def first_errors(flights: Iterable[Flight], request: Request) -> set[bytes]:
    """Raise the error of the first flight that failed, if any.

    Returns the keys of flights that were refused for the inputs of other requests: ours deserve a
    try of their own.
    """
    refused = set()
    for flight in flights:
        if not flight.result.done():
            continue
        if flight.result.cancelled():
            raise EmbedError(Kind.UNHEALTHY, "the proxy is shutting down")
        error = flight.result.exception()
        if isinstance(error, RefusedError):
            if error.owner is request:
                raise error.error.again()
            refused.add(flight.key)
        elif isinstance(error, EmbedError):
            raise error.again()
        elif isinstance(error, ModelChangedError):
            raise ModelChangedError
        elif error is not None:
            raise error
    return refused
