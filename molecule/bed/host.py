"""A host: systemd-nspawn over an overlay of a base image, with a network address of its own."""

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import image
import network
import packages
import paths
import process
from command import Failure, say

#: Runs in a mount namespace of its own, which takes the overlay away when it ends. nspawn exits
#: with 133 when the host reboots. podman's own overlays cannot lie on ours, so its storage is bound
#: in, and so is apt's folder of packages. Each host has a cgroup of its own: two systemds in one
#: would end each other's services.
BOOT = """\
set -e
for cgroup in {cgroups}; do
    mkdir -p $cgroup
    echo $$ > $cgroup/cgroup.procs
done
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t overlay overlay -o lowerdir={lower},upperdir=upper,workdir=work root
while :; do
    status=0
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn -b -D root --register=no --keep-unit \
        -M {name} --capability=all --system-call-filter='@keyring bpf' \
        --bind="$PWD/containers:/var/lib/containers" \
        --bind="$PWD/packages:/var/cache/apt/archives" --network-bridge={bridge} \
        --resolv-conf=bind-host </dev/null >>console.log 2>&1 || status=$?
    test $status = 133 || exit $status
done
"""


def up(name: str, system: str, number: int, lower: Path | None = None) -> str:
    """Boot a host and return its address, once it says that it runs.

    `lower` is the folder of a snapshot: the host starts as it was when the snapshot was taken.
    """
    folder = paths.host(name)
    address = f"{network.PREFIX}.{10 + number}"
    if pid(name):
        return address
    base = image.ensure(system)
    for part in ("upper", "work", "root", "containers"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    packages.lend(system, folder / "packages")
    furnish(folder / "upper", name, address)
    layers = [base] if lower is None else [lower / "upper", base]
    script = BOOT.format(
        cgroups=" ".join(map(str, cgroups(name))),
        lower=":".join(map(str, layers)),
        name=name,
        bridge=network.BRIDGE,
    )
    with (folder / "boot.log").open("w") as log:
        booted = subprocess.Popen(
            ["unshare", "-m", "bash", "-c", script],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.record(record(name), booted.pid, address=address, system=system, number=number)
    wait(name, address)
    return address


def cgroups(name: str) -> list[Path]:
    """Return a host's cgroups: the unified hierarchy's, and systemd's own where it is mounted."""
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(place, f"bed-{name}"))
    return found


def furnish(upper: Path, name: str, address: str) -> None:
    """Lay into the overlay what makes it this host: address, key, stand-in GPUs."""
    for place, text in {
        "etc/hostname": f"{name}\n",
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
        "etc/hosts": f"127.0.0.1 localhost\n{address} {name}\n",
        "etc/systemd/network/10-host0.network": (
            f"[Match]\nName=host0\n[Network]\nAddress={address}/24\nGateway={network.GATEWAY}\n"
        ),
        "root/.ssh/authorized_keys": paths.KEY.with_suffix(".pub").read_text(),
        "etc/cdi/stand-in.yaml": json.dumps(cdi(), indent=2),
        "etc/tmpfiles.d/stand-in-gpu.conf": "".join(
            f"c /dev/stand-in-gpu{number} 0666 root root - 1:3\n" for number in range(4)
        ),
    }.items():
        target = upper / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (upper / "root/.ssh").chmod(0o700)
    (upper / "root").chmod(0o700)
    (upper / "usr/bin").mkdir(parents=True, exist_ok=True)
    shutil.copy(paths.STAND_INS / "nvidia-smi", upper / "usr/bin/nvidia-smi")
    (upper / "usr/bin/nvidia-smi").chmod(0o755)


def cdi() -> dict[str, object]:
    """Describe four stand-in GPUs (CDI 0.5.0: what podman 4.3 reads), by index and by UUID."""
    devices = []
    for number in range(4):
        edits = {
            "env": [f"STAND_IN_GPU={number}"],
            "deviceNodes": [{"path": f"/dev/stand-in-gpu{number}"}],
            "mounts": [
                {
                    "hostPath": "/usr/bin/nvidia-smi",
                    "containerPath": "/usr/bin/nvidia-smi",
                    "options": ["ro", "bind"],
                }
            ],
        }
        for name in (str(number), f"GPU-00000000-0000-0000-0000-00000000000{number}"):
            devices.append({"name": name, "containerEdits": edits})
    return {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}


def wait(name: str, address: str) -> None:
    """Wait until the host answers and its systemd is through with starting."""
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up and pid(name):
        done = subprocess.run(
            ["timeout", "10", *ssh(address), "systemctl is-system-running"],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.stdout.strip() in ("running", "degraded"):
            say(f"{name} at {address}: {done.stdout.strip()}")
            return
        time.sleep(0.2)
    console = paths.host(name) / "console.log"
    tail = console.read_text(errors="replace")[-1500:] if console.exists() else ""
    raise Failure(
        f"the host {name} did not boot:\n{(paths.host(name) / 'boot.log').read_text()}{tail}"
    )


def ssh(address: str) -> list[str]:
    """Return the command that runs another on a host."""
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    chosen = [part for option in (*options, "ConnectTimeout=3") for part in ("-o", option)]
    return ["ssh", "-i", str(paths.KEY), *chosen, f"root@{address}"]


def record(name: str) -> Path:
    """Return the file that tells of a host."""
    return paths.host(name) / "host.json"


def about(name: str) -> dict[str, object]:
    """Return what is known of a host: pid, address, system, number; empty if there is none."""
    return process.read(record(name))


def pid(name: str) -> int:
    """Return the process id of a host that runs, else 0."""
    return process.pid(record(name))


def off(name: str) -> None:
    """Power a host off, as its operator would; its folder stays."""
    if not pid(name):
        return
    command = ["timeout", "10", *ssh(str(about(name)["address"])), "systemctl poweroff"]
    subprocess.run(command, check=False, capture_output=True)
    give_up = time.monotonic() + 90
    while pid(name) and time.monotonic() < give_up:
        time.sleep(0.1)
    end(name)


def end(name: str) -> None:
    """End a host at once; its folder stays, and so do the packages that it fetched."""
    number = pid(name)
    if number:
        # nspawn's child is the host's first process. All others end with it; then nspawn ends, and
        # takes the host's network link away; then the shell around it ends.
        for nspawn in process.children(number):
            for first in process.children(nspawn):
                os.kill(first, signal.SIGKILL)
        give_up = time.monotonic() + 20
        while pid(name):
            if time.monotonic() > give_up:
                raise Failure(f"the host {name} (process {number}) does not end")
            time.sleep(0.1)
    for cgroup in cgroups(name):
        for folder in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
            folder.rmdir()
        if cgroup.is_dir():
            cgroup.rmdir()
    if known := about(name):
        packages.give_back(str(known["system"]), paths.host(name) / "packages")


def down(name: str) -> None:
    """End a host and delete its overlay."""
    end(name)
    shutil.rmtree(paths.host(name), ignore_errors=True)
