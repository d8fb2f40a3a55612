"""Heads of requests: what the fast lane reads of one, and what no way of a request accepts.

The lane reads only heads of RFC 9112's plainest form, in printable ASCII. aiohttp accepts more, and
three things that it should not: a Host header that names no host, HTTP/0.9 and HTTP/2.0.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion10, HttpVersion11

from proxy_app.errors import EmbedError, Kind

#: Header lines of a head that is read; aiohttp refuses more than 128.
LINES = 64
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"(?P<first>(?P<method>%b) [!-~]+ HTTP/1\.1)\r\n(?P<lines>(?:%b:[ -~]*\r\n){1,%d})\r\n"
    % (_TOKEN, _TOKEN, LINES)
)
_LENGTH = re.compile(rb"[0-9]{1,12}")
#: A name or an address and perhaps a port (RFC 3986, 3.2.2 and 3.2.3).
_HOST = re.compile(r"(?:[\w.~!$&'()*+,;=%-]*|\[[\w.~!$&'()*+,;=:%-]+\])(?::[0-9]*)?", re.ASCII)
#: Where the parser's messages begin to show the request.
_SHOWN = re.compile(r":?\s*(?:\n|: b?['\"])")
#: Methods whose requests have no body where no header announces one.
_BODILESS = (b"GET", b"HEAD")
#: Headers that say where a request ends.
_FRAMING = (b"content-length", b"transfer-encoding", b"upgrade")


class Head(NamedTuple):
    """A request's head: its first line, its headers by name in lower case, its body's bytes.

    ``repeats`` tells whether a header comes more than once; the last one is in ``headers`` then.
    """

    first: bytes
    headers: dict[bytes, bytes]
    length: int
    repeats: bool


def read(text: bytes) -> Head | None:
    """Read a head with the empty line at its end; None for what the lane does not read."""
    match = _HEAD.fullmatch(text)
    if match is None:
        return None
    pairs = [line.partition(b":") for line in match["lines"].split(b"\r\n")[:-1]]
    names = [name.lower() for name, _, _ in pairs]
    headers = {name: value.strip(b" ") for name, (_, _, value) in zip(names, pairs, strict=True)}
    framing = [name for name in names if name in _FRAMING]
    if not framing and match["method"] in _BODILESS:
        length = 0
    elif framing == [b"content-length"] and _LENGTH.fullmatch(headers[b"content-length"]):
        length = int(headers[b"content-length"])
    else:
        return None
    return Head(match["first"], headers, length, len(headers) < len(names))


@lru_cache(maxsize=256)
def is_host(value: str) -> bool:
    """Tell whether a Host header's value has the form of one; an empty one has."""
    return _HOST.fullmatch(value) is not None


def fault(request: web.BaseRequest) -> EmbedError | None:
    """Return what is wrong with a head that aiohttp has accepted: 505 or 400."""
    version = request.version
    if version != HttpVersion11 and version != HttpVersion10:
        message = f"HTTP/{version.major}.{version.minor} is not spoken here"
        return EmbedError(Kind.VALIDATION, message, status=505)
    if not is_host(request.headers.get(hdrs.HOST, "")):
        return EmbedError(Kind.VALIDATION, "the Host header names no host", status=400)
    return None


def unreadable(status: int, message: str) -> EmbedError:
    """Turn a complaint of aiohttp's parser into an error; what it shows of the request is left."""
    reason = _SHOWN.split(message, maxsplit=1)[0]
    return EmbedError(Kind.VALIDATION, f"the request is not HTTP: {reason}", status=status)
