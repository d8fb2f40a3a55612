"""Trials: which inputs are in the upstream's hands right now, sent by any worker.

Until the upstream has answered, nobody knows whether an input kills its instance, so it is sent to
no second one: whoever has the same input waits for the outcome. If it is embedded, all others go
ahead at once, and go on doing so for as long as its place is not needed for another; if it broke
its connection, it is a suspect by then (``suspects``). Where no outcome came (the client left, the
worker died, the upstream was overloaded) the next one tries, and the others wait for that one.

The table is a file in the workers' folder, mapped into each worker's memory: per place the first
eight bytes of a key, and who has it on trial until when. Claims are made under a lock, all of a
batch or none, so nobody waits for another while holding what that one waits for; a worker that
cannot have the lock at once tries again, so no event loop ever stands still.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from proxy_app.workers.locks import try_lock, unlock

#: A key names a group and takes any place in it; one that finds it full goes without a trial. With
#: 2048 inputs under way, which keep eight GPUs busy, that happens to one of 100,000.
GROUPS, GROUP = 16384, 4
_PLACES = GROUPS * GROUP
_SIZE = 16 * _PLACES
_NOBODY = bytes(8 * GROUP)
#: Who has a place: the end of the trial in milliseconds of the machine's own clock, then the
#: process, whose number Linux keeps below this many bits (PID_MAX_LIMIT).
_PID_BITS = 22
#: A trial's end, in times of what the upstream may take, and at most in seconds, which have room
#: beside the process. Nobody waits for it but where a worker died whose number another process has.
_PATIENCE = 2
_LONGEST = 1e9
#: What the table has of a key: its first eight bytes.
_tag = struct.Struct("<Q").unpack_from
#: Seconds between two looks at somebody else's trial, and between two attempts at the lock.
_LOOK, _ATTEMPT = 0.005, 0.001


class Trial:
    """One request's inputs; set ``survived`` once the upstream answered for all of them."""

    __slots__ = ("_places", "_seconds", "_table", "_tags", "survived")

    def __init__(self, table: Trials, tags: list[int], seconds: float) -> None:
        self._table = table
        self._tags = tags
        self._seconds = seconds
        self.survived = False

    async def __aenter__(self) -> Trial:
        """Wait until nobody else has any of them."""
        self._places = await self._table.claim(self._tags, self._seconds)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the others go on."""
        self._table.release(self._places, self.survived)


class Trials:
    """The table; ``path`` is the workers' common file, which each opens for itself."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        # Written, not only made long: to touch a page for which there is no room ends a process.
        if os.fstat(self._fd).st_size < _SIZE:
            os.pwrite(self._fd, bytes(_SIZE), 0)
        unlock(self._fd)
        self._memory = mmap.mmap(self._fd, _SIZE)
        self._words = memoryview(self._memory).cast("Q")
        self._owners = self._words[:_PLACES]
        self._tags = self._words[_PLACES:]
        self._pid = os.getpid()

    def __len__(self) -> int:
        return sum(map(bool, self._owners))

    def __repr__(self) -> str:
        return f"<Trials inputs={len(self)}>"

    def close(self) -> None:
        """Close the file."""
        for view in (self._owners, self._tags, self._words):
            view.release()
        self._memory.close()
        os.close(self._fd)

    def of(self, keys: Iterable[bytes], seconds: float) -> Trial:
        """Return what an ``async with`` has the inputs of these keys (32 or 16 bytes) on trial for.

        It waits for as long as somebody else has one of them, this worker included; raises
        asyncio.TimeoutError after that many seconds, which is what the upstream may take.
        """
        return Trial(self, [tag for key in keys for tag in _tag(key)], seconds)

    async def claim(self, tags: list[int], seconds: float) -> list[int]:
        """Claim all of them, once nobody else has one; returns their places."""
        ends = time.monotonic() + seconds
        while True:
            owner, taken = 0, -1
            if try_lock(self._fd):
                try:
                    places, taken = self._claim_at_once(tags, seconds)
                    if taken < 0:
                        return places
                    owner = self._owners[taken]
                finally:
                    unlock(self._fd)
            while True:
                if time.monotonic() > ends:
                    raise asyncio.TimeoutError
                await asyncio.sleep(_LOOK if owner else _ATTEMPT)
                if not owner or self._owners[taken] != owner or not _is_on_trial(owner):
                    break

    def release(self, places: list[int], survived: bool) -> None:
        """Let go of what was claimed."""
        owners = self._owners
        if not survived:
            for place in places:
                self._tags[place] = 0
        for place in places:
            owners[place] = 0

    def _claim_at_once(self, tags: list[int], seconds: float) -> tuple[list[int], int]:
        """Return the places that are claimed now and -1, or none and one that somebody else has."""
        memory, owners, names = self._memory, self._owners, self._tags
        ends = time.monotonic() + min(_PATIENCE * seconds, _LONGEST)
        me = int(ends * 1000) << _PID_BITS | self._pid
        places: list[int] = []
        for tag in tags:
            place = tag % GROUPS * GROUP
            if memory[8 * place : 8 * (place + GROUP)] != _NOBODY:
                place = self._place_among_others(tag, place)
                if place < 0 or place in places:
                    continue  # no room, or the key came twice
                if names[place] == tag and _is_on_trial(owners[place]):
                    self.release(places, False)
                    return [], place
            if names[place] == tag and not owners[place]:
                continue  # it survived
            names[place] = tag
            owners[place] = me
            places.append(place)
        return places, -1

    def _place_among_others(self, tag: int, first: int) -> int:
        """Return the key's own place in a group, else a free one, or -1."""
        group = range(first, first + GROUP)
        for place in group:
            if self._tags[place] == tag:
                return place
        for place in group:
            if not self._owners[place]:
                return place
        return next((place for place in group if not _is_on_trial(self._owners[place])), -1)


def _is_on_trial(owner: int) -> bool:
    """Tell whether the trial may still be under way: its process runs, and its time is not over."""
    if owner >> _PID_BITS < time.monotonic() * 1000:
        return False
    try:
        os.kill(owner & (1 << _PID_BITS) - 1, 0)
    except ProcessLookupError:
        return False
    return True
