"""Which processes there are, from /proc or, where there is none, from `ps`."""

import subprocess
import time
from pathlib import Path

PROC = Path("/proc/self/stat")


def parents() -> dict[int, int]:
    """The parent of every process that runs; one that is dead and only not collected does not."""
    if not PROC.exists():
        listed = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,stat="], text=True)
        rows = [line.split() for line in listed.splitlines()]
        return {int(pid): int(parent) for pid, parent, state in rows if "Z" not in state}
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(") ")[2].split()[:2]
        except OSError:
            # It ended meanwhile.
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


def descendants(ancestor: int) -> set[int]:
    """All processes below this one."""
    tree = parents()
    found: set[int] = set()
    grown = {ancestor}
    while grown:
        grown = {pid for pid, parent in tree.items() if parent in grown} - found
        found |= grown
    return found


def left(processes: set[int], within_s: float) -> set[int]:
    """Those that still run after this time, or none as soon as all have ended."""
    until = time.monotonic() + within_s
    while (still := processes & parents().keys()) and time.monotonic() < until:
        time.sleep(0.1)
    return still
