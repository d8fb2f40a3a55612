"""What the upstream serves: read from TEI's ``/info``, watched, and made into the namespace.

An ``/embed`` reply names no model, so nothing in it tells that TEI came back with another one, and
behind a balancer the instance can change while the connection to it stays. So before replies are
filed, ``/info`` is read again, after they came (``confirm``); one such read serves all who began to
wait before it began. Only where the balancer leads to instances of one namespace alone
(``Instances.is_pinned``) is that left out, unless a new connection was made.

``/info`` does not tell the dimension. A word is embedded to learn it, once a model, since under
load that word waits in TEI's queue like any other; and again when a reply's vectors look wrong.
Nor does it tell the default prompt: the same word's tokens do, which are asked for at each look and
after each new connection.

A restart finds both in a record, so that it need not wait until TEI embeds. Where the namespace is
pinned the record names the model until ``/info`` does, else only what ``/info`` says counts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import orjson

from proxy_app.entries import vectors
from proxy_app.entries.identity import Identity, namespace_of
from proxy_app.errors import EmbedError, Kind
from proxy_app.settings import Settings
from proxy_app.upstream import record
from proxy_app.upstream.client import Upstream
from proxy_app.upstream.record import Record

log = logging.getLogger("embedrack")

#: Seconds between two looks at the upstream.
POLL = 2.0
#: Seconds for which a dimension that was measured is beyond doubt.
SETTLED = 1.0
#: Seconds for the reply that shows the default prompt: of a new model, and of a known one.
_NEW_PROMPT, _PROMPT = 10.0, 1.0
#: Seconds for which it is not asked for after that failed.
_PROMPT_PAUSE = 30.0


async def _nothing(_: Identity) -> None:
    """Prepare nothing."""


class Model:
    """The upstream's present identity, or why there is none.

    ``prepare`` is awaited with a new identity before anybody is answered in its name.
    """

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        prepare: Callable[[Identity], Awaitable[None]] = _nothing,
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._prepare = prepare
        self._identity: Identity | None = None
        self._confirmed = -1
        self._info = b""
        self._prompt: list[int] = []
        self._prompt_failed = -_PROMPT_PAUSE
        self._record = record.read(settings)
        if self._record is not None:
            self._recall(self._record)
        # When the dimension was measured: connections made until then, and the clock.
        self._measured = (-1, 0.0)
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None  # a read that has not begun
        self._looked = asyncio.Event()
        self.healthy = False
        self.problem = "the upstream has not been asked yet"

    @property
    def identity(self) -> Identity | None:
        """The identity last seen; it stays while the upstream is away, so hits are answered."""
        return self._identity

    @property
    def state(self) -> str:
        """Say how the identity is known: ``unknown``, ``remembered`` or ``confirmed``."""
        if self._identity is None:
            return "unknown"
        return "confirmed" if self._confirmed >= 0 else "remembered"

    def _recall(self, record: Record) -> None:
        """Take the model of before the restart for granted as far as the namespace is pinned."""
        self._info = record.info.encode()
        self._prompt = record.prompt
        self._upstream.instances.read()
        if self._upstream.instances.is_pinned:
            info = orjson.loads(self._info)
            namespace = namespace_of(info, record.dimension, record.word, record.prompt)
            self._identity = Identity(info, namespace, record.dimension)

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
        """Tell whether the replies that have come so far are of ``identity``.

        Raises EmbedError where the upstream cannot be asked.
        """
        if self._upstream.instances.is_pinned and self._is_confirmed:
            return self._is(identity)
        if self._next is None:
            self._next = asyncio.create_task(self._read_in_turn())
            self._next.add_done_callback(_see)
        try:
            await asyncio.shield(self._next)
        except EmbedError as error:
            raise error.again() from None
        return self._is(identity)

    async def _read_in_turn(self) -> None:
        async with self._lock:
            self._next = None  # whoever asks from here on needs another read
            await self._read(quick=self._is_confirmed)

    async def doubt(self, identity: Identity) -> bool:
        """Tell the same after a reply whose vectors looked wrong: is it still the dimension?"""
        needed = self._upstream.connections
        async with self._lock:
            connections, clock = self._measured
            if connections < needed or time.monotonic() > clock + SETTLED:
                await self._read(measure=True)
        return self._is(identity)

    @property
    def _is_confirmed(self) -> bool:
        """Whether no connection was made since ``/info`` was last read by a fresh one."""
        return self._confirmed == self._upstream.connections

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

    async def _read(self, *, quick: bool = False, measure: bool = False) -> None:
        """Read ``/info`` and the default prompt; ``quick``: ``/info`` alone, by a kept connection.

        A process cannot change behind an open connection, but the instance behind a balancer can.
        """
        count = self._upstream.connections
        body = await self._upstream.info(kept=quick)
        if quick and body == self._info:
            return
        try:
            info = orjson.loads(body)
        except orjson.JSONDecodeError:
            info = None
        if not isinstance(info, dict) or "model_id" not in info:
            raise EmbedError(
                Kind.BACKEND,
                "the upstream's /info is not TEI's; does EMBEDRACK_UPSTREAM_URL lead to a TEI?",
            )
        await self._read_prompt(is_new=body != self._info)
        former, word = self._identity, self._settings.namespace
        dimension = former.dimension if former else self._recorded_dimension(body)
        namespace = namespace_of(info, dimension, word, self._prompt)
        known = namespace == former.namespace if former else bool(dimension)
        if measure or not known:
            dimension = await self._measure()
            self._measured = (count, time.monotonic())
            namespace = namespace_of(info, dimension, word, self._prompt)
        identity = Identity(info, namespace, dimension)
        is_new = former is None or former.namespace != namespace
        if is_new:
            await self._prepare(identity)
        self._identity = identity
        self._info = body
        self._confirmed = count
        self._keep_record()
        if is_new:
            log.info(
                "model: %s, dimension %d, collection %s",
                info["model_id"],
                dimension,
                identity.collection(self._settings.qdrant_collection),
            )

    def _recorded_dimension(self, info: bytes) -> int:
        """Return the dimension that was measured before the restart, 0 where it was not."""
        known = self._record is not None and self._record.info.encode() == info
        return self._record.dimension if self._record and known else 0

    def _keep_record(self) -> None:
        """Write down what is known for the next start, where it has changed."""
        assert self._identity is not None
        settings = self._settings
        latest = Record(
            settings.upstream_url,
            settings.namespace,
            self._info.decode(),
            self._prompt,
            self._identity.dimension,
        )
        if latest != self._record:
            self._record = latest
            record.write(settings, latest)

    async def _read_prompt(self, *, is_new: bool) -> None:
        """Read the default prompt; raises EmbedError where that fails for a model that is new.

        Of a known one it stays as it was, and is not asked for again at once.
        """
        if not is_new and time.monotonic() < self._prompt_failed + _PROMPT_PAUSE:
            return
        try:
            seconds = _NEW_PROMPT if is_new else _PROMPT
            self._prompt = await self._upstream.default_prompt(seconds)
        except EmbedError:
            self._prompt_failed = time.monotonic()
            if is_new:
                raise

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


def _see(task: asyncio.Task[None]) -> None:
    """Take note of a task's error: perhaps nobody waits for it any more, and that is no fault."""
    if not task.cancelled():
        task.exception()
