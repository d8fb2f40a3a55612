"""What an operator looks at: ``/status``; for programs ``/status.json`` and ``/metrics``.

The page is one file without anything from elsewhere. It holds no data: it asks for ``status.json``
again and again, with an API key where one is needed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from dataclasses import asdict
from importlib import resources
from typing import Any

import orjson
from aiohttp import web

from proxy_app import __version__
from proxy_app.cache.qdrant import StoreError
from proxy_app.cache.store import Store
from proxy_app.entries.identity import Identity
from proxy_app.http import cors
from proxy_app.settings import MIB, Settings
from proxy_app.telemetry import metrics
from proxy_app.telemetry.samples import Sample, between, latencies, points, sample, within
from proxy_app.telemetry.tallies import total
from proxy_app.upstream.instances import Instances
from proxy_app.upstream.model import Model
from proxy_app.upstream.probes import Probes, Report
from proxy_app.workers.totals import Totals

#: Seconds for which one answer serves all who ask, so that many open pages cost what one does.
FRESH = 1.0
#: Seconds back in which a failed request or a dropped write still degrades the verdict.
RECENT = 60.0


class Status:
    """The routes; asks instances and store only when somebody looks."""

    def __init__(
        self,
        settings: Settings,
        model: Model,
        instances: Instances,
        store: Store | None,
        totals: Totals,
    ) -> None:
        self._settings = settings
        self._model = model
        self._store = store
        self._totals = totals
        self._probes = Probes(settings, instances)
        self._asking = asyncio.Lock()
        self._told = b""
        self._told_at = -FRESH
        self._page = resources.files("proxy_app.routes").joinpath("status.html").read_bytes()
        self._page_headers = page_headers(self._page.decode())

    def routes(self) -> list[web.RouteDef]:
        """List the routes. ``/status`` is without data and needs no API key."""
        return [
            web.get("/status", self.page),
            web.get("/status.json", self.json),
            web.get("/metrics", self.metrics),
        ]

    async def close(self) -> None:
        """Close all connections."""
        await self._probes.close()

    async def page(self, _: web.Request) -> web.Response:
        """``GET /status``: the page."""
        return web.Response(body=self._page, headers=self._page_headers)

    async def json(self, _: web.Request) -> web.Response:
        """``GET /status.json``: all that the page shows."""
        async with self._asking:
            if time.monotonic() - self._told_at >= FRESH:
                self._told = orjson.dumps(await self._look())
                self._told_at = time.monotonic()
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        return web.Response(body=self._told, headers=headers)

    async def metrics(self, _: web.Request) -> web.Response:
        """``GET /metrics``: Prometheus' text format, all workers together."""
        sums = self._totals.sums()
        text = await asyncio.get_running_loop().run_in_executor(None, metrics.exposition, sums)
        kind = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=text, headers=cors.HEADERS | kind)

    async def _look(self) -> dict[str, Any]:
        identity = self._model.identity
        instances, entries = await asyncio.gather(self._probes.ask(), self._entries(identity))
        sums, now = self._totals.sums(), time.time()
        samples = within(self._totals.history.read(), sample(sums, now))
        store = self._store
        problem = store.problem if store else ""
        workers = int(total(sums, "embedrack_workers"))
        recent = next(one for one in samples if one.time >= now - RECENT)
        return {
            "time": round(now, 3),
            "version": __version__,
            "verdict": verdict(
                serving=identity is not None,
                upstream_problem="" if self._model.healthy else self._model.problem,
                instances=instances,
                store_problem=problem,
                with_store=store is not None,
                idle_workers=max(0, self._settings.worker_count - workers),
                failed=int(samples[-1].failed - recent.failed),
                dropped=int(samples[-1].dropped - recent.dropped),
            ),
            "workers": workers,
            "model": identity
            and describe(identity, self._settings.qdrant_collection) | {"state": self._model.state},
            "instances": [asdict(one) for one in instances],
            "upstream": {
                "inflight_inputs": int(total(sums, "embedrack_inflight_inputs")),
                "queue_inputs": int(total(sums, "embedrack_queue_inputs")),
            },
            "traffic": traffic(samples),
            "memory": {
                "entries": int(total(sums, "embedrack_entries")),
                "bytes": int(total(sums, "embedrack_bytes")),
                "limit_bytes": self._settings.memory * MIB,
            },
            "store": {
                "state": "none" if store is None else "away" if problem else "ok",
                "problem": problem,
                "entries": entries,
                # The vectors' own; the disk holds ids, times and the engine's files on top.
                "bytes": identity and entries and entries * identity.dimension * 4,
                "write_queue_bytes": int(total(sums, "embedrack_write_queue_bytes")),
            },
        }

    async def _entries(self, identity: Identity | None) -> int | None:
        if self._store is None or identity is None or self._store.problem:
            return None
        try:
            return await self._store.count(identity)
        except StoreError:
            return None


