"""Which model made a vector: its identity, out of TEI's ``/info``, and its namespace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from proxy_app.entries.collection import collection_name

#: The fields of /info that change a vector (the others are limits and names).
_MARKS = ("model_id", "model_sha", "model_dtype", "model_type", "max_input_length", "version")


@dataclass(frozen=True)
class Identity:
    """One model as served: what keys, splitting and the store need of it.

    ``dimension`` is in numbers, ``max_batch`` and ``permits`` in inputs.
    """

    info: dict[str, Any]
    namespace: str
    dimension: int

    @property
    def auto_truncate(self) -> bool:
        """What an unset ``truncate`` means."""
        return bool(self.info.get("auto_truncate", False))

    @property
    def max_batch(self) -> int:
        """How many inputs the upstream takes in one request."""
        return int(self.info.get("max_client_batch_size") or 32)

    @property
    def permits(self) -> int:
        """How many inputs one instance holds before it answers 429."""
        return int(self.info.get("max_concurrent_requests") or 512)

    @property
    def max_input_length(self) -> int:
        """How many tokens the model sees of an input."""
        return int(self.info.get("max_input_length") or 512)

    @property
    def is_dense(self) -> bool:
        """Whether TEI's ``POST /`` gives what ``/embed`` does."""
        kind = self.info.get("model_type")
        embedding = kind.get("embedding") if isinstance(kind, dict) else None
        return isinstance(embedding, dict) and embedding.get("pooling") != "splade"

    def collection(self, prefix: str) -> str:
        """Name the store's collection: of this namespace and dimension alone."""
        return collection_name(prefix, str(self.info.get("model_id", "")), self.namespace)


def namespace_of(info: dict[str, Any], dimension: int, word: str, prompt: list[int]) -> str:
    """Name the model: the operator's word, the dimension, and what ``/info`` tells of vectors.

    ``prompt``: the tokens of a known word behind the default prompt, empty where there is none.
    """
    marks = {name: info.get(name) for name in _MARKS} | {"dimension": dimension}
    if prompt:
        marks["default_prompt"] = prompt
    return orjson.dumps([word, marks], option=orjson.OPT_SORT_KEYS).decode()
