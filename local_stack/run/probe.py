"""Questions to the parts over HTTP, each with an answer that a person understands."""

import asyncio
import json
import time
from typing import NamedTuple

import aiohttp

from local_stack.run.failure import Failure

TIMEOUT_S = 5.0
STORE_S = 10.0
SELF_TEST = "embedrack answers the same text with the same floats"


async def tei_model(session: aiohttp.ClientSession, url: str) -> str:
    """The model that the server behind TEI_URL runs."""
    status, body = await ask(session, f"{url}/info", f"TEI_URL={url}")
    try:
        model = json.loads(body)["model_id"]
    except (ValueError, KeyError, TypeError):
        model = None
    if status != 200 or not isinstance(model, str):
        raise Failure(
            f"TEI_URL={url} answers, but not as text-embeddings-inference does (GET /info gave "
            f"{status}): give that server's address, or leave TEI_URL out"
        )
    return model


async def qdrant_ready(session: aiohttp.ClientSession, url: str) -> None:
    """Make sure that the server behind QDRANT_URL is a Qdrant that is ready."""
    status, _ = await ask(session, f"{url}/readyz", f"QDRANT_URL={url}")
    if status != 200:
        raise Failure(
            f"QDRANT_URL={url} answers, but not as a Qdrant that is ready (GET /readyz gave "
            f"{status}): give Qdrant's HTTP address (port 6333 by default), or leave QDRANT_URL out"
        )


async def ask(session: aiohttp.ClientSession, url: str, variable: str) -> tuple[int, bytes]:
    """The status and body of a GET to a server that the person named."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as answer:
            return answer.status, await answer.read()
    except asyncio.TimeoutError:
        why = f"no answer in {TIMEOUT_S:.0f} s"
    except aiohttp.ClientError as error:
        why = str(error)
    name = variable.split("=")[0]
    raise Failure(
        f"{variable} cannot be reached ({why}): start that server, correct the address, "
        f"or leave {name} out to have `make run` start its own"
    )


async def proxy_ready(session: aiohttp.ClientSession, url: str, timeout_s: float) -> str:
    """Wait until the proxy can serve and has its store; what ails the store if it has not."""
    began = time.monotonic()
    last = "no answer"
    while (waited := time.monotonic() - began) < timeout_s:
        try:
            async with session.get(f"{url}/readyz") as answer:
                last = await answer.text()
                store = json.loads(last)["store"] if answer.status == 200 else ""
        except (aiohttp.ClientError, ValueError, KeyError) as error:
            last, store = str(error), ""
        # The proxy also serves without its store, which has had its time.
        if store == "ok" or (store and waited > STORE_S):
            return "" if store == "ok" else str(store)
        await asyncio.sleep(0.05)
    raise Failure(f"the proxy was not ready in {timeout_s:.0f} s: {last[:300]}")


class Embedded(NamedTuple):
    """An embedding of the self-test's text, the cache's word on it, and the seconds it took."""

    vector: list[float]
    word: str
    seconds: float

    def __str__(self) -> str:
        """Say how it came, for a person."""
        return f"{self.word} {self.seconds * 1e3:.1f} ms"


async def embed(session: aiohttp.ClientSession, url: str) -> Embedded:
    """Embed the self-test's text through the proxy."""
    began = time.monotonic()
    async with session.post(f"{url}/embed", json={"inputs": SELF_TEST}) as answer:
        text = await answer.text()
        seconds = time.monotonic() - began
        # For example `hit; hits=1; misses=0`.
        word = answer.headers.get("X-Cache", "").partition(";")[0]
    try:
        vector = json.loads(text)[0]
    except (ValueError, KeyError, IndexError):
        vector = None
    if answer.status != 200 or not isinstance(vector, list):
        raise Failure(f"the self-test's text was not embedded: {answer.status} {text[:300]}")
    return Embedded(vector, word, seconds)


async def is_ours(session: aiohttp.ClientSession, url: str) -> bool:
    """Whether the program that answers at this address is an Embedrack proxy."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(1)) as answer:
            return b"Embedrack" in await answer.content.read(1000)
    except (asyncio.TimeoutError, aiohttp.ClientError):
        return False
