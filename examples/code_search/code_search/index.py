"""The indexes: in Qdrant, a collection for each repository and model.

Qdrant is the client's own embedded engine in a folder, or a server; the client has one API for
both. Its calls block, so that they are made one after another in a thread of their own.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar
from urllib.parse import quote

from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from code_search.endpoint import Model
from code_search.errors import StoreError
from code_search.settings import Settings

_Answer = TypeVar("_Answer")

_KIND = "embedrack-code-search"
_PREFIX = "code-"
_DENSE, _WORDS = "dense", "words"
_PAGE = 1000
_MAX_PATHS = 100_000
_TIMEOUT = 30


@dataclass(frozen=True)
class Stored:
    """An index: of which source, by which model; ``complete`` once it was indexed to its end."""

    collection: str
    name: str
    url: str
    prefix: str
    commit: str
    model_id: str
    dimension: int
    fingerprint: str
    complete: bool
    updated: str
    chunks: int

    def of(self, model: Model) -> bool:
        """Say whether this model's vectors can be searched in it."""
        return self.fingerprint == model.fingerprint


@dataclass(frozen=True)
class Point:
    """A chunk as it is stored: its id is made of path and text, so that equal ones are kept."""

    id: str
    dense: list[float]
    words: Mapping[int, float]
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a stored chunk is: what changes when only lines above it do."""

    path: str
    start: int
    end: int
    commit: str


@dataclass(frozen=True)
class Found:
    """A chunk that a query found, with the score of the one vector that was asked."""

    id: str
    score: float
    payload: Mapping[str, Any]


class Indexes:
    """All indexes of one Qdrant. Opening it deletes nothing."""

    def __init__(self, settings: Settings) -> None:
        """Prepare to open the server or the folder that the settings name."""
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="qdrant")
        self._client: QdrantClient | None = None
        self._busy: set[str] = set()

    async def __aenter__(self) -> Indexes:
        """Open it. Raises StoreError, also where another process has the folder."""
        try:
            self._client = await self._run(self._open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self) -> None:
        """Close it, after the call that is under way; once is enough."""
        client, self._client = self._client, None
        if client:
            await self._run(client.close)
        self._thread.shutdown()

    async def stored(self) -> list[Stored]:
        """Return every index, by name."""
        return sorted(await self._run(self._all), key=lambda one: (one.name, one.collection))

    async def find(self, name: str, model: Model) -> Stored:
        """Return a source's index by this model. Raises StoreError if there is none."""
        others = [one for one in await self.stored() if one.name == name]
        for one in others:
            if one.of(model):
                return one
        if others:
            raise StoreError(
                f"the index of {name} was made with {others[0].model_id} "
                f"({others[0].dimension} dimensions) and the endpoint now serves "
                f"{model.model_id} ({model.dimension}) or another build of it: index it again"
            )
        raise StoreError(f"{name} is not indexed yet")

    async def create(self, name: str, model: Model) -> str:
        """Return the collection of a source and model, made where it is not there yet."""
        collection = collection_of(name, model)
        await self._run(self._create, collection, name, model)
        return collection

    async def drop(self, collection: str) -> None:
        """Delete an index. Raises StoreError while it is being written."""
        with self.writing(collection):
            await self._run(self._qdrant.delete_collection, collection)

    @contextmanager
    def writing(self, collection: str) -> Iterator[None]:
        """Keep others from writing or dropping a collection. Raises StoreError if they do."""
        if collection in self._busy:
            raise StoreError("this index is being written at the moment")
        self._busy.add(collection)
        try:
            yield
        finally:
            self._busy.discard(collection)

    async def describe(self, collection: str, **marks: object) -> None:
        """Note something about an index, such as its commit, beside what was noted before."""
        metadata = {**marks, "updated": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        await self._run(lambda: self._qdrant.update_collection(collection, metadata=metadata))

    async def places(self, collection: str) -> dict[str, Place]:
        """Return where every stored chunk is, by id."""
        return await self._run(self._places, collection)

    async def write(
        self,
        collection: str,
        points: Sequence[Point] = (),
        moved: Mapping[str, Place] | None = None,
        gone: Sequence[str] = (),
    ) -> None:
        """Store points, note new places of others, and delete what is gone, in this order.

        When it returns it is kept; a cancelled caller's call still ends. Raises StoreError.
        """
        await self._run(self._write, collection, points, moved or {}, gone)

    async def query(
        self,
        collection: str,
        vector: Sequence[float] | Mapping[int, float],
        condition: models.Filter | None,
        limit: int,
    ) -> list[Found]:
        """Return the chunks nearest to a dense vector, or those with a sparse one's words."""
        return await self._run(self._query, collection, vector, condition, limit)

    async def condition(
        self, collection: str, languages: Sequence[str] = (), path: str = ""
    ) -> models.Filter | None:
        """Return what limits a query to languages and paths; None for everything.

        A path with ``*``, ``?`` or ``[`` is a glob of the whole path, where ``*`` also stands for
        ``/``; else it is how paths begin.
        """
        wanted: list[models.Condition] = []
        if languages:
            wanted.append(_any_of("language", list(languages)))
        if path:
            paths = [one for one in await self.values(collection, "path") if _matches(one, path)]
            wanted.append(_any_of("path", paths))
        return models.Filter(must=wanted) if wanted else None

    async def values(self, collection: str, key: str) -> dict[str, int]:
        """Count an index's chunks by ``language`` or ``path``."""
        counts = await self._run(
            lambda: self._qdrant.facet(collection, key=key, limit=_MAX_PATHS, exact=True)
        )
        return {str(hit.value): hit.count for hit in counts.hits}

    @property
    def _qdrant(self) -> QdrantClient:
        if self._client is None:
            raise RuntimeError("the indexes are used outside `async with`")
        return self._client

    async def _run(self, call: Callable[..., _Answer], *arguments: Any) -> _Answer:
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._thread, self._translated, call, *arguments)
        return await asyncio.shield(work)

    def _translated(self, call: Callable[..., _Answer], *arguments: Any) -> _Answer:
        try:
            return call(*arguments)
        except (ApiException, QdrantException, sqlite3.Error, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise StoreError(f"Qdrant at {self._where}: {reason}") from error

    @property
    def _where(self) -> str:
        return self._settings.qdrant or str(self._settings.folder / "qdrant")

    def _open(self) -> QdrantClient:
        if self._settings.qdrant:
            key = self._settings.qdrant_api_key or None
            client = QdrantClient(
                url=self._settings.qdrant,
                api_key=key,
                timeout=_TIMEOUT,
                check_compatibility=False,  # it would ask in a thread of its own
            )
            client.get_collections()
            return client
        folder = self._settings.folder / "qdrant"
        folder.mkdir(parents=True, exist_ok=True)
        # It warns at 20,000 points that a server would be faster; the README tells it.
        warnings.filterwarnings("ignore", "Local mode is not recommended", UserWarning)
        try:
            return QdrantClient(path=str(folder), force_disable_check_same_thread=True)
        except RuntimeError as error:
            if "already accessed" not in str(error):
                raise
            raise StoreError(
                f"another process has the indexes in {folder} open: end it, name another folder "
                "with CODE_SEARCH_DATA_DIR, or a server with CODE_SEARCH_QDRANT"
            ) from None

    def _all(self) -> list[Stored]:
        found = []
        for described in self._qdrant.get_collections().collections:
            if not described.name.startswith(_PREFIX):
                continue
            stored = self._stored(described.name)
            if stored:
                found.append(stored)
        return found

    def _stored(self, collection: str) -> Stored | None:
        info = self._qdrant.get_collection(collection)
        marks = info.config.metadata or {}
        if marks.get("kind") != _KIND:
            return None
        return Stored(
            collection=collection,
            name=str(marks.get("name", "")),
            url=str(marks.get("url", "")),
            prefix=str(marks.get("prefix", "")),
            commit=str(marks.get("commit", "")),
            model_id=str(marks.get("model_id", "")),
            dimension=int(marks.get("dimension", 0)),
            fingerprint=str(marks.get("fingerprint", "")),
            complete=bool(marks.get("complete")),
            updated=str(marks.get("updated", "")),
            chunks=info.points_count or 0,
        )

    def _create(self, collection: str, name: str, model: Model) -> None:
        if self._qdrant.collection_exists(collection):
            return
        self._qdrant.create_collection(
            collection,
            vectors_config={
                _DENSE: models.VectorParams(size=model.dimension, distance=models.Distance.COSINE)
            },
            sparse_vectors_config={_WORDS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            metadata={
                "kind": _KIND,
                "name": name,
                "model_id": model.model_id,
                "dimension": model.dimension,
                "fingerprint": model.fingerprint,
                "complete": False,
            },
        )
        if not self._settings.qdrant:
            self._hasten(collection)
        else:  # the embedded engine has no such indexes
            for key in ("path", "language"):
                self._qdrant.create_payload_index(
                    collection, key, field_schema=models.PayloadSchemaType.KEYWORD
                )

    def _hasten(self, collection: str) -> None:
        """Have the embedded engine's file written by a log: it commits every point on its own.

        As safe, and five times as fast (measured: 0.3 ms in place of 1.5); the file remembers it.
        """
        file = self._settings.folder / "qdrant" / "collection" / collection / "storage.sqlite"
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)) as storage:
            storage.execute("PRAGMA journal_mode=WAL")

    def _places(self, collection: str) -> dict[str, Place]:
        found = {}
        offset = None
        while True:
            records, offset = self._qdrant.scroll(
                collection,
                limit=_PAGE,
                offset=offset,
                with_payload=["path", "start", "end", "commit"],
                with_vectors=False,
            )
            for record in records:
                found[str(record.id)] = Place(**(record.payload or {}))
            if offset is None:
                return found

    def _write(
        self,
        collection: str,
        points: Sequence[Point],
        moved: Mapping[str, Place],
        gone: Sequence[str],
    ) -> None:
        if points:
            self._qdrant.upsert(collection, list(map(_struct, points)), wait=True)
        if moved:
            self._qdrant.batch_update_points(
                collection,
                [
                    models.SetPayloadOperation(
                        set_payload=models.SetPayload(payload=vars(place), points=[identity])
                    )
                    for identity, place in moved.items()
                ],
                wait=True,
            )
        if gone:
            selector = models.PointIdsList(points=list(gone))
            self._qdrant.delete(collection, points_selector=selector, wait=True)

    def _query(
        self,
        collection: str,
        vector: Sequence[float] | Mapping[int, float],
        condition: models.Filter | None,
        limit: int,
    ) -> list[Found]:
        sparse = isinstance(vector, Mapping)
        answer = self._qdrant.query_points(
            collection,
            query=_sparse(vector) if isinstance(vector, Mapping) else list(vector),
            using=_WORDS if sparse else _DENSE,
            query_filter=condition,
            limit=limit,
            with_payload=True,
        )
        return [Found(str(one.id), one.score, one.payload or {}) for one in answer.points]


def collection_of(name: str, model: Model) -> str:
    """Name the collection of a source and model: readable, and different for different ones."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-40:]
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{_PREFIX}{readable}-{digest}-{model.fingerprint}"


def only(ids: Sequence[str]) -> models.Filter:
    """Return what limits a query to these chunks."""
    return models.Filter(must=[models.HasIdCondition(has_id=list(ids))])


def _struct(point: Point) -> models.PointStruct:
    return models.PointStruct(
        id=point.id,
        vector={_DENSE: point.dense, _WORDS: _sparse(point.words)},
        payload=dict(point.payload),
    )


def _sparse(weights: Mapping[int, float]) -> models.SparseVector:
    return models.SparseVector(indices=list(weights), values=list(weights.values()))


def _any_of(key: str, values: list[str]) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=values))


def _matches(path: str, wanted: str) -> bool:
    if any(letter in wanted for letter in "*?["):
        return fnmatch.fnmatchcase(path, wanted)
    return path.startswith(wanted.removeprefix("./"))
