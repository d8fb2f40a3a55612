"""The administrator's routes: statistics and purges, behind the admin's key."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from proxy_app.cache.qdrant import StoreError
from proxy_app.cache.store import Store
from proxy_app.embedding.purges import Purger
from proxy_app.embedding.service import Service
from proxy_app.entries.collection import is_ours
from proxy_app.errors import EmbedError, Kind
from proxy_app.http.access import Access, refusal
from proxy_app.http.reply import Reply
from proxy_app.routes import tei
from proxy_app.routes.account import Account, Accounts
from proxy_app.settings import MIB, Settings
from proxy_app.telemetry import metrics
from proxy_app.telemetry.logs import log
from proxy_app.upstream.model import Model
from proxy_app.workers.purge_log import Purge, PurgeLog, purge_all, purge_keys
from proxy_app.workers.totals import Totals

#: Bytes of one number in the store.
FLOAT32 = 4


class Admin:
    """The routes of one worker; without a key in the settings there are none."""

    def __init__(
        self,
        settings: Settings,
        access: Access,
        service: Service,
        model: Model,
        store: Store | None,
        log: PurgeLog,
        totals: Totals,
        accounts: Accounts,
    ) -> None:
        self._settings = settings
        self._access = access
        self._service = service
        self._model = model
        self._store = store
        self._purger = Purger(log, store)
        self._totals = totals
        self._accounts = accounts
        self._purging: set[asyncio.Task[dict[str, object]]] = set()

    def routes(self) -> list[web.RouteDef]:
        """List the routes; what else begins like them is not TEI's to see."""
        answer = self._accounts.answering("other", self._answer)
        return [
            web.get("/admin/stats", answer),
            web.post("/admin/purge", answer),
            web.route("*", "/admin{path:(/.*)?}", answer),
        ]

    async def _answer(self, request: web.Request, _: Account) -> web.StreamResponse:
        """Answer to the admin alone, with JSON, errors in TEI's shape."""
        if self._settings.admin_key and not self._access.is_admin(request):
            return refusal()
        try:
            return Reply([orjson.dumps(await self._route(request))])
        except StoreError as error:
            message = f"the workers have purged, the store has not: {error}"
            raise EmbedError(Kind.UNHEALTHY, message) from None

    async def _route(self, request: web.Request) -> dict[str, object]:
        if not self._settings.admin_key:
            raise EmbedError(Kind.VALIDATION, "EMBEDRACK_ADMIN_KEY is not set", status=404)
        if (request.method, request.path) == ("GET", "/admin/stats"):
            return await self.stats()
        if (request.method, request.path) == ("POST", "/admin/purge"):
            return await self.purge(await request.read())
        message = "there are GET /admin/stats and POST /admin/purge"
        raise EmbedError(Kind.VALIDATION, message, status=404)

    async def stats(self) -> dict[str, object]:
        """Return what the cache has and how often it helped, all workers together."""
        sums = self._totals.sums()

        def amount(name: str, *labels: str) -> int:
            return int(sums.get((f"embedrack_{name}", labels), [0])[0])

        l1, l2, miss = (amount("inputs", result) for result in metrics.INPUTS)
        identity = self._model.identity
        return {
            "model": identity and identity.info.get("model_id"),
            "collection": identity and identity.collection(self._settings.qdrant_collection),
            "inputs": {"hit_l1": l1, "hit_l2": l2, "miss": miss},
            "hit_rate": {
                "l1": share(l1, l1 + l2 + miss),
                "l2": share(l2, l2 + miss),
                "all": share(l1 + l2, l1 + l2 + miss),
            },
            "l1": {
                "entries": amount("entries"),
                "bytes": amount("bytes"),
                "limit_bytes": self._settings.memory * MIB,
            },
            "write_queue_bytes": amount("write_queue_bytes"),
            "store": self._store and await self._store_stats(self._store),
        }

    async def _store_stats(self, store: Store) -> dict[str, object]:
        try:
            names = await store.collections()
            counted = [(name, *await store.entries(name)) for name in names]
        except StoreError as error:
            return {"problem": str(error)}
        return {
            "entries": sum(entries for _, entries, _ in counted),
            "vector_bytes": sum(n * dimension * FLOAT32 for _, n, dimension in counted),
            "collections": [
                {"name": name, "entries": n, "vector_bytes": n * dimension * FLOAT32}
                for name, n, dimension in counted
            ],
        }

    async def purge(self, body: bytes) -> dict[str, object]:
        """Purge what the body names: ``inputs`` with their fields as /embed takes them,
        ``namespace`` (a collection's name), or ``all``. Raises EmbedError and StoreError.
        """
        purge, current = self._read(body)
        # Who asks may go away; half a purge would let come back what is gone.
        purging = asyncio.create_task(self._purger.purge(purge, current))
        self._purging.add(purging)
        purging.add_done_callback(self._purging.discard)
        purged = await asyncio.shield(purging)
        log.info("purged: %s", purged)
        return purged

    def _read(self, body: bytes) -> tuple[Purge, str]:
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise EmbedError(Kind.VALIDATION, f"no JSON: {error}", status=400) from None
        named = sorted(asked.keys() & {"all", "namespace", "inputs"}) if type(asked) is dict else []
        prefix = self._settings.qdrant_collection
        match named:
            case ["all"] if asked["all"] is True:
                return purge_all(), ""
            case ["namespace"] if isinstance(asked["namespace"], str):
                if not is_ours(asked["namespace"], prefix):
                    reason = "`namespace`: no collection of ours; GET /admin/stats lists them"
                    raise EmbedError(Kind.VALIDATION, reason, status=404)
                return Purge(collection=asked["namespace"]), ""
            case ["inputs"]:
                asked = tei.parse(body)
                identity = self._model.require()
                keys = self._service.keys(asked.items, asked.options, identity)
                return purge_keys(keys), identity.collection(prefix)
        raise EmbedError(
            Kind.VALIDATION,
            'one of {"all": true}, {"namespace": "…"} and {"inputs": […]} is wanted',
        )


def share(part: float, whole: float) -> float | None:
    """Return a share, or None of nothing."""
    return round(part / whole, 4) if whole else None
