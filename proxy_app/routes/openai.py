"""OpenAI's dialect: ``/v1/embeddings`` as ``router/src/http/types.rs`` of TEI v1.9.3 defines it.

What it lacks is fixed there: vectors are normalised, a long text is cut at its end if the server's
auto_truncate is on, no prompt is named. So its vectors are those of a plain ``/embed``. ``model``
and ``user`` change nothing and may hold anything.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
import orjson

from proxy_app.cache.memory import Memory
from proxy_app.embedding.request import Answer, Options
from proxy_app.entries import float32
from proxy_app.entries.entry import Entry
from proxy_app.errors import EmbedError
from proxy_app.routes import tei
from proxy_app.routes.dialect import Asked, Dialect

#: Vectors that are encoded before other requests get their turn (about 50 µs each).
_TURN = 32


class _Request(msgspec.Struct):
    input: tei.Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=0)] | None = None


_request = msgspec.json.Decoder(_Request)


def parse(body: bytes) -> Asked:
    """Read a request, and choose how its answer is written; raises EmbedError."""
    request = tei.decode(_request, body)
    options = Options(dimensions=request.dimensions, count_tokens=True)
    write = write_base64 if request.encoding_format == "base64" else write_floats
    return Asked(tei.items_of(request.input), options, write)


async def write_floats(answer: Answer, _: Memory) -> list[bytes]:
    """Write the reply with vectors as lists of numbers."""
    return _reply(answer, [entry.vector for entry in answer.entries], b"")


async def write_base64(answer: Answer, memory: Memory) -> list[bytes]:
    """Write the reply with vectors as base64 of little-endian float32, kept for the next time."""
    encoded: list[bytes] = []
    fresh: dict[int, bytes] = {}
    for key, entry in zip(answer.keys, answer.entries, strict=True):
        form = entry.base64 or fresh.get(id(entry))
        if not form:
            form = fresh[id(entry)] = b64encode(float32.packed(entry.vector))
            memory.keep_base64(key, entry, form)
            if len(fresh) % _TURN == 0:
                await asyncio.sleep(0)
        encoded.append(form)
    return _reply(answer, encoded, b'"')


def _reply(answer: Answer, vectors: list[bytes], quote: bytes) -> list[bytes]:
    between = b',{"object":"embedding","embedding":' + quote
    parts = [b'{"object":"list","data":[' + between[1:], vectors[0]]
    for index, vector in enumerate(vectors[1:]):
        parts += (b'%b,"index":%d}%b' % (quote, index, between), vector)
    name = _as_json(served_name(answer.identity.info))
    last = quote, len(vectors) - 1, name, _usage(answer.entries)
    parts.append(b'%b,"index":%d}],"model":%b,"usage":%b}' % last)
    return parts


_as_json = lru_cache(maxsize=8)(orjson.dumps)


def _usage(entries: list[Entry]) -> bytes:
    """Write the tokens of all inputs, duplicates each; null where one's are not to be had."""
    counts = [entry.tokens for entry in entries]
    if 0 in counts:
        return b"null"
    total = sum(counts)
    return b'{"prompt_tokens":%d,"total_tokens":%d}' % (total, total)


def served_name(info: dict[str, Any]) -> str:
    """Return what TEI calls its model in this dialect."""
    return str(info.get("served_model_name") or info["model_id"])


def model(info: dict[str, Any]) -> dict[str, object]:
    """Describe the served model. When it was made is not known: 0."""
    return {"id": served_name(info), "object": "model", "created": 0, "owned_by": "embedrack"}


def models(info: dict[str, Any]) -> bytes:
    """Write the list of models: the one served."""
    return orjson.dumps({"object": "list", "data": [model(info)]})


def no_model(info: dict[str, Any]) -> bytes:
    """Write OpenAI's own error for a model that is not served, which its clients read."""
    error = {
        "message": f"there is no such model; the one served is {served_name(info)}",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    return orjson.dumps({"error": error})


def error_body(error: EmbedError) -> bytes:
    """Write an error in the shape of TEI's OpenAI routes."""
    return orjson.dumps({"message": error.message, "code": error.status, "type": error.kind.value})


DIALECT = Dialect("openai", parse, error_body)
