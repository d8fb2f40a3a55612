"""The routes beside embeddings: what is known of the model, of this proxy, and what is TEI's."""

from __future__ import annotations

import orjson
from aiohttp import web

from proxy_app import __version__
from proxy_app.cache.store import Store
from proxy_app.errors import EmbedError, Kind
from proxy_app.http import cors
from proxy_app.http.access import Access
from proxy_app.http.bodies import Bodies
from proxy_app.http.reply import NOT_STORED, Reply, failure
from proxy_app.routes import document, openai, passthrough
from proxy_app.routes.account import Account, Accounts, Handler, dialect_of
from proxy_app.routes.embeddings import Embeddings
from proxy_app.routes.inputs import Limits
from proxy_app.settings import Settings
from proxy_app.telemetry.logs import log
from proxy_app.upstream.client import Upstream
from proxy_app.upstream.model import Model


class Handlers:
    """The routes of one worker."""

    def __init__(
        self,
        settings: Settings,
        embeddings: Embeddings,
        model: Model,
        upstream: Upstream,
        store: Store | None,
        access: Access,
        bodies: Bodies,
        accounts: Accounts,
    ) -> None:
        self._settings = settings
        self._limits = Limits.of(settings)
        self._access = access
        self._embeddings = embeddings
        self._model = model
        self._upstream = upstream
        self._store = store
        self._bodies = bodies
        self._accounts = accounts
        self._forward = accounts.answering("other", self._pass_on)

    def routes(self) -> list[web.RouteDef]:
        """List the routes; the last takes whatever is not ours."""
        return [
            web.post("/embed", self._embeddings.tei),
            web.post("/", self.task),
            web.post("/invocations", self.task),
            web.post("/v1/embeddings", self._embeddings.openai),
            web.post("/embeddings", self._embeddings.openai),
            web.get("/v1/models", self._accounts.answering("other", self.models)),
            web.get("/v1/models/{id:(?s:.+)}", self._accounts.answering("other", self.model)),
            web.get("/info", self._accounts.answering("info", self.info)),
            web.get("/health", self.ready),
            web.get("/readyz", self.ready),
            web.get("/livez", self.live),
            web.get("/api-doc/openapi.json", self._accounts.answering("other", self.document)),
            web.get("/docs", self.docs),
            web.get("/", self.banner),
            web.options("/{path:(?s:.*)}", self.preflight),
            web.route("*", "/{path:(?s:.*)}", self._forward),
        ]

    async def task(self, request: web.Request) -> web.StreamResponse:
        """``POST /``, ``/invocations``: the model's own task, which is to embed if it is dense."""
        identity = self._model.identity
        if identity is None or not identity.is_dense:
            return await self._forward(request)
        return await self._embeddings.tei(request)

    async def models(self, _: web.Request, __: Account) -> Reply:
        """``GET /v1/models``: the served model, in OpenAI's shape."""
        return Reply([openai.models((await self._model.present()).info)])

    async def model(self, request: web.Request, _: Account) -> Reply:
        """``GET /v1/models/{id}``: the served model by its name, which may have slashes."""
        info = (await self._model.present()).info
        if request.match_info["id"] != openai.served_name(info):
            return Reply([openai.no_model(info)], status=404)
        return Reply([orjson.dumps(openai.model(info))])

    async def document(self, _: web.Request, __: Account) -> Reply:
        """``GET /api-doc/openapi.json``: TEI's OpenAPI document, with what we add."""
        return Reply([orjson.dumps(await document.fetch(self._upstream))])

    async def docs(self, _: web.Request) -> web.Response:
        """``GET /docs``: a page for people, which reads the document above."""
        return web.Response(
            body=document.page(), headers=cors.HEADERS | {"Content-Type": "text/html"}
        )

    async def preflight(self, _: web.Request) -> web.Response:
        """``OPTIONS``: what a browser asks before it asks, answered as TEI does."""
        return web.Response(headers=cors.PREFLIGHT)

    async def info(self, _: web.Request, __: Account) -> Reply:
        """``GET /info``: TEI's, with our own batch limit and what the cache is keyed by."""
        identity = await self._model.present()
        info = identity.info | {
            "max_client_batch_size": self._settings.max_inputs,
            "embedrack": {
                "version": __version__,
                "dimension": identity.dimension,
                "namespace": orjson.loads(identity.namespace),
                "collection": self._store and self._store.collection(identity),
            },
        }
        return Reply([orjson.dumps(info)], NOT_STORED)

    async def ready(self, _: web.Request) -> Reply:
        """``GET /health``, ``/readyz``: 200 when misses can be answered; the store only helps."""
        body = {
            "status": "ok" if self._model.healthy else "unhealthy",
            "upstream": self._model.problem or "ok",
            "model": self._model.state,
            "store": "none: L1 alone" if self._store is None else self._store.problem or "ok",
        }
        if self._model.healthy:
            return Reply([orjson.dumps(body)], NOT_STORED)
        body |= {"error": self._model.problem, "error_type": Kind.UNHEALTHY.value}
        return Reply([orjson.dumps(body)], NOT_STORED, 503)

    async def live(self, _: web.Request) -> Reply:
        """``GET /livez``: 200 while this process answers at all."""
        return Reply([b'{"status":"ok"}'], NOT_STORED)

    async def banner(self, _: web.Request) -> Reply:
        """``GET /``: says what this is, to programs."""
        identity = self._model.identity
        banner = {
            "message": "Embedrack: text embeddings with a cache. POST /embed to use it.",
            "version": __version__,
            "model": identity and identity.info.get("model_id"),
            "dimension": identity and identity.dimension,
        }
        return Reply([orjson.dumps(banner)])

    async def _pass_on(self, request: web.Request, _: Account) -> web.StreamResponse:
        """Everything else is TEI's."""
        body = await self._bodies.read(request)
        return await passthrough.forward(
            request, body, self._upstream, self._access, self._bodies, self._limits
        )

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer our own mistakes as errors, and log where they happened."""
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            error = EmbedError(Kind.BACKEND, "internal error; the log has more", status=500)
            return failure(error, dialect_of(request.path).error_body(error))
