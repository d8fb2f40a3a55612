"""The test bed: `python3 molecule/bed VERB [HOST]` (root, Linux).

up NAME              boot a host, with what it needs beside it
down [NAME]          remove a host, or all of them and the network
status               list the hosts
shell NAME [COMMAND] a shell on a host
inventory NAME       write the folder of a host's inventory and print its path
snapshot NAME LABEL  keep a host's state under a label
restore NAME [LABEL] boot a host as it was then; without a label, empty
traces               list what a bed can leave on this machine
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import artifacts
import host
import image
import network
import paths
import process
import snapshot
import traces
from command import Failure, run, say

import inventory

NEEDED = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
}
#: The exit status of `restore` where there is no such snapshot.
ABSENT = 4
VERBS = ("up", "down", "status", "shell", "inventory", "snapshot", "restore", "traces")


def main() -> int:
    """Run a verb; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="molecule/bed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("name", nargs="?", default="", help="the host; `one` unless said")
    parser.add_argument("command", nargs="*", help="for shell: what to run; else the label")
    parser.add_argument("--os", default="bookworm", choices=image.SYSTEMS)
    parser.add_argument("--all", action="store_true", help="down: drop images and artifacts too")
    options = parser.parse_args()
    name = options.name or "one"
    try:
        if options.verb == "up":
            up(name, options.os)
        elif options.verb == "down":
            down(options.name, everything=options.all)
        elif options.verb == "inventory":
            print(inventory.write(name, str(host.about(name)["address"])))
        elif options.verb == "snapshot":
            snapshot.save(name, options.command[0])
        elif options.verb == "restore":
            snapshot.restore(name, "".join(options.command[:1]))
        elif options.verb == "traces":
            print("\n".join(traces.found()))
        elif options.verb == "shell":
            return subprocess.run(
                [*host.ssh(str(host.about(name)["address"])), *options.command], check=False
            ).returncode
        else:
            for known in names():
                print(known, host.about(known), "running" if host.pid(known) else "stopped")
    except KeyError:
        print(f"bed: there is no host {name}; `up {name}` makes it", file=sys.stderr)
        return 1
    except snapshot.Absent as absent:
        print(f"bed: {absent}", file=sys.stderr)
        return ABSENT
    except Failure as failure:
        print(f"bed: {failure}", file=sys.stderr)
        return 1
    return 0


def names() -> list[str]:
    """Return the hosts' names."""
    folder = paths.STATE / "hosts"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def up(name: str, system: str) -> None:
    """Boot a host, with everything that it needs beside it."""
    refuse_where_impossible()
    began = time.monotonic()
    paths.STATE.mkdir(parents=True, exist_ok=True)
    with alone(system):
        image.ensure(system)
    with alone(artifacts.SYSTEM):
        image.ensure(artifacts.SYSTEM)
    with alone("shared"):
        if not paths.KEY.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bed", "-f", paths.KEY)
        artifacts.ensure()
        network.up()
        serve_models()
    known = names()
    taken = {int(str(host.about(other).get("number", -1))) for other in known if other != name}
    # The hosts that are named as their system are Molecule's: its inventory knows their addresses.
    reserved = {system: 100 + number for number, system in enumerate(image.SYSTEMS)}
    number = reserved.get(name, next(n for n in range(100) if n not in taken))
    address = host.up(name, system, number)
    folder = inventory.write(name, address)
    say(f"{name} is up after {time.monotonic() - began:.0f} s; inventory {folder}")


@contextlib.contextmanager
def alone(part: str) -> Iterator[None]:
    """Let several hosts that come up at the same time take turns at a part that they share."""
    with (paths.STATE / f"{part}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def refuse_where_impossible() -> None:
    """Name what this machine lacks."""
    if os.geteuid() != 0:
        raise Failure("the bed needs root: it boots hosts of its own")
    missing = [package for program, package in NEEDED.items() if not shutil.which(program)]
    if missing:
        raise Failure(f"install {' '.join(missing)} first: `apt-get install {' '.join(missing)}`")


def serve_models() -> None:
    """Start the stand-in for the model hub on the bed's own network."""
    place = paths.STATE / "hub.json"
    if process.pid(place):
        return
    with (paths.STATE / "hub.log").open("w") as log:
        hub = subprocess.Popen(
            [
                *(sys.executable, str(Path(__file__).with_name("hub.py"))),
                *(str(paths.ARTIFACTS / "models"), network.GATEWAY, str(inventory.HUB_PORT)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.record(place, hub.pid)


def down(name: str, *, everything: bool) -> None:
    """Remove one host, or all of the bed; nothing happens where there is none."""
    if not paths.STATE.is_dir():
        return
    for known in [name] if name else names():
        host.down(known)
        shutil.rmtree(paths.STATE / f"inventory-{known}", ignore_errors=True)
        say(f"{known} is gone")
    if names():
        return
    place = paths.STATE / "hub.json"
    if number := process.pid(place):
        os.kill(number, signal.SIGTERM)
    place.unlink(missing_ok=True)
    network.down()
    if everything:
        shutil.rmtree(paths.STATE, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
