"""What the upstream serves: read from TEI's ``/info``, watched, and made into the namespace.

An ``/embed`` reply names no model, so nothing in it tells that TEI came back with another one. A
process cannot change behind an open connection, though: whenever a connection to the upstream was
made since ``/info`` was last read, it is read again before a reply is filed (``confirm``).

``/info`` does not tell the dimension. A word is embedded to learn it, once a model, since under
load that word waits in TEI's queue like any other; and again when a reply's vectors look wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time

import orjson

from proxy_app.entries import vectors
from proxy_app.entries.identity import Identity, namespace_of
from proxy_app.errors import EmbedError, Kind
from proxy_app.settings import Settings
from proxy_app.upstream.client import Upstream

log = logging.getLogger("embedrack")

#: Seconds between two looks at the upstream.
POLL = 2.0
#: Seconds for which a dimension that was measured is beyond doubt.
SETTLED = 1.0


class Model:
    """The upstream's present identity, or why there is none."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        self._settings = settings
        self._upstream = upstream
        self._identity: Identity | None = None
        self._confirmed = -1
        # When the dimension was measured: connections made until then, and the clock.
        self._measured = (-1, 0.0)
        self._lock = asyncio.Lock()
        self._looked = asyncio.Event()
        self.healthy = False
        self.problem = "the upstream has not been asked yet"

    @property
    def identity(self) -> Identity | None:
        """The identity last seen; it stays while the upstream is away, so hits are answered."""
        return self._identity

    def require(self) -> Identity:
        """Return the identity, or raise EmbedError (Unhealthy) with the reason."""
        if self._identity is None:
            raise EmbedError(Kind.UNHEALTHY, f"no model yet: {self.problem}")
        return self._identity

    async def present(self) -> Identity:
        """Return the identity once the first look has ended, or raise EmbedError with the reason.

        A worker that starts under load gets its answer late, not never.
        """
        if self._identity is None:
            await self._looked.wait()
        return self.require()

    async def confirm(self, identity: Identity) -> bool:
        """Tell whether replies over all connections made so far came from ``identity``.

        Raises EmbedError where the upstream cannot be asked.
        """
        needed = self._upstream.connections
        while self._confirmed < needed:
            async with self._lock:
                if self._confirmed < needed:
                    await self._read()
        return self._is(identity)

    async def doubt(self, identity: Identity) -> bool:
        """Tell the same after a reply whose vectors looked wrong: is it still the dimension?"""
        needed = self._upstream.connections
        async with self._lock:
            connections, clock = self._measured
            if connections < needed or time.monotonic() > clock + SETTLED:
                await self._read(measure=True)
        return self._is(identity)

    def _is(self, identity: Identity) -> bool:
        return self._identity is not None and self._identity.namespace == identity.namespace

    async def watch(self) -> None:
        """Look at the upstream for ever; run as a task."""
        while True:
            await self.look()
            await asyncio.sleep(POLL if self._identity else POLL / 8)

    async def look(self) -> None:
        """Read the model and its health once; failures become ``problem``."""
        try:
            async with self._lock:
                await self._read()
            reply = await self._upstream.probe("GET", "/health")
            problem = "" if reply.status == 200 else f"the upstream's /health says {reply.status}"
        except EmbedError as error:
            problem = error.message
        if problem != self.problem:
            if problem:
                log.warning("upstream: %s", problem)
            else:
                log.info("upstream: healthy")
        self.problem = problem
        self.healthy = not problem
        self._looked.set()

    async def _read(self, *, measure: bool = False) -> None:
        count = self._upstream.connections
        reply = await self._upstream.probe("GET", "/info")
        if reply.status != 200:
            raise reply.error()
        try:
            info = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            info = None
        if not isinstance(info, dict) or "model_id" not in info:
            raise EmbedError(
                Kind.BACKEND,
                "the upstream's /info is not TEI's; does EMBEDRACK_UPSTREAM_URL lead to a TEI?",
            )
        former, word = self._identity, self._settings.namespace
        dimension = former.dimension if former else 0
        known = former is not None and namespace_of(info, dimension, word) == former.namespace
        if measure or not known:
            dimension = await self._measure()
            self._measured = (count, time.monotonic())
        namespace = namespace_of(info, dimension, word)
        self._identity = Identity(info, namespace, dimension)
        self._confirmed = count
        if former is None or former.namespace != namespace:
            log.info(
                "model: %s, dimension %d, collection %s",
                info["model_id"],
                dimension,
                self._identity.collection(self._settings.qdrant_collection),
            )

    async def _measure(self) -> int:
        """Embed a word to learn the dimension; it may wait as long as any other."""
        reply = await self._upstream.embed_known_good()
        if reply.status != 200:
            raise reply.error()
        [vector] = await vectors.cut(reply.body, 1, 0)
        dimension = vectors.dimension_of(vector)
        if self._settings.dimension not in (0, dimension):
            raise EmbedError(
                Kind.BACKEND,
                f"EMBEDRACK_DIMENSION is {self._settings.dimension}, but the model's vectors "
                f"have {dimension} numbers; correct one of them",
            )
        return dimension
