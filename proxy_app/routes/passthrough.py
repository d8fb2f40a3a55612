"""TEI's other routes, passed on unchanged: method, path, headers and body there, all of it back."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from proxy_app.errors import EmbedError, Kind
from proxy_app.http.access import Access
from proxy_app.routes.inputs import Limits, token_ids
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


async def forward(
    request: web.Request, body: bytes, upstream: Upstream, access: Access, limits: Limits
) -> web.Response:
    """Send the request, whose body was read, to the upstream and return its reply.

    Raises EmbedError, for inputs beyond the limits too.
    """
    if request.method == "POST":
        await upstream.refuse_unknown_ids(token_ids(body, limits))
    sent = _kept(request.headers.items())
    if access.is_ours(request):
        del sent["Authorization"]
    url = URL(upstream.url(request.rel_url.raw_path_qs), encoded=True)
    try:
        status, headers, content = await upstream.forward(request.method, url, sent, body)
    except BrokenError as error:
        raise EmbedError(Kind.UNHEALTHY, str(error)) from None
    return web.Response(status=status, headers=_kept(headers.items()), body=content)


def _kept(headers: Iterable[tuple[str, str]]) -> CIMultiDict[str]:
    return CIMultiDict((n, v) for n, v in headers if n.lower() not in _HOP_BY_HOP)
