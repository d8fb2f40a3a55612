"""What names an embedding: a hash over all that changes it.

The encoding has a fixed place or a length for every field, so that no two different inputs can
make the same bytes. Texts are taken as they are, without Unicode normalisation, because the model's
tokenizer sees them so.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

#: One input: a text, or token ids of the model's own vocabulary.
Item = str | tuple[int, ...]

_HEADER = struct.Struct("<BBBBIII")
_FORMAT = 1
_NO_PROMPT = 0xFFFFFFFF


class Params(msgspec.Struct, frozen=True):
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
        # Those of the last request: most have the same.
        self._params = Params()
        self._prefix = self._prefix_of(self._params)

    def _prefix_of(self, params: Params) -> bytes:
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

    def keys(self, params: Params, items: list[Item]) -> list[bytes]:
        """Return the digest (32 bytes, or 16 with md5) of each input of a request.

        The input comes last, so its length need not stand in front.
        """
        if params != self._params:
            self._params, self._prefix = params, self._prefix_of(params)
        text, ids, digest = self._prefix + b"t", self._prefix + b"i", self._hash
        return [
            digest(text + item.encode()).digest()
            if isinstance(item, str)
            else digest(ids + struct.pack(f"<{len(item)}I", *item)).digest()
            for item in items
        ]


def point_id(key: bytes) -> str:
    """Return the UUID under which Qdrant keeps the key: its first 16 bytes, as Qdrant prints it."""
    text = key[:16].hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
