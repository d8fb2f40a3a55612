"""HTTP in and out: a handler reads a dialect, asks the service, and writes the reply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from proxy_app import __version__, metrics, passthrough, tei
from proxy_app.errors import EmbedError, Kind
from proxy_app.logs import RequestLog, log
from proxy_app.model import Model
from proxy_app.reply import Reply
from proxy_app.service import Answer, Service
from proxy_app.settings import MIB, Settings
from proxy_app.store import Store
from proxy_app.upstream import Upstream

_OPENAI_ROUTES = frozenset(("/v1/embeddings", "/embeddings"))

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
    ) -> None:
        self._settings = settings
        self._service = service
        self._model = model
        self._upstream = upstream
        self._store = store
        self._log = RequestLog(settings)

    def routes(self) -> list[web.RouteDef]:
        """List the routes; the last takes whatever is not ours."""
        return [
            web.post("/embed", self.embed),
            web.get("/info", self.info),
            web.get("/health", self.ready),
            web.get("/readyz", self.ready),
            web.get("/livez", self.live),
            web.get("/metrics", self.metrics),
            web.get("/", self.banner),
            web.route("*", "/{path:.*}", self.forward),
        ]

    async def embed(self, request: web.Request) -> web.StreamResponse:
        """``POST /embed``: TEI's dialect, cached per input."""
        started = time.perf_counter()
        fields: dict[str, object] = {}
        try:
            items, options = tei.parse(await self._body(request))
            fields["inputs"] = len(items)
            self._refuse_too_many(len(items))
            answer = await self._service.embed(items, options)
            response: web.StreamResponse = self._embedded(answer, started)
            fields |= {"hits": answer.hits, "misses": answer.misses}
        except EmbedError as error:
            fields["error"] = error.message
            response = self._failed(request, error)
        self._account(request, "embed", response.status, started, fields)
        return response

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

    async def metrics(self, _: web.Request) -> web.Response:
        """``GET /metrics``: Prometheus' text format, all workers together."""
        text = await asyncio.get_running_loop().run_in_executor(None, metrics.exposition)
        return web.Response(
            body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

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

    async def forward(self, request: web.Request) -> web.Response:
        """Everything else is TEI's."""
        started = time.perf_counter()
        fields: dict[str, object] = {}
        try:
            response = await passthrough.forward(request, self._upstream)
        except web.HTTPRequestEntityTooLarge:
            response = self._failed(request, self._too_large())
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

    async def _body(self, request: web.Request) -> bytes:
        try:
            return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise self._too_large() from None

    def _too_large(self) -> EmbedError:
        return EmbedError(
            Kind.VALIDATION,
            f"the body has more than {self._settings.max_body} MiB (EMBEDRACK_MAX_BODY)",
            status=413,
        )

    def _refuse_too_many(self, count: int) -> None:
        if count > self._settings.max_inputs:
            raise EmbedError(
                Kind.VALIDATION,
                f"batch size {count} > maximum allowed batch size {self._settings.max_inputs}",
            )

    def _embedded(self, answer: Answer, started: float) -> Reply:
        word = "hit" if not answer.misses else "partial" if answer.hits else "miss"
        headers = f"X-Cache: {word}; hits={answer.hits}; misses={answer.misses}\r\n"
        timing = f"total;dur={(time.perf_counter() - started) * 1000:.3f}"
        if answer.l2_seconds:
            timing += f", l2;dur={answer.l2_seconds * 1000:.3f}"
        if answer.misses:
            timing += f", upstream;dur={answer.upstream_seconds * 1000:.3f}"
            for name, value in tei.compute_headers(answer.headers).items():
                headers += f"{name}: {value}\r\n"
        headers += f"Server-Timing: {timing}\r\n"
        return Reply(headers, [entry.vector for entry in answer.entries])

    def _failed(self, request: web.Request, error: EmbedError) -> web.Response:
        openai = request.path in _OPENAI_ROUTES
        response = _json(
            tei.openai_error_body(error) if openai else tei.error_body(error), error.status
        )
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
    ) -> None:
        seconds = time.perf_counter() - started
        metrics.count_request(route, status, seconds)
        if self._log.wants(status, seconds):
            self._log.write(request.method, request.path, status, seconds, fields)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})


def body_limit(settings: Settings) -> int:
    """Return the largest body that is read, in bytes."""
    return settings.max_body * MIB
