"""What a large body holds as inputs, counted before an object is made of each.

Eight MiB of ``[[1],[1],…]`` are two million lists: to make them all takes seconds in which nobody
else is served, and twenty times the body's memory. Counting takes a few milliseconds per MiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from proxy_app.errors import EmbedError, Kind
from proxy_app.settings import Settings
from proxy_app.upstream.batches import payload_limit, refuse_too_large

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


class Limits(NamedTuple):
    """How many inputs a request may have, and how many bytes of JSON one of them."""

    inputs: int
    size: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits that the settings have."""
        return cls(settings.max_inputs, payload_limit(settings))


def refuse_too_many(count: int, most: int) -> None:
    """Raise EmbedError where a request has more inputs than are allowed."""
    if count > most:
        raise EmbedError(Kind.VALIDATION, f"batch size {count} > maximum allowed batch size {most}")


def refuse_unbounded(body: bytes, limits: Limits) -> None:
    """Raise EmbedError for a body of too many inputs, or of token ids that no upstream takes.

    Makes no object per input. What is no JSON is not refused here.
    """
    outline = _decoded(_outline, body)
    if outline is None:
        return
    for raw in (bytes(outline.inputs), bytes(outline.input)):
        if raw[:1] != b"[":
            continue
        count = count_elements(raw, limits.inputs)
        refuse_too_many(count, limits.inputs)
        if not count:
            _refuse_too_many_ids(raw, limits)


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


def token_ids(body: bytes, limits: Limits) -> list[bytes]:
    """Find the lists of token ids in a body of any of TEI's routes, each as its JSON.

    A body that is not of that form has none; what is wrong with it is TEI's to say. Raises
    EmbedError for more inputs in one request, or requests in one body, than are allowed, and for
    ids that no upstream takes.
    """
    if b"input" not in body and b"\\u" not in body:  # which can spell any name
        return []
    request = _decoded(_request, body)
    if request is None:
        return []
    found = list(_lists_of(request, limits))
    for raw in _elements_of(bytes(request.instances), limits):
        if (one := _decoded(_outline, raw)) is not None:
            found += _lists_of(one, limits)
    return found


def _lists_of(request: _Outline, limits: Limits) -> Iterator[bytes]:
    for raw in (bytes(request.inputs), bytes(request.input)):
        for part in _elements_of(raw, limits):
            if part[:1] == b"[":
                _refuse_too_many_ids(part, limits)
                if _decoded(_ids, part):
                    yield part


def _elements_of(raw: bytes, limits: Limits) -> list[bytes]:
    """Cut an array into its elements; one of numbers alone is one input of token ids."""
    if raw[:1] != b"[":
        return []
    count = count_elements(raw, limits.inputs)
    refuse_too_many(count, limits.inputs)
    return [bytes(element) for element in _elements.decode(raw)] if count else [raw]


def _refuse_too_many_ids(array: bytes, limits: Limits) -> None:
    # The proxy sends them on without the spaces that may stand between them.
    refuse_too_large(len(array.translate(None, _WHITESPACE)), limits.size)


def _decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """Decode, or return None; what follows the JSON value is left out of account, as TEI does."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        trailing = _TRAILING.search(str(error))
    return _decoded(decoder, data[: int(trailing[1]) - 1]) if trailing else None
