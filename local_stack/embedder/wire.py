"""TEI's requests and replies: what a body may hold, and the bytes that answer it."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from local_stack.embedder import serde
from local_stack.embedder.errors import TeiError
from local_stack.embedder.serde import Field, optional

Floats = NDArray[np.float32]
Input = str | list[int]
"""One input of a request: a text, or token ids."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of a request. TEI counts a bare one and a list of one apart (``single``)."""

    items: list[Input]
    single: bool


@dataclass(frozen=True)
class EmbedRequest:
    """A request of ``/embed``, and what those of the other embedding routes come to.

    ``truncate``: ``None`` leaves it to the server. ``dimensions``: how many leading numbers of the
    vector are kept, before it is normalised; ``None`` for all.
    """

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: str = "Right"
    prompt_name: str | None = None
    normalize: bool = True
    dimensions: int | None = None

    @property
    def left(self) -> bool:
        """Whether a text that is too long loses its beginning rather than its end."""
        return self.truncation_direction.lower() == "left"


@dataclass(frozen=True)
class OpenAIRequest:
    """A request of ``/v1/embeddings``."""

    input: Inputs
    model: str | None
    user: str | None
    encoding_format: str
    dimensions: int | None


@dataclass(frozen=True)
class TokenizeRequest:
    """A request of ``/tokenize``."""

    inputs: list[str]
    add_special_tokens: bool
    prompt_name: str | None


@dataclass(frozen=True)
class DecodeRequest:
    """A request of ``/decode``."""

    ids: list[list[int]]
    skip_special_tokens: bool


@dataclass(frozen=True)
class SimilarityInput:
    """What ``/similarity`` compares."""

    source_sentence: str
    sentences: list[str]


@dataclass(frozen=True)
class SimilarityParameters:
    """How ``/similarity`` embeds."""

    truncate: bool | None = None
    truncation_direction: str = "Right"
    prompt_name: str | None = None


@dataclass(frozen=True)
class SimilarityRequest:
    """A request of ``/similarity``."""

    inputs: SimilarityInput
    parameters: SimilarityParameters | None


@dataclass(frozen=True)
class RerankRequest:
    """A request of ``/rerank``, as far as it is looked at: an embedder refuses it anyway."""

    texts: list[str]
    ignored: dict[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------- readers


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= serde.MAX_U32 for item in value
    )


def _inputs(value: Any) -> Inputs | None:
    if isinstance(value, str) or _is_ids(value):
        return Inputs([value], single=True)
    if isinstance(value, list) and all(isinstance(item, str) or _is_ids(item) for item in value):
        return Inputs(value, single=False)
    return None


def _texts(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _id_lists(value: Any) -> list[list[int]] | None:
    if _is_ids(value):
        return [value]
    return value if isinstance(value, list) and all(map(_is_ids, value)) else None


_inputs_field = Field("inputs", serde.untagged("Input", _inputs))
_truncate = Field("truncate", optional(serde.boolean), None)
_direction = Field("truncation_direction", serde.variant("Left", "left", "Right", "right"), "Right")
_prompt_name = Field("prompt_name", optional(serde.string), None)
_dimensions = Field("dimensions", optional(serde.usize), None)

read_embed = serde.struct(
    "EmbedRequest",
    EmbedRequest,
    _inputs_field,
    _truncate,
    _direction,
    _prompt_name,
    Field("normalize", serde.boolean, True),
    _dimensions,
)
read_embed_all = serde.struct(
    "EmbedAllRequest", EmbedRequest, _inputs_field, _truncate, _direction, _prompt_name
)
read_embed_sparse = serde.struct(
    "EmbedSparseRequest", EmbedRequest, _inputs_field, _truncate, _direction, _prompt_name
)
read_openai = serde.struct(
    "OpenAICompatRequest",
    OpenAIRequest,
    Field("input", serde.untagged("Input", _inputs)),
    Field("model", optional(serde.string), None),
    Field("user", optional(serde.string), None),
    Field("encoding_format", serde.variant("float", "base64"), "float"),
    _dimensions,
)
read_tokenize = serde.struct(
    "TokenizeRequest",
    TokenizeRequest,
    Field("inputs", serde.untagged("TokenizeInput", _texts)),
    Field("add_special_tokens", serde.boolean, True),
    _prompt_name,
)
read_decode = serde.struct(
    "DecodeRequest",
    DecodeRequest,
    Field("ids", serde.untagged("InputIds", _id_lists)),
    Field("skip_special_tokens", serde.boolean, True),
)
read_similarity = serde.struct(
    "SimilarityRequest",
    SimilarityRequest,
    Field(
        "inputs",
        serde.struct(
            "SimilarityInput",
            SimilarityInput,
            Field("source_sentence", serde.string),
            Field("sentences", serde.sequence(serde.string)),
        ),
    ),
    Field(
        "parameters",
        optional(
            serde.struct(
                "SimilarityParameters", SimilarityParameters, _truncate, _direction, _prompt_name
            )
        ),
        None,
    ),
)
read_rerank = serde.struct(
    "RerankRequest",
    lambda texts, **ignored: RerankRequest(texts, ignored),
    Field("query", serde.string),
    Field("texts", serde.sequence(serde.string)),
    _truncate,
    _direction,
    Field("raw_scores", serde.boolean, False),
    Field("return_text", serde.boolean, False),
)
read_predict: serde.Reader[dict[str, Any]] = serde.struct(
    "PredictRequest",
    dict,
    Field("inputs", serde.anything),
    _truncate,
    _direction,
    Field("raw_scores", serde.boolean, False),
)


# ---------------------------------------------------------------- replies

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


def read_error_reply(error: serde.ReadError) -> tuple[int, str]:
    """Status and text for a body that could not be read."""
    if error.syntax:
        return 400, f"Failed to parse the request body as JSON: {error}"
    return 422, f"Failed to deserialize the JSON body into the target type: {error}"


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
