"""Under load: kill -9 of each part in turn; then one instance alone, and away."""

import json
import time
import urllib.error
import urllib.request

from scenario import Host, check

#: What is killed, by which process, and whether a client may see it.
KILLED = {
    "a TEI process": ("pkill -9 -o -f 'local_stack.embedder.*810[1]|text-embeddings-router'", True),
    "Qdrant": ("systemctl kill -s KILL --kill-who=main qdrant", True),
    "a worker of the proxy": (
        "kill -9 $(pgrep -P $(systemctl show --value -p MainPID embedrack-proxy) | tail -1)",
        False,
    ),
    "nginx": ("systemctl kill -s KILL nginx", False),
}


def ask(host: Host, text: str) -> tuple[int, str]:
    """Return the status and the interesting header of one request."""
    request = urllib.request.Request(
        f"http://{host.address}:8080/embed",
        data=json.dumps({"inputs": text}).encode(),
        headers={"Content-Type": "application/json", "Connection": "close"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.headers["X-Cache"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Retry-After", "")


def wait_until_healthy(host: Host) -> float:
    """Return the seconds until every unit is active and the endpoint is ready."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        units = host.sh(
            "systemctl is-active tei@* qdrant nginx embedrack-proxy; "
            "curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8080/health",
            check_status=False,
        ).split()
        if set(units) == {"active", "200"}:
            return time.monotonic() - began
        time.sleep(0.5)
    check(False, f"not healthy again after a minute: {units}")
    return 0.0


def run(host: Host) -> None:
    """Kill each part in turn, then try what is left with one instance."""
    host.deploy(tei_gpus=2)
    for what, (command, unseen) in KILLED.items():
        with host.load() as load:
            host.sh(command)
            seconds = wait_until_healthy(host)
            time.sleep(4)
        failed = load["kinds"] or "none failed"
        host.say(f"kill -9 of {what}: healthy again after {seconds:.1f} s; {failed}")
        if unseen:
            check(load["failed"] == 0, f"kill -9 of {what}: {load['failures']}")
    alone(host)
    host.deploy(tei_gpus=2)


def alone(host: Host) -> None:
    """With its one instance away: hits are served, misses get 503 with Retry-After."""
    host.deploy(tei_gpus=1)
    check(ask(host, "known")[0] == 200, "the endpoint does not answer")
    time.sleep(1.5)
    host.sh("systemctl stop tei@0")
    status, told = ask(host, "known")
    check(status == 200 and told.startswith("hit"), f"a hit while TEI is away: {status} {told}")
    status, told = ask(host, f"new {time.time()}")
    check(status == 503 and told != "", f"a miss while TEI is away: {status}, Retry-After {told!r}")
    host.sh("systemctl start tei@0")
    began = time.monotonic()
    while ask(host, f"new {time.time()}")[0] != 200:
        check(time.monotonic() - began < 30, "no recovery within 30 s")
        time.sleep(0.5)
    host.say(
        f"one instance away: hit 200, miss 503 with Retry-After {told}; misses again "
        f"{time.monotonic() - began:.1f} s after it came back"
    )
