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

PYTHON = sys.executable
MYPY = [PYTHON, "-m", "mypy"]
#: The code search's own environment, beside ours.
EXAMPLE = ".venv-example/bin/python"
SCENARIOS = [PYTHON, "-u", "molecule/run.py"]
#: What ends a program that could not run its checks here.
NOT_RUN = 3
#: How many checks run at a time. The tests, which mostly wait, are three processes of their own.
AT_ONCE = 2

#: Begun in this order, the longest first.
#: Every part's own folder is one mypy run: programs of one file name would clash in a single one.
CHECKS = {
    "tests": [[PYTHON, "-m", "pytest", "-n", "3"]],
    "lint": [[PYTHON, "-m", "ruff", "check", "."]],
    "format": [[PYTHON, "-m", "ruff", "format", "--check", "."]],
    "types": [
        MYPY,
        [*MYPY, "--python-version", "3.11", "scripts"],
        [*MYPY, "molecule/bed"],
        [*MYPY, "molecule/load"],
        [*MYPY, "molecule/run.py", "molecule/scenario.py", "molecule/scenarios"],
        [*MYPY, "--python-executable", EXAMPLE, "examples/code_search"],
    ],
    "example": [[EXAMPLE, "-m", "pytest", "examples/code_search"]],
    "roles": [[PYTHON, "-m", "ansiblelint", "--profile", "production", "--offline"]],
    "scenarios": [
        [*SCENARIOS, "--os", "bookworm"],
        [*SCENARIOS, "--os", "trixie", "one_host"],
    ],
}
#: Without a real systemd host. The scenarios run after the others and alone.
FAST = [name for name in CHECKS if name != "scenarios"]

#: Set by Ctrl-C: what has not begun does not begin.
INTERRUPTED = threading.Event()
# A thousand processes are started, and most of what they import was not compiled when it was
# installed: the first that imports it is to keep what it compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def main() -> int:
    """Run the checks named, or every one, also after one that failed; 1 if any did."""
    names = sys.argv[1:] or list(CHECKS)
    names = FAST if names == ["fast"] else names
    began = time.monotonic()
    try:
        verdicts = run(names)
    except KeyboardInterrupt:
        print("== interrupted", flush=True)
        return 130
    seconds = time.monotonic() - began
    failed = [name for name, said in verdicts.items() if said == "failed"]
    not_run = [name for name, said in verdicts.items() if said == "NOT RUN"]
    if not_run:
        print(f"== NOT RUN: {', '.join(not_run)}; the reason stands above", flush=True)
        if os.environ.get("CI"):
            print("== on CI that is a failure", flush=True)
            failed += not_run
    print(f"== failed: {', '.join(failed)}" if failed else "== what ran passed", end="")
    print(f", {seconds:.1f} s in all", flush=True)
    return 1 if failed else 0


def run(names: list[str]) -> dict[str, str]:
    """Run checks side by side, those with systemd hosts after the others; their verdicts."""
    together = [name for name in names if name in FAST]
    verdicts = {}
    # One check alone needs no block: what it prints is seen at once.
    if len(together) > 1:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            try:
                verdicts = dict(zip(together, threads.map(in_a_block, together), strict=True))
            except KeyboardInterrupt:
                INTERRUPTED.set()
                raise
    return verdicts | {name: check(name) for name in names if name not in verdicts}


def in_a_block(name: str) -> str:
    """Run a check and print at its end what it printed; the verdict."""
    print(f"== {name}: begun\n", end="", flush=True)
    return check(name, block=True)


def check(name: str, *, block: bool = False) -> str:
    """Run a check's commands one after the other, print its time; the verdict."""
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
    said = verdict(codes)
    print(f"{output}== {name}: {said}, {time.monotonic() - began:.1f} s\n", end="", flush=True)
    return said


def verdict(codes: list[int]) -> str:
    """Sum up the exit statuses of a check's commands."""
    if any(code not in (0, NOT_RUN) for code in codes):
        return "failed"
    return "NOT RUN" if NOT_RUN in codes else "ok"


if __name__ == "__main__":
    sys.exit(main())
