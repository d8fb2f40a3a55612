"""What is kept of one embedding, by L1 and by the store."""

from __future__ import annotations

import msgspec


class Entry(msgspec.Struct, eq=False, gc=False):
    """One embedding: ``vector`` is the raw JSON of its numbers.

    ``written`` is when it was computed (Unix seconds); ``tokens`` is how many TEI counted for the
    input, 0 where that is not known. ``base64`` is the vector in OpenAI's other encoding, empty
    until somebody wanted it; only L1 sets it (``Memory.keep_base64``).
    """

    vector: bytes
    written: int = 0
    tokens: int = 0
    base64: bytes = b""
