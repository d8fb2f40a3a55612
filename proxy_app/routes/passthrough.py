"""TEI's other routes, passed on unchanged: method, path, headers and body there, all of it back."""

from __future__ import annotations

import json
from collections.abc import Iterable

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from proxy_app.errors import EmbedError, Kind
from proxy_app.http.access import Access
from proxy_app.upstream.client import BrokenError, Upstream

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


_json = json.JSONDecoder()


async def forward(
    request: web.Request, body: bytes, upstream: Upstream, access: Access
) -> web.Response:
    """Send the request, whose body was read, to the upstream and return its reply.

    Raises EmbedError.
    """
    if request.method == "POST":
        await upstream.refuse_unknown_ids(token_ids(body))
    sent = _kept(request.headers.items())
    if access.is_ours(request):
        del sent["Authorization"]
    url = URL(upstream.url(request.rel_url.raw_path_qs), encoded=True)
    try:
        status, headers, content = await upstream.forward(request.method, url, sent, body)
    except BrokenError as error:
        raise EmbedError(Kind.UNHEALTHY, str(error)) from None
    return web.Response(status=status, headers=_kept(headers.items()), body=content)


def token_ids(body: bytes) -> list[tuple[int, ...]]:
    """Find the lists of token ids among a body's ``inputs`` or ``input``.

    A body that is not of that form has none; what is wrong with it is TEI's to say. What follows
    the JSON value is left out of account, as TEI does.
    """
    if b"input" not in body and b"\\u" not in body:  # which can spell any name
        return []
    try:
        request, _ = _json.raw_decode(body.decode("utf-8", "replace").lstrip())
    except (ValueError, RecursionError):
        return []
    if not isinstance(request, dict):
        return []
    instances = request.get("instances")  # of /vertex: several requests in one
    found = []
    for one in [request, *(instances if isinstance(instances, list) else [])]:
        for inputs in (one.get("inputs"), one.get("input")) if isinstance(one, dict) else ():
            if isinstance(inputs, list):
                found += [element for element in [inputs, *inputs] if _are_ids(element)]
    return [tuple(ids) for ids in found]


def _are_ids(element: object) -> bool:
    return (
        isinstance(element, list)
        and bool(element)
        and all(type(i) is int and 0 <= i <= 0xFFFFFFFF for i in element)
    )


def _kept(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict((n, v) for n, v in headers if n.lower() not in _HOP_BY_HOP)
