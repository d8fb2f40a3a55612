"""The checks of `make test`, each with its time: `.venv/bin/python scripts/check.py [NAME …]`."""

import os
import subprocess
import sys
import time

PYTHON = sys.executable
MYPY = [PYTHON, "-m", "mypy"]
#: The code search's own environment, beside ours.
EXAMPLE = ".venv-example/bin/python"
SCENARIOS = [PYTHON, "-u", "molecule/run.py"]
#: What ends a program that could not run its checks here.
NOT_RUN = 3

#: Every part's own folder is one mypy run: programs of one file name would clash in a single one.
CHECKS = {
    "lint": [[PYTHON, "-m", "ruff", "check", "."]],
    "format": [[PYTHON, "-m", "ruff", "format", "--check", "."]],
    "types": [
        MYPY,
        [*MYPY, "--python-version", "3.11", "scripts"],
        [*MYPY, "library"],
        [*MYPY, "molecule/bed"],
        [*MYPY, "molecule/load"],
        [*MYPY, "molecule/run.py", "molecule/scenario.py", "molecule/scenarios"],
        [*MYPY, "--python-executable", EXAMPLE, "examples/code_search"],
    ],
    "roles": [[PYTHON, "-m", "ansiblelint", "--profile", "production", "--offline"]],
    "tests": [[PYTHON, "-m", "pytest"]],
    "example": [[EXAMPLE, "-m", "pytest", "examples/code_search"]],
    "scenarios": [
        [*SCENARIOS, "--os", "bookworm"],
        [*SCENARIOS, "--os", "trixie", "one_host"],
    ],
}
#: Without a real systemd host.
FAST = [name for name in CHECKS if name != "scenarios"]


def main() -> int:
    """Run the checks named, or every one, also after one that failed; 1 if any did."""
    names = sys.argv[1:] or list(CHECKS)
    verdicts = {}
    for name in FAST if names == ["fast"] else names:
        began = time.monotonic()
        codes = [run(name, command) for command in CHECKS[name]]
        verdicts[name] = verdict(codes)
        print(f"== {name}: {verdicts[name]}, {time.monotonic() - began:.1f} s", flush=True)
    failed = [name for name, said in verdicts.items() if said == "failed"]
    not_run = [name for name, said in verdicts.items() if said == "NOT RUN"]
    if not_run:
        print(f"== NOT RUN: {', '.join(not_run)}; the reason stands above", flush=True)
        if os.environ.get("CI"):
            print("== on CI that is a failure", flush=True)
            failed += not_run
    print(f"== failed: {', '.join(failed)}" if failed else "== what ran passed", flush=True)
    return 1 if failed else 0


def run(name: str, command: list[str]) -> int:
    """Run one command; returns its exit status."""
    print(f"== {name}: {' '.join(command[1:])}", flush=True)
    return subprocess.run(command, check=False).returncode


def verdict(codes: list[int]) -> str:
    """Sum up the exit statuses of a check's commands."""
    if any(code not in (0, NOT_RUN) for code in codes):
        return "failed"
    return "NOT RUN" if NOT_RUN in codes else "ok"


if __name__ == "__main__":
    sys.exit(main())
