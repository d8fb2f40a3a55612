"""Under load: kill -9 of each part in turn; then one instance alone, and away."""

import time

from host import Host, check
from scenario import main

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


def run(host: Host) -> None:
    """Kill each part in turn, then try what is left with one instance."""
    for what, (command, unseen) in KILLED.items():
        with host.load() as load:
            host.sh(command)
            seconds = wait_until_healthy(host)
            time.sleep(4)  # of load after the recovery
        failed = load["kinds"] or "none failed"
        host.report(f"kill -9 of {what}: healthy again after {seconds:.1f} s; {failed}")
        if unseen:
            check(load["failed"] == 0, f"kill -9 of {what}: {load['failures']}")
    alone(host)


def wait_until_healthy(host: Host) -> float:
    """Return the seconds until every unit is active and the endpoint is ready."""
    began = time.monotonic()
    units: list[str] = []
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


def alone(host: Host) -> None:
    """With its one instance away: hits are served, misses get 503 with Retry-After."""
    host.deploy("--tags", "tei", tei_gpus=1)
    check(host.embed("known")[0] == 200, "the endpoint does not answer")
    give_up = time.monotonic() + 10
    while not host.embed("known")[1].get("X-Cache", "").startswith("hit"):
        check(time.monotonic() < give_up, "a known text is no hit within 10 s")
    host.sh("systemctl stop tei@0")
    status, headers = host.embed("known")
    cache = headers.get("X-Cache", "")
    check(status == 200 and cache.startswith("hit"), f"a hit while TEI is away: {status} {cache}")
    status, headers = host.embed(f"new {time.time()}")
    retry = headers.get("Retry-After", "")
    check(status == 503 and retry != "", f"a miss while TEI is away: {status}, {headers}")
    host.sh("systemctl start tei@0")
    began = time.monotonic()
    while host.embed(f"new {time.time()}")[0] != 200:
        check(time.monotonic() - began < 30, "no recovery within 30 s")
        time.sleep(0.5)
    host.report(
        f"one instance away: hit 200, miss 503 with Retry-After {retry}; misses again "
        f"{time.monotonic() - began:.1f} s after it came back"
    )
    host.deploy("--tags", "tei", tei_gpus=2)


if __name__ == "__main__":
    main(run)
