"""The HTTP routes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Any

import qdrant_edge as edge
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from local_stack.qdrant import wire
from local_stack.qdrant.catalogue import Catalogue
from local_stack.qdrant.collection import Collection
from local_stack.qdrant.errors import (
    ApiError,
    BadRequest,
    NotFound,
    Unprocessable,
    Unsupported,
)
from local_stack.qdrant.filters import read_filter
from local_stack.qdrant.keeper import FLUSH_INTERVAL_S, QUIET_S, Keeper
from local_stack.qdrant.schema import read_schema
from local_stack.qdrant.settings import Change, Creation, changed, read_creation

MAX_BODY_BYTES = 32 * 2**20
API_VERSION = "1.19.0"
"""The server whose API this follows; clients compare it with their own version."""
COMMIT = f"qdrant-edge-{version('qdrant-edge-py')}"

UPDATE_MODES = {
    "upsert": edge.UpdateMode.Upsert,
    "insert_only": edge.UpdateMode.InsertOnly,
    "update_only": edge.UpdateMode.UpdateOnly,
}

CREATION = wire.decoder(Creation)
CHANGE = wire.decoder(Change)
UPSERT = wire.decoder(wire.UpsertBody)
RETRIEVE = wire.decoder(wire.RetrieveBody)
DELETE = wire.decoder(wire.DeleteBody)
COUNT = wire.decoder(wire.CountBody)
SCROLL = wire.decoder(wire.ScrollBody)
QUERY = wire.decoder(wire.QueryBody)
INDEX = wire.decoder(wire.IndexBody)

CATALOGUE = web.AppKey("catalogue", Catalogue)
KEEPER = web.AppKey("keeper", Keeper)

Answer = Callable[[web.Request], Awaitable[object]]

log = logging.getLogger(__name__)


def make_app(
    catalogue: Catalogue,
    api_key: str | None = None,
    quiet_s: float = QUIET_S,
    flush_s: float = FLUSH_INTERVAL_S,
) -> web.Application:
    """The application that serves a catalogue.

    With a key, only health routes do without it. `quiet_s` is the time without a request, in
    seconds, after which segments with many deleted points are rewritten, `flush_s` that between two
    flushes of what is new.
    """
    app = web.Application(
        middlewares=[_guard(api_key), _empty_not_found], client_max_size=MAX_BODY_BYTES
    )
    app[CATALOGUE] = catalogue
    app[KEEPER] = Keeper(catalogue, quiet_s, flush_s)
    app.cleanup_ctx.append(_upkeep)
    app.add_routes(
        [
            web.get("/", _root),
            web.get("/healthz", _health),
            web.get("/livez", _health),
            web.get("/readyz", _ready),
            web.get("/metrics", _metrics),
        ]
    )
    collection = "/collections/{collection}"
    points = collection + "/points"
    for method, path, answer in (
        ("GET", "/telemetry", _telemetry),
        ("GET", "/cluster", _cluster),
        ("GET", "/aliases", _aliases),
        ("GET", "/collections", _collections),
        ("GET", collection, _collection),
        ("PUT", collection, _create),
        ("PATCH", collection, _change),
        ("DELETE", collection, _drop),
        ("GET", collection + "/exists", _exists),
        ("GET", collection + "/aliases", _aliases),
        ("PUT", collection + "/index", _create_index),
        ("DELETE", collection + "/index/{field}", _delete_index),
        ("PUT", points, _upsert),
        ("POST", points, _retrieve),
        ("GET", points + "/{id}", _point),
        ("POST", points + "/delete", _delete),
        ("POST", points + "/count", _count),
        ("POST", points + "/scroll", _scroll),
        ("POST", points + "/query", _query),
    ):
        app.router.add_route(method, path, _json(answer))
    return app


OPEN_PATHS = frozenset({"/", "/healthz", "/livez", "/readyz"})


def _guard(api_key: str | None) -> Middleware:
    """Refuses requests without the key, in a server's own words."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        request.app[KEEPER].last_request = time.monotonic()
        if api_key is None or request.path in OPEN_PATHS:
            return await handler(request)
        given = request.headers.get("api-key") or _bearer(request.headers.get("authorization", ""))
        if not given:
            text = "Must provide an API key or an Authorization bearer token"
            return web.Response(status=401, text=text)
        if not hmac.compare_digest(given.encode(errors="replace"), api_key.encode()):
            return web.Response(status=401, text="Invalid API key or JWT")
        return await handler(request)

    return guard


def _bearer(header: str) -> str:
    return header[len("Bearer ") :] if header.startswith("Bearer ") else ""


