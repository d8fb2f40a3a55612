"""HTTP in and out: a handler reads a dialect, asks the service, and writes the reply."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import orjson
from aiohttp import web
from multidict import CIMultiDict

from proxy_app import __version__
from proxy_app.cache.store import Store
from proxy_app.embedding.service import Answer, Options, Service
from proxy_app.entries.keys import Item
from proxy_app.errors import EmbedError, Kind
from proxy_app.http import cors, lane
from proxy_app.http.access import Access
from proxy_app.http.bodies import Bodies
from proxy_app.http.reply import Reply, head_of
from proxy_app.routes import cache_control, document, openai, passthrough, tei
from proxy_app.settings import Settings
from proxy_app.telemetry import metrics
from proxy_app.telemetry.logs import RequestLog, log
from proxy_app.upstream.client import Upstream
from proxy_app.upstream.model import Model

_OPENAI_ROUTES = frozenset(("/v1/embeddings", "/embeddings", "/v1/models"))

#: Copied for each reply, which is quicker than making it anew.
_JSON = CIMultiDict(cors.HEADERS | {"Content-Type": "application/json"})

#: Inputs of a request that may be answered at once: a third of a millisecond's work.
AT_ONCE = 64

Parse = Callable[[bytes], tuple[list[Item], Options, tei.Write]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Handlers:
    """The routes of one worker."""

    def __init__(
        self,
        settings: Settings,
        service: Service,
        model: Model,
        upstream: Upstream,
        store: Store | None,
        access: Access,
        bodies: Bodies,
    ) -> None:
        self._settings = settings
        self._access = access
        self._service = service
        self._model = model
        self._upstream = upstream
        self._store = store
        self._bodies = bodies
        self._log = RequestLog(settings)

    def routes(self) -> list[web.RouteDef]:
        """List the routes; the last takes whatever is not ours."""
        return [
            web.post("/embed", self.embed),
            web.post("/", self.task),
            web.post("/invocations", self.task),
            web.post("/v1/embeddings", self.openai),
            web.post("/embeddings", self.openai),
            web.get("/v1/models", self.models),
            web.get("/info", self.info),
            web.get("/health", self.ready),
            web.get("/readyz", self.ready),
            web.get("/livez", self.live),
            web.get("/api-doc/openapi.json", self.document),
            web.get("/docs", self.docs),
            web.get("/", self.banner),
            web.options("/{path:.*}", self.preflight),
            web.route("*", "/{path:.*}", self.forward),
        ]

    async def embed(self, request: web.Request) -> web.StreamResponse:
        """``POST /embed``: TEI's dialect, cached per input."""
        return await self._embed(request, "embed", tei.parse)

    async def openai(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/embeddings``: OpenAI's dialect, from the same cache."""
        return await self._embed(request, "openai", openai.parse)

    async def task(self, request: web.Request) -> web.StreamResponse:
        """``POST /``, ``/invocations``: the model's own task, which is to embed if it is dense."""
        identity = self._model.identity
        if identity is None or not identity.is_dense:
            return await self.forward(request)
        return await self.embed(request)

    def lanes(self) -> dict[str, lane.Answer]:
        """Give the routes that can be answered out of L1 alone, by path."""
        openai_s = partial(self._at_once, "/v1/embeddings", "openai", openai.parse)
        return {
            "/embed": partial(self._at_once, "/embed", "embed", tei.parse),
            "/v1/embeddings": openai_s,
            "/embeddings": openai_s,
        }

    def _at_once(self, path: str, route: str, parse: Parse, body: bytes) -> list[bytes] | None:
        """Answer a body out of L1, or not at all."""
        started = time.perf_counter()
        try:
            items, options, write = parse(body)
            answer = self._service.remembered(items, options) if len(items) <= AT_ONCE else None
        except EmbedError:
            return None  # told on aiohttp's way
        if answer is None:
            return None
        writing = write(answer, self._service.memory)
        try:
            writing.send(None)
        except StopIteration as done:
            pieces: list[bytes] = done.value
        else:
            writing.close()  # it takes more than one turn
            return None
        head = head_of(sum(map(len, pieces)), self._head(answer, started))
        seconds = time.perf_counter() - started
        metrics.count_request(route, 200, seconds, "l1")
        if self._log.wants(200, seconds):
            fields: dict[str, object] = {"inputs": len(items), "hits": len(items), "misses": 0}
            self._log.write("POST", path, 200, seconds, fields)
        return [head, *pieces]

    async def _embed(self, request: web.Request, route: str, parse: Parse) -> web.StreamResponse:
        started = time.perf_counter()
        fields: dict[str, object] = {}
        level = "none"
        try:
            items, options, write = parse(await self._bodies.read(request))
            fields["inputs"] = len(items)
            self._refuse_too_many(len(items))
            control = cache_control.read(request.headers)
            answer = await self._service.embed(items, options, control)
            pieces = await write(answer, self._service.memory)
            response: web.StreamResponse = Reply(self._head(answer, started), pieces)
            level = answer.level
            fields |= {"hits": answer.hits, "misses": answer.misses}
        except EmbedError as error:
            fields["error"] = error.message
            response = self._failed(request, error)
        self._account(request, route, response.status, started, fields, level)
        return response

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``: the served model, in OpenAI's shape."""
        started = time.perf_counter()
        try:
            response = _json(openai.models((await self._model.present()).info))
        except EmbedError as error:
            response = self._failed(request, error)
        self._account(request, "other", response.status, started, {})
        return response

    async def document(self, request: web.Request) -> web.Response:
        """``GET /api-doc/openapi.json``: TEI's OpenAPI document, with what we add."""
        started = time.perf_counter()
        try:
            response = _json(orjson.dumps(await document.fetch(self._upstream)))
        except EmbedError as error:
            response = self._failed(request, error)
        self._account(request, "other", response.status, started, {})
        return response

    async def docs(self, _: web.Request) -> web.Response:
        """``GET /docs``: a page for people, which reads the document above."""
        return web.Response(
            body=document.page(), headers=cors.HEADERS | {"Content-Type": "text/html"}
        )

    async def preflight(self, _: web.Request) -> web.Response:
        """``OPTIONS``: what a browser asks before it asks, answered as TEI does."""
        return web.Response(headers=cors.PREFLIGHT)

    async def info(self, request: web.Request) -> web.Response:
        """``GET /info``: TEI's, with our own batch limit and what the cache is keyed by."""
        started = time.perf_counter()
        try:
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
            response = _json(orjson.dumps(info))
        except EmbedError as error:
            response = self._failed(request, error)
        self._account(request, "info", response.status, started, {})
        return response

    async def ready(self, _: web.Request) -> web.Response:
        """``GET /health``, ``/readyz``: 200 when misses can be answered; the store only helps."""
        body = {
            "status": "ok" if self._model.healthy else "unhealthy",
            "upstream": self._model.problem or "ok",
            "store": "none: L1 alone" if self._store is None else self._store.problem or "ok",
        }
        if self._model.healthy:
            return _json(orjson.dumps(body))
        body |= {"error": self._model.problem, "error_type": Kind.UNHEALTHY.value}
        return _json(orjson.dumps(body), 503)

    async def live(self, _: web.Request) -> web.Response:
        """``GET /livez``: 200 while this process answers at all."""
        return _json(b'{"status":"ok"}')

    async def banner(self, _: web.Request) -> web.Response:
        """``GET /``: says what this is, to programs."""
        identity = self._model.identity
        banner = {
            "message": "Embedrack: text embeddings with a cache. POST /embed to use it.",
            "version": __version__,
            "model": identity and identity.info.get("model_id"),
            "dimension": identity and identity.dimension,
        }
        return _json(orjson.dumps(banner))

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Everything else is TEI's."""
        started = time.perf_counter()
        fields: dict[str, object] = {}
        try:
            body = await self._bodies.read(request)
            response: web.StreamResponse = await passthrough.forward(
                request, body, self._upstream, self._access, self._bodies
            )
        except EmbedError as error:
            fields["error"] = error.message
            response = self._failed(request, error)
        self._account(request, "other", response.status, started, fields)
        return response

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
            return self._failed(request, error)

    def _refuse_too_many(self, count: int) -> None:
        if count > self._settings.max_inputs:
            raise EmbedError(
                Kind.VALIDATION,
                f"batch size {count} > maximum allowed batch size {self._settings.max_inputs}",
            )

    def _head(self, answer: Answer, started: float) -> str:
        """Write what a reply tells of an answer, as header lines."""
        word = "hit" if not answer.misses else "partial" if answer.hits else "miss"
        headers = f"{cors.LINES}X-Cache: {word}; hits={answer.hits}; misses={answer.misses}\r\n"
        timing = f"total;dur={(time.perf_counter() - started) * 1000:.3f}"
        if answer.l2_seconds:
            timing += f", l2;dur={answer.l2_seconds * 1000:.3f}"
        if answer.misses:
            timing += f", upstream;dur={answer.upstream_seconds * 1000:.3f}"
            for name, value in tei.compute_headers(answer.headers).items():
                headers += f"{name}: {value}\r\n"
        return f"{headers}Server-Timing: {timing}\r\n"

    def _failed(self, request: web.Request, error: EmbedError) -> web.Response:
        dialect = openai if request.path in _OPENAI_ROUTES else tei
        response = _json(dialect.error_body(error), error.status)
        if error.retry_after is not None:
            response.headers["Retry-After"] = error.retry_after
        return response

    def _account(
        self,
        request: web.Request,
        route: str,
        status: int,
        started: float,
        fields: dict[str, object],
        level: str = "none",
    ) -> None:
        seconds = time.perf_counter() - started
        metrics.count_request(route, status, seconds, level)
        if self._log.wants(status, seconds):
            self._log.write(request.method, request.path, status, seconds, fields)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers=_JSON.copy())
