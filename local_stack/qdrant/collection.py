"""One collection: an Edge shard and the operations the REST API has on it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from local_stack.qdrant.errors import NotFound, ServiceError, WrongInput
from local_stack.qdrant.schema import Schema, schema_view
from local_stack.qdrant.settings import Settings, engine_config

PointId = int | str
PayloadChoice = bool | list[str] | edge.PayloadSelector

CHUNK_FLOATS = 64 * 1024
"""Numbers handed to the engine in one call: about 2 ms in which nothing else is served."""

MIN_FREE_BYTES = 128 * 2**20
"""Free disk space below which nothing is added. The engine grows its files 32 MiB at a time and
maps them into memory, where a full disk kills the process instead of failing the call."""

DELETE_SHARE = 0.5
"""Of that, what a delete needs: it writes little, and may be what makes room."""

DIMENSION_ERROR = "Vector dimension error"


class Collection:
    """Points of one dimension, in a folder of their own.

    Edge serves one call at a time and holds the interpreter's lock throughout, so every method
    runs in the event loop's thread and no lock is needed. Long writes give way between chunks.
    """

    def __init__(self, name: str, folder: Path, settings: Settings, shard: edge.EdgeShard) -> None:
        """Wraps an open shard; use `create` or `load`."""
        self.name = name
        self.folder = folder
        self.settings = settings
        self.unflushed_bytes = 0
        self.unoptimized = True
        self._shard = shard
        self._operations = 0
        self._closed = False

    @classmethod
    def create(cls, name: str, folder: Path, settings: Settings) -> Collection:
        """A new, empty collection in a folder that does not exist.

        Raises:
            WrongInput: the engine refuses the settings.
            OSError, ServiceError: the disk or the engine failed.
        """
        require_free_space(folder.parent)
        try:
            config = engine_config(settings)
        except (TypeError, ValueError, OverflowError) as error:
            raise WrongInput(str(error)) from error
        folder.mkdir()
        with _engine_errors():
            return cls(name, folder, settings, edge.EdgeShard.create(str(folder), config))

    @classmethod
    def load(cls, name: str, folder: Path, settings: Settings) -> Collection:
        """Opens a collection and replays what its log holds beyond the last flush.

        Raises:
            ServiceError, KeyError, TypeError: the folder or the settings are damaged.
        """
        # Given settings, Edge takes a folder without its own files for a new, empty shard.
        for needed in ("edge_config.json", "segments", "wal"):
            if not (folder / needed).exists():
                raise ServiceError(f"{folder / needed} is missing")
        with _engine_errors():
            return cls(
                name, folder, settings, edge.EdgeShard.load(str(folder), engine_config(settings))
            )

    @property
    def dimension(self) -> int:
        """Numbers in each vector."""
        size: int = self.settings["params"]["vectors"]["size"]
        return size

    def check_dimension(self, vectors: Sequence[Sequence[float]]) -> None:
        """Raises WrongInput where a vector has another size."""
        expected = self.dimension
        for vector in vectors:
            if len(vector) != expected:
                raise WrongInput(f"{DIMENSION_ERROR}: expected dim: {expected}, got {len(vector)}")

    async def upsert(
        self,
        points: Sequence[tuple[PointId, list[float], dict[str, Any] | None]],
        condition: edge.Filter | None = None,
        mode: edge.UpdateMode | None = None,
    ) -> int:
        """Stores points (id, vector, payload) in chunks and returns the operation's number.

        The ids and dimensions must have been checked. Where the disk or the engine fails, the
        chunks before the failure are kept.

        Raises:
            ServiceError: the disk is full or the engine failed.
            NotFound: the collection was deleted meanwhile.
        """
        step = max(1, CHUNK_FLOATS // self.dimension)
        chunks: list[list[edge.Point]] = []
        for start in range(0, len(points), step):
            chunks.append([edge.Point(*point) for point in points[start : start + step]])
            if start:
                await asyncio.sleep(0)
        for chunk in chunks:
            require_free_space(self.folder)
            self._update(edge.UpdateOperation.upsert_points(chunk, condition, mode))
            self.unflushed_bytes += 4 * self.dimension * len(chunk)
            if chunk is not chunks[-1]:
                await asyncio.sleep(0)
        return self._next_operation()

    def delete(self, ids: list[PointId]) -> int:
        """Deletes points; absent ones are passed over. Returns the operation's number."""
        require_free_space(self.folder, DELETE_SHARE)
        self._update(edge.UpdateOperation.delete_points(list(ids)))
        return self._next_operation()

    def delete_matching(self, condition: edge.Filter) -> int:
        """Deletes the points a filter matches. Returns the operation's number."""
        require_free_space(self.folder, DELETE_SHARE)
        self._update(edge.UpdateOperation.delete_points_by_filter(condition))
        return self._next_operation()

    def create_index(self, field: str, schema: Schema) -> int:
        """Indexes a payload field. Returns the operation's number."""
        require_free_space(self.folder)
        self._update(edge.UpdateOperation.create_field_index(field, schema))
        return self._next_operation()

    def delete_index(self, field: str) -> int:
        """Drops the index of a payload field. Returns the operation's number."""
        self._update(edge.UpdateOperation.delete_field_index(field))
        return self._next_operation()

    def retrieve(
        self, ids: list[PointId], payload: PayloadChoice, vector: bool
    ) -> list[edge.Record]:
        """The points that exist, in the order asked, each once.

        Raises:
            ValueError, TypeError: an id is neither an unsigned integer nor a UUID.
        """
        with self._engine():
            return self._shard.retrieve(list(ids), payload, vector)

    def count(self, condition: edge.Filter | None, exact: bool) -> int:
        """Points that match a filter, or all."""
        with self._engine():
            return self._shard.count(edge.CountRequest(exact=exact, filter=condition))

    def scroll(self, request: edge.ScrollRequest) -> tuple[list[edge.Record], Any]:
        """One page of points by id, and the id the next page starts with or None."""
        with self._engine():
            return self._shard.scroll(request)

    def query(self, request: edge.QueryRequest) -> list[edge.ScoredPoint]:
        """The nearest points."""
        with self._engine():
            return self._shard.query(request)

    def report(self) -> dict[str, Any]:
        """The result of `GET /collections/{c}`."""
        with self._engine():
            info = self._shard.info()
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": info.indexed_vectors_count,
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "config": self.settings,
            "payload_schema": {k: schema_view(v) for k, v in info.payload_schema.items()},
            "update_queue": {"length": 0},
        }

    def points(self) -> int:
        """Points held, without counting them one by one."""
        with self._engine():
            return self._shard.info().points_count

    def flush(self) -> None:
        """Writes everything to the disk and lets the engine shorten its log."""
        unflushed, self.unflushed_bytes = self.unflushed_bytes, 0
        try:
            with self._engine():
                self._shard.flush()
        except ServiceError:
            self.unflushed_bytes += unflushed
            raise

    def optimize(self) -> None:
        """Rewrites segments with many deleted points. Nothing else is served meanwhile."""
        require_free_space(self.folder)
        self.unoptimized = False
        with self._engine():
            if self._shard.optimize():
                self.unflushed_bytes += 1

    def close(self) -> None:
        """Closes the shard; every later call raises NotFound."""
        if not self._closed:
            self._closed = True
            with _engine_errors():
                self._shard.close()

    def _update(self, operation: edge.UpdateOperation) -> None:
        with self._engine():
            self._shard.update(operation)
        self.unflushed_bytes += 1
        self.unoptimized = True

    def _next_operation(self) -> int:
        self._operations += 1
        return self._operations

    @contextmanager
    def _engine(self) -> Iterator[None]:
        if self._closed:
            raise NotFound.collection(self.name)
        with _engine_errors():
            yield


def require_free_space(folder: Path, share: float = 1.0) -> None:
    """Raises ServiceError where the disk of a folder has less than a share of the bytes free
    that must be.
    """
    if shutil.disk_usage(folder).free < share * MIN_FREE_BYTES:
        raise ServiceError("No space left on device: the disk of the data folder is full")


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Edge raises bare `Exception` with a message; wrong arguments raise Python's own kinds."""
    try:
        yield
    except (TypeError, ValueError, OverflowError, KeyError):
        raise
    except BaseException as error:
        panicked = type(error).__name__ == "PanicException"  # A BaseException with no other handle.
        if type(error) is not Exception and not panicked:
            raise
        text = str(error)
        raise (
            WrongInput(text) if text.startswith(DIMENSION_ERROR) else ServiceError(text)
        ) from error
