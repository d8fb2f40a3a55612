"""One part of the stack: a process with its own process group, and what it last said."""

import asyncio
import collections
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from local_stack.run.failure import Failure

ROOT = Path(__file__).resolve().parent.parent.parent
GRACE_S = 10.0
LAST_LINES = 12
# A longer line is no message for a person.
LINE_LIMIT = 1 << 20


class Child:
    """A part that runs, by the name that the person knows it by."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Follow a process that was just started."""
        self.name = name
        #: Whether its error output is passed on from here.
        self.echo = False
        self._process = process
        self._said: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        assert process.stderr is not None
        self._readers = [asyncio.create_task(self._follow(process.stderr, errors=True))]

    @classmethod
    async def start(
        cls,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        keep_open: Sequence[int] = (),
    ) -> "Child":
        """Start a module of this checkout with this Python, out of the terminal's reach."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *arguments),
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            # Ctrl-C reaches the stack alone, which then stops its parts in order.
            start_new_session=True,
            pass_fds=keep_open,
        )
        return cls(name, process)

    @property
    def group(self) -> int:
        """The process group of this part and all it starts."""
        return self._process.pid

    async def announcement(self, timeout_s: float) -> dict[str, object]:
        """The line with which the part says that it listens."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except (asyncio.TimeoutError, ValueError):
            raise Failure(
                f"the {self.name} did not start in {timeout_s:.0f} s{self.tail()}"
            ) from None
        if not line:
            raise await self.death()
        self.drain()
        try:
            announced = json.loads(line)
        except ValueError:
            announced = None
        if not isinstance(announced, dict):
            raise Failure(
                f"the {self.name} did not say where it listens but: {line.decode()[:200]}"
            )
        return announced

    def drain(self) -> None:
        """Read the output from here on, so that a part that prints is never held up."""
        assert self._process.stdout is not None
        self._readers.append(asyncio.create_task(self._follow(self._process.stdout, errors=False)))

    async def death(self) -> Failure:
        """Wait until the part has ended by itself; what to say about that."""
        code = await self._process.wait()
        await asyncio.wait(self._readers, timeout=1)
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        return Failure(f"the {self.name} ended by itself ({how}){self.tail()}")

    async def stop(self, hurry: asyncio.Event) -> None:
        """Ask it to end, and end it with all it started after the grace or when in a hurry."""
        waiting = [asyncio.create_task(task) for task in (self._process.wait(), hurry.wait())]
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await asyncio.wait(waiting, timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.group, signal.SIGKILL)
        await self._process.wait()
        for task in (*waiting, *self._readers):
            task.cancel()
        await asyncio.gather(*waiting, *self._readers, return_exceptions=True)

    def tail(self) -> str:
        """Its last lines, to stand below a message."""
        if not self._said:
            return ", without a word"
        return "; its last lines:\n" + "\n".join(f"    {line}" for line in self._said)

    async def _follow(self, stream: asyncio.StreamReader, errors: bool) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                # Longer than the limit; the reader has dropped it.
                continue
            if not line:
                return
            self._said.append(line.decode(errors="replace").rstrip())
            if errors and self.echo:
                write(line, sys.stderr.buffer)


def write(line: bytes, stream: IO[bytes]) -> None:
    """Pass a line on; a terminal that was closed must not keep the part from being read."""
    with contextlib.suppress(OSError):
        stream.write(line)
        stream.flush()
