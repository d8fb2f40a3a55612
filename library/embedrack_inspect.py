"""Looks at a host before anything is touched, and says what is wrong with it."""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: embedrack_inspect
short_description: Looks at a host before anything is touched
description:
  - Holds what is wanted of a host against what is there, and changes nothing.
  - Findings are no failure of the module's; the caller decides.
options:
  tei_here: {type: bool, required: true, description: Whether instances run here.}
  qdrant_here: {type: bool, required: true, description: Whether Qdrant is installed here.}
  proxy_here: {type: bool, required: true, description: Whether the proxy runs here.}
  nginx_here: {type: bool, required: true, description: Whether a balancer runs beside the proxy.}
  tei_gpus: {type: raw, required: true, description: The variable of that name.}
  tei_device: {type: str, required: true, description: The variable of that name.}
  tei_image: {type: str, required: true, description: The variable of that name.}
  tei_local: {type: bool, required: true, description: Whether the image comes from a registry.}
  tei_base_port: {type: int, required: true, description: The variable of that name.}
  qdrant_port: {type: int, required: true, description: The variable of that name.}
  nginx_port: {type: int, required: true, description: The variable of that name.}
  proxy_port: {type: int, required: true, description: The variable of that name.}
  data_dir: {type: path, required: true, description: The folder of models and cache.}
  reserve_gb: {type: int, required: true, description: GB that must be free there.}
  packages: {type: list, elements: str, default: [], description: Packages to look for.}
author: Embedrack
"""
EXAMPLES = r"""
- name: Look at the host
  embedrack_inspect: "{{ wanted }}"
  register: look
"""
RETURN = r"""
findings: {description: Sentences with variable and remedy., type: list, returned: always}
gpus: {description: name, device and port of each instance., type: list, returned: always}
image_prefix: {description: What `auto` became., type: str, returned: always}
packages: {description: Those of the packages that are installed., type: list, returned: always}
homes: {description: Home by name of every user of ours., type: dict, returned: always}
nginx: {description: Whether nginx was here before., type: bool, returned: always}
cores: {description: Cores that programs may use., type: int, returned: always}
architecture: {description: As `uname -m` prints it., type: str, returned: always}
"""

#: Compute capability -> prefix of TEI's image tag (TEI's documentation of its images).
PREFIXES = {
    "7.5": "turing-",
    "8.0": "",
    "8.6": "86-",
    "8.7": "86-",
    "8.9": "89-",
    "9.0": "hopper-",
    "10.0": "100-",
    "12.0": "120-",
}
SUPPORTED = {"Debian": ("12", "13"), "Ubuntu": ("24.04",)}


def run(*command: str) -> str | None:
    """Return a command's output, or None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def parse_gpus(text: str) -> list[dict[str, Any]]:
    """Read `nvidia-smi --query-gpu=index,uuid,compute_cap --format=csv,noheader`."""
    gpus = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[0].isdigit():
            gpus.append({"index": int(cells[0]), "uuid": cells[1], "capability": cells[2]})
    return gpus


