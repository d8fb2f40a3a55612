"""Each stop of preflight: its sentence, and nothing changed on the host."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from scenario import Host, check

#: What is set wrongly -> what the sentence must name.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tei_modle_id": "x"}, "tei_modle_id: there is no such variable"),
    ({"tei_gpus": [0, 0]}, "tei_gpus names GPU 0 twice"),
    ({"tei_gpus": [0, 9]}, "tei_gpus names GPU 9, which is not there; present: 0, 1, 2, 3"),
    ({"tei_gpus": 7}, "tei_gpus is 7, but this host has 4 GPUs"),
    ({"tei_gpus": 0}, "tei_gpus is 0: at least one GPU is wanted"),
    ({"tei_gpus": "some"}, "tei_gpus names GPU some"),
    ({"tei_max_batch_tokens": "many"}, "tei_max_batch_tokens"),
    ({"proxy_log_level": "loud"}, "proxy_log_level"),
    ({"tei_device": "tpu"}, "tei_device"),
    ({"proxy_port": 22}, "proxy_port: port 22 is somebody else's"),
    ({"proxy_port": 99999}, "proxy_port is 99999: a port from 1 to 65535"),
    ({"nginx_port": 8080}, "proxy_port and nginx_port are both 8080"),
    ({"preflight_disk_reserve_gb": 1000000}, "make room"),
]


#: Every file with its time and size, and every folder.
STATE = (
    "find /etc /opt /usr/local /var/lib/embedrack -type d -printf '%p\\n' "
    "-o -printf '%p %T@ %s\\n' 2>/dev/null | sort"
)
#: Of the host itself: what to do to it, how to undo that -> what the sentence must name.
HOSTS = [
    (
        "mv /usr/bin/nvidia-smi /usr/bin/nvidia-smi.away",
        "mv /usr/bin/nvidia-smi.away /usr/bin/nvidia-smi",
        "nvidia-smi shows no GPU here; install NVIDIA's driver, or set tei_device: cpu",
    ),
    (
        'mv /etc/os-release /etc/os-release.away; printf \'NAME="Debian GNU/Linux"\nID=debian\n'
        'VERSION_ID="11"\n\' > /etc/os-release',
        "mv /etc/os-release.away /etc/os-release",
        "Debian 11 is not supported",
    ),
    (
        "printf '#!/bin/sh\necho podman version 3.4.4\n' > /usr/local/bin/podman; "
        "chmod +x /usr/local/bin/podman",
        "rm /usr/local/bin/podman",
        "podman 3.4 knows no CDI devices: 4.1 or newer is wanted",
    ),
]


def run(host: Host) -> None:
    """Send each wrong value, then spoil the host, and the inventory, in each way."""
    before = host.sh(STATE).splitlines()
    for variables, sentence in WRONG:
        stop(host, sentence, **variables)
    for spoil, mend, sentence in HOSTS:
        host.sh(spoil)
        try:
            stop(host, sentence)
        finally:
            host.sh(mend)
    if not host.sh("ls /etc/systemd/system/qdrant.service", check_status=False).startswith("/"):
        host.sh(
            "printf '[Service]\\nExecStart=/bin/true\\n' > /usr/lib/systemd/system/qdrant.service"
        )
        try:
            stop(host, "qdrant.service is somebody else's")
        finally:
            host.sh("rm /usr/lib/systemd/system/qdrant.service")
    for group in ("tei", "proxy"):
        without(host, group)
    changed = sorted({*before} ^ {*host.sh(STATE).splitlines()})
    check(changed == [], f"changed on the host: {changed}")


def without(host: Host, group: str) -> None:
    """Expect an inventory in which a group is empty to be refused."""
    with tempfile.TemporaryDirectory() as folder:
        inventory = shutil.copytree(host.inventory, Path(folder, "inventory"))
        groups = json.loads((inventory / "hosts.yml").read_text())
        groups[group]["hosts"] = {}
        (inventory / "hosts.yml").write_text(json.dumps(groups))
        stop(host, f"The inventory's group `{group}` has no host", inventory=str(inventory))


def stop(host: Host, sentence: str, **variables: Any) -> None:
    """Expect the play to fail with the sentence and no change."""
    play = host.play("site.yml", **variables)
    said = " ".join(play.output.split())
    check(play.status != 0, f"{variables} was accepted")
    check(sentence in said, f"{variables}: no {sentence!r} in:\n{play.output[-1500:]}")
    check(play.changed == 0, f"{variables}: {play.changed} tasks changed something")
    host.say(f"{variables or 'the host'}: {sentence}")
