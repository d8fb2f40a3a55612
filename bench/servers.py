"""What is measured, as processes: a proxy of one worker, instances, a balancer, a static server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import orjson

from tests.stand_ins.process import first_line, free_port, started

ROOT = Path(__file__).resolve().parent.parent


class Missing(Exception):
    """A program that the benchmark needs is not here; the text has the remedy."""


def need(*programs: str) -> None:
    """Raise Missing where one of these programs is not here (each is a Debian package's name)."""
    missing = [name for name in programs if not shutil.which(name)]
    if missing:
        raise Missing(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not here; "
            f"`apt-get install {' '.join(missing)}`"
        )


def fetch(url: str, body: object = None) -> tuple[dict[str, str], bytes]:
    """Get a URL, or post JSON to it; returns headers and body."""
    data = None if body is None else orjson.dumps(body)
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return dict(reply.headers), reply.read()


def until(url: str, holds: Any, what: str) -> None:
    """Wait until a URL's JSON is as wanted."""

    def answers() -> bool:
        try:
            return bool(holds(orjson.loads(fetch(url)[1])))
        except (OSError, ValueError):
            return False  # not up yet: asked again

    until_true(answers, what)


def until_true(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    raise SystemExit(f"bench: {what} did not become ready")


def children_of(pid: int) -> list[int]:
    """Return a process's children."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def instances(count: int = 1, delay: float = 0.0) -> Iterator[list[str]]:
    """Run stand-ins of TEI; ``delay`` is the seconds that each takes for a batch."""
    with started("bench.instance", "--count", str(count), "--delay", str(delay)) as process:
        yield first_line(process).split()


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Proxy:
    """A running proxy, of one worker unless set otherwise."""

    def __init__(self, url: str, master: int) -> None:
        self.url = url
        self._master = master
        self.worker = self.workers()[0]

    def workers(self) -> list[int]:
        """Return the processes that serve now: gunicorn's children."""
        return children_of(self._master)

    def cpu(self) -> float:
        """Return the worker's CPU seconds so far, user and system, by the kernel's scheduler."""
        threads = Path(f"/proc/{self.worker}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def resident(self) -> int:
        """Return the worker's resident memory in bytes."""
        return resident(self.worker)


def set_apart(worker: int) -> None:
    """Give a process a core of its own, and this one and its children the others.

    So that what is measured is what a worker does, not who shares a core with whom by chance.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    if others:
        for pid in (os.getpid(), *descendants(os.getpid())):
            os.sched_setaffinity(pid, others)
        os.sched_setaffinity(worker, {first})


def descendants(pid: int) -> Iterator[int]:
    """List the processes that a process started, and theirs."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from descendants(child)


@contextmanager
def proxy(
    upstream: str, qdrant: str = "", program: tuple[str, ...] = ("proxy_app",), **settings: object
) -> Iterator[Proxy]:
    """Run a proxy of one worker, or ``workers``; settings are EMBEDRACK_ in lower case.

    ``program`` is the module that serves, and what stands before ``serve`` on its command line.
    """
    port = free_port()
    given: dict[str, object] = {"bind": "127.0.0.1", "port": port, "workers": 1}
    given |= {"log_level": "warning", "store_timeout": 5, "qdrant_url": qdrant}
    given |= {"upstream_url": upstream} | settings
    environment = {f"EMBEDRACK_{name.upper()}": str(value) for name, value in given.items()}
    url = f"http://127.0.0.1:{port}"
    with started(*program, "serve", **environment) as process:
        wanted = "ok" if qdrant else "none: L1 alone"
        until(url + "/readyz", lambda state: state["store"] == wanted, "the proxy")
        # gunicorn starts its workers one by one; the first answers before the last is there.
        until_true(lambda: len(children_of(process.pid)) == given["workers"], "the workers")
        yield Proxy(url, process.pid)


@contextmanager
def nginx(configuration: str) -> Iterator[None]:
    """Run nginx with one worker and the contents of its ``http`` block."""
    folder = Path(tempfile.mkdtemp(prefix="embedrack-bench-"))
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{\naccess_log off; keepalive_requests 1000000000;\n{temporary}"
        f"{configuration.replace('{folder}', str(folder))}\n}}\n"
    )
    folder.chmod(0o755)
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen(command, stderr=sys.stderr)
    try:
        time.sleep(0.5)
        if process.poll() is not None:
            raise SystemExit("bench: nginx did not start")
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def file_of(content: bytes) -> Iterator[str]:
    """Write bytes to a file that nginx's worker may read; gives its path."""
    folder = Path(tempfile.mkdtemp(prefix="embedrack-bench-"))
    try:
        folder.chmod(0o755)
        (folder / "reply.json").write_bytes(content)
        yield str(folder / "reply.json")
    finally:
        shutil.rmtree(folder)


@contextmanager
def balancer(urls: list[str]) -> Iterator[str]:
    """Run nginx with the balancer's own configuration, as the role writes it."""
    template = ROOT / "templates" / "etc" / "nginx" / "conf.d" / "embedrack.conf.j2"
    port = free_port()
    serving = [
        {"address": "127.0.0.1", "port": int(url.rsplit(":", 1)[1]), "namespace": "bench"}
        for url in urls
    ]
    text = jinja2.Template(template.read_text()).render(
        nginx_serving=serving,
        nginx_keepalive=64,
        nginx_port=port,
        nginx_timeout=60,
        __nginx_mark="bench",
        ansible_managed="",
    )
    with nginx(text):
        yield f"http://127.0.0.1:{port}/bench"
