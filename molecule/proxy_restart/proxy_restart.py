"""Under load with 400 connections: a restart of the proxy, and a new wheel by site.yml."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from host import Host, check
from playbook import PROJECT
from scenario import main

#: Misses too, but few: it is the proxy that is tried, not how fast a CPU embeds.
LOAD = ("--connections", "400", "--rate", "10", "--texts", "mostly-seen")


def run(host: Host) -> None:
    """Restart under load, then deploy another release under load."""
    with host.load(*LOAD) as load:
        for _ in range(3):
            host.sh("systemctl restart embedrack-proxy")
            time.sleep(4)  # of load with the new workers
    host.report(f"three restarts: {load['requests']} requests, failed {load['failed']}")
    check(load["failed"] == 0, f"restart: {load['kinds']} {load['failures'][:5]}")
    before = host.sh("systemctl show --value -p ExecStart embedrack-proxy")
    with tempfile.TemporaryDirectory() as folder:
        another_release(Path(folder))
        with host.load(*LOAD) as load:
            play = host.deploy("--tags", "proxy", common_artifacts_dir=f"{folder}/artifacts")
    after = host.sh("systemctl show --value -p ExecStart embedrack-proxy")
    check(before.split()[1] != after.split()[1], "site.yml did not deploy the new wheel")
    host.report(
        f"new wheel: {play.seconds:.0f} s, {load['requests']} requests, failed {load['failed']}"
    )
    check(load["failed"] == 0, f"new wheel: {load['kinds']} {load['failures'][:5]}")


def another_release(folder: Path) -> None:
    """Make a folder of artifacts with a wheel that differs in its description alone."""
    source, artifacts = folder / "source", folder / "artifacts"
    shutil.copytree(
        PROJECT / "proxy_app", source / "proxy_app", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    with (source / "README.md").open("a") as readme:
        readme.write("\n")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(artifacts), str(source)], check=True)
    # The folder stands in for every download, Qdrant's archive too.
    archive = Path(os.environ["BED_INVENTORY"]).parent / "artifacts" / "qdrant-stand-in.tar.gz"
    (artifacts / archive.name).symlink_to(archive)


if __name__ == "__main__":
    main(run)
