"""Bodies decoded by msgspec, and TEI's words for what is wrong with one.

TEI answers 400 for what is no JSON and 422 for JSON of another shape, in the words of Rust's serde
and with the place. The statuses are TEI's; the words are, where clients see them often: the table
is short, and tests/embedder/test_recorded.py lists the words that differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)
Read = Callable[[bytes], T]

#: What msgspec calls broken JSON, and what serde_json calls it.
SYNTAX = {
    "Input data was truncated": "EOF while parsing an object",
    "invalid character": "expected value",
    "trailing comma": "trailing comma",
    "invalid escape": "invalid escape",
    "object keys must be strings": "key must be a string",
    "codec can't decode": "invalid unicode code point",
    "recursion depth": "recursion limit exceeded",
}
#: What msgspec calls a type, what serde expects there, and what serde calls a value of it.
EXPECTED = {"bool": "a boolean", "int": "usize", "str": "a string", "array": "a sequence"}
GOT = {
    **{"null": "null", "array": "sequence", "object": "map", "bool": "boolean `{}`"},
    **{"int": "integer `{}`", "float": "floating point `{}`", "str": "string {}"},
}
#: The fields that hold a struct, and its name.
STRUCTS = {"inputs": "SimilarityInput", "parameters": "SimilarityParameters"}
#: The fields that hold one of some words, and how serde lists those.
VARIANTS = {
    "truncation_direction": "one of `Left`, `left`, `Right`, `right`",
    "encoding_format": "`float` or `base64`",
}

_MISMATCH = re.compile(r"Expected `(\w+).*`, got `(\w+)`")
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")


class BodyError(Exception):
    """A body that cannot be read. ``status``: 400 for no JSON, 422 for JSON of another shape."""

    def __init__(self, status: int, problem: str) -> None:
        what = "parse the request body as JSON"
        if status != 400:
            what = "deserialize the JSON body into the target type"
        super().__init__(f"Failed to {what}: {problem}")
        self.status = status


def reader(kind: type[T]) -> Read[T]:
    """Make a function that reads bodies as ``kind``; it raises ``BodyError``."""
    decoder = msgspec.json.Decoder(kind, dec_hook=_untagged)
    names = set(kind.__struct_fields__)

    def read(body: bytes) -> T:
        try:
            value = decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _shape_error(body, str(error), kind.__name__) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if more := _TRAILING.search(str(error)):
                return read(body[: int(more[1]) - 1])  # TEI does not look at what follows
            raise _syntax_error(body, str(error)) from None
        _refuse_repeated(body, names)
        return value

    return read


def _untagged(kind: Any, value: Any) -> Any:
    """Make a ``request.Untagged`` of a value; msgspec adds the place to what is raised."""
    made = kind.of(value)
    if made is None:
        raise ValueError(f"data did not match any variant of untagged enum {kind.enum}")
    return made


def _refuse_repeated(body: bytes, names: set[str]) -> None:
    """Raise for a field that stands in an object twice: msgspec would take the last."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        found = [name for name, _ in pairs if name in names]
        for name in found:
            if found.count(name) > 1:
                *_, place = re.finditer(rb'"%b"' % name.encode(), body)
                raise BodyError(422, f"duplicate field `{name}` {_at(body, place.end())}")

    try:
        json.JSONDecoder(object_pairs_hook=check).decode(body.decode("latin-1"))
    except (ValueError, RecursionError):
        return  # in a part that msgspec skips; what it needs, it has read


def _syntax_error(body: bytes, problem: str) -> BodyError:
    problem, _, byte = problem.removeprefix("JSON is malformed: ").partition(" (byte ")
    words = next((theirs for ours, theirs in SYNTAX.items() if ours in problem), problem)
    words = words.replace("'", "`") if body.strip() else "EOF while parsing a value"
    if byte:
        words += f" {_at(body, int(byte[:-1]) + 1)}"
    elif words.startswith("EOF"):
        words += f" {_at(body, len(body))}"
    return BodyError(400, words)


def _shape_error(body: bytes, problem: str, struct: str) -> BodyError:
    """Say in serde's words what msgspec found; ``struct`` is the name of what was to be read."""
    what, _, path = problem.partition(" - at `$")
    path = path.strip(".`")
    field, _, index = path.split(".")[-1].rstrip("]").partition("[")
    start, end, value = _value_of(body, field, index)
    status = 422
    if field in VARIANTS and what.startswith("Invalid enum value"):
        words = f"unknown variant `{value.strip(chr(34))}`, expected {VARIANTS[field]}"
    elif field in VARIANTS:  # serde_json looks for the quote of a word, and calls it syntax
        status, end, words = 400, start + 1, "expected value"
    elif match := _MISMATCH.match(what):
        got = GOT[match[2]].format(value)
        expected = EXPECTED.get(match[1]) or f"struct {STRUCTS.get(field, struct)}"
        words = f"invalid type: {got}, expected {expected}"
        if match[2] in ("array", "object"):
            end = start
    elif what.startswith("Object missing required field"):
        words = what.removeprefix("Object ").replace("required ", "")
    elif what == "Expected `int` >= 0":
        words = f"invalid value: integer `{value}`, expected usize"
    elif what == "Number out of range":
        status, words = 400, "number out of range"
    else:  # of an untagged enum: serde places it where it stands once the object has ended
        words = what
        rest = body[end:].lstrip()
        end = len(body) - len(rest) + rest.startswith(b"}")
    prefix = f"{path}: " if path else ""
    return BodyError(status, f"{prefix}{words} {_at(body, end)}")


def _value_of(body: bytes, field: str, index: str) -> tuple[int, int, str]:
    """Find a field's value, the whole body for ``""``: its first byte, its end, and what it is.

    With an index, what it is tells the list's element; the place stays the list's.
    """
    text = body.decode("latin-1")  # a character a byte
    named = list(re.finditer(rf'"{field}"\s*:\s*', text)) if field else []
    start = named[-1].end() if named else len(text) - len(text.lstrip())
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return start, start, ""
    if index.isdigit():
        return start, end, json.dumps(value[int(index)])
    return start, end, body[start:end].decode("utf-8", "replace")


def _at(body: bytes, end: int) -> str:
    """Name the place of the byte before ``end`` by line and column, both from 1."""
    end = min(end, len(body))
    line, column = body.count(b"\n", 0, end) + 1, end - body.rfind(b"\n", 0, end) - 1
    return f"at line {line} column {column}"
