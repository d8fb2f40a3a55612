"""Connections to the upstream over HTTP: one call and its whole reply, or what became of it.

Nothing is sent twice here (``suspects`` decides that), and nothing here knows TEI's routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import msgspec
from aiohttp.helpers import ceil_timeout
from multidict import CIMultiDict
from yarl import URL

from proxy_app.errors import STATUS, EmbedError, Kind
from proxy_app.net import exchange
from proxy_app.net.exchange import Exchange, NotPlainError
from proxy_app.settings import Settings

log = logging.getLogger("embedrack")

_KINDS = {status: kind for kind, status in reversed(STATUS.items())}

#: zlib costs up to ten times what the rest of a request does, so nothing is to be compressed.
_HEADERS = {"Accept-Encoding": "identity", "Content-Type": "application/json"}

#: The most bytes of a reply where the caller does not say.
_MOST = 16 * 1024 * 1024
#: Bytes that are read ahead of a reply that is passed on.
_AHEAD = 128 * 1024

#: Bytes of a reply that are taken before its reader has them: a batch's whole reply. With aiohttp's
#: own 64 kB it would stop and start reading from the socket several times for each.
READ_BUFFER = 1024 * 1024

#: Seconds for which an idle connection is kept.
KEEP = 60.0

_BAD_GATEWAY = 502


class BrokenError(Exception):
    """The connection ended before a reply was whole, or the balancer said so with a 502.

    ``began``: a part of the reply came, so that the request as such kills nobody.
    """

    def __init__(self, message: str, *, began: bool = False) -> None:
        super().__init__(message)
        self.began = began


class _TeiError(msgspec.Struct):
    error: str
    error_type: str


_tei_error = msgspec.json.Decoder(_TeiError)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply of the upstream, with any status but 502; header names in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def error(self) -> EmbedError:
        """Make the error that the caller gets: TEI's own words and status, where they are TEI's.

        A success that should not have been one is a fault of the upstream.
        """
        status = self.status if self.status >= 400 else STATUS[Kind.BACKEND]
        kind = _KINDS.get(status, Kind.UNHEALTHY if status >= 500 else Kind.VALIDATION)
        try:
            read = _tei_error.decode(self.body)
            message = read.error
            kind = next((k for k in Kind if k.value == read.error_type), kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = self.body[:200].decode("utf-8", "replace").strip()
            message = f"the upstream answered {self.status}: {text or 'nothing'}"
        retry_after = self.headers.get("retry-after", "")
        # Whatever else may stand there could not be written into our own reply.
        after = retry_after if retry_after.isascii() and retry_after.isprintable() else ""
        return EmbedError(kind, message, status=status, retry_after=after or None)


class Post(Protocol):
    """How inputs are sent: by a kept connection, or by a fresh one."""

    async def __call__(
        self, path: str, body: bytes, *, seconds: float | None = None, most: int = _MOST
    ) -> Reply:
        """Send a POST and return its whole reply."""


class Connections:
    """Connections to one base URL: kept alive (``post``, ``get``), or fresh for each request."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.upstream_url
        self._seconds = settings.upstream_timeout
        self._timeout = aiohttp.ClientTimeout(total=settings.upstream_timeout, sock_connect=5)
        self._headers = dict(_HEADERS)
        if settings.upstream_api_key:
            self._headers["Authorization"] = f"Bearer {settings.upstream_api_key}"
        self._made = 0
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count)
        # Where the server's replies, or its URL, are none for an exchange.
        self._kept = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP), trace)
        self._fresh = _session(aiohttp.TCPConnector(limit=0, force_close=True), trace)
        # What carries no inputs.
        self.probes = _session(aiohttp.TCPConnector(limit=0, force_close=True), None)
        self._exchange: Exchange | None = None
        self._asking: Exchange | None = None
        if exchange.is_plain(self._url):
            self._exchange = Exchange(self._url, self._headers, KEEP)
            self._asking = Exchange(self._url, self._headers, KEEP)

    @property
    def count(self) -> int:
        """How many connections were made that carried inputs."""
        return self._made + (self._exchange.made if self._exchange else 0)

    def url(self, path: str) -> str:
        """Return the full URL of a path with its query."""
        return self._url + path

    async def close(self) -> None:
        """Close all connections."""
        for one in (self._exchange, self._asking):
            if one is not None:
                one.close()
        for session in (self._kept, self._fresh, self.probes):
            await session.close()

    async def post(
        self, path: str, body: bytes, *, seconds: float | None = None, most: int = _MOST
    ) -> Reply:
        """Send inputs by a kept connection; raises as ``call`` does.

        A kept connection that ends without a reply is broken too, though it may have ended just
        when it was used again.
        """
        if self._exchange is not None:
            try:
                return await self._by(self._exchange, path, body, seconds, most)
            except NotPlainError as error:
                log.info("upstream: the slower client is used: a reply has %s", error)
                self._made += self._exchange.made
                self._exchange.close()
                self._exchange = None
        return await self.call(self._kept, "POST", path, body, seconds=seconds, most=most)

    async def post_fresh(
        self, path: str, body: bytes, *, seconds: float | None = None, most: int = _MOST
    ) -> Reply:
        """Send inputs by a connection of its own; raises as ``call`` does."""
        return await self.call(self._fresh, "POST", path, body, seconds=seconds, most=most)

    async def get(self, path: str, *, seconds: float) -> Reply:
        """Ask about the upstream by a kept connection; raises as ``call`` does."""
        if self._asking is not None:
            try:
                return await self._by(self._asking, path, None, seconds, _MOST)
            except NotPlainError:
                self._asking.close()
                self._asking = None
        return await self.call(self.probes, "GET", path, seconds=seconds)

    async def _by(
        self, one: Exchange, path: str, body: bytes | None, seconds: float | None, most: int
    ) -> Reply:
        seconds = seconds or self._seconds
        try:
            if body is None:
                answer = await one.get(path, seconds, most)
            else:
                answer = await one.post(path, body, seconds, most, again=False)
        except exchange.TooLargeError:
            raise _too_large(most) from None
        except exchange.UnreachableError as error:
            raise _unreachable(self._url, str(error)) from None
        except (asyncio.TimeoutError, OSError) as error:
            began = isinstance(error, exchange.PartialError)
            raise _failure(error, began, self._url) from None
        if answer.status == _BAD_GATEWAY:
            raise _bad_gateway()
        return Reply(answer.status, answer.fields(), answer.body)

    async def call(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        seconds: float | None = None,
        most: int = _MOST,
    ) -> Reply:
        """Send a request and read its reply of at most so many bytes.

        Raises BrokenError, and EmbedError where nobody took the request, in time or at all.
        """
        started = False
        try:
            async with session.request(
                method,
                self._url + path,
                data=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=seconds) if seconds else self._timeout,
                allow_redirects=False,
            ) as response:
                started = True
                _refuse_bad_gateway(response)
                return Reply(response.status, response.headers, await _read(response, most))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise _failure(error, started, self._url) from None

    async def forward(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes
    ) -> aiohttp.ClientResponse:
        """Send somebody's request with its own headers, and return its reply as soon as it begins.

        Whoever asked reads on (``parts``), and closes it. Raises as ``call`` does.
        """
        if "Authorization" in self._headers:
            headers.setdefault("Authorization", self._headers["Authorization"])
        # How long all of the reply may take is for its reader's speed to say.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self._seconds)
        try:
            async with ceil_timeout(self._seconds):
                reply = await self.probes.request(
                    method,
                    url,
                    headers=headers,
                    data=body or None,
                    timeout=timeout,
                    read_bufsize=_AHEAD,
                    allow_redirects=False,
                    skip_auto_headers=("Accept-Encoding", "Content-Type", "User-Agent"),
                )
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise _failure(error, False, self._url) from None
        try:
            _refuse_bad_gateway(reply)
        except BrokenError:
            reply.close()
            raise
        return reply

    async def parts(self, reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Read the body of a reply as it comes; raises EmbedError where it breaks off."""
        try:
            while part := await reply.content.readany():
                yield part
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise EmbedError(Kind.UNHEALTHY, str(_failure(error, True, self._url))) from None

    async def _count(self, *_: object) -> None:
        self._made += 1


def _session(
    connector: aiohttp.TCPConnector, trace: aiohttp.TraceConfig | None
) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[trace] if trace else [],
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=READ_BUFFER,
    )


def _refuse_bad_gateway(response: aiohttp.ClientResponse) -> None:
    if response.status == _BAD_GATEWAY:
        raise _bad_gateway()


def _bad_gateway() -> BrokenError:
    return BrokenError("the balancer answered 502: the connection behind it broke")


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Read a reply of at most so many bytes; raises EmbedError (Backend) for a larger one."""
    if response.content_length is not None and response.content_length <= most:
        return await response.read()
    parts = []
    size = response.content_length or 0
    while size <= most and (part := await response.content.readany()):
        parts.append(part)
        size += len(part)
    if size > most:
        raise _too_large(most)
    return b"".join(parts)


def _too_large(most: int) -> EmbedError:
    return EmbedError(Kind.BACKEND, f"the upstream's reply has more than {most} bytes")


def _unreachable(url: str, reason: str) -> EmbedError:
    return EmbedError(Kind.UNHEALTHY, f"the upstream at {url} cannot be reached: {reason}")


def _failure(error: Exception, started: bool, url: str) -> Exception:
    """Say what a failed call means: BrokenError where the connection ended, else EmbedError."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _unreachable(url, str(error.strerror))
    if isinstance(error, asyncio.TimeoutError):
        return EmbedError(Kind.UNHEALTHY, f"the upstream at {url} did not answer in time")
    if started:
        return BrokenError(f"the upstream's reply broke off: {type(error).__name__}", began=True)
    if isinstance(error, aiohttp.ClientConnectionError | ConnectionError):
        return BrokenError(f"the upstream at {url} closed the connection without a reply")
    return EmbedError(
        Kind.BACKEND, f"the upstream at {url} does not speak HTTP: {type(error).__name__}"
    )
