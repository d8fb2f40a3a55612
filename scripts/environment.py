"""The virtual environments of this checkout: made once from a lock, re-made when stale."""

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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from installer import Installer

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
# Other people's clients and servers want versions of their own, and the example needs much that
# nothing else does, so that they live apart.
VENVS = {
    "run": VENV,
    "test": VENV,
    "clients": ROOT / ".venv-clients",
    "peers": ROOT / ".venv-peers",
    "example": ROOT / ".venv-example",
}

# Started from the checkout's own folder, so that a moved checkout needs no new paths in it.
CONSOLE_SCRIPT = """\
#!/bin/sh
exec "$(dirname "$0")/python" -m proxy_app "$@"
"""


class Failure(Exception):
    """What went wrong and its remedy, in one sentence."""


def main(arguments: list[str]) -> int:
    """Make sure that the environments of the named locks hold their packages."""
    if not arguments:
        return 0
    if not set(arguments) <= set(VENVS):
        print(f"usage: bootstrap.py [{'|'.join(VENVS)}]...", file=sys.stderr)
        return 2
    if len(arguments) > 1:
        return side_by_side(arguments)
    try:
        ensure(arguments[0])
    except Failure as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"failed: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        venv = VENVS[arguments[0]].name
        print(f"\nfailed: interrupted; the next call starts {venv} anew", file=sys.stderr)
        return 130
    return 0


def side_by_side(locks: list[str]) -> int:
    """Make several environments at the same time, each in a process; 1 if any of them failed."""
    script = Path(__file__).with_name("bootstrap.py")
    # Their output is passed on by lines: two lines that move would overwrite each other.
    makers = [
        subprocess.Popen([sys.executable, str(script), lock], stdout=subprocess.PIPE, text=True)
        for lock in locks
    ]
    try:
        with ThreadPoolExecutor(len(makers)) as threads:
            codes = list(threads.map(pass_on, makers))
    except KeyboardInterrupt:
        # The terminal interrupts them too, and each says so.
        return 130
    failed = [VENVS[lock].name for lock, code in zip(locks, codes, strict=True) if code]
    if failed:
        print(f"failed: {', '.join(failed)}; the reason stands above", file=sys.stderr)
    return 1 if failed else 0


def pass_on(maker: "subprocess.Popen[str]") -> int:
    """Print what a process prints until it ends; its exit status."""
    assert maker.stdout is not None
    with maker:
        for line in maker.stdout:
            print(line, end="", flush=True)
    return maker.returncode


def ensure(lock: str) -> None:
    """Leave an environment that holds the packages of this lock, untouched if it already does."""
    venv = VENVS[lock]
    with only_one(lock):
        stamp = read_stamp(venv)
        wanted = describe([lock])
        if stamp == wanted or stamp == describe(["run", "test"]):
            return
        began = time.monotonic()
        if stamp != describe(["run"]):
            create(venv)
        # From here until the last line the stamp is not there: cut short means made anew.
        write_stamp(venv, {})
        installer = Installer(venv / "bin" / "python", ROOT / "locks" / f"{lock}.txt")
        problem = installer.run()
        if problem:
            raise Failure(problem)
        if venv == VENV:
            link_checkout()
        # The test lock holds the run lock's packages too, in the same versions.
        write_stamp(venv, describe(["run", "test"] if lock == "test" else [lock]))
        seconds = time.monotonic() - began
        print(f"{venv.name}: {installer.summary()}, {seconds:.1f} s in all", flush=True)


@contextmanager
def only_one(lock: str) -> Iterator[None]:
    """Let two `make` that want one environment take turns."""
    # Any file that each of them finds would do, but the environment's own folder is made anew.
    name = "run" if VENVS[lock] == VENV else lock
    file = os.open(ROOT / "locks" / f"{name}.txt", os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{VENVS[lock].name}: another make is at work on it, waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


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


def read_stamp(venv: Path) -> dict[str, object]:
    """What an environment was made from; empty where it is absent, half made or broken."""
    file = stamp_of(venv)
    # A link to a Python that has been removed since does not exist either.
    if not (file.exists() and (venv / "bin" / "python").exists()):
        return {}
    try:
        stamp = json.loads(file.read_text())
    except ValueError:
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: dict[str, object]) -> None:
    """Say what an environment was made from."""
    stamp_of(venv).write_text(json.dumps(stamp, indent=2) + "\n")


def stamp_of(venv: Path) -> Path:
    """Where an environment of ours says what it was made from."""
    return venv / "embedrack.json"


def create(venv: Path) -> None:
    """Make an empty environment, in place of one that we made before."""
    python = sys.executable if sys.prefix == sys.base_prefix else base_python()
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise Failure(
                f"this Python ({python}) has no module {module}: `apt install python3-venv` "
                "brings it on Debian and Ubuntu; elsewhere name a Python that has it with PYTHON="
            )
    if venv.exists() and any(venv.iterdir()) and not stamp_of(venv).exists():
        raise Failure(f"{venv} is there, but make did not make it: move it away or delete it")
    print(f"{venv.name}: making it with Python {platform.python_version()}", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir()
    write_stamp(venv, {})
    made = subprocess.run(
        [python, "-m", "venv", str(venv)], capture_output=True, text=True, check=False
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
