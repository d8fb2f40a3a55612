"""Connections to the upstream over HTTP: one call and its whole reply, or what became of it.

Nothing is sent twice here (``suspects`` decides that), and nothing here knows TEI's routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
import msgspec
from aiohttp.helpers import ceil_timeout
from multidict import CIMultiDict
from yarl import URL

from proxy_app.errors import STATUS, EmbedError, Kind
from proxy_app.settings import Settings

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
    """A whole reply of the upstream, with any status but 502."""

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
        retry_after = self.headers.get("Retry-After", "")
        # Whatever else may stand there could not be written into our own reply.
        after = retry_after if retry_after.isascii() and retry_after.isprintable() else ""
        return EmbedError(kind, message, status=status, retry_after=after or None)


class Connections:
    """Connections to one base URL: ``kept`` alive for batches, ``fresh`` ones for each request.

    ``count`` is how many were made that carried inputs.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.upstream_url
        self._seconds = settings.upstream_timeout
        self._timeout = aiohttp.ClientTimeout(total=settings.upstream_timeout, sock_connect=5)
        self._headers = dict(_HEADERS)
        if settings.upstream_api_key:
            self._headers["Authorization"] = f"Bearer {settings.upstream_api_key}"
        self.count = 0
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count)
        self.kept = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=60), trace)
        self.fresh = _session(aiohttp.TCPConnector(limit=0, force_close=True), trace)
        # As ``fresh`` and ``kept``, for what carries no inputs.
        self.probes = _session(aiohttp.TCPConnector(limit=0, force_close=True), None)
        self.asking = _session(aiohttp.TCPConnector(limit=1, keepalive_timeout=60), None)

    def url(self, path: str) -> str:
        """Return the full URL of a path with its query."""
        return self._url + path

    async def close(self) -> None:
        """Close all connections."""
        for session in (self.kept, self.fresh, self.probes, self.asking):
            await session.close()

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
        self.count += 1


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
        raise BrokenError("the balancer answered 502: the connection behind it broke")


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
        raise EmbedError(Kind.BACKEND, f"the upstream's reply has more than {most} bytes")
    return b"".join(parts)


def _failure(error: Exception, started: bool, url: str) -> Exception:
    """Say what a failed call means: BrokenError where the connection ended, else EmbedError."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return EmbedError(
            Kind.UNHEALTHY, f"the upstream at {url} cannot be reached: {error.strerror}"
        )
    if isinstance(error, asyncio.TimeoutError):
        return EmbedError(Kind.UNHEALTHY, f"the upstream at {url} did not answer in time")
    if started:
        return BrokenError(f"the upstream's reply broke off: {type(error).__name__}", began=True)
    if isinstance(error, aiohttp.ClientConnectionError | ConnectionError):
        return BrokenError(f"the upstream at {url} closed the connection without a reply")
    return EmbedError(
        Kind.BACKEND, f"the upstream at {url} does not speak HTTP: {type(error).__name__}"
    )
