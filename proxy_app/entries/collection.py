"""The names of our collections in Qdrant, where others may keep theirs beside them."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache


@lru_cache(maxsize=16)
def collection_name(prefix: str, model_id: str, namespace: str) -> str:
    """Name a namespace's collection: readable, and of this namespace and prefix alone."""
    model = model_id.rstrip("/").rsplit("/", 1)[-1]
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", model)[:48].strip("-.") or "model"
    return f"{prefix}-{slug}-{hashlib.sha256(namespace.encode()).hexdigest()[:16]}-{_seal(prefix)}"


def is_ours(name: str, prefix: str) -> bool:
    """Tell whether a collection belongs to the deployment with this prefix.

    A name's beginning does not tell: `cache` is also how the names of `cache-two` begin. So the
    prefix stands at the end once more, as a hash.
    """
    return re.fullmatch(f"{re.escape(prefix)}-.+-[0-9a-f]{{16}}-{_seal(prefix)}", name) is not None


def _seal(prefix: str) -> str:
    return hashlib.sha256(prefix.encode()).hexdigest()[:8]