def verdict(
    *,
    serving: bool,
    upstream_problem: str,
    instances: list[Report],
    store_problem: str,
    with_store: bool,
    idle_workers: int,
    failed: int,
    dropped: int,
) -> dict[str, Any]:
    """Judge: ``state`` is ok, degraded or bad, ``words`` a sentence, ``notes`` what is to mend."""
    away = [one for one in instances if one.problem]
    notes = [f"instance {one.name}: {one.problem}" for one in away]
    if store_problem:
        notes.append(f"shared cache: {store_problem}")
    if idle_workers:
        notes.append(f"{idle_workers} of the proxy's workers not running")
    if failed:
        notes.append(f"{failed} requests failed within the last minute")
    if dropped:
        notes.append(f"{dropped} embeddings were not stored within the last minute")
    if upstream_problem:
        state = "bad"
        words = "Only what is cached is answered" if serving else "Nothing can be answered"
        notes.insert(0, upstream_problem)
    elif notes:
        state, words = "degraded", "Every request can be answered, but not all is well"
    else:
        state, words = "ok", "All is well: " + who_answers(len(instances), with_store)
    return {"state": state, "words": words, "notes": notes}


def who_answers(instances: int, with_store: bool) -> str:
    """Name what answers."""
    who = "1 instance" if instances == 1 else f"{instances} instances"
    if with_store:
        return f"{who} and the shared cache answer"
    return f"{who} {'answers' if instances == 1 else 'answer'}, there is no shared cache"


def traffic(samples: list[Sample]) -> dict[str, Any]:
    """Describe what happened from the first sample (at least one) to the last."""
    oldest, latest = samples[0], samples[-1]
    whole = between(oldest, latest)
    rate = whole.hit_rate
    return {
        "window_s": round(whole.seconds, 1),
        "requests": int(latest.requests - oldest.requests),
        "failed": int(latest.failed - oldest.failed),
        "inputs": dict(zip(("hit_l1", "hit_l2", "miss"), map(int, whole.inputs), strict=True)),
        "hit_rate": None if rate is None else round(rate, 5),
        "latency": latencies(oldest, latest),
        "curve": [
            {
                "time": round(point.time, 1),
                "hit_rate": None if point.hit_rate is None else round(point.hit_rate, 4),
                "inputs_per_s": round(sum(point.inputs) / point.seconds, 2),
            }
            for point in points(samples)
        ],
    }


def describe(identity: Identity, prefix: str) -> dict[str, Any]:
    """Say what model is served; ``namespace`` is its short name, that of the collection."""
    info = identity.info
    return {
        "id": info["model_id"],
        "name": info.get("served_model_name") or info["model_id"],
        "revision": info.get("model_sha"),
        "dtype": info.get("model_dtype"),
        "tei": info.get("version"),
        "max_input_length": info.get("max_input_length"),
        "dimension": identity.dimension,
        "namespace": identity.collection(prefix),
    }


def page_headers(page: str) -> dict[str, str]:
    """Allow the page its own script and style by their hashes, requests to its own origin, no more.

    Content Security Policy Level 3, https://www.w3.org/TR/CSP3/.
    """
    script, style = (
        " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("script", "style")
    )
    policy = (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
