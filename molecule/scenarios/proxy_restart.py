"""Under load with 400 connections: a restart of the proxy, and a new wheel by site.yml."""

import time
from pathlib import Path

from scenario import ROOT, Host, check


def run(host: Host) -> None:
    """Restart under load, then deploy another release under load."""
    host.deploy(tei_gpus=2)
    with host.load("--connections", "400", "--rate", "20") as load:
        for _ in range(3):
            host.sh("systemctl restart embedrack-proxy")
            time.sleep(5)
    host.say(f"three restarts: {load['requests']} requests, failed {load['failed']}")
    check(load["failed"] == 0, f"restart: {load['kinds']} {load['failures'][:5]}")
    before = host.sh("systemctl show --value -p ExecStart embedrack-proxy")
    readme = Path(ROOT, "README.md")
    former = readme.read_text()
    try:
        # Part of the wheel's description: another release, the same program.
        readme.write_text(former + "\n")
        with host.load("--connections", "400", "--rate", "20") as load:
            play = host.deploy(tei_gpus=2)
    finally:
        readme.write_text(former)
    after = host.sh("systemctl show --value -p ExecStart embedrack-proxy")
    check(before.split()[1] != after.split()[1], "site.yml did not deploy the new wheel")
    host.say(
        f"new wheel: {play.seconds:.0f} s, {load['requests']} requests, failed {load['failed']}"
    )
    check(load["failed"] == 0, f"new wheel: {load['kinds']} {load['failures'][:5]}")
