"""Runs programs; a failure shows what they printed."""

import subprocess
import sys
from pathlib import Path


class Failure(Exception):
    """What went wrong, in one sentence and the program's last lines."""


def run(*command: str | Path, **options: object) -> str:
    """Run a program to its end and return its output; Failure where its exit status is not 0."""
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        tail = "\n".join(str(done.stdout).splitlines()[-15:])
        raise Failure(f"`{' '.join(str(part) for part in command)}` failed:\n{tail}")
    return str(done.stdout)


def say(text: str) -> None:
    """Tell the person in front what goes on."""
    print(f"bed: {text}", file=sys.stderr, flush=True)
