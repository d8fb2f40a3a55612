"""Payload indexes: Qdrant's JSON schema to Edge's and back."""

from __future__ import annotations

from typing import Any, TypeAlias

import qdrant_edge as edge

from local_stack.qdrant.errors import BadRequest, Unsupported
from local_stack.qdrant.wire import FORMAT_ERROR

# Edge names its parameter types for checkers only.
Schema: TypeAlias = "edge.PayloadSchemaType | edge.PayloadSchemaParams"

TYPES: dict[str, edge.PayloadSchemaType] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "geo": edge.PayloadSchemaType.Geo,
    "text": edge.PayloadSchemaType.Text,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "uuid": edge.PayloadSchemaType.Uuid,
}
PARAMS: dict[str, Any] = {
    "keyword": edge.KeywordIndexParams,
    "integer": edge.IntegerIndexParams,
    "float": edge.FloatIndexParams,
    "geo": edge.GeoIndexParams,
    "bool": edge.BoolIndexParams,
    "datetime": edge.DatetimeIndexParams,
    "uuid": edge.UuidIndexParams,
}
FLAGS = frozenset(
    {"is_tenant", "on_disk", "enable_hnsw", "prefix", "lookup", "range", "is_principal"}
)


def read_schema(given: object) -> Schema:
    """The index a request asks for: the name of a type, or an object with its type and flags.

    Raises:
        BadRequest: it is no such thing, or an index with options that are not supported here.
    """
    if isinstance(given, str) and given in TYPES:
        return TYPES[given]
    if not isinstance(given, dict) or given.get("type") not in TYPES:
        raise BadRequest(
            f"{FORMAT_ERROR}data did not match any variant of untagged enum PayloadFieldSchema"
        )
    kind, flags = given["type"], {k: v for k, v in given.items() if k != "type" and v is not None}
    if not flags:
        return TYPES[kind]
    if kind not in PARAMS or not flags.keys() <= FLAGS:
        raise Unsupported(f"a {kind} index with {', '.join(sorted(flags))}")
    try:
        params: edge.PayloadSchemaParams = PARAMS[kind](**flags)
    except TypeError as error:
        raise BadRequest(f"{FORMAT_ERROR}{error}") from error
    return params


def schema_view(index: edge.PayloadIndexInfo) -> dict[str, Any]:
    """An index as `GET /collections/{c}` shows it under `payload_schema`."""
    kind = next(name for name, type_ in TYPES.items() if type_ == index.data_type)
    view: dict[str, Any] = {"data_type": kind, "points": index.points}
    if index.params is not None:
        flags = {name: getattr(index.params, name, None) for name in sorted(FLAGS)}
        view["params"] = {"type": kind} | {k: v for k, v in flags.items() if v is not None}
    return view
