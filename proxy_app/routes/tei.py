"""TEI's own dialect: ``/embed`` as ``router/src/http/types.rs`` of v1.9.3 defines it.

Two things are kinder than there: null means unset for every optional field, and errors about the
body have the JSON shape of all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
import orjson

from proxy_app.cache.memory import Memory
from proxy_app.embedding.request import Answer, Options
from proxy_app.entries.keys import Item
from proxy_app.errors import EmbedError, Kind
from proxy_app.http.reply import error_body
from proxy_app.routes.dialect import Asked, Dialect
from proxy_app.routes.inputs import TokenId

T = TypeVar("T")

#: What a request may hold as its inputs, in both dialects.
Inputs = str | list[str | TokenId | tuple[TokenId, ...]]


class _Embed(msgspec.Struct):
    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Literal["Left", "left", "Right", "right"] | None = None
    prompt_name: str | None = None
    normalize: bool | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=0)] | None = None


_embed = msgspec.json.Decoder(_Embed)
#: Reads JSON to its end and makes nothing of it.
_json = msgspec.json.Decoder(msgspec.Raw)

_SUMMED = ("x-compute-characters", "x-compute-tokens")
_LONGEST = (
    "x-compute-time",
    "x-total-time",
    "x-tokenization-time",
    "x-queue-time",
    "x-inference-time",
)


def parse(body: bytes) -> Asked:
    """Read a request, and how its answer is written; raises EmbedError."""
    request = decode(_embed, body)
    options = Options(
        truncate=request.truncate,
        left=request.truncation_direction in ("Left", "left"),
        normalize=request.normalize is not False,
        dimensions=request.dimensions,
        prompt_name=request.prompt_name,
    )
    return Asked(items_of(request.inputs), options, write)


async def write(answer: Answer, _: Memory) -> list[bytes]:
    """Write the reply: a list of vectors."""
    pieces = [b"["]
    for entry in answer.entries:
        pieces += (entry.vector, b",")
    pieces[-1] = b"]"
    return pieces


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Read a body; raises EmbedError with what is wrong and where.

    As at TEI, what is no JSON at all is a 400, also where something before it has a wrong type.
    """
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            _json.decode(body)
            raise EmbedError(
                Kind.VALIDATION,
                f"Failed to deserialize the JSON body into the target type: {error}",
            ) from None
    except RecursionError:
        problem = "it is nested too deep"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = _syntax_error(body, error)
    raise EmbedError(
        Kind.VALIDATION, f"Failed to parse the request body as JSON: {problem}", status=400
    )


def items_of(inputs: str | list[str | int | tuple[int, ...]]) -> list[Item]:
    """Turn TEI's ``inputs`` into items; a list of numbers is one input of token ids.

    Raises EmbedError for nothing to embed and for numbers mixed with texts.
    """
    if isinstance(inputs, str):
        items: list[Item] = [inputs]
    elif any(isinstance(element, int) for element in inputs):
        ids = tuple(element for element in inputs if isinstance(element, int))
        if len(ids) != len(inputs):
            raise EmbedError(
                Kind.VALIDATION,
                "Failed to deserialize the JSON body into the target type: `inputs` mixes token "
                "ids with other inputs; put each list of ids into a list of its own",
            )
        items = [ids]
    else:
        items = [element for element in inputs if not isinstance(element, int)]
    if not items or not all(items):
        raise EmbedError(Kind.EMPTY, "Input validation error: `inputs` cannot be empty")
    return items


def compute_headers(replies: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Merge TEI's x-compute headers of several batches: counts add up, times (ms) overlap."""
    merged: dict[str, str] = {}
    for headers in replies:
        if "x-compute-type" in headers:
            merged.setdefault("x-compute-type", headers["x-compute-type"])
        for name in _SUMMED + _LONGEST:
            value = headers.get(name, "")
            if value.isdigit():
                former = int(merged.get(name, "0"))
                number = former + int(value) if name in _SUMMED else max(former, int(value))
                merged[name] = str(number)
    return merged


def _syntax_error(body: bytes, error: Exception) -> str:
    """Say where the JSON is broken; orjson names line and column."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as precise:
        return str(precise)
    return str(error)


DIALECT = Dialect("embed", parse, error_body)
