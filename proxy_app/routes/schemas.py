"""Schemas of the OpenAPI document: what the proxy's own bodies, replies and errors hold.

They are of OpenAPI 3.0, as TEI's document is, into which they are written; the names begin with
the proxy's, so that they meet none of TEI's.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(required: str, /, **properties: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _any_of(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _word(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def _or_null(schema: Schema) -> Schema:
    words = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | words | {"nullable": True}


def ref(name: str) -> Schema:
    """Name one of ``COMPONENTS``."""
    return {"$ref": f"#/components/schemas/{name}"}


_STRING: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}
_INTEGER: Schema = {"type": "integer"}
_TEXT = _STRING | {"minLength": 1}
_IDS = _list({"type": "integer", "minimum": 0, "maximum": 0xFFFFFFFF})
_INPUTS = _any_of(_TEXT, _IDS, _list(_any_of(_TEXT, _IDS)))
_DIMENSIONS = _or_null({"type": "integer", "minimum": 1})
_VECTOR = _list({"type": "number"})
_ERROR_TYPE = _word("Empty", "Validation", "Tokenizer", "Backend", "Overloaded", "Unhealthy")

COMPONENTS: dict[str, Schema] = {
    "EmbedrackEmbed": _object(
        "inputs",
        inputs=_INPUTS,
        truncate=_or_null(_BOOLEAN),
        truncation_direction=_or_null(_word("Left", "left", "Right", "right")),
        prompt_name=_or_null(_STRING),
        normalize=_or_null(_BOOLEAN),
        dimensions=_DIMENSIONS,
    ),
    "EmbedrackVectors": _list(_VECTOR),
    "EmbedrackError": _object("error error_type", error=_STRING, error_type=_ERROR_TYPE),
    "EmbedrackOpenAI": _object(
        "input",
        input=_INPUTS,
        model={"description": "Anything: one model is served"},
        user={"description": "Anything: it is not looked at"},
        encoding_format=_or_null(_word("float", "base64")),
        dimensions=_DIMENSIONS,
    ),
    "EmbedrackOpenAIVectors": _object(
        "object data model usage",
        object=_word("list"),
        data=_list(
            _object(
                "object embedding index",
                object=_word("embedding"),
                embedding=_any_of(_VECTOR, _STRING),
                index=_INTEGER,
            )
        ),
        model=_STRING,
        usage=_or_null(
            _object("prompt_tokens total_tokens", prompt_tokens=_INTEGER, total_tokens=_INTEGER)
        ),
    ),
    "EmbedrackOpenAIError": _object(
        "message code type", message=_STRING, code=_INTEGER, type=_ERROR_TYPE
    ),
    "EmbedrackModels": _object(
        "object data",
        object=_word("list"),
        data=_list(ref("EmbedrackModel")),
    ),
    "EmbedrackModel": _object(
        "id object created owned_by",
        id=_STRING,
        object=_word("model"),
        created=_INTEGER,
        owned_by=_STRING,
    ),
    "EmbedrackNotFound": _object(
        "error",
        error=_object(
            "message type param code",
            message=_STRING,
            type=_STRING,
            param=_STRING,
            code=_STRING,
        ),
    ),
    "EmbedrackInfo": _object(
        "model_id max_client_batch_size embedrack",
        model_id=_STRING,
        max_client_batch_size=_INTEGER,
        embedrack=_object(
            "version dimension namespace collection",
            version=_STRING,
            dimension=_INTEGER,
            namespace={},
            collection=_or_null(_STRING),
        ),
    ),
    "EmbedrackHealth": _object(
        "status upstream store",
        status=_word("ok", "unhealthy"),
        upstream=_STRING,
        store=_STRING,
    ),
    "EmbedrackLive": _object("status", status=_word("ok")),
    "EmbedrackBanner": _object(
        "message version model dimension",
        message=_STRING,
        version=_STRING,
        model=_or_null(_STRING),
        dimension=_or_null(_INTEGER),
    ),
    "EmbedrackAny": {"type": "object"},
}

#: The errors of the proxy itself: what each status says, and on which methods it comes.
ERRORS = {
    400: "The body is no JSON, or an input is empty",
    401: "The API key is missing or wrong",
    408: "The body did not arrive in time",
    413: "The body is too large",
    422: "The body has another shape, or an input is refused",
    424: "The model failed, or an input of this request makes it fail",
    429: "Overloaded: try again after `Retry-After` seconds",
    500: "A fault of the proxy's own; its log has more",
    503: "The upstream is not there: try again after `Retry-After` seconds",
}
#: Those of a request without a body.
BODILESS = (401, 500, 503)


def errors(name: str, statuses: tuple[int, ...] = tuple(ERRORS)) -> dict[str, Schema]:
    """Describe the replies of some statuses, whose bodies hold the error ``name``."""
    return {
        str(status): {"description": ERRORS[status]}
        | ({} if status == 401 else {"content": {"application/json": {"schema": ref(name)}}})
        for status in statuses
    }
