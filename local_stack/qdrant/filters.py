"""Qdrant's JSON filters in Edge's terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qdrant_edge as edge

from local_stack.qdrant.errors import BadRequest
from local_stack.qdrant.wire import FORMAT_ERROR, bad_id

CLAUSES = frozenset({"must", "should", "must_not", "min_should"})
BOUNDS = frozenset({"lt", "gt", "lte", "gte"})


def read_filter(given: object) -> edge.Filter | None:
    """A filter, or None where none was given.

    Raises:
        BadRequest: it is no filter, or uses a condition that is not supported here (geo).
    """
    if given is None:
        return None
    if not isinstance(given, dict) or not given.keys() <= CLAUSES:
        raise _mismatch("Filter")
    return edge.Filter(
        must=_conditions(given.get("must")),
        should=_conditions(given.get("should")),
        must_not=_conditions(given.get("must_not")),
        min_should=_min_should(given.get("min_should")),
    )


def _conditions(given: object) -> list[edge.ConditionType] | None:
    if given is None:
        return None
    return [_condition(one) for one in (given if isinstance(given, list) else [given])]


def _min_should(given: object) -> edge.MinShould | None:
    if given is None:
        return None
    if not isinstance(given, dict) or not isinstance(given.get("min_count"), int):
        raise _mismatch("MinShould")
    return edge.MinShould(_conditions(given.get("conditions")) or [], given["min_count"])


def _condition(given: object) -> edge.ConditionType:
    if not isinstance(given, dict):
        raise _mismatch("Condition")
    if len(given) == 1:
        name, value = next(iter(given.items()))
        if name in CONDITIONS:
            return CONDITIONS[name](value)
    if given.keys() & CLAUSES:
        inner = read_filter(given)
        assert inner is not None
        return inner
    return _field(given)


def _field(given: dict[str, Any]) -> edge.FieldCondition:
    key = given.get("key")
    tests = {name: read(given[name]) for name, read in TESTS.items() if given.get(name) is not None}
    # An unknown test must not be dropped: a delete by the rest would delete too much.
    known = {"key", *TESTS}
    if not isinstance(key, str) or not tests or not given.keys() <= known:
        raise _mismatch("Condition")
    try:
        return edge.FieldCondition(key, **tests)
    except ValueError as error:
        raise BadRequest(f"{FORMAT_ERROR}{error}") from error


def _match(given: object) -> edge.MatchType:
    if isinstance(given, dict) and len(given) == 1:
        kind, value = next(iter(given.items()))
        if kind in MATCHES:
            try:
                return MATCHES[kind](value)
            except (TypeError, OverflowError) as error:
                raise _mismatch("Match") from error
    raise _mismatch("Match")


def _range(given: object) -> edge.RangeType:
    if not isinstance(given, dict) or not given.keys() <= BOUNDS:
        raise _mismatch("RangeInterface")
    bounds = {name: value for name, value in given.items() if value is not None}
    make = edge.RangeDateTime if _has_text(bounds) else edge.RangeFloat
    try:
        return make(**bounds)
    except (TypeError, ValueError, OverflowError) as error:
        raise _mismatch("RangeInterface") from error


def _has_text(bounds: dict[str, Any]) -> bool:
    return any(isinstance(value, str) for value in bounds.values())


def _values_count(given: object) -> edge.ValuesCount:
    if not isinstance(given, dict) or not given.keys() <= BOUNDS:
        raise _mismatch("ValuesCount")
    try:
        return edge.ValuesCount(**given)
    except (TypeError, OverflowError) as error:
        raise _mismatch("ValuesCount") from error


def _flag(given: object) -> bool:
    if not isinstance(given, bool):
        raise _mismatch("Condition")
    return given


def _key(given: object) -> str:
    if not isinstance(given, dict) or not isinstance(given.get("key"), str):
        raise _mismatch("Condition")
    key: str = given["key"]
    return key


def _has_id(given: object) -> edge.HasIdCondition:
    if not isinstance(given, list) or bad_id(given) is not None:
        raise _mismatch("Condition")
    return edge.HasIdCondition(set(given))


def _nested(given: object) -> edge.NestedCondition:
    inner = read_filter(given.get("filter")) if isinstance(given, dict) else None
    if inner is None:
        raise _mismatch("Condition")
    return edge.NestedCondition(_key(given), inner)


def _mismatch(kind: str) -> BadRequest:
    return BadRequest(f"{FORMAT_ERROR}data did not match any variant of untagged enum {kind}")


CONDITIONS: dict[str, Callable[[Any], edge.ConditionType]] = {
    "has_id": _has_id,
    "nested": _nested,
    "is_empty": lambda given: edge.IsEmptyCondition(_key(given)),
    "is_null": lambda given: edge.IsNullCondition(_key(given)),
}
TESTS: dict[str, Callable[[Any], Any]] = {
    "match": _match,
    "range": _range,
    "values_count": _values_count,
    "is_empty": _flag,
    "is_null": _flag,
}
MATCHES: dict[str, Callable[[Any], edge.MatchType]] = {
    "value": edge.MatchValue,
    "text": edge.MatchText,
    "text_any": edge.MatchTextAny,
    "phrase": edge.MatchPhrase,
    "any": edge.MatchAny,
    "except": edge.MatchExcept,
}
