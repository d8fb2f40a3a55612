"""The bytes and headers of TEI's replies."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from local_stack.embedder.errors import TeiError

Floats = NDArray[np.float32]

_SMALL = re.compile(rb"(?<![0-9])0\.00000([1-9])([0-9]*)")


def json_floats(value: object) -> bytes:
    """Write float32 arrays, and what JSON holds of them, as serde_json writes ``f32``.

    Both write the shortest digits that read back to the same float32, and ``null`` for NaN; they
    differ in where an exponent begins (Rust writes 1.5e-6 and 1e16).
    """
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"0.00000" in text:
        text = _SMALL.sub(_with_exponent, text)
    return text.replace(b"e+", b"e")


def _with_exponent(match: re.Match[bytes]) -> bytes:
    first, rest = match.groups()
    return first + (b"." + rest if rest else b"") + b"e-6"


def openai_reply(vectors: Floats, encoding_format: str, model: str, tokens: int) -> bytes:
    """Write the reply of ``/v1/embeddings``. ``vectors``: float32 of shape (inputs, dimensions)."""
    if encoding_format == "base64":
        written = [b'"' + base64.b64encode(row.astype("<f4").tobytes()) + b'"' for row in vectors]
    else:
        written = [json_floats(row) for row in vectors]
    data = b",".join(
        b'{"object":"embedding","embedding":%b,"index":%d}' % (row, index)
        for index, row in enumerate(written)
    )
    usage = orjson.dumps({"prompt_tokens": tokens, "total_tokens": tokens})
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        data,
        orjson.dumps(model),
        usage,
    )


def error_reply(error: TeiError, *, openai: bool) -> bytes:
    """Write an error in the shape of the route's family."""
    if openai:
        return orjson.dumps({"message": error.message, "code": error.status, "type": error.kind})
    return orjson.dumps({"error": error.message, "error_type": error.kind})


@dataclass(frozen=True)
class Timing:
    """Where the time of one input went, in seconds."""

    tokenization: float
    queue: float
    inference: float


def compute_headers(
    characters: int, tokens: int, total: float, timings: Sequence[Timing]
) -> dict[str, str]:
    """Write TEI's headers of a reply: ``total`` is in seconds, the times written in ms."""

    def mean(values: list[float]) -> str:
        return str(int(sum(values) / len(values) * 1000))

    milliseconds = str(int(total * 1000))
    return {
        "x-compute-type": "gpu+optimized",
        "x-compute-time": milliseconds,
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(tokens),
        "x-total-time": milliseconds,
        "x-tokenization-time": mean([timing.tokenization for timing in timings]),
        "x-queue-time": mean([timing.queue for timing in timings]),
        "x-inference-time": mean([timing.inference for timing in timings]),
    }
