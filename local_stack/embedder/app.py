"""TEI's HTTP: routes, headers, errors."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import numpy as np
import orjson
from aiohttp import web

from local_stack.embedder import wire
from local_stack.embedder.body import BodyError, reader
from local_stack.embedder.document import document
from local_stack.embedder.errors import TeiError
from local_stack.embedder.request import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    EmbedSparseRequest,
    Inputs,
    OpenAICompatRequest,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    TokenizeRequest,
)
from local_stack.embedder.service import TEI_VERSION, Embedded, Service

T = TypeVar("T", bound=msgspec.Struct)
Handler = Callable[[web.Request], Awaitable[web.Response]]

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_CORS = {
    "vary": "origin, access-control-request-method, access-control-request-headers",
    "access-control-allow-origin": "*",
}
_PREFLIGHT = {
    "access-control-allow-methods": "GET,POST",
    "access-control-allow-headers": "content-type",
}
_UNKEYED = {"/health", "/ping", "/metrics", "/api-doc/openapi.json"}
_OPENAI = {"/embeddings", "/v1/embeddings"}
_NO_RERANKER = "model is not a re-ranker model"
_NO_CLASSIFIER = "Model is not a classifier model"
_NO_SPLADE = "Model is not an embedding model with SPLADE pooling"


class App:
    """The routes over one ``Service``. ``api_key``: what guards them, ``None`` for nothing."""

    def __init__(self, service: Service, api_key: str | None = None) -> None:
        self._service = service
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()
        embed = {"POST": _reading(EmbedRequest, self._embed)}
        openai = {"POST": _reading(OpenAICompatRequest, self._openai)}
        self._routes: dict[str, dict[str, Handler]] = {
            "/": {**embed, "GET": self._health},
            "/info": {"GET": self._info},
            "/health": {"GET": self._health},
            "/ping": {"GET": self._health},
            "/metrics": {"GET": self._metrics},
            "/api-doc/openapi.json": {"GET": self._document},
            "/embed": embed,
            "/invocations": embed,
            "/embed_all": {"POST": _reading(EmbedAllRequest, self._embed_all)},
            "/embed_sparse": {"POST": _reading(EmbedSparseRequest, self._embed_sparse)},
            "/similarity": {"POST": _reading(SimilarityRequest, self._similarity)},
            "/rerank": {"POST": _reading(RerankRequest, self._rerank)},
            "/predict": {"POST": _reading(PredictRequest, self._predict)},
            "/tokenize": {"POST": _reading(TokenizeRequest, self._tokenize)},
            "/decode": {"POST": _reading(DecodeRequest, self._decode)},
            "/embeddings": openai,
            "/v1/embeddings": openai,
        }

    def web_app(self) -> web.Application:
        """The application for aiohttp to run."""
        # TEI's replies to wrong paths and methods are its own, so that the table above decides.
        app = web.Application(client_max_size=self._service.limits.payload_limit)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        app.on_response_prepare.append(_finish_headers)
        return app

    async def _dispatch(self, request: web.Request) -> web.Response:
        methods = self._routes.get(request.path)
        if request.method == "OPTIONS":
            allow = {} if methods is None else {"allow": _allowed(methods)}
            return web.Response(headers={**_PREFLIGHT, **allow})
        if methods is None:
            return web.Response(status=404)
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if not self._may(request, handler):
            return web.Response(status=401)
        if handler is None:
            return web.Response(status=405, headers={"allow": _allowed(methods)})
        return await self._answered(handler, request)

    def _may(self, request: web.Request, handler: Handler | None) -> bool:
        if self._authorization is None or request.path in _UNKEYED or handler == self._health:
            return True
        given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self._authorization)

    async def _answered(self, handler: Handler, request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except TeiError as error:
            self._service.metrics.count("te_request_failure", f'err="{error.cause}"')
            body = wire.error_reply(error, openai=request.path in _OPENAI)
            return _json(body, status=error.status)
        except BodyError as error:
            return _text(str(error), status=error.status)
        except web.HTTPRequestEntityTooLarge:
            return _text("Failed to buffer the request body: length limit exceeded", status=413)
        except _NotJson:
            return _text("Expected request with `Content-Type: application/json`", status=415)

    # ------------------------------------------------------------ handlers

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _info(self, _: web.Request) -> web.Response:
        return _json(orjson.dumps(self._service.info()))

    async def _metrics(self, _: web.Request) -> web.Response:
        return _text(self._service.metrics.page())

    async def _document(self, _: web.Request) -> web.Response:
        return _json(orjson.dumps(document(TEI_VERSION)))

    async def _embed(self, body: EmbedRequest) -> web.Response:
        started = time.perf_counter()
        embedded = await self._service.embed(body)
        return _computed(wire.json_floats(np.stack(embedded.vectors)), embedded, started)

    async def _embed_all(self, body: EmbedAllRequest) -> web.Response:
        started = time.perf_counter()
        embedded = await self._service.embed(body.as_embed(), pooled=False)
        return _computed(wire.json_floats(embedded.vectors), embedded, started)

    async def _openai(self, body: OpenAICompatRequest) -> web.Response:
        started = time.perf_counter()
        embedded = await self._service.embed(EmbedRequest(body.input, dimensions=body.dimensions))
        reply = wire.openai_reply(
            np.stack(embedded.vectors),
            body.encoding_format,
            self._service.served_model_name,
            embedded.tokens,
        )
        return _computed(reply, embedded, started)

    async def _similarity(self, body: SimilarityRequest) -> web.Response:
        started = time.perf_counter()
        cosines, embedded = await self._service.similarity(body)
        return _computed(wire.json_floats(cosines), embedded, started)

    async def _embed_sparse(self, body: EmbedSparseRequest) -> web.Response:
        self._service.refuse(body.inputs, _NO_SPLADE)

    async def _rerank(self, body: RerankRequest) -> web.Response:
        if not body.texts:
            raise TeiError("Validation", "`texts` cannot be empty", "validation")
        raise TeiError("Backend", f"Backend error: {_NO_RERANKER}", "model_type")

    async def _predict(self, _: PredictRequest) -> web.Response:
        self._service.refuse(Inputs([""], single=True), _NO_CLASSIFIER)

    async def _tokenize(self, body: TokenizeRequest) -> web.Response:
        return _json(orjson.dumps(await self._service.tokenize(body)))

    async def _decode(self, body: DecodeRequest) -> web.Response:
        return _json(orjson.dumps(await self._service.decode(body)))


class _NotJson(Exception):
    """A body that is not said to be JSON."""


def _reading(kind: type[T], handle: Callable[[T], Awaitable[web.Response]]) -> Handler:
    """Make a handler of one that takes a body of a kind."""
    read = reader(kind)

    async def handler(request: web.Request) -> web.Response:
        said = request.content_type
        if said != _JSON and not (said.startswith("application/") and said.endswith("+json")):
            raise _NotJson
        return await handle(read(await request.read()))

    return handler


def _json(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, headers={"content-type": _JSON})


def _text(text: str, *, status: int = 200) -> web.Response:
    return web.Response(body=text.encode(), status=status, headers={"content-type": _TEXT})


def _computed(body: bytes, embedded: Embedded, started: float) -> web.Response:
    response = _json(body)
    response.headers.update(
        wire.compute_headers(
            embedded.characters,
            embedded.tokens,
            time.perf_counter() - started,
            embedded.timings,
        )
    )
    return response


def _allowed(methods: dict[str, Handler]) -> str:
    return ",".join("GET,HEAD" if method == "GET" else method for method in methods)


async def _finish_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_CORS)
    response.headers.pop("server", None)
    # aiohttp's guess for a reply without a body, where TEI says nothing.
    if response.headers.get("content-type") == "application/octet-stream":
        del response.headers["content-type"]
