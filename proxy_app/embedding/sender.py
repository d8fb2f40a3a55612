"""What no cache has: sent to the upstream in batches, and kept when it comes back."""

from __future__ import annotations

import math
import time
from functools import partial

from proxy_app.cache.memory import Memory
from proxy_app.cache.store import Store
from proxy_app.cache.writes import Writes
from proxy_app.embedding.flights import Flight, Flights
from proxy_app.embedding.permits import Deadline, Permits, Place
from proxy_app.embedding.request import RefusedError, Request
from proxy_app.embedding.tokens import Tokens, is_countable, tokens_of
from proxy_app.entries.entry import Entry
from proxy_app.entries.identity import Identity
from proxy_app.entries.vectors import WrongVectorError
from proxy_app.errors import EmbedError, ModelChangedError
from proxy_app.settings import Settings
from proxy_app.telemetry.metrics import STAGE_SECONDS, UPSTREAM_ERRORS
from proxy_app.upstream.batches import Load, encode, split
from proxy_app.upstream.client import Result, Upstream
from proxy_app.upstream.instances import Instances
from proxy_app.upstream.model import Model

#: A request is spread over all instances, but not into batches smaller than this.
SMALLEST_SHARE = 8


class Sender:
    """One worker's sender; ``store`` and ``writes`` are None where there is L1 alone."""

    def __init__(
        self,
        settings: Settings,
        model: Model,
        upstream: Upstream,
        instances: Instances,
        permits: Permits,
        tokens: Tokens,
        flights: Flights,
        memory: Memory,
        store: Store | None,
        writes: Writes | None,
    ) -> None:
        self._queue_timeout = settings.queue_timeout
        self._model = model
        self._upstream = upstream
        self._instances = instances
        self._permits = permits
        self._tokens = tokens
        self._flights = flights
        self._memory = memory
        self._store = store
        self._writes = writes

    def send(self, flights: list[Flight], request: Request) -> None:
        """Split flights into batches for all instances, each with a job of its own.

        Raises EmbedError where the queue is full.
        """
        if request.deadline is None:  # else a part of the request is in the queue already
            self._permits.refuse_overload()
            request.deadline = Deadline(self._queue_timeout)
        most = min(self._share(len(flights), request.identity.max_batch), self._permits.total)
        by_key = {flight.key: flight for flight in flights}
        loads = [Load(f.key, f.item, encode(f.item)) for f in flights]
        # The tokens of some inputs are only known where they are sent alone.
        alone = [
            load
            for load in loads
            if request.count_tokens and not is_countable(load.item, request.identity)
        ]
        if alone:
            loads = [load for load in loads if is_countable(load.item, request.identity)]
        batches = split(loads, most, self._upstream.payload_limit)
        for batch in batches + [[load] for load in alone]:
            place = self._permits.join(len(batch))
            own = [by_key[load.key] for load in batch]
            task = self._flights.start(own, partial(self._compute, request, batch, place))
            # A task that is cancelled before its first step never gets to leave by itself.
            task.add_done_callback(place.leave)

    def _share(self, count: int, most: int) -> int:
        """Return the size of batches: small ones only for instances that have nothing to do."""
        busy = math.ceil((self._permits.in_flight + self._permits.queued) / most)
        return share(count, max(1, self._instances.count - busy), most)

    async def _compute(
        self, request: Request, batch: list[Load], place: Place, flights: list[Flight]
    ) -> None:
        """Embed one batch, check that the model is still the same, and end its flights."""
        assert request.deadline is not None
        await place.wait(request.deadline)
        started = time.perf_counter()
        dimension = request.params.dimensions or request.identity.dimension
        embedding = self._upstream.embed(batch, request.params, dimension)
        if request.count_tokens and len(batch) > 1:
            result, counts = await self._tokens.beside(
                embedding, batch, request.params, request.identity
            )
        else:
            result = await embedding
            counts = [tokens_of(result) if len(batch) == 1 else 0] * len(batch)
        seconds = time.perf_counter() - started
        place.leave()
        if not await self._is_of(request.identity, result):
            raise ModelChangedError
        request.upstream_seconds = max(request.upstream_seconds, seconds)
        STAGE_SECONDS["upstream"].observe(seconds)
        errors = {outcome for outcome in result.outcomes if isinstance(outcome, EmbedError)}
        for error in errors:
            UPSTREAM_ERRORS[error.kind.value].inc()
        written = int(time.time())
        for flight, outcome, tokens in zip(flights, result.outcomes, counts, strict=True):
            if isinstance(outcome, EmbedError):
                blamed = RefusedError(request, outcome) if outcome.concerns_inputs else outcome
                self._flights.fail(flight, blamed)
                continue
            flight.trace = result.headers
            entry = Entry(outcome, written, tokens)
            if flight.kept and not request.control.no_store:
                self._keep(request, flight.key, entry)
            self._flights.finish(flight, entry)
        if errors:
            raise errors.pop().again()  # wakes those who wait for this batch

    async def _is_of(self, identity: Identity, result: Result) -> bool:
        """Tell whether it is this model that answered; raises EmbedError where nobody can tell."""
        errors = [one for one in result.outcomes if isinstance(one, EmbedError)]
        if any(isinstance(error, WrongVectorError) for error in errors):
            return await self._model.doubt(identity)
        if len(errors) == len(result.outcomes) and not any(e.concerns_inputs for e in errors):
            return True  # no model answered, and the upstream need not be asked about it
        return await self._model.confirm(identity)

    def _keep(self, request: Request, key: bytes, entry: Entry) -> None:
        # Vectors cut to fewer dimensions would not fit into the collection.
        self._memory.put(key, entry)
        if self._writes is not None and self._store is not None and not request.params.dimensions:
            self._writes.put(self._store.collection(request.identity), key, entry)


def share(count: int, instances: int, most: int) -> int:
    """Return the batch size that gives every instance a part of ``count`` inputs."""
    return min(most, max(SMALLEST_SHARE, math.ceil(count / instances)))
