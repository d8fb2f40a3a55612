"""Asks an endpoint for a new text twice: a miss, then a hit with the same floats.

ask.py URL ENV_FILE prints JSON; exit status 1 and a sentence where it is not so. The settings'
administrator's key is sent along, since the endpoint may want one.
"""

import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Dict

#: The certificate names the endpoint as clients know it, and this asks on the host itself.
UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname = False
UNCHECKED.verify_mode = ssl.CERT_NONE


def headers_of(env_file: str) -> Dict[str, str]:
    """Make the headers that open the endpoint; empty where the settings have no key."""
    found = re.search('^EMBEDRACK_ADMIN_KEY=(".+")$', Path(env_file).read_text(), re.MULTILINE)
    return {"Authorization": f"Bearer {json.loads(found.group(1))}"} if found else {}


def embed(url: str, text: str, headers: Dict[str, str]) -> tuple[bytes, str, float]:
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


def main(url: str, env_file: str) -> int:
    """Ask and compare; returns the exit status."""
    text = f"embedrack verifies itself {uuid.uuid4()}"
    try:
        headers = headers_of(env_file)
        first, first_cache, first_time = embed(url, text, headers)
        # Written behind: the store has it a moment later.
        time.sleep(1.0)
        second, second_cache, second_time = embed(url, text, headers)
        asked = urllib.request.Request(url + "/info", headers=headers)
        with urllib.request.urlopen(asked, timeout=10, context=UNCHECKED) as reply:
            info = json.load(reply)
    except urllib.error.HTTPError as error:
        return fail(
            f"{error.url} answered {error.code}: {error.read(500).decode(errors='replace')}"
        )
    except (OSError, ValueError) as error:
        return fail(f"{url} does not answer: {error}")
    if not first_cache.startswith("miss"):
        return fail(f"a new text was no miss: {first_cache!r}")
    if not second_cache.startswith("hit"):
        return fail(f"the same text again was no hit: {second_cache!r}; is the store away?")
    if first != second:
        return fail("the hit's floats are not the miss's")
    [vector] = json.loads(first)
    told = {
        "dimension": len(vector),
        "model": info.get("served_model_name") or info["model_id"],
        "model_id": info["model_id"],
        "miss_ms": round(first_time, 1),
        "hit_ms": round(second_time, 1),
    }
    print(json.dumps(told))
    return 0


def fail(sentence: str) -> int:
    """Say why it is not well."""
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
