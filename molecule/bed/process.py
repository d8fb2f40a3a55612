"""Processes that outlive the command that started them: known again by id and time of start."""

import json
from pathlib import Path


def started(number: int) -> str:
    """Return when a process started (field 22 of /proc/PID/stat), "" for one that has ended."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def record(place: Path, number: int, /, **more: object) -> None:
    """Write down a process that was just started, and what else is to be known of it."""
    place.write_text(json.dumps({"pid": number, "started": started(number), **more}))


def read(place: Path) -> dict[str, object]:
    """Return what was written down; empty if nothing was."""
    return dict(json.loads(place.read_text())) if place.exists() else {}


def pid(place: Path) -> int:
    """Return the id of the process that was written down, 0 where it no longer runs."""
    known = read(place)
    number = int(str(known.get("pid", 0)))
    return number if number and started(number) == known.get("started") else 0


def children(number: int) -> list[int]:
    """Return the ids of a process's children (field 4 of /proc/PID/stat is the parent)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has ended meanwhile
            continue
        if parent == str(number):
            found.append(int(stat.parent.name))
    return found
