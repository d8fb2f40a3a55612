"""Files are read and cut in a process of its own, which hostile ones may break or hang.

The parsers are C: some thousand nested quotes in Markdown end the process that parses them. Such a
file is then cut by lines here, and the next one has a new process. It also keeps this process
free for whom it serves.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Any, TextIO

from code_search.chunks import Chunk, cut
from code_search.files import File, Skipped, read
from code_search.settings import Settings
from code_search.source import Source

_SECONDS = 20.0
_REPLY_BYTES = 256_000_000
_MEMORY_BYTES = 4_000_000_000
#: It ended, hangs, or does not say what it should.
_BROKEN = (
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
    asyncio.TimeoutError,
    ConnectionError,
    KeyError,
    TypeError,
    ValueError,
)


class Cutter:
    """The files of one source, cut one at a time."""

    def __init__(self, source: Source, settings: Settings) -> None:
        """Prepare to cut; the process starts with the first file."""
        self._source = source
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Cutter:
        """Nothing is started yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the process."""
        await self._end()

    async def cut(self, file: File) -> list[Chunk] | Skipped:
        """Read a file and cut it, by lines where its structure cannot be had."""
        try:
            return await asyncio.wait_for(self._ask(file), _SECONDS)
        except _BROKEN:
            await self._end()
            return await asyncio.to_thread(cut_file, self._source, file, self._settings, False)
        except BaseException:
            await self._end()  # a reply that nobody reads would be the next one's
            raise

    async def _ask(self, file: File) -> list[Chunk] | Skipped:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "code_search.cutter"),
                cwd=Path(__file__).parents[1],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_REPLY_BYTES,
            )
            source = {**vars(self._source), "folder": str(self._source.folder), "listing": ()}
            # No more of the settings: a key is nothing for a process that may be taken over.
            limits = {"max_file_bytes": self._settings.max_file_bytes}
            await self._send({"source": source, "settings": limits})
        await self._send(vars(file))
        assert self._process.stdout is not None
        answer = json.loads(await self._process.stdout.readuntil())
        if "reason" in answer:
            return Skipped(file.path, answer["reason"])
        return [Chunk(**chunk) for chunk in answer["chunks"]]

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.communicate()


def cut_file(
    source: Source, file: File, settings: Settings, by_structure: bool = True
) -> list[Chunk] | Skipped:
    """Read a file and cut it, in this process."""
    text = read(source, file, settings)
    return text if isinstance(text, Skipped) else cut(file, text, by_structure=by_structure)


def serve(questions: TextIO, answers: TextIO) -> None:
    """Answer a line of JSON for each file with one of its chunks, until there are no more."""
    first = json.loads(questions.readline())
    folder = Path(first["source"].pop("folder"))
    source, settings = Source(folder=folder, **first["source"]), Settings(**first["settings"])
    for line in questions:
        outcome = cut_file(source, File(**json.loads(line)), settings)
        reply = (
            {"reason": outcome.reason}
            if isinstance(outcome, Skipped)
            else {"chunks": [vars(chunk) for chunk in outcome]}
        )
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    if sys.platform == "linux":  # elsewhere the limit is not kept, or refused
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin, sys.stdout)
