"""What all workers know of inputs: which the upstream has in hand, and which may kill an instance.

Until the upstream has answered, nobody knows whether an input kills its instance, so it is sent to
no second one: whoever has the same input waits for the outcome. If it is embedded, all others go
ahead at once, and go on doing so for as long as its place is not needed for another. If it broke
its connection, its place keeps that (``suspects`` has the rules). Where no outcome came (the client
left, the worker died, the upstream was overloaded) the next one tries, and the others wait for it.

The table is a file in the workers' folder, mapped into each worker's memory: per place the first
eight bytes of a key, and a word that says who has it on trial, or what is held against it, until
when. Claims are made under a lock, all of a batch or none, so nobody waits for another while
holding what that one waits for; a worker that cannot have the lock at once tries again, so no event
loop ever stands still.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import struct
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from proxy_app.errors import EmbedError, Kind
from proxy_app.workers.locks import try_lock, unlock

#: A key names a group and takes any place in it; one that finds it full goes without a trial. With
#: 2048 inputs under way, which keep eight GPUs busy, that happens to one of 100,000.
GROUPS, GROUP = 16384, 4
_PLACES = GROUPS * GROUP
#: Behind the places: when a connection broke last, and when a known-good request last failed.
BROKE, FAILED = 2 * _PLACES, 2 * _PLACES + 1
_SIZE = 8 * (2 * _PLACES + 2)
_NOBODY = bytes(8 * GROUP)

#: What a word says in its lower bits: nothing; the process that has the input on trial, whose
#: number Linux keeps below 22 bits (PID_MAX_LIMIT); or one of the verdicts below. Above them stands
#: until when, in milliseconds of the machine's own clock.
_BITS = 23
_MEANING = (1 << _BITS) - 1
_LEAST_VERDICT = 1 << 22
#: What is held against an input: its connection broke beside others', so it is sent alone; it broke
#: alone, but known-good requests' did too, so it is not sent for a while, and then alone; it is
#: refused. ``SURVIVED`` and ``UNKNOWN`` are the other outcomes.
SUSPECT, PAUSED, REFUSED = range(_LEAST_VERDICT, _LEAST_VERDICT + 3)
UNKNOWN, SURVIVED = 0, 1
#: Seconds for which that is held against it.
_HELD = {SUSPECT: 3600.0, PAUSED: 10.0, REFUSED: 3600.0}

#: A trial's end, in times of what the upstream may take, and at most in seconds, which have room
#: in the word. Nobody waits for it but where a worker died whose number another process has.
_PATIENCE = 2
_LONGEST = 1e9
#: What the table has of a key: its first eight bytes.
_tag = struct.Struct("<Q").unpack_from
#: Seconds between two looks at somebody else's trial, and between two attempts at the lock.
_LOOK, _ATTEMPT = 0.005, 0.001


class Trial:
    """One request's inputs; set ``outcome`` to what became of those that were sent."""

    __slots__ = ("_suspects", "outcome")

    def __init__(self, suspects: set[int]) -> None:
        self._suspects = suspects
        self.outcome = UNKNOWN

    def suspects(self, keys: list[bytes]) -> set[bytes]:
        """Return those of the trial's keys that are to be sent alone, which it leaves out."""
        if not self._suspects:
            return set()
        return {key for key in keys for tag in _tag(key) if tag in self._suspects}


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
        self._all = memoryview(self._memory).cast("Q")
        self._words = self._all[:_PLACES]
        self._tags = self._all[_PLACES : 2 * _PLACES]
        self._pid = os.getpid()

    def __len__(self) -> int:
        return sum(0 < word & _MEANING < _LEAST_VERDICT for word in self._words)

    def __repr__(self) -> str:
        verdicts = [word & _MEANING for word in self._words]
        refused = verdicts.count(REFUSED)
        suspects = verdicts.count(SUSPECT) + verdicts.count(PAUSED)
        return f"<Trials inputs={len(self)} suspects={suspects} refused={refused}>"

    def close(self) -> None:
        """Close the file."""
        for view in (self._words, self._tags, self._all):
            view.release()
        self._memory.close()
        os.close(self._fd)

    @asynccontextmanager
    async def of(self, keys: Iterable[bytes], seconds: float) -> AsyncIterator[Trial]:
        """Have the inputs of these keys (32 or 16 bytes) on trial.

        It waits for as long as somebody else has one of them, this worker included; raises
        asyncio.TimeoutError after that many seconds, which is what the upstream may take, and
        EmbedError where one is refused.
        """
        places, suspects = await self._claim([tag for key in keys for tag in _tag(key)], seconds)
        trial = Trial(suspects)
        try:
            yield trial
        finally:
            self._release(places, trial.outcome)

    async def _claim(self, tags: list[int], seconds: float) -> tuple[list[int], set[int]]:
        """Claim all that are no suspects, once nobody else has one; returns places and suspects."""
        ends = time.monotonic() + seconds
        while True:
            word, taken = 0, -1
            if try_lock(self._fd):
                try:
                    places, suspects, taken = self._claim_at_once(tags, seconds)
                    if taken < 0:
                        return places, suspects
                    word = self._words[taken]
                finally:
                    unlock(self._fd)
            while True:
                if time.monotonic() > ends:
                    raise asyncio.TimeoutError
                await asyncio.sleep(_LOOK if word else _ATTEMPT)
                if not word or self._words[taken] != word or not _is_valid(word):
                    break

    def _release(self, places: list[int], outcome: int) -> None:
        """Let go of what was claimed."""
        if outcome == UNKNOWN:
            for place in places:
                self._tags[place] = 0
        word = _word(_HELD[outcome], outcome) if outcome in _HELD else 0
        for place in places:
            self._words[place] = word

    def verdict(self, key: bytes) -> int:
        """Return SUSPECT, PAUSED or REFUSED, or UNKNOWN."""
        place = self._place_of(key)
        word = self._words[place] if place >= 0 else 0
        verdict = word & _MEANING
        return verdict if verdict >= _LEAST_VERDICT and _is_valid(word) else UNKNOWN

    def judge(self, key: bytes, outcome: int) -> None:
        """Set what is known of a suspect; for whoever sends it alone."""
        place = self._place_of(key)
        if place >= 0:
            self._release([place], outcome)

    def note(self, event: int) -> None:
        """Note that BROKE or FAILED happened now."""
        self._all[event] = _milliseconds()

    def since(self, event: int) -> float:
        """Return the seconds since BROKE or FAILED happened."""
        return (_milliseconds() - self._all[event]) / 1000

    def _claim_at_once(self, tags: list[int], seconds: float) -> tuple[list[int], set[int], int]:
        """Return the claimed places, the suspects and -1, or a place that somebody else has."""
        memory, words, names = self._memory, self._words, self._tags
        mine = _word(min(_PATIENCE * seconds, _LONGEST), self._pid)
        places: list[int] = []
        suspects: set[int] = set()
        for tag in tags:
            place = tag % GROUPS * GROUP
            if memory[8 * place : 8 * (place + GROUP)] != _NOBODY:
                place = self._place_among_others(tag, place)
                if place < 0 or place in places:
                    continue  # no room, or the key came twice
                word = words[place]
                verdict, is_valid = word & _MEANING, _is_valid(word)
                if names[place] == tag and (is_valid or verdict == PAUSED):
                    if verdict == SUSPECT or not is_valid:
                        suspects.add(tag)
                        continue
                    self._release(places, UNKNOWN)
                    if verdict in (PAUSED, REFUSED):
                        raise refusal(verdict)
                    return [], set(), place
            if names[place] == tag and not words[place]:
                continue  # it survived
            names[place] = tag
            words[place] = mine
            places.append(place)
        return places, suspects, -1

    def _place_among_others(self, tag: int, first: int) -> int:
        """Return the key's own place in a group, else a free one, or -1."""
        group = range(first, first + GROUP)
        for place in group:
            if self._tags[place] == tag:
                return place
        for place in group:
            if not self._words[place]:
                return place
        return next((place for place in group if not _is_valid(self._words[place])), -1)

    def _place_of(self, key: bytes) -> int:
        """Return the place that has the key, or -1."""
        [tag] = _tag(key)
        first = tag % GROUPS * GROUP
        return next((p for p in range(first, first + GROUP) if self._tags[p] == tag), -1)


def refusal(verdict: int) -> EmbedError:
    """Make the error of an input that is PAUSED or REFUSED."""
    if verdict == PAUSED:
        return EmbedError(
            Kind.UNHEALTHY,
            "this input broke its connection to the upstream, which breaks others' too; "
            f"it is sent again after {_HELD[PAUSED]:.0f} seconds",
            retry_after=f"{_HELD[PAUSED]:.0f}",
        )
    return EmbedError(
        Kind.BACKEND,
        "this input broke two connections to the upstream, the second one alone and while the "
        "upstream answered other requests, as an input does that kills an instance; "
        f"it is refused for {_HELD[REFUSED] / 60:.0f} minutes",
    )


def _milliseconds() -> int:
    return int(time.monotonic() * 1000)


def _word(seconds: float, meaning: int) -> int:
    return int((time.monotonic() + seconds) * 1000) << _BITS | meaning


def _is_valid(word: int) -> bool:
    """Tell whether a verdict still holds, or a trial is under way: its process runs, in time."""
    if word >> _BITS < _milliseconds():
        return False
    meaning = word & _MEANING
    if meaning >= _LEAST_VERDICT:
        return True
    try:
        os.kill(meaning, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # the number is that of another user's process by now
    return True
