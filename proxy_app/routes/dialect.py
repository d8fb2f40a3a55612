"""What a dialect is: how a request is read, and how its answer and its errors are written."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import msgspec

from proxy_app.cache.memory import Memory
from proxy_app.embedding.request import Answer, Options
from proxy_app.entries.keys import Item
from proxy_app.errors import EmbedError

#: How an answer is written, in pieces; the memory keeps what is worth keeping of it.
Write = Callable[[Answer, Memory], Coroutine[Any, Any, list[bytes]]]


class Asked(msgspec.Struct):
    """What a body asks for: inputs (at least one), options, and how the answer is written."""

    items: list[Item]
    options: Options
    write: Write


class Dialect(NamedTuple):
    """The routes of one API: their name in the metrics, how a body is read, an error's body.

    ``parse`` raises EmbedError.
    """

    route: str
    parse: Callable[[bytes], Asked]
    error_body: Callable[[EmbedError], bytes]
