"""The upstream: TEI itself or a balancer over several, and what it is asked.

What is sent again, and which inputs are refused, is ``suspects``' to decide: until an input has
survived or is a suspect, no two batches with it are sent at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from proxy_app.entries import vectors
from proxy_app.entries.keys import Params
from proxy_app.errors import EmbedError, Kind
from proxy_app.settings import Settings
from proxy_app.upstream.batches import Load, fields_of, payload_limit, refuse_too_large
from proxy_app.upstream.connections import BrokenError as BrokenError
from proxy_app.upstream.connections import Connections, Post, Reply
from proxy_app.upstream.instances import Instances
from proxy_app.upstream.suspects import Suspects
from proxy_app.upstream.trials import SURVIVED

#: The most bytes that a number of an embedding is printed with, and what may stand around it.
_NUMBER = 40
_MARGIN = 65536

#: A request that every instance answers.
_KNOWN_WORD = b"dimension"
_KNOWN_GOOD = b'{"inputs":"%b"}' % _KNOWN_WORD
#: Seconds for a reply to a question about the upstream, at most.
_PROBE = 10.0


class _Token(msgspec.Struct):
    id: int
    stop: int | None = None


_tokens = msgspec.json.Decoder(list[list[_Token]])
_decoded = msgspec.json.Decoder(list[str])
_tokenized = msgspec.json.Decoder(list[list[msgspec.Raw]])
#: What a decoder raises for a body that is not of its type.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a batch: per input a vector or its error, and TEI's x-compute headers."""

    outcomes: list[bytes | EmbedError]
    headers: Mapping[str, str]


