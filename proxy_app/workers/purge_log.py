"""The log of purges: one worker appends to it, and all follow.

The log and what each worker has done of it are files in the folder that the workers share. So a
purge needs no store and no connection between workers. The log holds the latest purges alone, and
is replaced whole, so it neither grows without end nor has half a line. Each purge names the one
before it: a worker that does not find the last one that it knows has missed some, because the
folder was emptied or because it was away for long, and forgets everything instead.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec

from proxy_app.workers.folder import Folder
from proxy_app.workers.ledger import read_if, replace
from proxy_app.workers.locks import locked

#: Seconds in which all workers should have applied a purge, and between two looks whether so.
PATIENCE = 1.5
STEP = 0.05
#: Bytes of the log from which on the oldest purges leave it; the latest stays, however large.
LIMIT = 256 * 1024


class Purge(msgspec.Struct, omit_defaults=True):
    """What is to be forgotten: keys (hex), else one collection's entries, else everything."""

    keys: list[str] = []
    collection: str = ""


class Logged(msgspec.Struct):
    """A purge in the log; ``mark`` is its own, ``former`` that of the one before it."""

    mark: str
    former: str
    purge: Purge


_logged = msgspec.json.Decoder(Logged)


class PurgeLog:
    """The log in a folder, which every worker of one proxy shares; ``workers`` is their number."""

    def __init__(self, folder: Folder, workers: int) -> None:
        self._folder = folder
        self._workers = workers
        self._log = folder.path / "purges.json"

    def append(self, purge: Purge) -> str:
        """Append a purge; returns its mark. Raises OSError where it is not in the log."""
        self._folder.ensure()
        with locked(self._log.with_suffix(".lock")):
            former = self.read()
            mark = secrets.token_hex(8)
            new = Logged(mark, last_of(former), purge)
            lines = [msgspec.json.encode(logged) for logged in [*former, new]]
            size = sum(map(len, lines))
            while size > LIMIT and len(lines) > 1:
                size -= len(lines.pop(0))
            replace(self._log, b"\n".join(lines))
        return mark

    def read(self) -> list[Logged]:
        """Return the latest purges, the oldest first; none where the log cannot be read."""
        try:
            return [_logged.decode(line) for line in read_if(self._log).splitlines()]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []

    def state(self) -> tuple[int, int]:
        """Return something that is another whenever the log is; looking costs next to nothing."""
        try:
            stat = self._log.stat()
        except FileNotFoundError:
            return 0, 0
        return stat.st_ino, stat.st_mtime_ns

    def note(self, mark: str) -> None:
        """Note the last purge that this worker has done."""
        self._folder.ensure()
        replace(self._note(os.getpid()), mark.encode())

    def is_noted(self) -> bool:
        """Tell whether this worker's note is still there."""
        return self._note(os.getpid()).exists()

    def forget(self, pid: int) -> None:
        """Wait for a worker that has ended no more."""
        self._note(pid).unlink(missing_ok=True)

    def late(self, mark: str) -> int:
        """Count the workers that have not said that they have done a purge."""
        places = {logged.mark: place for place, logged in enumerate(self.read())}
        paths = list(self._folder.path.glob("purges-*.done"))
        done = 0
        if mark in places:  # else nobody can have seen it
            noted = [read_if(path).decode() for path in paths]
            done = sum(places.get(last, -1) >= places[mark] for last in noted)
        return max(self._workers, len(paths)) - done

    async def wait(self, mark: str) -> int:
        """Wait until every worker has done a purge; returns how many have not in time."""
        for _ in range(round(PATIENCE / STEP)):
            if not self.late(mark):
                return 0
            await asyncio.sleep(STEP)
        return self.late(mark)

    def _note(self, pid: int) -> Path:
        return self._folder.path / f"purges-{pid}.done"


def last_of(log: list[Logged]) -> str:
    """Return the mark of the latest purge, "" where there is none."""
    return log[-1].mark if log else ""


def since(log: list[Logged], last: str) -> list[Purge] | None:
    """Return the purges of a log after the one marked ``last`` ("": before the first).

    None where it does not tell all of them.
    """
    if last == last_of(log):
        return []
    for place, logged in enumerate(log):
        if logged.former == last:
            return [later.purge for later in log[place:]]
    return None


def purge_all() -> Purge:
    """Make the purge of everything."""
    return Purge()


def purge_keys(keys: Iterable[bytes]) -> Purge:
    """Make the purge of some keys (at least one)."""
    return Purge(keys=[key.hex() for key in dict.fromkeys(keys)])
