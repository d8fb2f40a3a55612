"""TEI's other routes, passed on unchanged: method, path, headers and body there, all of it back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from aiohttp import ClientResponse, web
from multidict import CIMultiDict
from yarl import URL

from proxy_app.errors import EmbedError, Kind
from proxy_app.http.access import Access
from proxy_app.http.bodies import LARGE, Bodies
from proxy_app.routes.inputs import Limits, token_ids
from proxy_app.upstream.client import BrokenError, Upstream

#: Headers that concern one connection (RFC 9110, 7.6.1; so do those that ``Connection`` names) or
#: that each side writes for itself.
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
#: Encodings of a request's body that aiohttp's parser has undone.
_DECODED = frozenset(("gzip", "deflate", "br", "zstd"))


async def forward(
    request: web.Request,
    body: bytes,
    upstream: Upstream,
    access: Access,
    bodies: Bodies,
    limits: Limits,
) -> web.StreamResponse:
    """Send the request, whose body was read, to the upstream and return its reply.

    A large one was sent by then, as it came. Raises EmbedError, for inputs beyond the limits too.
    """
    if request.method == "POST":
        await upstream.refuse_unknown_ids(token_ids(body, limits))
    sent = end_to_end(request.headers)
    if sent.get("Content-Encoding", "").lower() in _DECODED:
        del sent["Content-Encoding"]
    if access.is_ours(request):
        sent.popall("Authorization", None)
    url = URL(upstream.url(request.rel_url.raw_path_qs), encoded=True)
    try:
        reply = await upstream.forward(request.method, url, sent, body)
    except BrokenError as error:
        raise EmbedError(Kind.UNHEALTHY, str(error)) from None
    try:
        return await _pass_on(request, reply, upstream.parts(reply), bodies)
    finally:
        reply.close()


async def _pass_on(
    request: web.Request,
    reply: ClientResponse,
    parts: AsyncIterator[bytes],
    bodies: Bodies,
) -> web.StreamResponse:
    """Return a reply that is not large as a whole; send another part by part."""
    headers = end_to_end(reply.headers)
    beginning = b""
    async for part in parts:
        beginning += part
        if len(beginning) > LARGE:
            break
    else:
        return web.Response(status=reply.status, headers=headers, body=beginning)
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = reply.content_length
    await bodies.pass_on(request, response, beginning, parts)
    return response


def end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the headers that are not for one connection alone, with all their values."""
    named = ",".join(value for name, value in headers.items() if name.lower() == "connection")
    dropped = _HOP_BY_HOP.union(name.strip().lower() for name in named.split(","))
    return CIMultiDict((n, v) for n, v in headers.items() if n.lower() not in dropped)
