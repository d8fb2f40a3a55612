"""The folder that keeps the cache between runs."""

import errno
import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path

from local_stack.run.failure import Failure

MARKER = "embedrack-stack.json"
STORE = "qdrant"
PROGRAM = "embedrack local stack"
# A stack that was killed leaves its store stopping for a moment, with the lock still held.
PATIENCE_S = 15.0


def default_folder() -> Path:
    """Where a user's programs keep their state, by the system's convention."""
    try:
        home = Path.home()
    except RuntimeError:
        raise Failure("your home folder is not known: name a folder with DATA_DIR=") from None
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "embedrack"
    given = os.environ.get("XDG_STATE_HOME", "")
    # The convention says to ignore a relative one.
    base = Path(given) if os.path.isabs(given) else home / ".local" / "state"
    return base / "embedrack"


class Folder:
    """A data folder with our marker in it, held by one running stack at a time."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is touched yet."""
        self.path = path
        #: The file that is locked while the stack runs, for its parts to hold it open as well.
        self.lock: int | None = None

    @property
    def store(self) -> Path:
        """The store's own folder in it."""
        return self.path / STORE

    def claim(self, url: str) -> None:
        """Make the folder if it is not there, and hold it for the stack at this address."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign()
            self.lock = os.open(self.path / MARKER, os.O_RDWR | os.O_CREAT, 0o600)
            self._take_turn(self.lock)
            record = json.dumps({"program": PROGRAM, "url": url, "pid": os.getpid()})
            os.ftruncate(self.lock, 0)
            os.pwrite(self.lock, f"{record}\n".encode(), 0)
        except OSError as error:
            raise Failure(explain(error, self.path)) from None

    def release(self) -> None:
        """Let another stack have the folder."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def clean(self) -> bool:
        """Delete what we keep in the folder; False if there was nothing."""
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return False
        self._refuse_foreign()
        try:
            self.lock = os.open(self.path / MARKER, os.O_RDWR)
            self._take_turn(self.lock)
            if self.store.is_dir():
                shutil.rmtree(self.store)
            # The marker goes last: a folder that was cleaned by half is still known as ours.
            (self.path / MARKER).unlink()
            if not any(self.path.iterdir()):
                self.path.rmdir()
        except OSError as error:
            raise Failure(explain(error, self.path)) from None
        finally:
            self.release()
        return True

    def _refuse_foreign(self) -> None:
        """Keep off a folder that holds anything but was not made by us."""
        marker = self.path / MARKER
        if marker.is_file():
            try:
                ours = json.loads(marker.read_text() or "{}").get("program", PROGRAM) == PROGRAM
            except (ValueError, AttributeError):
                ours = False
        else:
            ours = not any(self.path.iterdir())
        if not ours:
            raise Failure(
                f"{self.path} holds files that are not this stack's: "
                "name a folder of its own with DATA_DIR="
            )

    def _take_turn(self, lock: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._refuse_running(time.monotonic() > until)
                time.sleep(0.2)

    def _refuse_running(self, late: bool) -> None:
        """Point to the stack that holds the folder, unless that one is only going away."""
        try:
            holder = json.loads((self.path / MARKER).read_text())
            alive = late or lives(holder["pid"])
        except (ValueError, KeyError):
            # It is just writing the marker.
            holder, alive = {}, late
        if alive:
            self.release()
            raise Failure(
                f"a stack runs already at {holder.get('url')} (process {holder.get('pid')}) with "
                f"its cache in {self.path}: use that one, stop it with Ctrl-C where it runs, or "
                "start another with its own PORT= and DATA_DIR="
            )


def lives(pid: int) -> bool:
    """Whether there is a process with this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def explain(error: OSError, path: Path) -> str:
    """One sentence for what the system refused about the data folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {path} is full: make room, or name another folder with DATA_DIR="
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot write to {path}: name a folder of yours with DATA_DIR="
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{path} is not a folder: name one with DATA_DIR="
    return f"{path}: {error.strerror}: name another folder with DATA_DIR="
