"""The data folder: who owns it, and writes to it that a crash cannot tear."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from local_stack.qdrant.errors import StartupError

LOCK_NAME = "lock"

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_folder(folder: Path) -> IO[bytes]:
    """Takes the folder for this process until the returned file is closed or the process dies.

    The system releases the lock, so a killed process leaves none behind.

    Raises:
        StartupError: another process has it.
        OSError: the folder cannot be written to.
    """
    file = open(folder / LOCK_NAME, "ab")  # noqa: SIM115 - it stays open as long as the lock is held
    try:
        _lock(file)
    except OSError as error:
        file.close()
        raise StartupError(f"the data folder {folder} is in use by another process") from error
    return file


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces a file: after a crash it has the old content or the new one, never a part.

    Raises:
        OSError: it was not written; the old content is unharmed.
    """
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def sync_files(folder: Path) -> None:
    """Writes what the system holds of the files below a folder to the disk.

    Unlike the engine's flush this frees the interpreter's lock, so it can run in a thread while
    requests are served; the flush that follows then finds little left to wait for.
    """
    for root, _, names in os.walk(folder):
        for name in names:
            # The engine replaces files meanwhile; its own flush syncs what it made last. Some
            # systems refuse to sync a file opened for reading: this is only a head start.
            with contextlib.suppress(OSError), open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Makes a rename last. Windows cannot open a folder and needs no such call."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
