"""Inputs that may kill a TEI instance: whose connection broke, and for how long that is remembered.

All workers must know, or each of them would lose instances to the same text. So there is one file
of records that every worker appends to and reads on; it lives and dies with the workers' folder.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from proxy_app.errors import EmbedError, Kind
from proxy_app.workers.locks import try_lock, unlock

#: Seconds for which a suspect stays one, and a convicted input is refused.
SUSPICION = 3600.0
#: What is known of an input.
CLEARED, SUSPECT, CONVICTED = range(3)
#: One record of the file: what is known from when on (seconds of the machine's own clock), the key.
_RECORD = struct.Struct("<Bd32s")
#: Bytes of the file from which on it is written anew.
_FILE_LIMIT = 4_000_000
#: Seconds between two attempts to be the one worker that sends a suspect.
_ATTEMPT = 0.005
#: Seconds from a broken connection to the next suspect: a process that dies closes one socket after
#: the other, and while it still listens it would break an innocent one's connection too.
_DEATH = 0.1


class Suspects:
    """What all workers know; ``read`` takes in what the others wrote, and costs a system call.

    ``path`` is the workers' common file, which each opens for itself.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._offset = 0
        self._known: dict[bytes, tuple[int, float]] = {}
        self._broke = -_DEATH  # when a connection broke last
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        convicted = sum(verdict == CONVICTED for verdict, _ in self._known.values())
        return f"<Suspects suspects={len(self) - convicted} convicted={convicted}>"

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def read(self) -> None:
        """Take in what was written since."""
        size = os.fstat(self._fd).st_size
        if size == self._offset:
            return
        if size < self._offset:  # written anew
            self._offset = 0
        data = os.pread(self._fd, size - self._offset, self._offset)
        whole = len(data) - len(data) % _RECORD.size
        for verdict, since, key in _RECORD.iter_unpack(data[:whole]):
            if verdict == CLEARED:
                self._known.pop(key, None)
            else:
                self._broke = max(self._broke, since)
                former, _ = self._known.get(key, (verdict, 0.0))
                self._known[key] = max(verdict, former), since + SUSPICION
        self._offset += whole

    def verdict(self, key: bytes) -> int:
        """Return CLEARED, SUSPECT or CONVICTED, as of the last ``read``."""
        if not self._known:
            return CLEARED
        verdict, until = self._known.get(_padded(key), (CLEARED, 0.0))
        if verdict and time.monotonic() > until:
            del self._known[_padded(key)]
            return CLEARED
        return verdict

    def accuse(self, keys: Iterable[bytes], verdict: int = SUSPECT) -> None:
        """Tell all workers of inputs whose connection broke."""
        self.read()
        now = time.monotonic()
        for old in [key for key, (_, until) in self._known.items() if until < now]:
            del self._known[old]
        self._write((verdict, now, key) for key in keys)
        if self._offset > _FILE_LIMIT:
            os.ftruncate(self._fd, 0)
            self._write((v, until - SUSPICION, key) for key, (v, until) in self._known.items())

    def clear(self, key: bytes) -> None:
        """Tell all workers that the input was embedded."""
        if self.verdict(key):
            self._write([(CLEARED, 0.0, key)])

    @asynccontextmanager
    async def alone(self, seconds: float) -> AsyncIterator[None]:
        """Be the only one of all workers that sends a suspect, to an instance that is not dying.

        Raises asyncio.TimeoutError where that does not come about in time. The lock ends with the
        process, whatever ends that.
        """
        ends = time.monotonic() + seconds
        await asyncio.wait_for(self._turn.acquire(), seconds)
        try:
            while not try_lock(self._fd):
                if time.monotonic() > ends:
                    raise asyncio.TimeoutError
                await asyncio.sleep(_ATTEMPT)
            try:
                self.read()
                await asyncio.sleep(self._broke + _DEATH - time.monotonic())
                yield
            finally:
                unlock(self._fd)
        finally:
            self._turn.release()

    def _write(self, records: Iterable[tuple[int, float, bytes]]) -> None:
        # One write of a file that is appended to is never mixed with another's.
        os.write(self._fd, b"".join(_RECORD.pack(*record) for record in records))
        self.read()


def _padded(key: bytes) -> bytes:
    return key.ljust(32, b"\0")


def conviction() -> EmbedError:
    """Make the error of an input that is refused."""
    return EmbedError(
        Kind.BACKEND,
        "this input broke two connections to the upstream, as one does that kills an instance; "
        f"it is refused for {SUSPICION / 60:.0f} minutes",
    )
