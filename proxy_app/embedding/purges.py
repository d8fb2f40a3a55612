"""Purges reach every worker of this proxy: a log that one appends to and all follow.

The log and what each worker has read of it are files in a folder that gunicorn's master makes for
its workers. So a purge needs no store and no connection between workers. Each worker notes how far
it has come, so that whoever purges knows when all have.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from proxy_app.cache.store import Store
from proxy_app.cache.writes import Writes
from proxy_app.embedding.service import Service
from proxy_app.entries.keys import point_id

#: Seconds between two looks at the log.
LOOK = 0.25
#: Seconds in which all workers should have applied a purge, and between two looks whether so.
PATIENCE = 1.5
STEP = 0.05


class Purge(msgspec.Struct, omit_defaults=True):
    """What is to be forgotten: keys (hex), else one collection's entries, else everything."""

    keys: list[str] = []
    collection: str = ""


_purge = msgspec.json.Decoder(Purge)


class PurgeLog:
    """The log in a folder, which every worker of one proxy shares."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "purges.log"

    def append(self, purge: Purge) -> int:
        """Append a purge; returns how long the log is with it, in bytes."""
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            line = msgspec.json.encode(purge) + b"\n"
            if os.write(log, line) < len(line):
                raise OSError(f"{self._log}: the disk is full")
            return os.lseek(log, 0, os.SEEK_CUR)
        finally:
            os.close(log)

    def length(self) -> int:
        """Return how long the log is, in bytes."""
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, start: int) -> tuple[list[Purge], int]:
        """Return the purges from a place in the log on, and the place after them."""
        with self._log.open("rb") as log:
            log.seek(start)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        return [_purge.decode(line) for line in whole.splitlines()], start + len(whole)

    def note(self, place: int) -> None:
        """Note how far this worker has come."""
        target = self._mark(os.getpid())
        draft = target.with_suffix(".new")
        draft.write_text(str(place))
        draft.rename(target)

    def forget(self, pid: int) -> None:
        """Wait for a worker that has ended no more."""
        self._mark(pid).unlink(missing_ok=True)

    def late(self, place: int) -> int:
        """Count the workers that have not come as far as this place."""
        return sum(int(text) < place for text in self._places())

    async def wait(self, place: int) -> int:
        """Wait until every worker has come this far; returns how many have not in time."""
        for _ in range(round(PATIENCE / STEP)):
            if not self.late(place):
                return 0
            await asyncio.sleep(STEP)
        return self.late(place)

    def _mark(self, pid: int) -> Path:
        return self._folder / f"purges-{pid}.place"

    def _places(self) -> Iterable[str]:
        for path in self._folder.glob("purges-*.place"):
            try:
                yield path.read_text()
            except FileNotFoundError:
                continue  # its worker has ended just now


class Follower:
    """Applies the log to one worker's L1, flights and queued writes."""

    def __init__(
        self, log: PurgeLog, service: Service, store: Store | None, writes: Writes | None
    ) -> None:
        self._log = log
        self._service = service
        self._store = store
        self._writes = writes
        # What was purged before this worker was there concerns nothing that it holds.
        self._place = log.length()
        log.note(self._place)

    async def run(self) -> None:
        """Follow for ever; run as a task."""
        while True:
            if self._log.length() > self._place:
                purges, self._place = self._log.read(self._place)
                for purge in purges:
                    self._apply(purge)
                self._log.note(self._place)
            await asyncio.sleep(LOOK)

    def _apply(self, purge: Purge) -> None:
        if purge.keys:
            keys = frozenset(bytes.fromhex(key) for key in purge.keys)
            self._service.flights.purge(keys)
            for key in keys:
                self._service.memory.drop(key)
            if self._writes is not None:
                points = {point_id(key) for key in keys}
                self._writes.purge(lambda write: write.point in points)
            return
        # A key does not tell its namespace: what is dropped beyond need is only computed again.
        self._service.flights.purge(None)
        self._service.memory.clear()
        if self._writes is not None:
            self._writes.purge(lambda write: purge.collection in ("", write.collection))
        if self._store is not None:
            self._store.doubt(purge.collection)


class Purger:
    """Carries a purge out: in every worker, and in the store."""

    def __init__(self, log: PurgeLog, store: Store | None) -> None:
        self._log = log
        self._store = store

    async def purge(self, purge: Purge, current: str) -> dict[str, object]:
        """Purge, and say what happened; ``current`` is the collection that keys belong to.

        Raises StoreError where the workers have purged and the store has not.
        """
        # Workers stop writing it, then the store forgets it, then workers forget what they read of
        # it in between.
        await self._log.wait(self._log.append(purge))
        told: dict[str, object] = {}
        try:
            if self._store is not None:
                told = await self._store_forgets(self._store, purge, current)
        finally:
            late = await self._log.wait(self._log.append(purge))
        return told | {"workers_late": late}

    async def _store_forgets(self, store: Store, purge: Purge, current: str) -> dict[str, object]:
        if purge.keys:
            points = [point_id(bytes.fromhex(key)) for key in purge.keys]
            await store.delete(current, points)
            return {"texts": len(points)}
        names = [purge.collection] if purge.collection else await store.collections()
        dropped = [name for name in names if await store.drop(name)]
        return {"collections": dropped}


def purge_all() -> Purge:
    """Make the purge of everything."""
    return Purge()


def purge_keys(keys: Iterable[bytes]) -> Purge:
    """Make the purge of some keys (at least one)."""
    return Purge(keys=[key.hex() for key in dict.fromkeys(keys)])
