"""One worker's application: its parts, put together and taken apart in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from aiohttp import web

from proxy_app.cache.qdrant import StoreError
from proxy_app.cache.store import Store
from proxy_app.cache.writes import Writes
from proxy_app.embedding.permits import Permits
from proxy_app.embedding.purges import Follower
from proxy_app.embedding.service import Service
from proxy_app.entries.identity import Identity
from proxy_app.http.access import Access
from proxy_app.http.bodies import Bodies
from proxy_app.http.drain import Drain, Runner
from proxy_app.http.lane import Lane
from proxy_app.http.shortcut import Shortcut
from proxy_app.routes.account import Accounts
from proxy_app.routes.admin import Admin
from proxy_app.routes.embeddings import Embeddings
from proxy_app.routes.handlers import Handlers
from proxy_app.routes.status import Status
from proxy_app.settings import Settings
from proxy_app.telemetry import metrics, turns
from proxy_app.upstream.client import Upstream
from proxy_app.upstream.model import Model
from proxy_app.workers.folder import Folder
from proxy_app.workers.purge_log import PurgeLog
from proxy_app.workers.totals import Totals

log = logging.getLogger("embedrack")

#: Seconds between two rounds of housekeeping.
ROUND = 1.0
#: Seconds for queued writes when the worker ends.
DRAIN = 5.0
#: Seconds for the requests under way when the worker ends.
REQUESTS_END = 25.0
#: Seconds that a worker waits for upstream and store before it listens.
FIRST_LOOK = 3.0
#: Seconds that a new model waits for its collection.
STORE_FIRST = 1.0
#: Permits until the model's /info says how many an instance has (TEI's default).
FIRST_PERMITS = 512


class Parts:
    """What a worker is made of; needs a running event loop, but nothing outside.

    ``folder`` is one that the workers share.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = Folder(folder)
        self.bodies = Bodies(settings)
        self.upstream = Upstream(settings, folder)
        self.store = Store(settings) if settings.qdrant_url else None
        self.model = Model(settings, self.upstream, self._prepare_store)
        self.writes = Writes(self.store, settings.write_queue_bytes) if self.store else None
        self.instances = self.upstream.instances
        self.permits = Permits(FIRST_PERMITS, settings.max_queue)
        self.service = Service(
            settings,
            self.model,
            self.upstream,
            self.instances,
            self.permits,
            self.store,
            self.writes,
        )
        self.totals = Totals(self.folder, self._measure)
        self.status = Status(settings, self.model, self.instances, self.store, self.totals)
        self.purges = PurgeLog(self.folder, settings.worker_count)
        self._follower = Follower(self.purges, self.service, self.store, self.writes)
        self._shown = ""

    async def run(self, _: web.Application) -> AsyncIterator[None]:
        """Run the background jobs for as long as the application (an aiohttp cleanup context)."""
        if self.model.identity is not None:  # remembered: its hits need no upstream
            await self._prepare_store(self.model.identity)
        first = asyncio.create_task(self._look_round())
        # Clients accepted earlier would get an avoidable miss or 503; an upstream that hangs delays
        # no start.
        await asyncio.wait([first], timeout=FIRST_LOOK if self.model.identity is None else 0)
        jobs = [self.model.watch, self.keep_house, self.totals.run, self._follower.run, turns.watch]
        if self.store is not None and self.writes is not None:
            jobs += [self.writes.run, partial(self._look_after_store, self.store)]
        tasks = [asyncio.create_task(for_ever(job)) for job in jobs]
        yield
        await self.service.close()
        if self.store is not None and self.writes is not None:
            await self.writes.drain(0 if self.store.problem else DRAIN)
        for task in (first, *tasks):
            task.cancel()
        await asyncio.gather(first, *tasks, return_exceptions=True)
        self.totals.close()
        await self.status.close()
        if self.store is not None:
            await self.store.close()
        await self.upstream.close()
        self.folder.close()

    async def _look_round(self) -> None:
        await self.model.look()
        if self.model.identity is not None:
            self._follow(self.model.identity)

    async def _prepare_store(self, identity: Identity) -> None:
        """Prepare a new model's collection, so that its first requests find what is stored."""
        if self.store is not None:
            with suppress(asyncio.TimeoutError):  # then it is prepared later
                await asyncio.wait_for(look_after(self.store, identity), STORE_FIRST)

    async def keep_house(self) -> None:
        """Follow the model, the instances and the store, for ever."""
        while True:
            self.instances.read()
            identity = self.model.identity
            if identity is not None:
                self._follow(identity)
            self.bodies.tidy()
            await asyncio.sleep(ROUND if identity else ROUND / 10)

    def _measure(self) -> None:
        """Set the gauges."""
        metrics.INFLIGHT_INPUTS.set(self.permits.in_flight)
        metrics.QUEUE_INPUTS.set(self.permits.queued)
        metrics.BODY_BYTES.set(self.bodies.size)
        metrics.MEMORY_ENTRIES.set(len(self.service.memory))
        metrics.MEMORY_BYTES.set(self.service.memory.size)
        metrics.WRITE_QUEUE_BYTES.set(self.writes.size if self.writes else 0)

    async def _look_after_store(self, store: Store) -> None:
        """Look after the store for ever; apart from the rest, since it may not answer."""
        while True:
            identity = self.model.identity
            if identity is not None:
                await look_after(store, identity)
            await asyncio.sleep(ROUND if identity else ROUND / 10)

    def _follow(self, identity: Identity) -> None:
        """Take this worker's share of the permits, and show the model."""
        # Half of what the instances take: while a worker drains, its successor sends already, and
        # the balancer counts connections, not inputs. It still is 8 batches of 32 an instance.
        permits = self.instances.count * identity.permits // 2 // self.settings.worker_count
        self.permits.resize(max(1, permits))
        collection = identity.collection(self.settings.qdrant_collection)
        if collection != self._shown:
            self._shown = collection
            metrics.show_model(str(identity.info["model_id"]), collection, identity.dimension)


