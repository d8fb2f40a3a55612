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
from proxy_app.upstream.client import Upstream

_TAG = "Embedrack"

_ALONE: dict[str, Any] = {
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

#: Routes answered from the cache: what they do, and a body to try them with.
_CACHED = {
    "/embed": ("Embed in TEI's dialect", {"inputs": ["a text", "another"]}),
    "/": ("As `/embed`, for a dense model", {"inputs": "a text"}),
    "/invocations": ("As `/embed`, for a dense model", {"inputs": "a text"}),
    "/v1/embeddings": ("Embed in OpenAI's dialect", {"input": ["a text"], "model": "any"}),
    "/embeddings": ("As `/v1/embeddings`", {"input": ["a text"]}),
}

#: Routes that are the proxy's own, or that it answers in place of TEI.
_OWN = {
    "/v1/models": "The served model, in OpenAI's shape",
    "/v1/models/{id}": "The served model by its name, 404 for another",
    "/info": "TEI's, with the proxy's batch limit and what the cache is keyed by",
    "/health": "200 while misses can be answered; the body tells of upstream and store",
    "/readyz": "As `/health`",
    "/livez": "200 while the process answers at all",
    "/metrics": "The proxy's metrics in Prometheus' format, summed over workers",
    "/api-doc/openapi.json": "This document",
    "/docs": "A page that shows this document",
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


def amended(theirs: dict[str, Any]) -> dict[str, Any]:
    """Return a document with our title, routes and headers; what it says of bodies stays."""
    info = theirs["info"] | {
        "title": "Embedrack",
        "version": __version__,
        "description": "TEI behind a cache: what was embedded before comes back float for float.",
    }
    if theirs["info"].get("version"):
        info["x-tei-version"] = theirs["info"]["version"]
    paths = {path: dict(methods) for path, methods in theirs["paths"].items()}
    for path, (summary, example) in _CACHED.items():
        former = paths.get(path, {}).get("post") or _operation(summary, example)
        paths.setdefault(path, {})["post"] = _cached(former, summary)
    for path, summary in _OWN.items():
        paths.setdefault(path, {})["get"] = _operation(summary) | _parameters(path)
    return theirs | {"info": info, "paths": paths}


def _operation(summary: str, example: object = None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [_TAG],
        "summary": summary,
        "responses": {"200": {"description": summary}},
    }
    if example is not None:
        content = {"application/json": {"schema": {"type": "object"}, "example": example}}
        operation["requestBody"] = {"content": content, "required": True}
    return operation


def _parameters(path: str) -> dict[str, Any]:
    """Describe the parts of a path that a request fills in."""
    names = re.findall(r"{(\w+)}", path)
    described = {"in": "path", "required": True, "schema": {"type": "string"}}
    return {"parameters": [{"name": name, **described} for name in names]} if names else {}


def _cached(operation: dict[str, Any], summary: str) -> dict[str, Any]:
    responses = dict(operation["responses"])
    good = responses.get("200", {"description": summary})
    responses["200"] = good | {"headers": good.get("headers", {}) | _HEADERS}
    return operation | {"summary": f"{summary}, cached per input", "responses": responses}


def page() -> bytes:
    """Return the page for people: all in one file, so that it needs no other server."""
    return (Path(__file__).parent / "docs.html").read_bytes()
