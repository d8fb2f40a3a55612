"""The folder that the workers of one server share, in memory where the system has a place for that.

Somebody else may empty it: systemd-logind removes what a user has in ``/dev/shm`` when that user
logs out. So whoever writes into it makes sure of it first, and whoever reads expects that a file is
gone. Each process that uses a folder holds a lock on it, which ends with the process: a folder that
nobody has locked was left by a server that was killed, and the next one to start removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from proxy_app.workers.locks import try_lock

#: How the folders' names begin; nothing else in that place may have such a name.
PREFIX = "embedrack-workers-"
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """One process' hold on the folder at ``path``."""

    def __init__(self, path: Path) -> None:
        """Make the folder where it is not, and lock it; raises OSError."""
        self.path = path
        self._fd = -1
        self.ensure()

    @classmethod
    def create(cls) -> Folder:
        """Make the folder of a new server, and remove what servers that were killed have left."""
        shared = Path("/dev/shm")
        usable = os.access(shared, os.W_OK | os.X_OK)
        place = shared if usable else Path(tempfile.gettempdir())
        for left in place.glob(f"{PREFIX}*"):
            _remove_unused(left)
        return cls(Path(tempfile.mkdtemp(prefix=PREFIX, dir=place)))

    def ensure(self) -> None:
        """Make the folder again where it is gone; raises OSError where that is not possible."""
        while not self._is_there():
            self.path.mkdir(mode=0o700, exist_ok=True)
            try:
                fd = os.open(self.path, _FLAGS)
            except FileNotFoundError:
                continue  # removed again
            self.close()
            self._fd = fd
            if os.fstat(fd).st_uid != os.geteuid():
                raise PermissionError(f"{self.path} is another user's")
            fcntl.flock(fd, fcntl.LOCK_SH)  # waits for nobody but one who is removing it

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Give up this process' hold on it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_there(self) -> bool:
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            return False


def _remove_unused(path: Path) -> None:
    """Remove a folder of ours that no process has locked."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return
    try:
        if os.fstat(fd).st_uid == os.geteuid() and try_lock(fd):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(fd)
