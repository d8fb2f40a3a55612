"""What a large body holds as inputs, counted before an object is made of each.

Eight MiB of ``[[1],[1],…]`` are two million lists: to make them all takes seconds in which nobody
else is served, and twenty times the body's memory. Counting takes a few milliseconds per MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, TypeVar

import msgspec

from proxy_app.errors import EmbedError, Kind

#: Bytes of a body up to which its inputs are decoded without being counted first.
SMALL = 64 * 1024

_WHITESPACE = b" \t\r\n"


class _Outline(msgspec.Struct):
    """The fields that hold inputs, undecoded: TEI's ``inputs``, OpenAI's ``input``."""

    inputs: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")


class _Request(_Outline):
    """A body of any of TEI's routes; that of ``/vertex`` holds several requests."""

    instances: msgspec.Raw = msgspec.Raw(b"")


#: A token's number; the vocabulary is the model's to know.
TokenId = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]

T = TypeVar("T")

_outline = msgspec.json.Decoder(_Outline)
_request = msgspec.json.Decoder(_Request)
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_ids = msgspec.json.Decoder(tuple[TokenId, ...])
#: How msgspec words that something follows a whole JSON value.
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")


def refuse_too_many(count: int, most: int) -> None:
    """Raise EmbedError where a request has more inputs than are allowed."""
    if count > most:
        raise EmbedError(Kind.VALIDATION, f"batch size {count} > maximum allowed batch size {most}")


def refuse_too_large(size: int, limit: int) -> None:
    """Raise EmbedError where an input's JSON has more bytes than the upstream takes."""
    if size > limit:
        raise EmbedError(
            Kind.VALIDATION,
            f"an input has {size} bytes as JSON, and the upstream takes {limit} (its "
            "--payload-limit, EMBEDRACK_UPSTREAM_PAYLOAD_LIMIT)",
            status=413,
        )


def refuse_unbounded(body: bytes, most: int, limit: int) -> None:
    """Raise EmbedError for a body of too many inputs, or of token ids that no upstream takes.

    Costs no object per input. Raises msgspec.DecodeError or RecursionError for what is not JSON.
    """
    outline = _outline.decode(body)
    for raw in (bytes(outline.inputs), bytes(outline.input)):
        if raw[:1] != b"[":
            continue
        count = count_elements(raw, most)
        refuse_too_many(count, most)
        if not count:
            refuse_too_large(len(raw.translate(None, _WHITESPACE)), limit)


def count_elements(array: bytes, most: int) -> int:
    """Count the strings and the lists in a JSON array of strings, lists of numbers and numbers.

    0 where it has numbers alone: that is one input of token ids. The count may be too small where
    there are more than ``most``, and is too large where strings hold quotes or brackets, but never
    crosses ``most`` by that.
    """
    strings, lists = array.count(b'"') // 2, array.count(b"[") - 1
    if strings and strings + lists > most:
        if b"\\" in array:
            array = array.replace(b"\\\\", b"").replace(b'\\"', b"")
        strings = array.count(b'"') // 2
        if strings > most:
            return strings
        # Every second part lies between two strings.
        lists = sum(part.count(b"[") for part in array.split(b'"')[::2]) - 1
    return strings + lists


def token_ids(body: bytes, most: int) -> list[tuple[int, ...]]:
    """Find the lists of token ids in a body of any of TEI's routes.

    A body that is not of that form has none; what is wrong with it is TEI's to say. Raises
    EmbedError for more than ``most`` inputs in one request, or requests in one body.
    """
    if b"input" not in body and b"\\u" not in body:  # which can spell any name
        return []
    request = _decoded(_request, body)
    if request is None:
        return []
    found = list(_lists_of(request, most))
    for raw in _elements_of(bytes(request.instances), most):
        if (one := _decoded(_outline, raw)) is not None:
            found += _lists_of(one, most)
    return found


def _lists_of(request: _Outline, most: int) -> Iterator[tuple[int, ...]]:
    for raw in (bytes(request.inputs), bytes(request.input)):
        alone = raw[:1] == b"[" and not count_elements(raw, most)
        for part in [raw] if alone else _elements_of(raw, most):
            if part[:1] == b"[" and (ids := _decoded(_ids, part)):
                yield ids


def _elements_of(raw: bytes, most: int) -> list[bytes]:
    if raw[:1] != b"[":
        return []
    refuse_too_many(count_elements(raw, most), most)
    return [bytes(element) for element in _elements.decode(raw)]


def _decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """Decode, or return None; what follows the JSON value is left out of account, as TEI does."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        trailing = _TRAILING.search(str(error))
    return _decoded(decoder, data[: int(trailing[1]) - 1]) if trailing else None
