"""The embeddings endpoint: TEI's ``/info`` and ``/embed``, and ``X-Cache`` of a caching proxy."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from code_search.errors import EndpointError
from code_search.settings import Settings
from code_search.together import together

#: What says "not now": of the proxy, TEI, and balancers before them.
_LATER = (429, 502, 503, 504)
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 10.0
#: Seconds for what somebody waits for in front of a page.
_ASK_PATIENCE = 5.0
_TIMEOUT = aiohttp.ClientTimeout(total=120, connect=10)
_COUNTS = re.compile(r"hits=(\d+); misses=(\d+)")


@dataclass(frozen=True)
class Model:
    """What an endpoint serves. ``namespace`` changes with all that changes a vector."""

    model_id: str
    dimension: int
    namespace: str

    @property
    def fingerprint(self) -> str:
        """Tell this model from every other, in 12 hex digits."""
        marks = json.dumps([self.model_id, self.dimension, self.namespace])
        return hashlib.sha256(marks.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Embedded:
    """A vector for each text, and how many of them came from the endpoint's cache."""

    vectors: list[list[float]]
    hits: int
    misses: int


class Endpoint:
    """One endpoint, asked by few at once; what it refuses for now is sent again."""

    def __init__(self, settings: Settings) -> None:
        """Prepare to ask ``settings.endpoint``; nothing is sent yet."""
        self._url = settings.endpoint.rstrip("/")
        self._headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._batch = settings.batch
        self._patience = settings.patience
        self._concurrency = settings.concurrency
        self._session: aiohttp.ClientSession | None = None
        self._permits: asyncio.Semaphore | None = None

    async def __aenter__(self) -> Endpoint:
        """Open the connections' pool, in the loop that uses it."""
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            timeout=_TIMEOUT,
            connector=aiohttp.TCPConnector(limit=self._concurrency + 1),
        )
        self._permits = asyncio.Semaphore(self._concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()

    async def info(self) -> Model:
        """Ask what is served. Raises EndpointError."""
        info, _ = await self._ask("GET", "/info", None, min(_ASK_PATIENCE, self._patience))
        if not (isinstance(info, dict) and isinstance(info.get("model_id"), str)):
            raise EndpointError(f"{self._url}/info is not an embeddings endpoint's")
        most = info.get("max_client_batch_size")
        if isinstance(most, int) and most > 0:
            self._batch = min(self._batch, most)
        own = info.get("embedrack")
        if isinstance(own, dict) and isinstance(own.get("dimension"), int):
            return Model(info["model_id"], own["dimension"], json.dumps(own.get("namespace")))
        marks = {
            name: info.get(name)
            for name in ("model_sha", "model_dtype", "model_type", "max_input_length", "version")
        }
        embedded = await self.embed(["dimension"])
        return Model(info["model_id"], len(embedded.vectors[0]), json.dumps(marks, sort_keys=True))

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts of any number; what the model does not read of a long one is left out.

        Raises EndpointError when a batch fails, or is still refused after ``patience`` seconds.
        """
        batches = [texts[at : at + self._batch] for at in range(0, len(texts), self._batch)]
        parts = await together(*map(self._embed, batches))
        return Embedded(
            [vector for part in parts for vector in part.vectors],
            sum(part.hits for part in parts),
            sum(part.misses for part in parts),
        )

    async def _embed(self, texts: Sequence[str]) -> Embedded:
        try:
            vectors, headers = await self._ask(
                "POST", "/embed", {"inputs": list(texts), "truncate": True}, self._patience
            )
        except _TooLarge:
            if len(texts) == 1:
                raise
            half = len(texts) // 2
            former, latter = await self._embed(texts[:half]), await self._embed(texts[half:])
            return Embedded(
                former.vectors + latter.vectors,
                former.hits + latter.hits,
                former.misses + latter.misses,
            )
        if not _are_vectors(vectors, len(texts)):
            raise EndpointError(f"{self._url}/embed did not answer one vector per text")
        counts = _COUNTS.search(headers.get("X-Cache", ""))
        hits, misses = (int(counts[1]), int(counts[2])) if counts else (0, len(texts))
        return Embedded(vectors, hits, misses)

    async def _ask(
        self, method: str, path: str, body: object, patience: float
    ) -> tuple[Any, Mapping[str, str]]:
        """Send a request until it is answered; gives the JSON and headers."""
        if self._session is None or self._permits is None:
            raise RuntimeError("the endpoint is used outside `async with`")
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        wait = _FIRST_WAIT
        while True:
            asked = 0.0
            try:
                async with (
                    self._permits,
                    self._session.request(
                        method, self._url + path, json=body, allow_redirects=False
                    ) as reply,
                ):
                    if reply.status == 200:
                        return await reply.json(content_type=None), reply.headers
                    problem = f"{reply.status}: {await _problem(reply)}"
                    if reply.status == 413:
                        raise _TooLarge(f"{self._url}{path} answered {problem}")
                    if reply.status not in _LATER:
                        raise EndpointError(f"{self._url}{path} answered {problem}")
                    asked = _seconds(reply.headers.get("Retry-After", ""))
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
                raise EndpointError(
                    f"{self._url!r} is no address of an endpoint: http://host:port is wanted"
                ) from None
            except ValueError:
                raise EndpointError(f"{self._url}{path} did not answer JSON") from None
            except aiohttp.ClientError as error:
                problem = str(getattr(error, "os_error", error)) or type(error).__name__
            except asyncio.TimeoutError:
                problem = "no answer in time"
            pause = max(asked, wait * random.uniform(0.75, 1.25))
            if loop.time() + pause > end:
                raise EndpointError(
                    f"{self._url} could not be had for {patience:g} s ({problem}): "
                    "does it run? `make run` starts one"
                )
            await asyncio.sleep(pause)
            wait = min(2 * wait, _LONGEST_WAIT)


class _TooLarge(EndpointError):
    """The body is larger than the endpoint takes."""


async def _problem(reply: aiohttp.ClientResponse) -> str:
    """Return an error's own sentence, as far as it is one."""
    text = (await reply.content.read(2000)).decode("utf-8", "replace")
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if isinstance(content, dict):
        text = str(content.get("error") or content.get("message") or text)
    return " ".join(text.split())[:300] or (reply.reason or "no reason given")


def _seconds(header: str) -> float:
    """Read ``Retry-After`` in seconds; a date, or nonsense, counts as none."""
    return min(float(header), 3600.0) if header.isdecimal() else 0.0


def _are_vectors(reply: object, count: int) -> bool:
    return (
        isinstance(reply, list)
        and len(reply) == count
        and all(
            isinstance(one, list)
            and one
            and len(one) == len(reply[0])
            and all(isinstance(number, (float, int)) for number in one)
            and math.isfinite(sum(one))
            for one in reply
        )
    )