def choose(wanted: Any, present: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what `tei_gpus` names among the GPUs present, and the findings."""
    indexes = [gpu["index"] for gpu in present]
    shown = ", ".join(str(index) for index in indexes) or "none"
    if wanted == "all":
        return present, []
    if isinstance(wanted, str) and wanted.isdigit():
        wanted = int(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if wanted < 1:
            return [], [
                "tei_gpus is %d: at least one GPU is wanted; to stop serving, use "
                "playbooks/stop.yml" % wanted
            ]
        if wanted > len(present):
            return [], ["tei_gpus is %d, but this host has %d GPUs" % (wanted, len(present))]
        return present[:wanted], []
    if isinstance(wanted, str):
        wanted = [part.strip() for part in wanted.split(",")]
    if not isinstance(wanted, list) or not wanted:
        return [], [
            "tei_gpus is %r: `all`, a number, or a list of indexes or UUIDs is wanted" % (wanted,)
        ]
    chosen, findings = [], []
    for entry in wanted:
        found = [g for g in present if str(entry) in (str(g["index"]), g["uuid"])]
        if not found:
            findings.append(
                "tei_gpus names GPU %s, which is not there; present: %s" % (entry, shown)
            )
        elif found[0] in chosen:
            findings.append("tei_gpus names GPU %s twice; leave one out" % found[0]["index"])
        else:
            chosen.append(found[0])
    return chosen, findings


def instances(want: dict[str, Any]) -> tuple[list[dict[str, Any]], str, list[str]]:
    """Return (instances, image prefix, findings): what `tei_gpus` and `auto` become here."""
    base = want["tei_base_port"]
    if want["tei_device"] == "cpu":
        count = 1 if want["tei_gpus"] == "all" else want["tei_gpus"]
        if isinstance(count, list):
            count = len(count)
        if not str(count).isdigit() or not 1 <= int(count) <= 64:
            return [], "", ["tei_gpus is %r: with tei_device cpu a number from 1 is wanted" % count]
        return (
            [{"name": str(n), "device": "", "port": base + n} for n in range(int(count))],
            "cpu-",
            [],
        )
    shown = run("nvidia-smi", "--query-gpu=index,uuid,compute_cap", "--format=csv,noheader")
    present = parse_gpus(shown or "")
    if not present:
        return (
            [],
            "",
            [
                "tei_device is cuda, but nvidia-smi shows no GPU here; install NVIDIA's driver, "
                "or set tei_device: cpu (and tei_dtype: float32)"
            ],
        )
    chosen, findings = choose(want["tei_gpus"], present)
    by_uuid = isinstance(want["tei_gpus"], list) and any(
        str(entry).startswith("GPU-") for entry in want["tei_gpus"]
    )
    made = [
        {
            "name": str(gpu["index"]),
            "device": gpu["uuid"] if by_uuid else str(gpu["index"]),
            "port": base + gpu["index"],
        }
        for gpu in chosen
    ]
    kinds = {gpu["capability"] for gpu in chosen}
    prefix = "cuda-"
    if len(kinds) == 1:
        capability = next(iter(kinds))
        if capability not in PREFIXES and want["tei_image"] == "auto" and want["tei_local"]:
            findings.append(
                "tei_image is auto, but there is no image of TEI for compute capability %s; "
                "name one" % capability
            )
        prefix = PREFIXES.get(capability, "cuda-")
    return made, prefix, findings


def listening() -> set[int]:
    """Return the TCP ports that something listens on."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            cells = line.split()
            if cells[3] == "0A":
                ports.add(int(cells[1].rsplit(":", 1)[1], 16))
    return ports


def ours(port: int) -> bool:
    """Tell whether an earlier run of ours wrote a file that names this port."""
    places = [
        "/etc/systemd/system/embedrack-proxy.socket",
        "/etc/nginx/conf.d/embedrack.conf",
        "/etc/embedrack/qdrant.yaml",
    ]
    places += [str(path) for path in Path("/etc/embedrack/tei").glob("*.env")]
    for place in places:
        try:
            text = Path(place).read_text()
        except OSError:
            continue
        if re.search(r"(?<!\d)%d(?!\d)" % port, text):
            return True
    return False


def check_ports(wanted: list[tuple[str, int]]) -> list[str]:
    """Return a finding for each port that is somebody else's, or wanted twice."""
    findings: list[str] = []
    seen: dict[int, str] = {}
    busy = listening()
    for variable, port in wanted:
        if not 1 <= port <= 65535:
            findings.append("%s is %d: a port from 1 to 65535 is wanted" % (variable, port))
        elif port in seen:
            findings.append(
                "%s and %s are both %d; change one of them" % (seen[port], variable, port)
            )
        elif port in busy and not ours(port):
            findings.append(
                "%s: port %d is somebody else's on this host (`ss -ltnp` shows whose); stop that, "
                "or set another port" % (variable, port)
            )
        seen.setdefault(port, variable)
    return findings


def release() -> tuple[str, str]:
    """Return the distribution's name and version, from /etc/os-release."""
    values = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        values[name] = value.strip('"')
    return values.get("NAME", "").split(" ")[0], values.get("VERSION_ID", "")


def check_programs(want: dict[str, Any]) -> list[str]:
    """Return findings on the distribution, Python and podman."""
    findings = []
    name, version = release()
    if version not in SUPPORTED.get(name, ()):
        findings.append(
            "%s %s is not supported: Debian 12 or 13, or Ubuntu 24.04 is wanted" % (name, version)
        )
    if sys.version_info < (3, 11) and want["proxy_here"]:
        findings.append(
            "Python %d.%d is too old for the proxy: 3.11 or newer is wanted; use a newer "
            "release of the distribution" % sys.version_info[:2]
        )
    if want["tei_here"]:
        shown = run("podman", "--version") or run("apt-cache", "policy", "podman") or ""
        found = re.search(r"(?:version|Candidate:) (\d+)\.(\d+)", shown)
        if found and (int(found.group(1)), int(found.group(2))) < (4, 1):
            findings.append(
                "podman %s.%s knows no CDI devices: 4.1 or newer is wanted; use a newer release "
                "of the distribution" % found.groups()
            )
    return findings


def check_qdrant() -> list[str]:
    """Return a finding where `qdrant.service` was not written by us."""
    for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"):
        path = Path(folder, "qdrant.service")
        if path.exists() and "(embedrack)" not in path.read_text():
            return [
                "%s is somebody else's: set qdrant_host to use that server as it is, or remove "
                "the unit" % path
            ]
    return []


def check_disk(want: dict[str, Any]) -> list[str]:
    """Return a finding where there is too little room for model and image."""
    place = Path(want["data_dir"])
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(str(place)).free / 1e9
    need = want["reserve_gb"]
    if free < need and not os.path.isdir("/etc/embedrack/tei"):
        return [
            "%.1f GB are free at %s, and model and image want %d (preflight_disk_reserve_gb); "
            "make room, or set common_data_dir to another disk" % (free, place, need)
        ]
    return []


def parse_packages(text: str) -> list[str]:
    """Read lines of `dpkg-query --showformat '${Package} ${db:Status-Status}'`: the installed."""
    lines = [line.split(" ") for line in text.splitlines()]
    return sorted({line[0] for line in lines if line[1:] == ["installed"]})


def installed(packages: list[str]) -> list[str]:
    """Return those of the packages that are installed."""
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"]
    # Its exit status is 1 as soon as one of them is unknown.
    done = subprocess.run(
        [*command, *packages], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return parse_packages(done.stdout.decode())


def look(want: dict[str, Any]) -> dict[str, Any]:
    """Return the whole reply."""
    findings = check_programs(want)
    reply: dict[str, Any] = {"gpus": [], "image_prefix": ""}
    ports = []
    if want["tei_here"]:
        reply["gpus"], reply["image_prefix"], found = instances(want)
        findings += found
        ports += [("tei_base_port", one["port"]) for one in reply["gpus"]]
        findings += check_disk(want)
    if want["qdrant_here"]:
        findings += check_qdrant()
        ports.append(("qdrant_port", want["qdrant_port"]))
    if want["proxy_here"]:
        ports.append(("proxy_port", want["proxy_port"]))
        if want["nginx_here"]:
            ports.append(("nginx_port", want["nginx_port"]))
    reply["findings"] = findings + check_ports(ports)
    reply["packages"] = installed(want["packages"])
    users = pwd.getpwall()
    reply["homes"] = {u.pw_name: u.pw_dir for u in users if u.pw_name.startswith("embedrack")}
    reply["nginx"] = os.path.exists("/usr/sbin/nginx")
    reply["cores"] = len(os.sched_getaffinity(0))
    reply["architecture"] = platform.machine()
    return reply


def main() -> None:
    """Run as a module of Ansible's."""
    wanted: dict[str, Any] = {"tei_gpus": {"type": "raw", "required": True}}
    for kind, names in {
        "bool": ("tei_here", "qdrant_here", "proxy_here", "nginx_here", "tei_local"),
        "str": ("tei_device", "tei_image"),
        "int": ("tei_base_port", "qdrant_port", "nginx_port", "proxy_port", "reserve_gb"),
        "path": ("data_dir",),
    }.items():
        wanted.update({name: {"type": kind, "required": True} for name in names})
    wanted["packages"] = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(argument_spec=wanted, supports_check_mode=True)
    module.exit_json(changed=False, **look(module.params))


if __name__ == "__main__":
    main()
