"""The virtual environment of this checkout: made once from a lock, re-made when it is stale."""

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from installer import Installer

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "embedrack.json"
LOCKS = ("run", "test")

# Started from the checkout's own folder, so that a moved checkout needs no new paths in it.
CONSOLE_SCRIPT = """\
#!/bin/sh
exec "$(dirname "$0")/python" -m proxy_app "$@"
"""


class Failure(Exception):
    """What went wrong and its remedy, in one sentence."""


def main(arguments: list[str]) -> int:
    """Make sure that `.venv` holds the named lock's packages."""
    if not arguments:
        return 0
    if len(arguments) > 1 or arguments[0] not in LOCKS:
        print("usage: bootstrap.py [run|test]", file=sys.stderr)
        return 2
    try:
        ensure(arguments[0])
    except Failure as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"failed: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nfailed: interrupted; the next call starts .venv anew", file=sys.stderr)
        return 130
    return 0


def ensure(lock: str) -> None:
    """Leave a `.venv` that holds the packages of this lock, doing nothing if it already does."""
    with only_one():
        stamp = read_stamp()
        wanted = describe([lock])
        if stamp == wanted or stamp == describe(["run", "test"]):
            return
        began = time.monotonic()
        if stamp != describe(["run"]):
            create()
        # From here until the last line the stamp is not there: cut short means made anew.
        write_stamp({})
        installer = Installer(VENV / "bin" / "python", ROOT / "locks" / f"{lock}.txt")
        problem = installer.run()
        if problem:
            raise Failure(problem)
        link_checkout()
        # The test lock holds the run lock's packages too, in the same versions.
        write_stamp(describe(["run", "test"] if lock == "test" else [lock]))
        print(f".venv: {installer.summary()}, {time.monotonic() - began:.1f} s in all", flush=True)


@contextmanager
def only_one() -> Iterator[None]:
    """Let two `make` at once take turns."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(".venv: another make is at work on it, waiting", flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def describe(locks: list[str]) -> dict[str, object]:
    """What the stamp of an environment with these locks says."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "prefix": sys.base_prefix,
        "checkout": str(ROOT),
        "locks": {name: digest(ROOT / "locks" / f"{name}.txt") for name in locks},
    }


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_stamp() -> dict[str, object]:
    """What `.venv` was made from; empty where it is absent, half made or broken."""
    # A link to a Python that has been removed since does not exist either.
    if not (STAMP.exists() and (VENV / "bin" / "python").exists()):
        return {}
    try:
        stamp = json.loads(STAMP.read_text())
    except ValueError:
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(stamp: dict[str, object]) -> None:
    """Say what `.venv` was made from."""
    STAMP.write_text(json.dumps(stamp, indent=2) + "\n")


def create() -> None:
    """Make an empty `.venv`, in place of one that we made before."""
    python = sys.executable if sys.prefix == sys.base_prefix else base_python()
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise Failure(
                f"this Python ({python}) has no module {module}: `apt install python3-venv` "
                "brings it on Debian and Ubuntu; elsewhere name a Python that has it with PYTHON="
            )
    if VENV.exists() and any(VENV.iterdir()) and not STAMP.exists():
        raise Failure(f"{VENV} is there, but make did not make it: move it away or delete it")
    print(f".venv: making it with Python {platform.python_version()}", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    write_stamp({})
    made = subprocess.run(
        [python, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        if "No space left" in made.stdout + made.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = (made.stdout + made.stderr).strip().splitlines() or ["no output"]
        raise Failure(f"`{python} -m venv` failed: {lines[-1]}")


def base_python() -> str:
    """The Python that the active virtual environment (perhaps `.venv` itself) was made from."""
    base: str = sys._base_executable  # type: ignore[attr-defined]
    return base


def link_checkout() -> None:
    """Make the checkout importable and put the command `embedrack` beside the Python."""
    site = VENV / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    (site / "embedrack.pth").write_text(f"{ROOT}\n")
    script = VENV / "bin" / "embedrack"
    script.write_text(CONSOLE_SCRIPT)
    script.chmod(0o755)


def explain(error: OSError) -> str:
    """One sentence for what the system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {ROOT} is full: make room (about 300 MB) and call again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"cannot write {error.filename or VENV}: get the right to, or use a copy of your own"
    return f"{error.filename or VENV}: {error.strerror}"
