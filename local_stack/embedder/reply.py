"""What TEI's replies hold, for the OpenAPI document; ``wire`` writes them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Number = float | None
"""A number of a vector; ``null`` in that of an input without a token."""


class ErrorResponse(msgspec.Struct):
    """An error of TEI's own routes."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class OpenAICompatErrorResponse(msgspec.Struct):
    """An error of OpenAI's routes."""

    message: str
    code: int
    type: str


class OpenAICompatEmbedding(msgspec.Struct):
    """One vector of OpenAI's reply: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    embedding: list[Number] | str
    index: int


class OpenAICompatUsage(msgspec.Struct):
    """How many tokens a request had."""

    prompt_tokens: int
    total_tokens: int


class OpenAICompatResponse(msgspec.Struct):
    """OpenAI's reply."""

    object: Literal["list"]
    data: list[OpenAICompatEmbedding]
    model: str
    usage: OpenAICompatUsage


class SimpleToken(msgspec.Struct):
    """A token; ``start`` and ``stop`` are its place in the text's UTF-8."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Info(msgspec.Struct):
    """What is served, and its limits."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
