"""The rules: from inputs to embeddings, by way of L1, flights, L2 and the upstream.

All or nothing: an answer has one embedding per input, in order, or there is an error. Nothing here
knows HTTP or a dialect.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec

from proxy_app.cache.memory import Memory
from proxy_app.cache.store import Store
from proxy_app.cache.writes import Writes
from proxy_app.embedding.control import USUAL, Control
from proxy_app.embedding.flights import Flight, Flights
from proxy_app.embedding.permits import Patience, Permits, Turn
from proxy_app.embedding.tokens import Tokens, is_countable, tokens_of
from proxy_app.entries.entry import Entry
from proxy_app.entries.identity import Identity
from proxy_app.entries.keys import Item, Keyer, Params
from proxy_app.entries.vectors import WrongVectorError
from proxy_app.errors import EmbedError, Kind, ModelChangedError
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import STAGE_SECONDS, UPSTREAM_ERRORS
from proxy_app.upstream.batches import Load, encode, split
from proxy_app.upstream.client import Result, Upstream
from proxy_app.upstream.instances import Instances
from proxy_app.upstream.model import Model

#: A request is spread over all instances, but not into batches smaller than this.
SMALLEST_SHARE = 8
#: Inputs of a request that are prepared before others get their turn, half a millisecond's work,
#: and that are looked up in the store together.
TURN = 128


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
class Trip:
    """One request under way: what its crews report back. Times are seconds."""

    identity: Identity
    params: Params
    count_tokens: bool = False
    control: Control = USUAL
    patience: Patience | None = None  # once it is in line for the upstream
    # Its parts ask the store one after the other, until that fails: it waits for a slow one once.
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


class _RefusedError(Exception):
    """A batch was refused for its inputs, which concerns the request that formed it."""

    def __init__(self, owner: Trip, error: EmbedError) -> None:
        super().__init__(error.message)
        self.owner = owner
        self.error = error


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
        self._queue_timeout = settings.queue_timeout
        self._model = model
        self._upstream = upstream
        self._instances = instances
        self._store = store
        self._writes = writes
        self._permits = permits
        self._tokens = Tokens(settings, upstream, permits, model)
        self._keyers: dict[str, Keyer] = {}
        self._params: tuple[Options, Identity | None, Params] = Options(), None, Params()
        self.memory = Memory(settings.memory_bytes, settings.cache_ttl)
        self.flights = Flights()

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
        trip = Trip(identity, params, options.count_tokens, control)
        flown = await self._fly(trip, missing)
        return self._assemble(trip, keys, cached, flown)

    def _assemble(
        self,
        trip: Trip,
        keys: list[bytes],
        cached: list[Entry | None],
        flown: dict[bytes, Flight],
    ) -> Answer:
        entries = [
            flown[key].landed.result() if entry is None else entry
            for key, entry in zip(keys, cached, strict=True)
        ]
        misses = sum(
            1
            for key, entry in zip(keys, cached, strict=True)
            if entry is None and not flown[key].hit
        )
        from_memory = sum(entry is not None for entry in cached)
        traces = {id(f.trace): f.trace for f in flown.values() if f.trace is not None}
        return Answer(
            trip.identity,
            trip.params,
            keys,
            entries,
            l1=from_memory,
            l2=len(keys) - from_memory - misses,
            misses=misses,
            l2_seconds=trip.l2_seconds,
            upstream_seconds=trip.upstream_seconds,
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

    async def _fly(self, trip: Trip, missing: dict[bytes, Item]) -> dict[bytes, Flight]:
        """Land a flight for every key, our own or somebody's; raises the first one's error."""
        landed: dict[bytes, Flight] = {}
        while missing:
            boarded: list[Flight] = []
            try:
                inputs = list(missing.items())
                for start in range(0, len(inputs), TURN):
                    if start:
                        await asyncio.sleep(0)
                    boarded += self._board(trip, inputs[start : start + TURN])
                refused = await self._wait(boarded, trip)
            finally:
                self.flights.leave(boarded)
            landed.update((f.key, f) for f in boarded if f.key not in refused)
            missing = {key: item for key, item in missing.items() if key in refused}
        return landed

    def _board(self, trip: Trip, inputs: list[tuple[bytes, Item]]) -> list[Flight]:
        """Join or launch a flight for each key."""
        mark = trip.control.mark
        boarded = [self.flights.board(key, item, trip, mark) for key, item in inputs]
        own = [flight for flight in boarded if flight.owner is trip and not flight.crew]
        if own:
            self.flights.launch(own, self._look_up)
        return boarded

    async def _wait(self, boarded: list[Flight], trip: Trip) -> set[bytes]:
        """Wait for all flights; returns the keys refused for others, raises what concerns us.

        Their crews are waited for, which are few; one that crashed a flight ends with an error.
        """
        while True:
            refused = first_errors(boarded, trip)
            crews = {f.crew.task for f in boarded if f.crew and not f.landed.done()}
            if not crews:
                return refused
            await asyncio.wait(crews, return_when=asyncio.FIRST_EXCEPTION)

    async def _look_up(self, flights: list[Flight]) -> None:
        """Crew of a request's new flights: land what the store has, send the rest upstream."""
        trip = flights[0].owner
        assert isinstance(trip, Trip)
        if self._store is not None and not trip.params.dimensions and not trip.control.no_cache:
            async with trip.at_store:
                found = await self._fetch(self._store, trip, flights) if trip.store_helps else {}
            for flight in flights:
                if (entry := found.get(flight.key)) is not None:
                    flight.hit = True
                    if flight.kept and not trip.control.no_store:
                        self.memory.put(flight.key, entry)
                    self.flights.land(flight, entry)
        left = []
        for flight in flights:
            if not flight.landed.done():
                if flight.waiters:
                    left.append(flight)
                else:
                    self.flights.drop(flight)
        if left:
            self._send(left, trip)

    def _share(self, count: int, most: int) -> int:
        """Return the size of batches: small ones only for instances that have nothing to do."""
        busy = math.ceil((self._permits.in_flight + self._permits.queued) / most)
        return share(count, max(1, self._instances.count - busy), most)

    async def _fetch(self, store: Store, trip: Trip, flights: list[Flight]) -> dict[bytes, Entry]:
        started = time.perf_counter()
        keys = [flight.key for flight in flights]
        found, trip.store_helps = await store.fetch(trip.identity, keys)
        seconds = time.perf_counter() - started
        trip.l2_seconds += seconds
        STAGE_SECONDS["l2"].observe(seconds)
        return found

    def _send(self, flights: list[Flight], trip: Trip) -> None:
        """Split flights into batches for all instances, each with a crew of its own."""
        if trip.patience is None:  # else a part of the request is in line already
            self._permits.refuse_overload()
            trip.patience = Patience(self._queue_timeout)
        most = min(self._share(len(flights), trip.identity.max_batch), self._permits.total)
        by_key = {flight.key: flight for flight in flights}
        loads = [Load(f.key, f.item, encode(f.item)) for f in flights]
        # What only counts when it comes alone goes alone, where its tokens are wanted.
        alone = [
            load
            for load in loads
            if trip.count_tokens and not is_countable(load.item, trip.identity)
        ]
        if alone:
            loads = [load for load in loads if is_countable(load.item, trip.identity)]
        batches = split(loads, most, self._upstream.payload_limit)
        for batch in batches + [[load] for load in alone]:
            turn = self._permits.join(len(batch))
            crew = [by_key[load.key] for load in batch]
            task = self.flights.launch(crew, partial(self._compute, trip, batch, turn))
            # A task that is cancelled before its first step never gets to leave by itself.
            task.add_done_callback(turn.leave)

    async def _compute(
        self, trip: Trip, batch: list[Load], turn: Turn, flights: list[Flight]
    ) -> None:
        """Crew of one batch: embed it, check that the model is still the same, keep and land."""
        assert trip.patience is not None
        await turn.wait(trip.patience)
        started = time.perf_counter()
        dimension = trip.params.dimensions or trip.identity.dimension
        embedding = self._upstream.embed(batch, trip.params, dimension)
        if trip.count_tokens and len(batch) > 1:
            result, counts = await self._tokens.beside(embedding, batch, trip.params, trip.identity)
        else:
            result = await embedding
            counts = [tokens_of(result) if len(batch) == 1 else 0] * len(batch)
        seconds = time.perf_counter() - started
        turn.leave()
        if not await self._is_of(trip.identity, result):
            raise ModelChangedError
        trip.upstream_seconds = max(trip.upstream_seconds, seconds)
        STAGE_SECONDS["upstream"].observe(seconds)
        errors = {outcome for outcome in result.outcomes if isinstance(outcome, EmbedError)}
        for error in errors:
            UPSTREAM_ERRORS[error.kind.value].inc()
        written = int(time.time())
        for flight, outcome, tokens in zip(flights, result.outcomes, counts, strict=True):
            if isinstance(outcome, EmbedError):
                blamed = _RefusedError(trip, outcome) if outcome.concerns_inputs else outcome
                self.flights.crash(flight, blamed)
                continue
            flight.trace = result.headers
            entry = Entry(outcome, written, tokens)
            if flight.kept and not trip.control.no_store:
                self._keep(trip, flight.key, entry)
            self.flights.land(flight, entry)
        if errors:
            raise errors.pop().again()  # wakes those who wait for this crew

    async def _is_of(self, identity: Identity, result: Result) -> bool:
        """Tell whether it is this model that answered; raises EmbedError where nobody can tell."""
        errors = [one for one in result.outcomes if isinstance(one, EmbedError)]
        if any(isinstance(error, WrongVectorError) for error in errors):
            return await self._model.doubt(identity)
        if len(errors) == len(result.outcomes) and not any(e.concerns_inputs for e in errors):
            return True  # no model answered, and the upstream need not be asked about it
        return await self._model.confirm(identity)

    def _keep(self, trip: Trip, key: bytes, entry: Entry) -> None:
        self.memory.put(key, entry)
        if self._writes is not None and self._store is not None and not trip.params.dimensions:
            self._writes.put(self._store.collection(trip.identity), key, entry)

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


def share(count: int, instances: int, most: int) -> int:
    """Return the batch size that gives every instance a part of ``count`` inputs."""
    return min(most, max(SMALLEST_SHARE, math.ceil(count / instances)))


def first_errors(flights: Iterable[Flight], trip: Trip) -> set[bytes]:
    """Raise the error of the first flight that failed, if any.

    Returns the keys of flights that were refused for the inputs of other requests: ours deserve a
    try of their own.
    """
    refused = set()
    for flight in flights:
        if not flight.landed.done():
            continue
        if flight.landed.cancelled():
            raise EmbedError(Kind.UNHEALTHY, "the proxy is shutting down")
        error = flight.landed.exception()
        if isinstance(error, _RefusedError):
            if error.owner is trip:
                raise error.error.again()
            refused.add(flight.key)
        elif isinstance(error, EmbedError):
            raise error.again()
        elif isinstance(error, ModelChangedError):
            raise ModelChangedError
        elif error is not None:
            raise error
    return refused
