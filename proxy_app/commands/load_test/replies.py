"""What a reply must be: as many vectors as texts were sent, all of one dimension and finite."""

from __future__ import annotations

import math
from array import array
from base64 import b64decode
from collections.abc import Callable
from typing import TypeVar

import msgspec

from proxy_app.entries import vectors

T = TypeVar("T")


class WrongReply(Exception):
    """A reply with status 200 that is none; ``kind`` is counted."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Embedding(msgspec.Struct):
    index: int
    embedding: msgspec.Raw


class _OpenAI(msgspec.Struct):
    data: list[_Embedding]


_list = msgspec.json.Decoder(list[msgspec.Raw])
_openai = msgspec.json.Decoder(_OpenAI)

#: Raises WrongReply unless a body answers so many texts.
Check = Callable[[bytes, int], None]


def check_embed(body: bytes, texts: int) -> None:
    """Judge a reply in TEI's dialect."""
    _check([bytes(raw) for raw in _decoded(_list, body)], texts)


def check_openai(body: bytes, texts: int) -> None:
    """Judge a reply in OpenAI's dialect, floats or base64."""
    data = _decoded(_openai, body).data
    _check([bytes(one.embedding) for one in data], texts)
    if [one.index for one in data] != list(range(texts)):
        raise WrongReply("order", "the field `index` does not count 0, 1, 2, …")


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        start = body[:100].decode("utf-8", "replace")
        raise WrongReply("not-embeddings", f"{error}: {start}") from None


def _check(raws: list[bytes], texts: int) -> None:
    if len(raws) != texts:
        raise WrongReply("count", f"{len(raws)} vectors for {texts} texts")
    dimension = _dimension_of(raws[0])
    for raw in raws:
        if not _is_vector(raw, dimension):
            raise WrongReply("vector", f"not {dimension} finite numbers: {raw[:60].decode()}…")


def _dimension_of(raw: bytes) -> int:
    return len(_packed(raw)) // 4 if raw.startswith(b'"') else vectors.dimension_of(raw)


def _is_vector(raw: bytes, dimension: int) -> bool:
    if not raw.startswith(b'"'):
        return vectors.checked(raw, dimension) is not None
    packed = _packed(raw)
    if not dimension or len(packed) != 4 * dimension:
        return False
    return all(map(math.isfinite, array("f", packed)))


def _packed(raw: bytes) -> bytes:
    try:
        return b64decode(raw[1:-1], validate=True)
    except ValueError:
        raise WrongReply("vector", f"no base64: {raw[:60].decode()}…") from None