@web.middleware
async def _empty_not_found(request: web.Request, handler: Handler) -> web.StreamResponse:
    """An unknown path or method is answered with a 404 and nothing else."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        response = web.Response(status=404)
        response.headers.popall("Content-Type", None)
        return response


def _json(answer: Answer) -> Handler:
    """Wraps a handler's result, or its error, the way Qdrant does."""

    async def handler(request: web.Request) -> web.StreamResponse:
        start = time.perf_counter()
        status = 200
        try:
            content = b'{"result":' + wire.dump(await answer(request)) + b',"status":"ok"'
        except ApiError as error:
            status = error.status
            content = b'{"status":' + wire.dump({"error": str(error)})
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            status = 500
            content = b'{"status":' + wire.dump({"error": f"Service internal error: {error}"})
        seconds = time.perf_counter() - start
        return web.Response(
            body=b'%b,"time":%.9f}' % (content, seconds),
            status=status,
            content_type="application/json",
        )

    return handler


async def _upkeep(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(app[KEEPER].run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _body(request: web.Request) -> bytes:
    """The request's body, whatever its content type says.

    Raises:
        BadRequest: it is larger than allowed.
    """
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise BadRequest(
            f"JSON payload ({length} bytes) is larger than allowed (limit: {MAX_BODY_BYTES} bytes)."
        )
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise BadRequest(f"JSON payload has exceeded limit ({MAX_BODY_BYTES} bytes).") from error


def _named(request: web.Request) -> Collection:
    return request.app[CATALOGUE].get(request.match_info["collection"])


def _updated(request: web.Request, operation: int) -> dict[str, Any]:
    """The result of a write. It is applied and in the log either way; `wait` changes the word."""
    waited = request.query.get("wait", "false") == "true"
    return {"operation_id": operation, "status": "completed" if waited else "acknowledged"}


async def _root(request: web.Request) -> web.Response:
    content = {"title": "qdrant - vector search engine", "version": API_VERSION, "commit": COMMIT}
    return web.Response(body=wire.dump(content), content_type="application/json")


async def _health(request: web.Request) -> web.Response:
    return web.Response(text="healthz check passed")


async def _ready(request: web.Request) -> web.Response:
    # The process listens only once every collection is loaded.
    return web.Response(text="all shards are ready")


async def _metrics(request: web.Request) -> web.Response:
    collections = request.app[CATALOGUE].all()
    lines = [
        "# HELP app_info information about qdrant server",
        "# TYPE app_info gauge",
        f'app_info{{name="qdrant",version="{API_VERSION}"}} 1',
        "# HELP collections_total number of collections",
        "# TYPE collections_total gauge",
        f"collections_total {len(collections)}",
        "# HELP collection_points approximate amount of points per collection",
        "# TYPE collection_points gauge",
        *(f'collection_points{{id="{c.name}"}} {c.points()}' for c in collections),
    ]
    return web.Response(text="\n".join(lines) + "\n")


async def _telemetry(request: web.Request) -> object:
    return {
        "id": "embedrack",
        "app": {"name": "qdrant", "version": API_VERSION},
        "collections": {"number_of_collections": len(request.app[CATALOGUE].all())},
    }


async def _cluster(request: web.Request) -> object:
    return {"status": "disabled"}


async def _aliases(request: web.Request) -> object:
    if "collection" in request.match_info:
        _named(request)
    return {"aliases": []}


async def _collections(request: web.Request) -> object:
    return {"collections": [{"name": c.name} for c in request.app[CATALOGUE].all()]}


async def _collection(request: web.Request) -> object:
    return _named(request).report()


async def _exists(request: web.Request) -> object:
    return {"exists": request.match_info["collection"] in request.app[CATALOGUE]}


async def _create(request: web.Request) -> object:
    body = await _body(request)
    settings = read_creation(wire.decode(CREATION, body), body)
    request.app[CATALOGUE].create(request.match_info["collection"], settings)
    return True


async def _change(request: web.Request) -> object:
    change = wire.decode(CHANGE, await _body(request))
    collection = _named(request)
    request.app[CATALOGUE].change(collection.name, changed(collection.settings, change))
    return True


async def _drop(request: web.Request) -> object:
    folder = request.app[CATALOGUE].drop(request.match_info["collection"])
    if folder is None:
        return False
    # What cannot be deleted now is deleted at the next start.
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return True


async def _create_index(request: web.Request) -> object:
    body = wire.decode(INDEX, await _body(request))
    schema = read_schema(body.field_schema)
    return _updated(request, _named(request).create_index(body.field_name, schema))


async def _delete_index(request: web.Request) -> object:
    return _updated(request, _named(request).delete_index(request.match_info["field"]))


async def _upsert(request: web.Request) -> object:
    body = await _body(request)
    collection = _named(request)
    upsert = wire.decode(UPSERT, body)
    ids, vectors, payloads = _columns(upsert)
    if not ids:
        raise BadRequest("Bad request: Empty update request")
    collection.check_dimension(vectors)
    wrong = wire.bad_id(ids)
    if wrong is not None:
        raise wire.id_error(wrong, body)
    mode = None
    if upsert.update_mode is not None:
        mode = UPDATE_MODES.get(upsert.update_mode)
        if mode is None:
            raise BadRequest(f"{wire.FORMAT_ERROR}unknown variant `{upsert.update_mode}`")
    points = list(zip(ids, vectors, payloads, strict=True))
    operation = await collection.upsert(points, read_filter(upsert.update_filter), mode)
    return _updated(request, operation)


Columns = tuple[list[int | str], list[list[float]], list[dict[str, Any] | None]]


def _columns(upsert: wire.UpsertBody) -> Columns:
    if upsert.points is not None:
        points = upsert.points
        return [p.id for p in points], [p.vector for p in points], [p.payload for p in points]
    if upsert.batch is None:
        raise BadRequest(wire.FORMAT_ERROR + "missing field `points`")
    batch = upsert.batch
    payloads = batch.payloads or [None] * len(batch.ids)
    if not len(batch.ids) == len(batch.vectors) == len(payloads):
        raise BadRequest("Bad request: number of ids, vectors and payloads must be equal")
    return batch.ids, batch.vectors, payloads


async def _retrieve(request: web.Request) -> object:
    body = await _body(request)
    collection = _named(request)
    asked = wire.decode(RETRIEVE, body)
    payload = wire.payload_selector(asked.with_payload)
    vector = bool(asked.with_vector)
    try:
        records = collection.retrieve(asked.ids, payload, vector)
    except (ValueError, TypeError) as error:
        # Only now, when one is known to be wrong, are the ids looked at one by one.
        raise wire.id_error(wire.bad_id(asked.ids), body) from error
    return [wire.record_view(record, payload is not False, vector) for record in records]


async def _point(request: web.Request) -> object:
    text = request.match_info["id"]
    id_: int | str = int(text) if text.isascii() and text.isdigit() else text
    if wire.bad_id([id_]) is not None:
        raise BadRequest(f'Wrong input: Can not recognize "{text}" as point id')
    records = _named(request).retrieve([id_], True, True)
    if not records:
        raise NotFound(f"Not found: Point with id {text} does not exists!")
    return wire.record_view(records[0], True, True)


async def _delete(request: web.Request) -> object:
    body = await _body(request)
    collection = _named(request)
    selected = wire.decode(DELETE, body)
    condition = read_filter(selected.filter)
    if condition is not None:
        return _updated(request, collection.delete_matching(condition))
    if selected.points is None:
        raise BadRequest(
            wire.FORMAT_ERROR + "data did not match any variant of untagged enum PointsSelector"
        )
    wrong = wire.bad_id(selected.points)
    if wrong is not None:
        raise wire.id_error(wrong, body)
    return _updated(request, collection.delete(selected.points))


async def _count(request: web.Request) -> object:
    body = await _body(request)
    collection = _named(request)
    asked = wire.decode(COUNT, body)
    return {"count": collection.count(read_filter(asked.filter), asked.exact is not False)}


async def _scroll(request: web.Request) -> object:
    body = await _body(request)
    collection = _named(request)
    asked = wire.decode(SCROLL, body)
    payload = wire.payload_selector(asked.with_payload)
    vector = bool(asked.with_vector)
    if asked.offset is not None and wire.bad_id([asked.offset]) is not None:
        raise wire.id_error(asked.offset, body)
    records, following = collection.scroll(
        edge.ScrollRequest(
            offset=asked.offset,
            limit=_limit(asked.limit),
            filter=read_filter(asked.filter),
            with_payload=payload,
            with_vector=vector,
            order_by=_order(asked.order_by),
        )
    )
    views = [wire.record_view(record, payload is not False, vector) for record in records]
    return {"points": views, "next_page_offset": following}


def _order(given: str | wire.OrderBody | None) -> edge.OrderBy | None:
    if given is None or isinstance(given, str):
        return None if given is None else edge.OrderBy(given)
    direction = edge.Direction.Desc if given.direction == "desc" else edge.Direction.Asc
    return edge.OrderBy(given.key, direction, given.start_from)


async def _query(request: web.Request) -> object:
    body = await _body(request)
    collection = _named(request)
    asked = wire.decode(QUERY, body)
    if asked.prefetch:
        raise Unsupported("prefetch")
    payload = wire.payload_selector(asked.with_payload)
    vector = bool(asked.with_vector)
    points = collection.query(
        edge.QueryRequest(
            limit=_limit(asked.limit),
            offset=asked.offset or 0,
            query=_nearest(asked.query, collection),
            filter=read_filter(asked.filter),
            score_threshold=asked.score_threshold,
            with_payload=payload,
            with_vector=vector,
        )
    )
    return {"points": [wire.scored_view(p, payload is not False, vector) for p in points]}


def _nearest(query: object, collection: Collection) -> edge.Query | None:
    if isinstance(query, dict) and query.keys() == {"nearest"}:
        query = query["nearest"]
    if query is None:
        return None
    if not isinstance(query, list) or not all(type(x) in (int, float) for x in query):
        raise Unsupported("a query that is not a vector")
    collection.check_dimension([query])
    return edge.Query.Nearest([float(x) for x in query])


def _limit(given: int | None) -> int:
    limit = 10 if given is None else given
    if limit < 1:
        raise Unprocessable(
            f"Validation error in JSON body: [limit: value {limit} invalid, must be 1 or larger]"
        )
    return limit
