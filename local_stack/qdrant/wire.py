"""Request bodies and replies: JSON in, JSON out, worded as Qdrant words them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
import numpy as np
import orjson
import qdrant_edge as edge

from local_stack.qdrant.errors import BadRequest

T = TypeVar("T")

FORMAT_ERROR = "Format error in JSON body: "
UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-?)([0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")
MAX_NUMBER_ID = 2**64 - 1


class PointBody(msgspec.Struct):
    """One point of an upsert."""

    id: int | str
    vector: list[float]
    payload: dict[str, Any] | None = None


class BatchBody(msgspec.Struct):
    """Points of an upsert, by columns."""

    ids: list[int | str]
    vectors: list[list[float]]
    payloads: list[dict[str, Any] | None] | None = None


class UpsertBody(msgspec.Struct):
    """The body of `PUT /collections/{c}/points`."""

    points: list[PointBody] | None = None
    batch: BatchBody | None = None
    update_filter: Any = None
    update_mode: str | None = None


class RetrieveBody(msgspec.Struct):
    """The body of `POST /collections/{c}/points`."""

    ids: list[int | str]
    with_payload: Any = True
    with_vector: bool | list[str] | None = False


class DeleteBody(msgspec.Struct):
    """The body of `POST /collections/{c}/points/delete`: ids or a filter."""

    points: list[int | str] | None = None
    filter: Any = None


class CountBody(msgspec.Struct):
    """The body of `POST /collections/{c}/points/count`."""

    exact: bool | None = True
    filter: Any = None


class OrderBody(msgspec.Struct):
    """The order of a scroll."""

    key: str
    direction: str | None = None
    start_from: int | float | str | None = None


class ScrollBody(msgspec.Struct):
    """The body of `POST /collections/{c}/points/scroll`."""

    offset: int | str | None = None
    limit: int | None = 10
    filter: Any = None
    with_payload: Any = True
    with_vector: bool | list[str] | None = False
    order_by: str | OrderBody | None = None


class QueryBody(msgspec.Struct):
    """The body of `POST /collections/{c}/points/query`."""

    query: Any = None
    limit: int | None = 10
    offset: int | None = 0
    filter: Any = None
    score_threshold: float | None = None
    params: Any = None
    prefetch: Any = None
    using: str | None = None
    with_payload: Any = False
    with_vector: bool | list[str] | None = False


class IndexBody(msgspec.Struct):
    """The body of `PUT /collections/{c}/index`."""

    field_name: str
    field_schema: Any = None


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """A decoder for `decode`, made once per kind of body."""
    return msgspec.json.Decoder(kind)


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Reads a request body.

    Raises:
        BadRequest: the body is not JSON, or not what the route takes.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(FORMAT_ERROR + _shape_message(str(error), body)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(FORMAT_ERROR + _syntax_message(str(error), body)) from error


def bad_id(ids: Iterable[object]) -> object | None:
    """The first value that is no point id, or None."""
    return next((id_ for id_ in ids if not _is_id(id_)), None)


def id_error(value: object, body: bytes) -> BadRequest:
    """The error for a value that is neither an unsigned integer nor a UUID."""
    return BadRequest(
        f"{FORMAT_ERROR}value {value} is not a valid point ID, valid values are either an "
        f"unsigned integer or a UUID at {end_of(body)}"
    )


def end_of(body: bytes) -> str:
    """Where a body ends, as Qdrant's parser says it."""
    return _position(body, len(body))


def payload_selector(given: object) -> bool | list[str] | edge.PayloadSelector:
    """`with_payload` in Edge's terms.

    Raises:
        BadRequest: it is neither a flag, a list of fields, nor an include or exclude list.
    """
    if given is None or isinstance(given, bool):
        return bool(given)
    if isinstance(given, list) and all(isinstance(key, str) for key in given):
        return given
    if isinstance(given, dict) and len(given) == 1:
        kind, keys = next(iter(given.items()))
        if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
            if kind == "include":
                return edge.PayloadSelector.Include(keys)
            if kind == "exclude":
                return edge.PayloadSelector.Exclude(keys)
    raise BadRequest(
        FORMAT_ERROR + "data did not match any variant of untagged enum WithPayloadInterface"
    )


def record_view(record: edge.Record, payload: bool, vector: bool) -> dict[str, Any]:
    """A point as `dump` writes it."""
    view: dict[str, Any] = {"id": record.id}
    return _with_content(view, record, payload, vector)


def scored_view(point: edge.ScoredPoint, payload: bool, vector: bool) -> dict[str, Any]:
    """A search hit as `dump` writes it."""
    view = {"id": point.id, "version": point.version, "score": np.float32(point.score)}
    return _with_content(view, point, payload, vector)


def dump(value: object) -> bytes:
    """JSON text. float32 values get the shortest text that reads back as the same float32, and
    null where they are infinite, which is what Qdrant prints.
    """
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _with_content(
    view: dict[str, Any], point: edge.Record | edge.ScoredPoint, payload: bool, vector: bool
) -> dict[str, Any]:
    if payload:
        view["payload"] = point.payload or {}
    if vector:
        # Edge widens each float32 to a Python float, whose text would be a float64's.
        view["vector"] = np.array(point.vector, dtype=np.float32)
    return view


def _is_id(value: object) -> bool:
    if isinstance(value, int):
        return 0 <= value <= MAX_NUMBER_ID
    return isinstance(value, str) and UUID_TEXT.fullmatch(value) is not None


def _shape_message(detail: str, body: bytes) -> str:
    """Qdrant's words for the mistakes its clients make; the decoder's own words for the rest."""
    if ".vector" in detail:
        return "data did not match any variant of untagged enum VectorStruct"
    if ".id" in detail or "`$.points[" in detail:
        return f"data did not match any variant of untagged enum ExtendedPointId at {end_of(body)}"
    missing = re.search(r"missing required field `(\w+)`", detail)
    if missing:
        return f"missing field `{missing[1]}` at {end_of(body)}"
    return f"{detail} at {end_of(body)}"


def _syntax_message(detail: str, body: bytes) -> str:
    if not body.strip():
        return f"EOF while parsing a value at {end_of(body)}"
    if "truncated" in detail:
        return f"EOF while parsing {_open_construct(body)} at {end_of(body)}"
    at = re.search(r"\(byte (\d+)\)", detail)
    return f"{detail} at {_position(body, int(at[1]) + 1 if at else len(body))}"


def _open_construct(body: bytes) -> str:
    """What a truncated text was in the middle of."""
    outside = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body)
    if b'"' in outside:
        return "a string"
    stack = []
    for symbol in re.findall(rb"[\[\]{}]", outside):
        if symbol in b"[{":
            stack.append(symbol)
        elif stack:
            stack.pop()
    if not stack or outside.rstrip().endswith((b":", b",")):
        return "a value"
    return "a list" if stack[-1] == b"[" else "an object"


def _position(body: bytes, end: int) -> str:
    line = body.count(b"\n", 0, end) + 1
    line_start = body.rfind(b"\n", 0, end) + 1
    return f"line {line} column {end - line_start}"