async def runner(settings: Settings, folder: Path) -> web.AppRunner:
    """Return what a worker runs, nothing outside has to be there yet.

    ``folder`` is one that the workers share.
    """
    drain = Drain()
    parts = Parts(settings, folder)
    access = Access(settings)
    accounts = Accounts(settings)
    embeddings = Embeddings(settings, parts.service, parts.bodies, accounts)
    handlers = Handlers(
        settings,
        embeddings,
        parts.model,
        parts.upstream,
        parts.store,
        access,
        parts.bodies,
        accounts,
    )
    admin = Admin(
        settings,
        access,
        parts.service,
        parts.model,
        parts.store,
        parts.purges,
        parts.totals,
        accounts,
    )
    # Where nobody needs a key, nobody is asked for one.
    asked = [access.check] if settings.api_keys else []
    middlewares = [drain.watch, *asked, parts.bodies.hold, handlers.guard]
    app = web.Application(middlewares=middlewares)
    app.add_routes(admin.routes())
    app.add_routes(parts.status.routes())
    app.add_routes(handlers.routes())
    app.cleanup_ctx.append(parts.run)
    shortcut = Shortcut(handlers.routes(), middlewares)
    lane = Lane(embeddings.lanes(), access if asked else None)
    return Runner(app, shortcut, lane, drain, settings.client_timeout, REQUESTS_END)


async def for_ever(job: Callable[[], Awaitable[None]]) -> None:
    """Run a job that should not end; a mistake in it is logged, and it starts again."""
    while True:
        try:
            await job()
        except Exception:
            log.exception("a background job failed and starts again")
        await asyncio.sleep(ROUND)


async def look_after(store: Store, identity: Identity) -> None:
    """Prepare the model's collection where it is not, or ask a troubled store again."""
    try:
        if not store.is_prepared(identity):
            await store.prepare(identity)
        elif store.problem:
            await store.ask()
        else:
            return
        store.report("")
    except StoreError as error:
        store.report(str(error))
