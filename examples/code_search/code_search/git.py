"""git at work on what strangers wrote: no program of theirs runs, and every call is bounded.

A repository's own configuration can name programs (``core.fsmonitor``, hooks, transports); what is
given here on the command line and in the environment takes precedence over it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from code_search.errors import SourceError
from code_search.together import together

#: What git itself calls local to a repository (``git rev-parse --local-env-vars``): it would
#: point every call at another repository where the caller is itself run by git.
_LOCAL = (
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_CONFIG_COUNT"),
    *("GIT_CONFIG_PARAMETERS", "GIT_DIR", "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE"),
    *("GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"),
    *("GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE"),
)
_SAFE = (
    *("--no-pager", "--literal-pathspecs"),
    *("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"),
    *("-c", "core.sshCommand=false", "-c", "safe.bareRepository=explicit"),
    *("-c", "submodule.recurse=false"),
)
_SECONDS = 60
_OUTPUT_BYTES = 64_000_000


async def git(
    *arguments: str,
    folder: Path | None = None,
    seconds: float = _SECONDS,
    environment: Mapping[str, str] | None = None,
    transports: str = "none",
) -> bytes:
    """Run git in a folder and return what it printed.

    Raises SourceError with git's own last line where it fails, prints more than 64 MB or takes
    longer than ``seconds``. When the caller is cancelled git is ended.
    """
    async with _running(arguments, folder, environment or {}, transports) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        reading = together(
            _read(process.stdout, _OUTPUT_BYTES), _read(process.stderr, 100_000, cut=True)
        )
        try:
            printed, complaints = await asyncio.wait_for(reading, seconds)
            code = await process.wait()
        except asyncio.TimeoutError:
            raise SourceError(f"git {arguments[0]} took longer than {seconds:g} s") from None
    if code:
        raise SourceError(f"git {arguments[0]} failed: {_last_line(complaints)}")
    return printed


@asynccontextmanager
async def _running(
    arguments: Sequence[str],
    folder: Path | None,
    environment: Mapping[str, str],
    transports: str,
) -> AsyncIterator[asyncio.subprocess.Process]:
    surrounding = {name: value for name, value in os.environ.items() if name not in _LOCAL}
    own = {
        "GIT_ALLOW_PROTOCOL": transports,
        "GIT_ASKPASS": "",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        "SSH_ASKPASS": "",
    }
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            *_SAFE,
            *arguments,
            cwd=folder,
            env={**surrounding, **own, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that its transport ends with it
        )
    except FileNotFoundError:
        raise SourceError("the command `git` is needed, and is not on PATH") from None
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it ended just now
                os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()  # reads what is left, so that the pipes are closed


async def _read(stream: asyncio.StreamReader, limit: int, *, cut: bool = False) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await stream.read(65536):
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif not cut:
            raise SourceError(f"git printed more than {limit:,} bytes")
    return b"".join(parts)


def _last_line(complaints: bytes) -> str:
    lines = complaints.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    return "".join(letter for letter in lines[-1] if letter.isprintable())[:300]