class Upstream:
    """What the upstream is asked; ``instances`` is how many there are.

    What workers must know of each other's inputs lies in ``folder``, which they share.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._url = settings.upstream_url
        self.payload_limit = payload_limit(settings)
        self._probe_seconds = min(_PROBE, settings.upstream_timeout)
        self._connections = Connections(settings)
        self.instances = Instances(settings)
        self._suspects = Suspects(
            folder, settings.upstream_timeout, self.instances, self._known_good
        )
        self._cutting = asyncio.Lock()

    @property
    def connections(self) -> int:
        """How many connections were made that carried inputs."""
        return self._connections.count

    def url(self, path: str) -> str:
        """Return the full URL of a path with its query."""
        return self._connections.url(path)

    async def close(self) -> None:
        """Close all connections and files."""
        await self._connections.close()
        self._suspects.close()

    async def forward(
        self, method: str, url: URL, headers: CIMultiDict[str], body: bytes
    ) -> aiohttp.ClientResponse:
        """Send somebody's request as it is, on a fresh connection, since it is not sent again.

        Returns once the reply's head is there; whoever asked reads on (``parts``), and closes it.

        A body is sent to no second instance before it has survived, and one that breaks its second
        connection is refused from then on, as an input is. Raises EmbedError, or BrokenError where
        no reply came.
        """
        send = partial(self._connections.forward, method, url, headers, body)
        if not body:
            return await send()
        mark = _mark(method, url, body)
        try:
            async with self._suspects.trial([mark]) as trial:
                if not trial.suspects([mark]):
                    try:
                        answer = await send()
                    except BrokenError as error:
                        if not error.began:
                            self._suspects.note(trial)
                        raise
                    trial.outcome = SURVIVED
                    return answer
            async with self._suspects.turn():
                return await self._suspects.send(mark, send)
        except asyncio.TimeoutError:
            raise self._late() from None

    def parts(self, reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Read the body of a reply as it comes; raises EmbedError where it breaks off."""
        return self._connections.parts(reply)

    async def probe(
        self, method: str, path: str, body: bytes | None = None, *, patient: bool = False
    ) -> Reply:
        """Ask about the upstream itself, on a connection of its own; raises EmbedError.

        ``patient`` waits as long as for a batch.
        """
        seconds = None if patient else self._probe_seconds
        session = self._connections.probes
        try:
            return await self._connections.call(session, method, path, body, seconds=seconds)
        except BrokenError as error:
            raise EmbedError(Kind.UNHEALTHY, str(error)) from None

    async def info(self, *, kept: bool) -> bytes:
        """Return the body of ``/info``, by a fresh or a kept connection; raises EmbedError."""
        reply = None
        if kept:
            with suppress(BrokenError):  # then a fresh connection shows whether it is there
                reply = await self._connections.get("/info", seconds=self._probe_seconds)
        reply = reply or await self.probe("GET", "/info")
        if reply.status != 200:
            raise reply.error()
        return reply.body

    async def default_prompt(self, seconds: float) -> list[int]:
        """Return the tokens of a known word where a default prompt stands before it, else [].

        ``/info`` does not show that prompt, but ``/tokenize`` adds it as embedding does. Raises
        EmbedError where the upstream does not answer; one without ``/tokenize`` cannot tell.
        """
        try:
            reply = await self._connections.call(
                self._connections.probes, "POST", "/tokenize", _KNOWN_GOOD, seconds=seconds
            )
        except BrokenError as error:
            raise EmbedError(Kind.UNHEALTHY, str(error)) from None
        if reply.status == 429 or reply.status >= 500:
            raise reply.error()
        try:
            [tokens] = _tokens.decode(reply.body) if reply.status == 200 else [[]]
        except (*_UNREADABLE, ValueError):
            return []
        ends = [token.stop for token in tokens if token.stop is not None]
        has_prompt = bool(ends) and max(ends) > len(_KNOWN_WORD)
        return [token.id for token in tokens] if has_prompt else []

    async def embed_known_good(self) -> Reply:
        """Embed a word that every instance answers; it may wait as long as any other."""
        return await self.probe("POST", "/embed", _KNOWN_GOOD, patient=True)

    async def embed(self, batch: list[Load], params: Params, dimension: int) -> Result:
        """Embed one batch (TEI's limits are the caller's to keep).

        What is sent again is for ``suspects`` to decide.
        What failed has its error among the outcomes; a batch that failed as one has the same for
        every input.
        """
        try:
            for load in batch:
                refuse_too_large(len(load.json), self.payload_limit)
            await self.refuse_unknown_ids(
                [load.json for load in batch if not isinstance(load.item, str)]
            )
            return await self._embed(batch, b"]," + fields_of(params), dimension)
        except EmbedError as error:
            return Result([error] * len(batch), {})
        except asyncio.TimeoutError:
            return Result([self._late()] * len(batch), {})

    async def _embed(self, batch: list[Load], tail: bytes, dimension: int) -> Result:
        outcomes: dict[bytes, bytes | EmbedError] = {}
        headers: Mapping[str, str] = {}
        keys = [load.key for load in batch]
        async with self._suspects.trial(keys) as trial:
            alone = trial.suspects(keys)
            sent = [load for load in batch if load.key not in alone] if alone else batch
            if sent:
                try:
                    result = await self._post(self._connections.post, sent, tail, dimension)
                    trial.outcome = SURVIVED
                    if not alone:
                        return result
                    outcomes.update(zip([load.key for load in sent], result.outcomes, strict=True))
                    headers = result.headers
                except BrokenError:
                    self._suspects.note(trial)
        async with self._suspects.turn():
            for load in batch:
                if load.key in outcomes:
                    continue
                try:
                    send = partial(
                        self._post, self._connections.post_fresh, [load], tail, dimension
                    )
                    result = await self._suspects.send(load.key, send)
                    [outcomes[load.key]] = result.outcomes
                    headers = result.headers
                except EmbedError as error:
                    outcomes[load.key] = error
                    if not error.concerns_inputs:
                        break  # the upstream is away or overloaded: the others would fare no better
        last = outcomes[list(outcomes)[-1]]
        return Result([outcomes.get(key, last) for key in keys], headers)

    async def _post(self, post: Post, batch: list[Load], tail: bytes, dimension: int) -> Result:
        body = b'{"inputs":[' + b",".join([load.json for load in batch]) + tail
        most = len(batch) * (dimension * _NUMBER + _MARGIN) + _MARGIN
        reply = await post("/embed", body, most=most)
        if reply.status != 200:
            raise reply.error()
        outcomes: list[bytes | EmbedError] = []
        # One reply after another: several at once would take each turn together.
        async with self._cutting:
            outcomes += await vectors.cut(reply.body, len(batch), dimension)
        return Result(outcomes, reply.headers)

    async def _known_good(self) -> None:
        reply = await self._connections.call(
            self._connections.probes, "POST", "/embed", _KNOWN_GOOD, seconds=self._probe_seconds
        )
        # What is refused with a reply is none the less answered, by an instance that lives.
        if reply.status >= 500:
            raise reply.error()

    async def decode(self, lists: list[bytes]) -> list[str] | None:
        """Return the text of each list of token ids (JSON), or None where that cannot be known."""
        body = b'{"skip_special_tokens":false,"ids":[' + b",".join(lists) + b"]}"
        try:
            reply = await self._connections.post("/decode", body)
        except BrokenError as error:
            raise EmbedError(Kind.UNHEALTHY, str(error)) from None
        if reply.status in (404, 405):
            return None
        if reply.status != 200:
            raise reply.error()
        try:
            texts = _decoded.decode(reply.body)
        except _UNREADABLE:
            texts = []
        if len(texts) != len(lists):
            raise EmbedError(Kind.BACKEND, "the upstream's /decode sent no text per list of ids")
        return texts

    async def tokenize(self, batch: list[Load]) -> list[int]:
        """Count the tokens of texts: with special ones and the default prompt, and uncut.

        Raises EmbedError.
        """
        body = b'{"inputs":[' + b",".join([load.json for load in batch]) + b"]}"
        seconds, connections = self._probe_seconds, self._connections
        try:
            try:
                reply = await connections.post("/tokenize", body, seconds=seconds)
            except BrokenError:  # a kept connection may end just when it is used again
                reply = await connections.post_fresh("/tokenize", body, seconds=seconds)
        except BrokenError as error:
            raise EmbedError(Kind.UNHEALTHY, str(error)) from None
        if reply.status != 200:
            raise reply.error()
        try:
            counts = [len(tokens) for tokens in _tokenized.decode(reply.body)]
        except _UNREADABLE:
            counts = []
        if len(counts) != len(batch):
            raise EmbedError(Kind.BACKEND, "the upstream's /tokenize sent no tokens per text")
        return counts

    async def refuse_unknown_ids(self, lists: list[bytes]) -> None:
        """Raise EmbedError (Validation) where ids (JSON) decode to nothing: they would kill TEI."""
        if lists and (texts := await self.decode(lists)) is not None and "" in texts:
            raise EmbedError(
                Kind.VALIDATION,
                "Input validation error: these token ids are not of this model's vocabulary; "
                "send text instead (with LangChain's OpenAIEmbeddings: "
                "check_embedding_ctx_length=False)",
            )

    def _late(self) -> EmbedError:
        return EmbedError(
            Kind.UNHEALTHY, f"the upstream at {self._url} did not answer others in time"
        )


def _mark(method: str, url: URL, body: bytes) -> bytes:
    """Name a request that is passed on, to know it again."""
    return hashlib.sha256(f"{method} {url.raw_path_qs}\n".encode() + body).digest()
