"""Indexes a source: reading, embedding and writing at the same time, each at its own pace.

A file's chunks are written together, and what the index had of it before is deleted then: at every
moment, also when it was cancelled, each file is in the index as it was or as it is now.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from itertools import count

from code_search.chunks import Chunk
from code_search.cutter import Cutter
from code_search.endpoint import Endpoint
from code_search.errors import CodeSearchError
from code_search.files import File, Skipped, walk
from code_search.index import Indexes, Place, Point
from code_search.settings import Settings
from code_search.source import Source, open_source
from code_search.together import together
from code_search.words import weights

#: Points written in one call.
_WRITTEN = 256
#: How often progress is shown, in seconds.
_TOLD = 0.2


@dataclass
class Progress:
    """How far indexing is; counts are of chunks where nothing else is said."""

    name: str = ""
    message: str = ""
    files: int = 0
    files_total: int = 0
    chunks: int = 0
    kept: int = 0
    embedded: int = 0
    hits: int = 0
    misses: int = 0
    removed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    done: bool = False
    cancelled: bool = False

    @property
    def chunks_per_second(self) -> float:
        """How many were embedded a second, from the beginning of it until now."""
        return self.embedded / self.seconds if self.seconds else 0.0

    @property
    def hit_rate(self) -> float:
        """Which share of what was embedded came from the endpoint's cache, 0 to 1."""
        return self.hits / self.embedded if self.embedded else 0.0


async def index(
    text: str,
    settings: Settings,
    endpoint: Endpoint,
    indexes: Indexes,
    cancel: asyncio.Event | None = None,
) -> AsyncGenerator[Progress, None]:
    """Index what a text names (see `open_source`), telling how far it is five times a second.

    Setting ``cancel``, or closing the generator, ends it at once. Raises CodeSearchError; what was
    written until then stays.
    """
    run = _Run(settings, endpoint, indexes)
    work = asyncio.create_task(run.whole(text))
    stop = asyncio.create_task((cancel or asyncio.Event()).wait())
    try:
        while not work.done() and not stop.done():
            await asyncio.wait({work, stop}, timeout=_TOLD, return_when=asyncio.FIRST_COMPLETED)
            yield run.progress()
        work.cancel()
        await asyncio.wait({work})
        if not work.cancelled():
            work.result()
            yield run.progress(done=True)
        else:
            yield run.progress(done=True, cancelled=True)
    finally:
        stop.cancel()
        work.cancel()
        await asyncio.wait({work})


@dataclass(eq=False)
class _Job:
    """A file whose chunks are being embedded, and what the index had of it before."""

    chunks: dict[str, Chunk]
    places: dict[str, Place]
    moved: dict[str, Place]
    gone: list[str]
    vectors: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return len(self.vectors) == len(self.chunks)

    def points(self) -> list[Point]:
        return [
            Point(
                identity,
                self.vectors[identity],
                weights(chunk.embedded),
                {
                    **vars(self.places[identity]),
                    "language": chunk.language,
                    "symbol": chunk.symbol,
                    "text": chunk.text,
                },
            )
            for identity, chunk in self.chunks.items()
        ]


