"""The OpenAPI document, made from the structs that decode the bodies; OpenAPI 3.0.3, as TEI's."""

from __future__ import annotations

from typing import Any

import msgspec

from local_stack.embedder import reply, request
from local_stack.embedder.errors import STATUS
from local_stack.embedder.reply import Number

Schema = dict[str, Any]

#: What each POST route does, what it reads, and what it answers; ``None``: nothing but errors.
_POSTS: dict[str, tuple[str, type[Any], Any]] = {
    "/embed": ("Embed texts", request.EmbedRequest, list[list[Number]]),
    "/": ("As `/embed`", request.EmbedRequest, list[list[Number]]),
    "/invocations": ("As `/embed`", request.EmbedRequest, list[list[Number]]),
    "/embed_all": ("A vector a token", request.EmbedAllRequest, list[list[list[Number]]]),
    "/embed_sparse": ("Of models with SPLADE pooling", request.EmbedSparseRequest, None),
    "/similarity": ("Compare texts with one", request.SimilarityRequest, list[Number]),
    "/rerank": ("Of re-rankers", request.RerankRequest, None),
    "/predict": ("Of classifiers", request.PredictRequest, None),
    "/tokenize": ("Texts to tokens", request.TokenizeRequest, list[list[reply.SimpleToken]]),
    "/decode": ("Token ids to texts", request.DecodeRequest, list[str]),
    "/v1/embeddings": ("Embed texts", request.OpenAICompatRequest, reply.OpenAICompatResponse),
    "/embeddings": ("As `/v1/embeddings`", request.OpenAICompatRequest, reply.OpenAICompatResponse),
}
_GETS: dict[str, tuple[str, str, Any]] = {
    "/": ("200 while it answers", "", None),
    "/health": ("200 while it answers", "", None),
    "/ping": ("200 while it answers", "", None),
    "/info": ("What is served, and its limits", "application/json", reply.Info),
    "/metrics": ("Prometheus' text format", "text/plain", str),
    "/api-doc/openapi.json": ("This document", "application/json", dict[str, Any]),
}
_ERRORS = {
    400: "The body is no JSON (text), or an input is empty",
    401: "The API key is missing or wrong",
    413: "The body is too large",
    415: "The content type is not JSON",
    422: "The body has another shape (text), or an input is refused",
    424: "The model failed, or is of another kind",
    429: "Overloaded",
}

_string: Schema = {"type": "string", "minLength": 1}
_ids: Schema = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": request.MAX_U32},
    "minItems": 1,
}


def _list_of(*items: Schema) -> Schema:
    return {"type": "array", "items": {"anyOf": list(items)}, "minItems": 1}


_UNTAGGED = {
    request.Inputs: {"anyOf": [_string, _ids, _list_of(_string, _ids)]},
    request.Texts: {"anyOf": [_string, _list_of(_string)]},
    request.IdLists: {"anyOf": [_ids, _list_of(_ids)]},
}


def document(version: str) -> Schema:
    """Return the document; ``version`` is TEI's."""
    kinds = [reply.ErrorResponse, reply.OpenAICompatErrorResponse]
    kinds += [kind for _, *both in (*_POSTS.values(), *_GETS.values()) for kind in both]
    kinds = [kind for kind in kinds if not isinstance(kind, str) and kind is not None]
    schemas, components = msgspec.json.schema_components(
        kinds, schema_hook=_UNTAGGED.__getitem__, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(map(str, kinds), map(_as_3_0, schemas), strict=True))
    paths: dict[str, Schema] = {path: {} for path in _POSTS | _GETS}
    for path, (summary, kind, good) in _POSTS.items():
        openai = path.endswith("/embeddings")
        error = schema_of[str(reply.OpenAICompatErrorResponse if openai else reply.ErrorResponse)]
        responses = {str(status): _error(status, error) for status in _ERRORS}
        if good is not None:
            good_reply = _reply(summary, "application/json", schema_of[str(good)])
            responses = {"200": good_reply} | responses
        paths[path]["post"] = {
            "summary": summary,
            "requestBody": {
                "content": {"application/json": {"schema": schema_of[str(kind)]}},
                "required": True,
            },
            "responses": responses,
        }
    for path, (summary, media, good) in _GETS.items():
        schema = schema_of.get(str(good))
        responses = {"200": _reply(summary, media, schema), "401": _error(401, {})}
        paths[path]["get"] = {"summary": summary, "responses": responses}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Text Embeddings Inference",
            "version": version,
            "license": {"name": "Apache 2.0"},
        },
        "paths": paths,
        "components": {"schemas": _as_3_0(components)},
    }


def _reply(summary: str, media: str, schema: Schema | None) -> Schema:
    if not media:
        return {"description": summary}
    return {"description": summary, "content": {media: {"schema": schema}}}


def _error(status: int, schema: Schema) -> Schema:
    content = {}
    if status in STATUS.values():
        content["application/json"] = {"schema": schema}
    if status in (400, 413, 415, 422):
        content["text/plain"] = {"schema": {"type": "string"}}
    described: Schema = {"description": _ERRORS[status]}
    return described | {"content": content} if content else described


def _as_3_0(schema: Any) -> Any:
    """Write a JSON schema of today in OpenAPI 3.0, where ``null`` is no type but a property."""
    if isinstance(schema, list):
        return [_as_3_0(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    written = {name: _as_3_0(value) for name, value in schema.items()}
    others = [one for one in written.get("anyOf", ()) if one != {"type": "null"}]
    if len(others) == len(written.get("anyOf", ())):
        return written
    del written["anyOf"]
    only = {"allOf": others} if "$ref" in others[0] else others[0]
    return written | (only if len(others) == 1 else {"anyOf": others}) | {"nullable": True}
