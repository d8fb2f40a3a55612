"""Asks the endpoint of this host for a new text twice: a miss, then a hit with the same floats."""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: embedrack_ask
short_description: Asks the endpoint of a host for a miss, then a hit with the same floats
description:
  - Finds the endpoint by the units and settings that the deployment wrote, and changes nothing.
  - Sends the administrator's key of the settings along, since the endpoint may want one.
  - Fails with a sentence where the endpoint, its cache or its store does not answer as it must.
options:
  config_dir:
    description: Folder of the settings.
    type: path
    default: /etc/embedrack
author: Embedrack
"""
EXAMPLES = r"""
- name: Ask the endpoint
  embedrack_ask:
  register: asked
"""
RETURN = r"""
scheme: {description: http or https., type: str, returned: success}
port: {description: The endpoint's port., type: str, returned: success}
store: {description: The store's URL, empty where there is none., type: str, returned: success}
instances: {description: Names of the instances of the balancer., type: list, returned: success}
model: {description: The name that the model is served under., type: str, returned: success}
model_id: {description: The model as its server names it., type: str, returned: success}
dimension: {description: Length of a vector., type: int, returned: success}
miss_ms: {description: Milliseconds of the miss., type: float, returned: success}
hit_ms: {description: Milliseconds of the hit., type: float, returned: success}
"""

#: The certificate names the endpoint as clients know it, and this asks on the host itself.
UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE
SOCKET = "/etc/systemd/system/embedrack-proxy.socket"
#: Seconds between miss and hit, attempt by attempt: a miss is written to the store a moment later,
#: and the hit may be asked of another worker. Each attempt has a text of its own, since a second
#: miss of one text may differ in its last bits.
WAITS = (0.1, 0.4, 1.0, 2.0)


class Unwell(Exception):
    """What is wrong, in a sentence."""


def setting(text: str, name: str) -> str:
    """Return a setting's value from the text of proxy.env; empty where there is none."""
    found = re.search(rf'^EMBEDRACK_{name}=(".*")$', text, re.MULTILINE)
    return str(json.loads(found.group(1))) if found else ""


def local(address: str) -> str:
    """Return the address by which this host itself reaches what listens."""
    return address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")


def headers_of(settings: str) -> dict[str, str]:
    """Make the headers that open the endpoint; empty where the settings have no key."""
    key = setting(settings, "ADMIN_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def embed(url: str, text: str, headers: dict[str, str]) -> tuple[bytes, str, float]:
    """Return (raw body, X-Cache, milliseconds) of one text."""
    request = urllib.request.Request(
        url + "/embed",
        data=json.dumps({"inputs": [text]}).encode(),
        headers={"Content-Type": "application/json", "Connection": "close", **headers},
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=90, context=UNCHECKED) as reply:
        body = reply.read()
    return body, reply.headers.get("X-Cache", ""), (time.perf_counter() - began) * 1000


def miss_and_hit(url: str, headers: dict[str, str], wait: float) -> tuple[bytes, float, float, str]:
    """Ask for a new text twice; returns (miss's body, its time, hit's time, X-Cache of the hit)."""
    text = f"embedrack verifies itself {uuid.uuid4()}"
    first, first_cache, first_time = embed(url, text, headers)
    if not first_cache.startswith("miss"):
        raise Unwell(f"a new text was no miss: {first_cache!r}")
    time.sleep(wait)
    second, second_cache, second_time = embed(url, text, headers)
    if second_cache.startswith("hit") and first != second:
        raise Unwell("the hit's floats are not the miss's")
    return first, first_time, second_time, second_cache


def ask(url: str, headers: dict[str, str]) -> dict[str, Any]:
    """Ask an endpoint and compare; Unwell says what is wrong."""
    try:
        for wait in WAITS:
            first, first_time, second_time, cache = miss_and_hit(url, headers, wait)
            if cache.startswith("hit"):
                break
        else:
            raise Unwell(f"the same text again was no hit: {cache!r}; is the store away?")
        asked = urllib.request.Request(url + "/info", headers=headers)
        with urllib.request.urlopen(asked, timeout=10, context=UNCHECKED) as reply:
            info = json.load(reply)
    except urllib.error.HTTPError as error:
        body = error.read(500).decode(errors="replace")
        raise Unwell(f"{error.url} answered {error.code}: {body}") from error
    except (OSError, ValueError) as error:
        raise Unwell(f"{url} does not answer: {error}") from error
    [vector] = json.loads(first)
    return {
        "dimension": len(vector),
        "model": info.get("served_model_name") or info["model_id"],
        "model_id": info["model_id"],
        "miss_ms": round(first_time, 1),
        "hit_ms": round(second_time, 1),
    }


def ready(store: str) -> None:
    """Ask the store whether it is ready; Unwell where it is not."""
    try:
        with urllib.request.urlopen(store + "/readyz", timeout=10, context=UNCHECKED):
            return
    except OSError as error:
        raise Unwell(f"the store {store} is not ready: {error}") from error


def verify(config: Path, socket: Path) -> dict[str, Any]:
    """Ask the endpoint that the units and settings describe; returns the module's reply."""
    try:
        address = re.findall(r"^ListenStream=(.*)$", socket.read_text(), re.MULTILINE)[0]
        settings = (config / "proxy.env").read_text()
    except (OSError, IndexError) as error:
        raise Unwell(f"no endpoint is deployed here: {error}") from error
    scheme = "https" if setting(settings, "TLS_CERTIFICATE") else "http"
    reply = ask(f"{scheme}://{local(address)}", headers_of(settings))
    store = setting(settings, "QDRANT_URL")
    if store:
        ready(store)
    listed = config / "instances.json"
    instances = json.loads(listed.read_text())["instances"] if listed.exists() else []
    return {
        "scheme": scheme,
        "port": address.rsplit(":", 1)[-1],
        "store": store,
        "instances": [one["name"] for one in instances],
        **reply,
    }


def main() -> None:
    """Run as a module of Ansible's."""
    module = AnsibleModule(
        argument_spec={"config_dir": {"type": "path", "default": "/etc/embedrack"}},
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, **verify(Path(module.params["config_dir"]), Path(SOCKET)))
    except Unwell as sentence:
        module.fail_json(msg=str(sentence))


if __name__ == "__main__":
    main()
