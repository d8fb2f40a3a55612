"""The upstream: TEI itself or a balancer over several, spoken to over HTTP.

What is resent, and why never more: a batch whose connection broke before its reply was whole (or
that got the balancer's 502) may have killed its instance. Its inputs become suspects: each is sent
once more, alone, on a fresh connection, one after the other over all workers, so that only a guilty
one can break its connection again. Such an input is refused for an hour, by every worker. Until an
input has survived or is a suspect, no two batches with it are sent at once (``trials``). An
instance may thus die unnoticed, and an input that kills instances costs two restarts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
import orjson
from aiohttp.helpers import ceil_timeout
from multidict import CIMultiDict
from yarl import URL

from proxy_app.entries import vectors
from proxy_app.entries.keys import Params
from proxy_app.errors import STATUS, EmbedError, Kind
from proxy_app.settings import Settings
from proxy_app.upstream.batches import Load, fields_of
from proxy_app.upstream.suspects import CONVICTED, Suspects, conviction
from proxy_app.upstream.trials import Trials

_KINDS = {status: kind for kind, status in reversed(STATUS.items())}

#: zlib costs up to ten times what the rest of a request does, so nothing is to be compressed.
_HEADERS = {"Accept-Encoding": "identity", "Content-Type": "application/json"}


#: The most bytes that a number of an embedding is printed with, and what may stand around it.
_NUMBER = 40
_MARGIN = 65536
#: The most bytes of another reply, which tells of the upstream.
_MOST = 16 * 1024 * 1024
#: Bytes that are read ahead of a reply that is passed on.
_AHEAD = 128 * 1024

#: Bytes of a reply that are taken before its reader has them: a batch's whole reply. With aiohttp's
#: own 64 kB it would stop and start reading from the socket several times for each.
READ_BUFFER = 1024 * 1024

_SAYS_502 = "the balancer answered 502"

T = TypeVar("T")


class BrokenError(Exception):
    """The connection ended before a reply was whole, or the balancer said that it did.

    ``began`` tells that a part of the reply came, so that the request as such kills nobody.
    """

    def __init__(self, message: str, *, began: bool = False) -> None:
        super().__init__(message)
        self.began = began


class _TeiError(msgspec.Struct):
    error: str
    error_type: str


_tei_error = msgspec.json.Decoder(_TeiError)
_decoded = msgspec.json.Decoder(list[str])
_tokenized = msgspec.json.Decoder(list[list[msgspec.Raw]])


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply of the upstream."""

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
            told = _tei_error.decode(self.body)
            message = told.error
            kind = next((k for k in Kind if k.value == told.error_type), kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = self.body[:200].decode("utf-8", "replace").strip()
            message = f"the upstream answered {self.status}: {text or 'nothing'}"
        return EmbedError(kind, message, status=status, retry_after=self.headers.get("Retry-After"))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a batch: per input a vector or its error, and TEI's x-compute headers."""

    outcomes: list[bytes | EmbedError]
    headers: Mapping[str, str]


class Upstream:
    """A client of one base URL. ``connections`` counts those that carried inputs.

    What workers must know of each other's inputs lies in ``folder``, which they share.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._url = settings.upstream_url
        self._payload_limit = settings.upstream_payload_limit
        self._seconds = settings.upstream_timeout
        self._timeout = aiohttp.ClientTimeout(total=settings.upstream_timeout, sock_connect=5)
        self._probe_timeout = aiohttp.ClientTimeout(total=min(10.0, settings.upstream_timeout))
        self._headers = dict(_HEADERS)
        if settings.upstream_api_key:
            self._headers["Authorization"] = f"Bearer {settings.upstream_api_key}"
        self.connections = 0
        self._suspects = Suspects(folder / "suspects")
        self._trials = Trials(folder / "trials")
        self._cutting = asyncio.Lock()
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._count_connection)
        # Kept-alive connections for batches, fresh ones for suspects and for probes.
        self._kept = self._session(aiohttp.TCPConnector(limit=0, keepalive_timeout=60), trace)
        self._fresh = self._session(aiohttp.TCPConnector(limit=0, force_close=True), trace)
        self._probes = self._session(aiohttp.TCPConnector(limit=0, force_close=True), None)

    @property
    def payload_limit(self) -> int:
        """Bytes of JSON inputs that a batch may hold, its other fields left room for."""
        return self._payload_limit - 512

    def url(self, path: str) -> str:
        """Return the full URL of a path with its query."""
        return self._url + path

    async def close(self) -> None:
        """Close all connections and files."""
        for session in (self._kept, self._fresh, self._probes):
            await session.close()
        self._suspects.close()
        self._trials.close()

    async def forward(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes
    ) -> aiohttp.ClientResponse:
        """Send somebody's request as it is, on a fresh connection, since it is not sent again.

        Returns once the reply's head is there; whoever asked reads on (``parts``), and closes it.

        A body is sent to no second instance before it has survived, and one that breaks its second
        connection is refused from then on, as an input is. Raises EmbedError, or BrokenError where
        no reply came.
        """
        if "Authorization" in self._headers:
            headers.setdefault("Authorization", self._headers["Authorization"])
        if not body:
            return await self._forward(method, url, headers, body)
        mark = _mark(method, url, body)
        send = partial(self._forward, method, url, headers, body)
        try:
            async with self._trials.of([mark], self._seconds) as trial:
                self._suspects.read()
                if not self._suspects.verdict(mark):
                    answer = await self._first(mark, send)
                    trial.survived = True
                    return answer
        except asyncio.TimeoutError:
            raise self._late() from None
        return await self._alone(mark, send)

    async def parts(self, reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Read the body of a reply as it comes; raises EmbedError where it breaks off."""
        try:
            while part := await reply.content.readany():
                yield part
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise EmbedError(Kind.UNHEALTHY, str(failure(error, True, self._url))) from None

    async def probe(
        self, method: str, path: str, body: bytes | None = None, *, patient: bool = False
    ) -> Reply:
        """Ask about the upstream itself, on a connection of its own; raises EmbedError.

        ``patient`` waits as long as for a batch.
        """
        timeout = self._timeout if patient else self._probe_timeout
        try:
            return await self._call(self._probes, method, path, body, timeout)
        except BrokenError as error:
            raise EmbedError(Kind.UNHEALTHY, str(error)) from None

    async def embed(self, batch: list[Load], params: Params, dimension: int) -> Result:
        """Embed one batch (TEI's limits are the caller's to keep), resending as told above.

        What failed has its error among the outcomes; a batch that failed as one has the same for
        every input.
        """
        self._suspects.read()
        try:
            await self._refuse_unembeddable(batch)
            return await self._embed(batch, b"]," + fields_of(params), dimension)
        except EmbedError as error:
            return Result([error] * len(batch), {})
        except asyncio.TimeoutError:
            return Result([self._late()] * len(batch), {})

    async def _embed(self, batch: list[Load], tail: bytes, dimension: int) -> Result:
        outcomes: dict[bytes, bytes | EmbedError] = {}
        headers: Mapping[str, str] = {}
        fresh = self._unsuspected(batch)
        async with self._trials.of([load.key for load in fresh], self._seconds) as trial:
            self._suspects.read()  # what became of those that another had on trial
            sent = self._unsuspected(fresh)
            if sent:
                try:
                    result = await self._post(self._kept, sent, tail, dimension)
                    trial.survived = len(sent) == len(fresh)
                    if len(sent) == len(batch):
                        return result
                    outcomes.update(zip([load.key for load in sent], result.outcomes, strict=True))
                    headers = result.headers
                except BrokenError:
                    self._suspects.accuse(load.key for load in sent)
        for load in batch:
            if load.key in outcomes:
                continue
            try:
                send = partial(self._post, self._fresh, [load], tail, dimension)
                result = await self._alone(load.key, send)
                [outcomes[load.key]] = result.outcomes
                headers = result.headers
            except EmbedError as error:
                outcomes[load.key] = error
                if not error.concerns_inputs:
                    break  # the upstream is away or overloaded: the others would fare no better
        return Result(
            [outcomes.get(load.key, outcomes[list(outcomes)[-1]]) for load in batch], headers
        )

    def _unsuspected(self, batch: list[Load]) -> list[Load]:
        if not len(self._suspects):
            return batch
        return [load for load in batch if not self._suspects.verdict(load.key)]

    async def _first(self, mark: bytes, send: Callable[[], Awaitable[T]]) -> T:
        """Send a body; one that breaks its connection is a suspect then."""
        try:
            return await send()
        except BrokenError as error:
            if not error.began:
                self._suspects.accuse([mark])
            raise

    async def _alone(self, key: bytes, send: Callable[[], Awaitable[T]]) -> T:
        """Send a suspect while no worker sends another; raises EmbedError where it is convicted."""
        try:
            async with self._suspects.alone(self._seconds):
                if self._suspects.verdict(key) == CONVICTED:
                    raise conviction()
                try:
                    answer = await send()
                except BrokenError as error:
                    if error.began:
                        raise EmbedError(Kind.UNHEALTHY, str(error)) from None
                    self._suspects.accuse([key], CONVICTED)
                    raise conviction() from None
                self._suspects.clear(key)
                return answer
        except asyncio.TimeoutError:
            raise self._late() from None

    def _late(self) -> EmbedError:
        return EmbedError(
            Kind.UNHEALTHY, f"the upstream at {self._url} did not answer others in time"
        )

    async def decode(self, lists: list[tuple[int, ...]]) -> list[str] | None:
        """Return the text of each list of token ids, or None where the upstream cannot tell."""
        body = orjson.dumps({"ids": lists, "skip_special_tokens": False})
        try:
            reply = await self._call(self._kept, "POST", "/decode", body, self._timeout)
        except BrokenError as error:
            raise EmbedError(Kind.UNHEALTHY, str(error)) from None
        if reply.status in (404, 405):
            return None
        if reply.status != 200:
            raise reply.error()
        try:
            texts = _decoded.decode(reply.body)
        except (msgspec.DecodeError, RecursionError):
            texts = []
        if len(texts) != len(lists):
            raise EmbedError(Kind.BACKEND, "the upstream's /decode sent no text per list of ids")
        return texts

    async def tokenize(self, batch: list[Load]) -> list[int]:
        """Count the tokens of texts: with special ones and the default prompt, and uncut.

        Raises EmbedError.
        """
        body = b'{"inputs":[' + b",".join([load.json for load in batch]) + b"]}"
        try:
            try:
                reply = await self._call(self._kept, "POST", "/tokenize", body, self._probe_timeout)
            except BrokenError:
                reply = await self._call(
                    self._fresh, "POST", "/tokenize", body, self._probe_timeout
                )
        except BrokenError as error:
            raise EmbedError(Kind.UNHEALTHY, str(error)) from None
        if reply.status != 200:
            raise reply.error()
        try:
            counts = [len(tokens) for tokens in _tokenized.decode(reply.body)]
        except (msgspec.DecodeError, RecursionError):
            counts = []
        if len(counts) != len(batch):
            raise EmbedError(Kind.BACKEND, "the upstream's /tokenize sent no tokens per text")
        return counts

    async def refuse_unknown_ids(self, lists: list[tuple[int, ...]]) -> None:
        """Raise EmbedError (Validation) where ids decode to nothing, which would kill TEI."""
        if lists and (texts := await self.decode(lists)) is not None and "" in texts:
            raise EmbedError(
                Kind.VALIDATION,
                "Input validation error: these token ids are not of this model's vocabulary; "
                "send text instead (with LangChain's OpenAIEmbeddings: "
                "check_embedding_ctx_length=False)",
            )

    async def _refuse_unembeddable(self, batch: list[Load]) -> None:
        limit = self.payload_limit
        for load in batch:
            if len(load.json) > limit:
                raise EmbedError(
                    Kind.VALIDATION,
                    f"an input has {len(load.json)} bytes as JSON, and the upstream takes "
                    f"{limit} (its --payload-limit, EMBEDRACK_UPSTREAM_PAYLOAD_LIMIT)",
                    status=413,
                )
            if self._suspects.verdict(load.key) == CONVICTED:
                raise conviction()
        await self.refuse_unknown_ids(
            [load.item for load in batch if not isinstance(load.item, str)]
        )

    async def _post(
        self, session: aiohttp.ClientSession, batch: list[Load], tail: bytes, dimension: int
    ) -> Result:
        body = b'{"inputs":[' + b",".join([load.json for load in batch]) + tail
        most = len(batch) * (dimension * _NUMBER + _MARGIN) + _MARGIN
        reply = await self._call(session, "POST", "/embed", body, self._timeout, most)
        if reply.status == 502:
            raise BrokenError(_SAYS_502)
        if reply.status != 200:
            raise reply.error()
        outcomes: list[bytes | EmbedError] = []
        # One reply after another: several at once would take each turn together.
        async with self._cutting:
            outcomes += await vectors.cut(reply.body, len(batch), dimension)
        return Result(outcomes, reply.headers)

    async def _forward(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes
    ) -> aiohttp.ClientResponse:
        # How long all of the reply may take is for its reader's speed to say.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self._seconds)
        try:
            async with ceil_timeout(self._seconds):
                reply = await self._probes.request(
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
            raise failure(error, False, self._url) from None
        if reply.status == 502:
            reply.close()
            raise BrokenError(_SAYS_502)
        return reply

    async def _call(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
        most: int = _MOST,
    ) -> Reply:
        started = False
        try:
            async with session.request(
                method,
                self.url(path),
                data=body,
                headers=self._headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                started = True
                return Reply(response.status, response.headers, await read(response, most))
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise failure(error, started, self._url) from None

    def _session(
        self, connector: aiohttp.TCPConnector, trace: aiohttp.TraceConfig | None
    ) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=[trace] if trace else [],
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
        )

    async def _count_connection(self, *_: object) -> None:
        self.connections += 1


async def read(response: aiohttp.ClientResponse, most: int) -> bytes:
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


def _mark(method: str, url: URL, body: bytes) -> bytes:
    """Name a request that is passed on, to know it again."""
    return hashlib.sha256(f"{method} {url.raw_path_qs}\n".encode() + body).digest()


def failure(error: Exception, started: bool, url: str) -> Exception:
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
