"""The checks of `make test`, each with its time: `.venv/bin/python scripts/check.py [NAME …]`.

Several run side by side, and the output of each is printed as a block when it has ended.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PYTHON = sys.executable
MYPY = [PYTHON, "-m", "mypy"]
#: The code search's own environment, beside ours.
EXAMPLE = ".venv-example/bin/python"
#: Molecule's report and the programs of its scenarios; they import those of clients/.
SCENARIOS = sorted(
    {
        str(path)
        for pattern in ("report.py", "callback/*.py", "clients/*.py", "*/*.py")
        for path in Path("molecule").glob(pattern)
        if path.parent.name not in ("bed", "load")
    }
)
#: How many checks run at a time. The tests, which wait half of the time, are three processes of
#: their own; the code search's follow them, since they starve beside them on two cores.
AT_ONCE = 2

#: Begun in this order, the longest first.
#: Every part's own folder is one mypy run: programs of one file name would clash in a single one.
CHECKS = {
    "tests": [
        [PYTHON, "-m", "pytest", "-n", "3"],
        [EXAMPLE, "-m", "pytest", "examples/code_search"],
    ],
    "lint": [[PYTHON, "-m", "ruff", "check", "."]],
    "format": [[PYTHON, "-m", "ruff", "format", "--check", "."]],
    "types": [
        MYPY,
        [*MYPY, "--python-version", "3.11", "scripts"],
        [*MYPY, "library"],
        [*MYPY, "molecule/bed"],
        [*MYPY, "molecule/load"],
        ["env", "MYPYPATH=molecule/clients", *MYPY, *SCENARIOS],
        [*MYPY, "--python-executable", EXAMPLE, "examples/code_search"],
    ],
    "roles": [[PYTHON, "-m", "ansiblelint", "--profile", "production", "--offline"]],
}

#: Set by Ctrl-C: what has not begun does not begin.
INTERRUPTED = threading.Event()
# A thousand processes are started, and most of what they import was not compiled when it was
# installed: the first that imports it is to keep what it compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def main() -> int:
    """Run the checks named, or every one, also after one that failed; 1 if any did."""
    names = sys.argv[1:] or list(CHECKS)
    began = time.monotonic()
    try:
        verdicts = run(names)
    except KeyboardInterrupt:
        print("== interrupted", flush=True)
        return 130
    seconds = time.monotonic() - began
    failed = [name for name, passed in verdicts.items() if not passed]
    print(f"== failed: {', '.join(failed)}" if failed else "== all passed", end="")
    print(f", {seconds:.1f} s in all", flush=True)
    return 1 if failed else 0


def run(names: list[str]) -> dict[str, bool]:
    """Run checks side by side; returns which of them passed."""
    # One check alone needs no block: its output appears as it comes.
    if len(names) == 1:
        return {names[0]: check(names[0])}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        try:
            return dict(zip(names, threads.map(in_a_block, names), strict=True))
        except KeyboardInterrupt:
            INTERRUPTED.set()
            raise


def in_a_block(name: str) -> bool:
    """Run a check and print at its end what it printed; returns whether it passed."""
    print(f"== {name}: begun\n", end="", flush=True)
    return check(name, block=True)


def check(name: str, *, block: bool = False) -> bool:
    """Run a check's commands one after the other, print its time; returns whether it passed."""
    began = time.monotonic()
    kept = subprocess.PIPE if block else None
    output, codes = "", []
    for command in CHECKS[name]:
        # Ctrl-C ends the programs too, perhaps before this one knows of it.
        if INTERRUPTED.is_set() or -signal.SIGINT in codes:
            break
        title = f"== {name}: {' '.join(command[1:])}\n"
        if not block:
            print(title, end="", flush=True)
        ended = subprocess.run(
            command, stdout=kept, stderr=subprocess.STDOUT if block else None, check=False
        )
        codes.append(ended.returncode)
        output += title + ended.stdout.decode(errors="replace") if block else ""
    passed = not any(codes)
    verdict = "ok" if passed else "failed"
    print(f"{output}== {name}: {verdict}, {time.monotonic() - began:.1f} s\n", end="", flush=True)
    return passed


if __name__ == "__main__":
    sys.exit(main())
