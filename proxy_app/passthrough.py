"""TEI's other routes, passed on unchanged: method, path, headers and body there, all of it back."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from proxy_app.errors import EmbedError, Kind
from proxy_app.upstream import BrokenError, Upstream

#: Headers that concern one connection (RFC 9110, 7.6.1) or that each side writes for itself.
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "content-length",
        "date",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


class _Inputs(msgspec.Struct):
    inputs: msgspec.Raw = msgspec.Raw(b"null")
    input: msgspec.Raw = msgspec.Raw(b"null")


_inputs = msgspec.json.Decoder(_Inputs)
_with_ids = msgspec.json.Decoder(list[int] | None)
_with_lists = msgspec.json.Decoder(list[str | list[int]] | None)


async def forward(request: web.Request, upstream: Upstream) -> web.Response:
    """Send the request to the upstream and return its reply; raises EmbedError."""
    body = await request.read()
    if request.method == "POST":
        await upstream.refuse_unknown_ids(token_ids(body))
    url = URL(upstream.url(request.rel_url.raw_path_qs), encoded=True)
    try:
        status, headers, content = await upstream.forward(
            request.method, url, _kept(request.headers.items()), body
        )
    except BrokenError as error:
        raise EmbedError(Kind.UNHEALTHY, str(error)) from None
    return web.Response(status=status, headers=_kept(headers.items()), body=content)


def token_ids(body: bytes) -> list[tuple[int, ...]]:
    """Find the lists of token ids among a body's ``inputs`` or ``input``.

    A body that is not of that form has none; what is wrong with it is TEI's to say.
    """
    try:
        request = _inputs.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    found: list[tuple[int, ...]] = []
    for raw in (request.inputs, request.input):
        try:
            if ids := _with_ids.decode(raw):
                found.append(tuple(ids))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found += _listed_ids(raw)
    return found


def _listed_ids(raw: msgspec.Raw) -> list[tuple[int, ...]]:
    try:
        elements = _with_lists.decode(raw) or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [tuple(element) for element in elements if isinstance(element, list) and element]


def _kept(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict((n, v) for n, v in headers if n.lower() not in _HOP_BY_HOP)
