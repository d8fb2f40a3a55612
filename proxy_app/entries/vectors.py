"""Embeddings as the text they came in: cut out of replies, checked, never parsed.

An embedding travels as the raw JSON of its array (``b"[0.1,-2e-7,…]"``, UTF-8). Parsing 1024
floats and printing them again costs several times what all else does, and printing could change
them; so the text is checked and passed on.
"""

from __future__ import annotations

import asyncio

import msgspec

from proxy_app.errors import EmbedError, Kind

#: Beyond this magnitude a number rounds to infinity as a float32 (IEEE 754, ties to even).
FLOAT32_LIMIT = 3.4028235677973366e38

#: Vectors that are checked before others get their turn: a tenth of a millisecond's work.
TURN = 8

#: The most characters that a float32 is printed with: 16 by TEI, 24 by a server that makes a
#: float64 of it first.
LONGEST = 24
_TOO_LONG = b"0" * (LONGEST + 1)
_ONE_CHARACTER = bytes.maketrans(b"0123456789+-.eE", b"0" * 15)

_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_float_list = msgspec.json.Decoder(list[float])


class WrongVectorError(EmbedError):
    """An embedding that is none of the dimension that was wanted."""


def is_vector(raw: bytes, dimension: int) -> bool:
    """Tell whether ``raw``, one well-formed JSON value, is ``dimension`` float32 numbers.

    msgspec has checked each number's syntax, so that without what numbers are made of a vector is
    brackets and commas alone: 9 µs for 1024 numbers, where parsing takes 31. Only a positive
    exponent can hide a number beyond float32 (which Qdrant would give back as null); the few
    vectors that have one are parsed.
    """
    if raw.translate(None, b"0123456789+-.eE") != b"[" + b"," * (dimension - 1) + b"]":
        return False
    if not _has_positive_exponent(raw):
        return len(raw) > dimension + 1  # `[]` has no number, though it has the commas of one
    return all(-FLOAT32_LIMIT < number < FLOAT32_LIMIT for number in _float_list.decode(raw))


def _has_positive_exponent(raw: bytes) -> bool:
    """Look at what follows each ``e``: there are few, and finding them costs next to nothing."""
    at = raw.find(b"e")
    while at >= 0:
        if raw[at + 1] != ord("-"):
            return True
        at = raw.find(b"e", at + 1)
    return b"E" in raw


def has_long_number(raw: bytes) -> bool:
    """Tell whether a vector has a number with more characters than any float32 is printed with."""
    return _TOO_LONG in raw.translate(_ONE_CHARACTER)


def checked(raw: bytes, dimension: int) -> bytes | None:
    """Return a vector as it is kept, None where ``raw`` is none (see ``is_vector``).

    Some servers print white space between the numbers, which is dropped.
    """
    if is_vector(raw, dimension):
        return raw
    compact = raw.translate(None, b" \t\r\n")
    return compact if compact != raw and is_vector(compact, dimension) else None


def dimension_of(raw: bytes) -> int:
    """Count the numbers of a non-empty vector."""
    return raw.count(b",") + 1


async def cut(body: bytes, count: int, dimension: int) -> list[bytes]:
    """Cut an embed reply (``[[…],[…]]``) into ``count`` checked vectors, others having their turns.

    Each is a copy, since a slice would keep the whole reply in memory. ``dimension`` 0 accepts
    any, but the same one for all. Raises EmbedError (Backend) where the reply is anything but
    one vector of that dimension per input; WrongVectorError where a vector alone is not.
    """
    try:
        raws = _raw_list.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise EmbedError(
            Kind.BACKEND, f"the upstream's reply is no list of embeddings: {error}"
        ) from None
    if len(raws) != count:
        raise EmbedError(
            Kind.BACKEND, f"the upstream sent {len(raws)} embeddings for {count} inputs"
        )
    vectors: list[bytes] = []
    wanted = dimension or dimension_of(bytes(raws[0]))
    for index, raw in enumerate(raws):
        if index % TURN == TURN - 1:
            await asyncio.sleep(0)
        vector = checked(bytes(raw), wanted)
        if vector is None or has_long_number(vector):
            raise WrongVectorError(
                Kind.BACKEND,
                f"the upstream's embedding {index} of {count} is not {wanted} float32 numbers",
            )
        vectors.append(vector)
    return vectors
