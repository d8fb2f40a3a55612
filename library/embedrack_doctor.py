"""Looks at a host and says what is wrong: one object a check, `ok`, what was seen, the remedy."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable, Dict

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: embedrack_doctor
short_description: Looks at a host and says what is wrong
description:
  - Checks units, instances, store, balancer, endpoint, collector and disks, and changes nothing.
  - Findings are no failure of the module's; the caller decides.
options:
  config_dir:
    description: Folder of the settings.
    type: path
    default: /etc/embedrack
  parts:
    description: What is looked at, everything by default.
    type: list
    elements: str
    choices: [instances, store, balancer, endpoint, collector, disk]
    default: [instances, store, balancer, endpoint, collector, disk]
author: Embedrack
"""
EXAMPLES = r"""
- name: Look at the instances
  embedrack_doctor:
    parts: [instances]
  register: look
"""
RETURN = r"""
findings:
  description: One object a check, with check, ok, what was seen, and the remedy where it is not ok.
  type: list
  returned: always
"""

Finding = Dict[str, object]

#: The certificate names the endpoint as clients know it, and this asks on the host itself.
UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE


def finding(check: str, ok: bool, seen: str, remedy: str) -> Finding:
    """Make one check's result."""
    return {"check": check, "ok": ok, "seen": seen, "remedy": "" if ok else remedy}


def unit(name: str) -> Finding:
    """Say whether a unit is active, and how often it was restarted."""
    fields = "ActiveState,SubState,NRestarts"
    done = subprocess.run(
        ["systemctl", "show", f"--property={fields}", name],
        capture_output=True,
        text=True,
        check=False,
    )
    shown = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    state = shown.get("ActiveState", "unknown")
    return finding(
        f"unit {name}",
        state == "active",
        f"{state} ({shown.get('SubState')}), restarts {shown.get('NRestarts', 0)}",
        f"`journalctl -u {name} -n 50` says why; `systemctl start {name}`",
    )


def answers(check: str, url: str, remedy: str) -> Finding:
    """Say whether a URL answers with 200 within five seconds."""
    try:
        with urllib.request.urlopen(url, timeout=5, context=UNCHECKED) as reply:
            return finding(check, reply.status == 200, f"{url}: {reply.status}", remedy)
    except urllib.error.HTTPError as error:
        return finding(check, False, f"{url}: {error.code}", remedy)
    except OSError as error:
        return finding(check, False, f"{url}: {error}", remedy)


def value(path: Path, name: str) -> str:
    """Return a variable of an environment file; empty where there is none."""
    try:
        found = re.search(rf'^{name}="?(.*?)"?$', path.read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found.group(1) if found else ""


def instances(config: Path) -> list[Finding]:
    """Check each TEI instance: unit and health."""
    found = []
    for path in sorted(config.glob("tei/*.env")):
        remedy = f"`systemctl restart tei@{path.stem}`; `nvidia-smi` shows its GPU"
        found.append(unit(f"tei@{path.stem}.service"))
        found.append(answers(f"instance {path.stem}", value(path, "TEI_HEALTH"), remedy))
    return found


def store(config: Path) -> list[Finding]:
    """Check Qdrant, ours by its unit and anyone's by its answer."""
    found = []
    if (config / "qdrant.yaml").exists():
        found.append(unit("qdrant.service"))
    if url := value(config / "proxy.env", "EMBEDRACK_QDRANT_URL"):
        remedy = "hits come from memory alone until it answers; qdrant_host names it"
        found.append(answers("store", url + "/readyz", remedy))
    return found


def balancer(config: Path) -> list[Finding]:
    """Check that nginx leads to exactly the instances that the proxy counts on."""
    place = config / "instances.json"
    if not place.exists():
        return []
    listed = json.loads(place.read_text())
    wanted = {f"{one['address']}:{one['port']}" for one in listed["instances"]}
    text = Path("/etc/nginx/conf.d/embedrack.conf").read_text()
    served = set(re.findall(r"server (\S+:\d+) max_fails", text))
    port = re.search(r"listen 127\.0\.0\.1:(\d+)", text)
    return [
        unit("nginx.service"),
        finding(
            "upstreams",
            wanted == served,
            f"nginx leads to {len(served)}, the proxy counts on {len(wanted)}",
            "`ansible-playbook site.yml --tags tei` writes both anew",
        ),
        answers(
            "balancer",
            f"http://127.0.0.1:{port.group(1) if port else 8081}/generation",
            "`nginx -t` and /var/log/nginx/error.log say why",
        ),
    ]


def endpoint(config: Path) -> list[Finding]:
    """Check the proxy by what its socket says."""
    socket = Path("/etc/systemd/system/embedrack-proxy.socket")
    if not socket.exists():
        return []
    address = (re.findall(r"^ListenStream=(.*)$", socket.read_text(), re.MULTILINE) or [""])[0]
    scheme = "https" if value(config / "proxy.env", "EMBEDRACK_TLS_CERTIFICATE") else "http"
    url = f"{scheme}://" + address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
    return [
        unit("embedrack-proxy.socket"),
        unit("embedrack-proxy.service"),
        answers("endpoint", url + "/livez", "`journalctl -u embedrack-proxy -n 50` says why"),
        answers("upstream as the proxy sees it", url + "/health", "see the instances above"),
    ]


def collector(config: Path) -> list[Finding]:
    """Check the timer of the collector, and how its last run went."""
    if not Path("/etc/systemd/system/embedrack-gc.timer").exists():
        return []
    done = subprocess.run(
        ["systemctl", "show", "--value", "--property=Result", "embedrack-gc.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    result = done.stdout.strip()
    remedy = "`journalctl -u embedrack-gc -n 20` says why"
    return [
        unit("embedrack-gc.timer"),
        finding("collector", result == "success", f"last run: {result or 'unknown'}", remedy),
    ]


def disk(config: Path) -> list[Finding]:
    """Check that Qdrant and podman have room to write."""
    found = []
    for place in ("/var/lib/embedrack", "/var/lib/containers"):
        if Path(place).exists():
            usage = shutil.disk_usage(place)
            seen = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.0f} GB free"
            remedy = "make room; `playbooks/purge.yml` empties the cache"
            found.append(finding(f"disk {place}", usage.free > 1e9, seen, remedy))
    return found


#: What the option `parts` names.
PARTS: Dict[str, Callable[[Path], "list[Finding]"]] = {
    "instances": instances,
    "store": store,
    "balancer": balancer,
    "endpoint": endpoint,
    "collector": collector,
    "disk": disk,
}


def look(config: Path, parts: list[str]) -> list[Finding]:
    """Return every finding of the parts; that nothing is deployed is one too."""
    found = [one for part in parts for one in PARTS[part](config)]
    if not any(str(one["check"]).startswith("unit") for one in found):
        remedy = "`ansible-playbook site.yml` deploys"
        found.append(finding("deployment", False, f"nothing in {config}", remedy))
    return found


def main() -> None:
    """Run as a module of Ansible's."""
    parts = {"type": "list", "elements": "str", "choices": list(PARTS), "default": list(PARTS)}
    module = AnsibleModule(
        argument_spec={
            "config_dir": {"type": "path", "default": "/etc/embedrack"},
            "parts": parts,
        },
        supports_check_mode=True,
    )
    found = look(Path(module.params["config_dir"]), module.params["parts"])
    module.exit_json(changed=False, findings=found)


if __name__ == "__main__":
    main()