class _Run:
    """One indexing."""

    def __init__(self, settings: Settings, endpoint: Endpoint, indexes: Indexes) -> None:
        self._settings = settings
        self._endpoint = endpoint
        self._indexes = indexes
        self._now = Progress()
        self._began = time.monotonic()
        self._ended: float | None = None

    def progress(self, *, done: bool = False, cancelled: bool = False) -> Progress:
        """Return how far it is now."""
        return replace(
            self._now,
            message="cancelled" if cancelled else self._now.message,
            skipped=Counter(self._now.skipped),
            seconds=(self._ended or time.monotonic()) - self._began,
            done=done,
            cancelled=cancelled,
        )

    async def whole(self, text: str) -> None:
        """Open the source and index it."""
        self._now.message = "asking the endpoint"
        model = await self._endpoint.info()
        self._now.message = "opening the source"
        async with open_source(text, self._settings) as source:
            self._now.name = source.name
            collection = await self._indexes.create(source.name, model)
            with self._indexes.writing(collection):
                await self._indexes.describe(collection, complete=False)
                await self._index(source, collection)
                await self._indexes.describe(
                    collection,
                    complete=True,
                    url=source.url,
                    prefix=source.prefix,
                    commit=source.commit,
                )
        self._now.message = "done"
        self._ended = time.monotonic()

    async def _index(self, source: Source, collection: str) -> None:
        self._now.message = "looking at the files"
        before = await self._indexes.places(collection)
        found = await asyncio.to_thread(lambda: list(walk(source, self._settings)))
        files = [one for one in found if isinstance(one, File)]
        self._now.skipped.update(one.reason for one in found if isinstance(one, Skipped))
        self._now.files_total = len(files)
        self._now.message = "indexing"
        self._began = time.monotonic()
        # Bounded, so that reading does not run ahead of what is embedded and written.
        batches: asyncio.Queue[list[tuple[_Job, str]] | None] = asyncio.Queue(
            self._settings.concurrency
        )
        ready: asyncio.Queue[_Job | None] = asyncio.Queue(256)
        async with Cutter(source, self._settings) as cutter:
            await together(
                self._read(source, cutter, files, before, batches, ready),
                self._embed_all(batches, ready),
                self._write(collection, ready),
            )
        # What is left belongs to files that are gone, or are skipped now.
        left = list(before)
        await self._indexes.write(collection, gone=left)
        self._now.removed += len(left)

    async def _read(
        self,
        source: Source,
        cutter: Cutter,
        files: list[File],
        before: dict[str, Place],
        batches: asyncio.Queue[list[tuple[_Job, str]] | None],
        ready: asyncio.Queue[_Job | None],
    ) -> None:
        """Read and cut the files; takes from ``before`` what was seen again."""
        of_file: dict[str, list[str]] = defaultdict(list)
        for identity, place in before.items():
            of_file[place.path].append(identity)
        batch: list[tuple[_Job, str]] = []
        for file in files:
            chunks = await cutter.cut(file)
            if isinstance(chunks, Skipped):
                self._now.skipped[chunks.reason] += 1
                self._now.files_total -= 1
                continue
            self._now.chunks += len(chunks)
            if self._now.chunks > self._settings.max_chunks:
                raise CodeSearchError(
                    f"there are more than {self._settings.max_chunks:,} chunks "
                    "(CODE_SEARCH_MAX_CHUNKS): name a folder below"
                )
            job = self._job(source, identified(chunks), before, of_file[file.shown])
            if job.ready:
                await ready.put(job)
            for identity in job.chunks:
                batch.append((job, identity))
                if len(batch) == self._settings.batch:
                    await batches.put(batch)
                    batch = []
        if batch:
            await batches.put(batch)
        await batches.put(None)

    def _job(
        self,
        source: Source,
        chunks: dict[str, Chunk],
        before: dict[str, Place],
        ids: list[str],
    ) -> _Job:
        known = {identity: before.pop(identity) for identity in ids}
        kept = {identity: one for identity, one in chunks.items() if identity in known}
        moved = {}
        for identity, chunk in kept.items():
            place = _place(source, chunk)
            if place != known[identity]:
                # The same lines of the same file at an earlier commit are as good a link.
                stays = (place.start, place.end) == (known[identity].start, known[identity].end)
                if not stays or not known[identity].commit:
                    moved[identity] = place
        self._now.kept += len(kept)
        new = {identity: one for identity, one in chunks.items() if identity not in known}
        places = {identity: _place(source, chunk) for identity, chunk in new.items()}
        return _Job(new, places, moved, [one for one in ids if one not in chunks])

    async def _embed_all(
        self,
        batches: asyncio.Queue[list[tuple[_Job, str]] | None],
        ready: asyncio.Queue[_Job | None],
    ) -> None:
        await together(*(self._embed(batches, ready) for _ in range(self._settings.concurrency)))
        await ready.put(None)

    async def _embed(
        self,
        batches: asyncio.Queue[list[tuple[_Job, str]] | None],
        ready: asyncio.Queue[_Job | None],
    ) -> None:
        while (batch := await batches.get()) is not None:
            texts = [job.chunks[identity].embedded for job, identity in batch]
            embedded = await self._endpoint.embed(texts)
            self._now.embedded += len(texts)
            self._now.hits += embedded.hits
            self._now.misses += embedded.misses
            for (job, identity), vector in zip(batch, embedded.vectors, strict=True):
                job.vectors[identity] = vector
                if job.ready:
                    await ready.put(job)
        await batches.put(None)  # for the next of us

    async def _write(self, collection: str, ready: asyncio.Queue[_Job | None]) -> None:
        """Write files as they become ready, several at once where they are small."""
        last = False
        while not last:
            jobs: list[_Job] = []
            points: list[Point] = []
            while len(points) < _WRITTEN and not last and not (jobs and ready.empty()):
                job = await ready.get()
                if job is None:
                    last = True
                    continue
                jobs.append(job)
                points += job.points()
            moved = {key: place for job in jobs for key, place in job.moved.items()}
            gone = [identity for job in jobs for identity in job.gone]
            await self._indexes.write(collection, points, moved, gone)
            self._now.files += len(jobs)
            self._now.removed += len(gone)


def identified(chunks: list[Chunk]) -> dict[str, Chunk]:
    """Name chunks by what is embedded of them, so that an unchanged one keeps its name."""
    seen: dict[str, count[int]] = defaultdict(count)
    named = {}
    for chunk in chunks:
        marks = f"{chunk.embedded}\0{next(seen[chunk.embedded])}"
        digest = hashlib.sha256(marks.encode("utf-8", "replace")).digest()
        named[str(uuid.UUID(bytes=digest[:16], version=4))] = chunk
    return named


def _place(source: Source, chunk: Chunk) -> Place:
    return Place(chunk.path, chunk.start, chunk.end, source.commit if chunk.committed else "")
