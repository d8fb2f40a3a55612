"""The parts of the local stack, in the order in which they need each other."""

import asyncio
import errno
import os
import platform
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import aiohttp

from local_stack.run import port, probe
from local_stack.run.child import Child
from local_stack.run.console import Console
from local_stack.run.failure import Failure
from local_stack.run.folder import Folder, default_folder
from local_stack.run.guardian import Guardian
from local_stack.run.settings import Settings

T = TypeVar("T")

# What each part is started as; the tests put their own here.
EMBEDDER = "local_stack.embedder"
STORE = "local_stack.qdrant"
PROXY = "proxy_app"

# Ours, and not to be taken for theirs by the parts.
VARIABLES = ("PORT", "DATA_DIR", "TEI_URL", "QDRANT_URL", "WORKERS", "MODEL_DIR")


class Stack:
    """An embedder, a store and the proxy before them."""

    def __init__(self, settings: Settings, console: Console) -> None:
        """Prepare; nothing is started or touched yet."""
        self._settings = settings
        self._console = console
        self._folder = Folder(settings.data_dir)
        self._children: list[Child] = []
        self._guardian: Guardian | None = None
        self._namespace = ""

    async def run(self) -> None:
        """Start every part, show that they work together, then serve until one of them ends."""
        async with aiohttp.ClientSession() as session:
            await self._prepare(session)
            upstream = await self._start_embedder(session)
            store = await self._start_store(session)
            proxy = await self._start_proxy(session, upstream, store)
            await self._self_test(session)
        self._introduce()
        # Not before, so that no line of the log falls between the steps.
        proxy.echo = True
        raise await self._first_death()

    async def stop(self, hurry: asyncio.Event) -> str:
        """Stop the parts, the last started first, and say which."""
        names = [child.name for child in reversed(self._children)]
        while self._children:
            child = self._children[-1]
            await child.stop(hurry)
            self._children.pop()
            if self._guardian is not None:
                self._guardian.remove(child.group)
        if self._guardian is not None:
            self._guardian.end()
        self._folder.release()
        return ", ".join(names)

    def farewell(self) -> str:
        """What stays behind, and how to be rid of it."""
        settings = self._settings
        if settings.qdrant_url:
            return f"The cache stays in {settings.qdrant_url}."
        ours = settings.data_dir == default_folder()
        clean = "make clean" if ours else f"make clean DATA_DIR={settings.data_dir}"
        return f"The cache stays in {shorten(settings.data_dir)}; `{clean}` drops it."

    async def _prepare(self, session: aiohttp.ClientSession) -> None:
        """Hold the data folder and look at the port before anything is started."""
        self._console.begin("environment")
        if not self._settings.qdrant_url:
            # In a thread, as it may wait for a stack that is just ending.
            await asyncio.to_thread(self._folder.claim, self._settings.url)
        await self._require_port(session)
        self._guardian = Guardian()
        what = f"Python {platform.python_version()}, onnxruntime {version('onnxruntime')}"
        self._console.done("environment", f"{what}, port {self._settings.port} free")

    async def _require_port(self, session: aiohttp.ClientSession) -> None:
        """Refuse a port that another program holds or that the system does not give."""
        number, url = self._settings.port, self._settings.url
        problem = port.trouble(number)
        if problem == errno.EACCES:
            raise Failure(f"PORT={number} needs more rights than yours: try PORT=8080")
        if problem and await probe.is_ours(session, url):
            raise Failure(
                f"Embedrack runs already at {url}: use that one, stop it with Ctrl-C where it "
                f"runs, or start another with `make run PORT={port.free_after(number)}`"
            )
        if problem:
            raise Failure(
                f"port {number} is in use by another program: "
                f"try `make run PORT={port.free_after(number)}`"
            )

    async def _start_embedder(self, session: aiohttp.ClientSession) -> str:
        self._console.begin("embedder")
        if self._settings.tei_url:
            model = await probe.tei_model(session, self._settings.tei_url)
            self._console.done("embedder", f"{model} at {self._settings.tei_url} (TEI_URL)")
            return self._settings.tei_url
        arguments = [EMBEDDER, "--port", "0"]
        if self._settings.model_dir:
            arguments += ["--model-dir", str(self._settings.model_dir)]
        child = await self._start("embedder", arguments)
        said = await child.announcement(timeout_s=120)
        model = str(said["model"])
        self._namespace = f"sha256:{str(said['fingerprint']).removeprefix('sha256:')[:16]}"
        self._console.done("embedder", f"{model}, {said['dimension']} dimensions")
        return str(said["url"])

    async def _start_store(self, session: aiohttp.ClientSession) -> str:
        self._console.begin("store")
        if self._settings.qdrant_url:
            await probe.qdrant_ready(session, self._settings.qdrant_url)
            self._console.done("store", f"Qdrant at {self._settings.qdrant_url} (QDRANT_URL)")
            return self._settings.qdrant_url
        arguments = [STORE, "--data-dir", str(self._folder.store), "--port", "0"]
        child = await self._start("store", arguments)
        said = await child.announcement(timeout_s=60)
        where = shorten(self._settings.data_dir)
        self._console.done("store", f"{entries(said['points'])} in {where}")
        return str(said["url"])

    async def _start_proxy(
        self, session: aiohttp.ClientSession, upstream: str, store: str
    ) -> Child:
        self._console.begin("proxy")
        settings = self._settings
        listen = ["--bind", port.HOST, "--port", str(settings.port)]
        servers = ["--upstream", upstream, "--qdrant", store]
        workers = ["--workers", str(settings.workers)]
        child = await self._start("proxy", [PROXY, "serve", *listen, *servers, *workers])
        child.drain()
        ready = probe.proxy_ready(session, settings.url, timeout_s=60)
        problem = await self._unless_death(ready)
        plural = "" if settings.workers == 1 else "s"
        self._console.done("proxy", f"{settings.url}, {settings.workers} worker{plural}")
        if problem:
            self._console.pair("", f"without its store: {problem}")
        return child

    async def _start(
        self,
        name: str,
        arguments: list[str],
    ) -> Child:
        environment = {key: os.environ[key] for key in os.environ if key not in VARIABLES}
        # A line for a person, for every request; who set them otherwise wants it otherwise.
        environment.setdefault("EMBEDRACK_LOG_SAMPLE", "1")
        environment.setdefault("EMBEDRACK_LOG_FORMAT", "text")
        environment.setdefault("EMBEDRACK_STORE_TIMEOUT", "1")
        if self._namespace:
            environment["EMBEDRACK_NAMESPACE"] = self._namespace
        # Each part holds the folder's lock as well: the next stack waits until all have ended.
        lock = self._folder.lock
        held = () if lock is None else (lock,)
        child = await Child.start(name, arguments, environment, keep_open=held)
        self._children.append(child)
        if self._guardian is not None:
            self._guardian.add(child.group)
        return child

    async def _self_test(self, session: aiohttp.ClientSession) -> None:
        self._console.begin("self-test")
        url = self._settings.url
        first = await self._unless_death(probe.embed(session, url))
        again = await self._unless_death(probe.embed(session, url))
        if first.vector != again.vector:
            raise Failure("the self-test's text was embedded twice, with different floats")
        floats = f"the same {len(first.vector)} floats"
        self._console.done("self-test", f"{first}, then {again}, {floats}")

    def _introduce(self) -> None:
        """Show where everything is, and a line to try it with."""
        say, pair, url = self._console.say, self._console.pair, self._settings.url
        say()
        pair("embed", f"{url}/embed")
        pair("OpenAI", f"{url}/v1/embeddings")
        pair("model", f"{url}/info")
        pair("health", f"{url}/readyz")
        pair("status", f"{url}/status")
        pair("metrics", f"{url}/metrics")
        say()
        body = '{"inputs": "What is a rack?"}'
        say(f"    curl {url}/embed -H 'Content-Type: application/json' -d '{body}'")
        say()
        say("Ready: a line for each request follows; Ctrl-C stops everything.")

    async def _unless_death(self, work: Coroutine[None, None, T]) -> T:
        """The work's result, unless one of the parts ends before."""
        death = asyncio.create_task(self._first_death())
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((death, task), return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                raise death.result()
            return task.result()
        finally:
            for started in (death, task):
                started.cancel()
            await asyncio.gather(death, task, return_exceptions=True)

    async def _first_death(self) -> Failure:
        """Wait until a part ends, and say which."""
        tasks = [asyncio.create_task(child.death()) for child in self._children]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def entries(points: object) -> str:
    """How many cached embeddings the store found, for a person."""
    if not isinstance(points, int) or points == 0:
        return "no entries yet"
    return f"{points:,} entr{'y' if points == 1 else 'ies'}"


def shorten(path: Path) -> str:
    """The path as a person writes it."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
