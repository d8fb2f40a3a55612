"""What names an embedding: a hash over all that changes it.

The encoding has a fixed place or a length for every field, so that no two different inputs can
make the same bytes. Texts are taken as they are, without Unicode normalisation, because the model's
tokenizer sees them so.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

#: One input: a text, or token ids of the model's own vocabulary.
Item = str | tuple[int, ...]

_HEADER = struct.Struct("<BBBBIII")
_FORMAT = 1
_NO_PROMPT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Params:
    """The fields of a request that change its vectors, made effective.

    ``truncate`` is never unset (the server's default is filled in) and ``left`` is False where
    nothing is cut off, so that equal vectors share a key. ``dimensions`` 0 is the model's own.
    """

    normalize: bool = True
    truncate: bool = True
    left: bool = False
    dimensions: int = 0
    prompt_name: str | None = None


class Keyer:
    """Makes the keys of one namespace with one hash function (``sha256`` or ``md5``)."""

    def __init__(self, namespace: str, function: str = "sha256") -> None:
        self._namespace = namespace.encode()
        self._hash = hashlib.md5 if function == "md5" else hashlib.sha256

    def prefix(self, params: Params) -> bytes:
        """Encode what a whole request shares: format, parameters, namespace and prompt name."""
        prompt = b"" if params.prompt_name is None else params.prompt_name.encode()
        header = _HEADER.pack(
            _FORMAT,
            params.normalize,
            params.truncate,
            params.left,
            params.dimensions,
            len(self._namespace),
            _NO_PROMPT if params.prompt_name is None else len(prompt),
        )
        return header + self._namespace + prompt

    def key(self, prefix: bytes, item: Item) -> bytes:
        """Return the digest (32 bytes, or 16 with md5) of an input under its request's prefix.

        The input comes last, so its length need not stand in front.
        """
        if isinstance(item, str):
            return self._hash(prefix + b"t" + item.encode()).digest()
        return self._hash(prefix + b"i" + struct.pack(f"<{len(item)}I", *item)).digest()


def point_id(key: bytes) -> str:
    """Return the UUID under which Qdrant keeps the key: its first 16 bytes, as Qdrant prints it."""
    text = key[:16].hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
