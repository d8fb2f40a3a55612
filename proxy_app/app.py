"""One worker's application: its parts, put together and taken apart in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from aiohttp import web

from proxy_app import metrics
from proxy_app.handlers import Handlers, body_limit
from proxy_app.instances import Instances
from proxy_app.model import Identity, Model
from proxy_app.permits import Permits
from proxy_app.service import Service
from proxy_app.settings import Settings
from proxy_app.store import Store, StoreError
from proxy_app.upstream import Upstream
from proxy_app.writes import Writes

log = logging.getLogger("embedrack")

#: Seconds between two rounds of housekeeping.
ROUND = 1.0
#: Seconds for queued writes when the worker ends.
DRAIN = 5.0


async def build(settings: Settings) -> web.Application:
    """Build the application; nothing outside has to be there yet."""
    app = web.Application(client_max_size=body_limit(settings))
    upstream = Upstream(settings)
    store = Store(settings) if settings.qdrant_url else None
    writes = Writes(store, settings.write_queue_bytes) if store else None
    instances = Instances(settings.upstream_instances, settings.upstream_instances_file)
    permits = Permits(512, settings.max_queue)
    model = Model(settings, upstream)
    service = Service(settings, model, upstream, instances, permits, store, writes)
    handlers = Handlers(settings, service, model, upstream, store)
    app.middlewares.append(handlers.guard)
    app.add_routes(handlers.routes())

    async def housekeeping() -> None:
        shown: Identity | None = None
        while True:
            instances.read()
            identity = model.identity
            if identity is not None:
                permits.resize(max(1, instances.count * identity.permits // settings.worker_count))
                if not identity.is_same_model(shown):
                    collection = identity.collection(settings.qdrant_collection)
                    metrics.show_model(
                        str(identity.info["model_id"]), collection, identity.dimension
                    )
                    shown = identity
                if store is not None:
                    await look_after(store, identity)
            metrics.INFLIGHT_INPUTS.set(permits.in_flight)
            metrics.QUEUE_INPUTS.set(permits.queued)
            metrics.MEMORY_ENTRIES.set(len(service.memory))
            metrics.MEMORY_BYTES.set(service.memory.size)
            metrics.WRITE_QUEUE_BYTES.set(writes.size if writes else 0)
            await asyncio.sleep(ROUND if identity else ROUND / 10)

    async def run_parts(_: web.Application) -> AsyncIterator[None]:
        await model.look()
        tasks = [asyncio.create_task(model.watch()), asyncio.create_task(housekeeping())]
        if writes is not None:
            tasks.append(asyncio.create_task(writes.run()))
        yield
        await service.flights.close()
        if writes is not None:
            await writes.drain(DRAIN)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if store is not None:
            await store.close()
        await upstream.close()

    app.cleanup_ctx.append(run_parts)
    return app


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


async def runner(settings: Settings) -> web.AppRunner:
    """Return what a worker runs: requests die with their clients, connections live for 75 s."""
    return web.AppRunner(
        await build(settings),
        access_log=None,
        handler_cancellation=True,
        keepalive_timeout=75,
        shutdown_timeout=25,
    )
