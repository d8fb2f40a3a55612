"""The OpenAPI document: TEI's own, fetched from the upstream, with what the proxy adds to it.

An upstream that has none gets a document of the proxy's routes alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson

from proxy_app import __version__
from proxy_app.errors import EmbedError, Kind
from proxy_app.routes import schemas
from proxy_app.routes.schemas import Schema
from proxy_app.upstream.client import Upstream

_TAG = "Embedrack"

_ALONE: Schema = {
    "openapi": "3.0.3",
    "info": {"license": {"name": "Apache 2.0"}},
    "paths": {},
}

_HEADERS = {
    "X-Cache": {
        "description": "`hit`, `miss` or `partial`, and how many inputs were each",
        "schema": {"type": "string", "example": "partial; hits=31; misses=1"},
    },
    "Server-Timing": {
        "description": "milliseconds in all, in the store (`l2`) and the slowest batch",
        "schema": {"type": "string", "example": "total;dur=4.210, l2;dur=1.017"},
    },
}

#: Routes answered from the cache: what they do, the schemas of body, reply and errors, and a body
#: to try them with.
_TEI = ("EmbedrackEmbed", "EmbedrackVectors", "EmbedrackError")
_OPENAI = ("EmbedrackOpenAI", "EmbedrackOpenAIVectors", "EmbedrackOpenAIError")
_CACHED = {
    "/embed": ("Embed in TEI's dialect", _TEI, {"inputs": ["a text", "another"]}),
    "/": ("As `/embed`, for a dense model", _TEI, {"inputs": "a text"}),
    "/invocations": ("As `/embed`, for a dense model", _TEI, {"inputs": "a text"}),
    "/v1/embeddings": ("Embed in OpenAI's dialect", _OPENAI, {"input": ["a text"], "model": "any"}),
    "/embeddings": ("As `/v1/embeddings`", _OPENAI, {"input": ["a text"]}),
}

_JSON = "application/json"
#: Routes that are the proxy's own, or that it answers in place of TEI: what they do, and what the
#: reply is.
_OWN = {
    "/": ("What this is", _JSON, "EmbedrackBanner"),
    "/v1/models": ("The served model, in OpenAI's shape", _JSON, "EmbedrackModels"),
    "/v1/models/{id}": ("The served model by its name", _JSON, "EmbedrackModel"),
    "/info": (
        "TEI's, with the proxy's batch limit and what the cache is keyed by",
        _JSON,
        "EmbedrackInfo",
    ),
    "/health": (
        "200 while misses can be answered; the body names what is wrong with upstream or store",
        _JSON,
        "EmbedrackHealth",
    ),
    "/readyz": ("As `/health`", _JSON, "EmbedrackHealth"),
    "/livez": ("200 while the process answers at all", _JSON, "EmbedrackLive"),
    "/metrics": ("Prometheus' text format, summed over workers", "text/plain", None),
    "/status": ("A page that shows the figures below", "text/html", None),
    "/status.json": ("Figures of all workers, store and instances", _JSON, "EmbedrackAny"),
    "/api-doc/openapi.json": ("This document", _JSON, "EmbedrackAny"),
    "/docs": ("A page that shows this document", "text/html", None),
}


async def fetch(upstream: Upstream) -> dict[str, Any]:
    """Return the document; raises EmbedError where the upstream cannot be asked."""
    reply = await upstream.probe("GET", "/api-doc/openapi.json")
    if reply.status == 404:
        return amended(_ALONE)
    if reply.status != 200:
        raise reply.error()
    try:
        theirs = orjson.loads(reply.body)
        return amended(theirs)
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        raise EmbedError(
            Kind.BACKEND, "the upstream's /api-doc/openapi.json is no OpenAPI document"
        ) from None


def amended(theirs: Schema) -> Schema:
    """Return a document with our title, routes, bodies, errors and headers.

    What it says of replies stays, and of the bodies of the routes that are passed on.
    """
    info = theirs["info"] | {
        "title": "Embedrack",
        "version": __version__,
        "description": "TEI behind a cache: what was embedded before comes back float for float.",
    }
    if theirs["info"].get("version"):
        info["x-tei-version"] = theirs["info"]["version"]
    paths = {
        path: {method: _passed_on(method, operation) for method, operation in methods.items()}
        for path, methods in theirs["paths"].items()
    }
    for path, (summary, names, example) in _CACHED.items():
        former = theirs["paths"].get(path, {}).get("post", {})
        paths.setdefault(path, {})["post"] = _cached(former, summary, names, example)
    for path, (summary, media, name) in _OWN.items():
        paths.setdefault(path, {})["get"] = _own(path, summary, media, name)
    components = theirs.get("components", {})
    ours = components.get("schemas", {}) | schemas.COMPONENTS
    return theirs | {"info": info, "paths": paths, "components": components | {"schemas": ours}}


def _passed_on(method: str, operation: Schema) -> Schema:
    if "responses" not in operation:  # beside the methods a path may have a text or parameters
        return operation
    statuses = tuple(schemas.ERRORS) if method == "post" else schemas.BODILESS
    ours = schemas.errors("EmbedrackError", statuses)
    return operation | {"responses": _merged(operation["responses"], ours)}


def _cached(
    operation: Schema, summary: str, names: tuple[str, str, str], example: object
) -> Schema:
    """Describe a cached route: its body is ours to read, its reply is TEI's."""
    body, reply, error = names
    good = operation.get("responses", {}).get("200") or _reply(summary, _JSON, reply)
    errors = schemas.errors(error)
    content = {_JSON: {"schema": schemas.ref(body), "example": example}}
    return (
        {"tags": [_TAG]}
        | operation
        | {
            "summary": f"{summary}, cached per input",
            "requestBody": {"content": content, "required": True},
            "responses": {"200": good | {"headers": good.get("headers", {}) | _HEADERS}} | errors,
        }
    )


def _own(path: str, summary: str, media: str, name: str | None) -> Schema:
    error = "EmbedrackOpenAIError" if path.startswith("/v1/") else "EmbedrackError"
    responses = {"200": _reply(summary, media, name)} | schemas.errors(error, schemas.BODILESS)
    described: Schema = {"tags": [_TAG], "summary": summary, "responses": responses}
    names = re.findall(r"{(\w+)}", path)
    if names:
        responses["404"] = _reply("There is none of this name", _JSON, "EmbedrackNotFound")
        one = {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        described["parameters"] = [{"name": name} | one for name in names]
    return described


def _reply(summary: str, media: str, name: str | None) -> Schema:
    schema = {"type": "string"} if name is None else schemas.ref(name)
    return {"description": summary, "content": {media: {"schema": schema}}}


def _merged(theirs: Schema, ours: Schema) -> Schema:
    """Add our replies to TEI's: where both answer with a status, either's body may come."""
    merged = ours | theirs
    for status in ours.keys() & theirs.keys():
        content = ours[status].get("content", {}) | theirs[status].get("content", {})
        merged[status] = theirs[status] | ({"content": content} if content else {})
    return merged


def page() -> bytes:
    """Return the page for people: all in one file, so that it needs no other server."""
    return (Path(__file__).parent / "docs.html").read_bytes()
