"""Packages of apt that a host has fetched, kept for the next host of the same system.

Each host has a folder of its own, since apt locks it while it installs. The folders hold hard links
to the same files, so that nothing is fetched or stored twice.
"""

import os
import shutil
from pathlib import Path

import paths


def lend(system: str, folder: Path) -> None:
    """Make a host's folder of packages, with a link to every package that is known."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    link(paths.STATE / "packages" / system, folder)


def give_back(system: str, folder: Path) -> None:
    """Keep what a host has fetched. apt renames a package into its place only when it is whole."""
    kept = paths.STATE / "packages" / system
    kept.mkdir(parents=True, exist_ok=True)
    link(folder, kept)


def link(source: Path, target: Path) -> None:
    """Link the packages of one folder into another one."""
    for package in source.glob("*.deb"):
        if not (target / package.name).exists():
            os.link(package, target / package.name)
