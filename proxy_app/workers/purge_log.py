"""The log of purges: one worker appends to it, and all follow.

The log and what each worker has read of it are files in the folder that the workers share. So a
purge needs no store and no connection between workers. Each worker notes how far it has come, so
that whoever purges knows when all have.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

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


def purge_all() -> Purge:
    """Make the purge of everything."""
    return Purge()


def purge_keys(keys: Iterable[bytes]) -> Purge:
    """Make the purge of some keys (at least one)."""
    return Purge(keys=[key.hex() for key in dict.fromkeys(keys)])
