"""Snapshots of a host: its overlay and its containers, from which it starts again in seconds.

A snapshot is a layer below a host's own overlay, so that restoring it copies nothing but the index
of podman's storage; the files of image layers are hard links, since podman never writes to them.
A snapshot carries the mark of what it was made from and counts only while that is the same.
"""

import hashlib
import shutil
from pathlib import Path

import artifacts
import host
import paths
from command import run, say

#: What a deployed host is made from, besides the stand-ins.
SOURCES = ("roles", "templates", "library", "playbooks", "proxy_app", "locks")
#: Files that the proxy's wheel holds, and what builds it.
PROJECT = ("pyproject.toml", "README.md", "LICENSE", "scripts/wheel.py")


class Absent(Exception):
    """Why there is no snapshot to start from."""


def save(name: str, label: str) -> None:
    """Power a host off, keep its state under a label, and boot it again from there."""
    known = host.about(name)
    host.off(name)
    folder = place(str(known["system"]), label)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in ("upper", "containers"):
        (paths.host(name) / part).rename(folder / part)
    (folder / "mark").write_text(mark())
    say(f"{name}: the snapshot {label} is taken")
    restore(name, label)


def restore(name: str, label: str) -> None:
    """Boot a host as it was when the snapshot was taken; an empty label boots it empty.

    Absent where there is no such snapshot, or one that was made from other sources than today's.
    """
    known = host.about(name)
    system, number = str(known["system"]), int(str(known["number"]))
    folder = place(system, label) if label else None
    if folder and not (folder / "mark").exists():
        raise Absent(f"there is no snapshot {label} of {system}")
    if folder and (folder / "mark").read_text() != mark():
        raise Absent(f"the snapshot {label} of {system} was made from other sources than today's")
    host.down(name)
    if folder:
        copy(folder / "containers", paths.host(name) / "containers")
    host.up(name, system, number, folder)


def copy(source: Path, target: Path) -> None:
    """Copy podman's storage; the files of image layers are linked."""
    storage = source / "storage"

    def left_out(folder: str, _: list[str]) -> list[str]:
        return ["overlay"] if Path(folder) == storage else []

    shutil.copytree(source, target, symlinks=True, ignore=left_out)
    if (storage / "overlay").is_dir():
        run("cp", "-al", storage / "overlay", target / "storage")


def place(system: str, label: str) -> Path:
    """Return the folder of a snapshot."""
    return paths.STATE / "snapshots" / system / label


def mark() -> str:
    """Return a hash of everything that a deployed host is made from."""
    total = hashlib.sha256(artifacts.sources_mark().encode())
    files = [path for name in SOURCES for path in sorted((paths.CHECKOUT / name).rglob("*"))]
    files += [paths.CHECKOUT / name for name in ("site.yml", *PROJECT)]
    files += sorted(Path(__file__).parent.glob("*.py"))
    for path in files:
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(str(path.relative_to(paths.CHECKOUT)).encode() + path.read_bytes())
    return total.hexdigest()
