"""gunicorn around the application: workers, sockets, signals."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp.worker
from aiohttp import web
from gunicorn import glogging
from gunicorn.app.base import BaseApplication

from proxy_app.http import tls
from proxy_app.settings import Settings
from proxy_app.telemetry import logs
from proxy_app.workers.folder import Folder
from proxy_app.workers.ledger import Ledger
from proxy_app.workers.purge_log import PurgeLog

#: Connections that may wait to be accepted; aiohttp alone would leave 128.
BACKLOG = 2048


class Worker(aiohttp.worker.GunicornUVLoopWebWorker):
    """aiohttp's worker with our backlog.

    aiohttp listens again with a backlog of 128 on every socket that it is given, which loses
    connections while workers restart under load; the first heartbeat comes after that.
    """

    _listens = False

    def notify(self) -> None:
        """Send a heartbeat."""
        super().notify()
        if self.booted and not self._listens:
            self._listens = True
            for listener in self.sockets:
                listener.listen(BACKLOG)


class Logger(glogging.Logger):
    """gunicorn's own messages, by way of the program's log."""

    def setup(self, cfg: Any) -> None:
        """Leave handlers and formats to the root logger."""
        self.error_log.handlers = []
        self.error_log.propagate = True
        self.error_log.setLevel("WARNING")


class Server(BaseApplication):
    """The program that ``embedrack serve`` runs until a signal ends it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = Folder.create()
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn is to do."""
        settings = self._settings
        host = f"[{settings.bind}]" if ":" in settings.bind else settings.bind
        for name, value in {
            "bind": f"{host}:{settings.port}",
            "workers": settings.worker_count,
            "worker_class": Worker,
            "logger_class": Logger,
            "backlog": BACKLOG,
            "timeout": 60,
            "graceful_timeout": 35,
            # Not the folder itself: somebody may remove it, and gunicorn would end.
            "worker_tmp_dir": str(self._folder.path.parent),
            "control_socket_disable": True,
            "proc_name": "embedrack",
            "certfile": settings.tls_certificate or None,
            "keyfile": settings.tls_key or None,
            "child_exit": self._child_exit,
            "when_ready": self._when_ready,
            "on_exit": self._on_exit,
        }.items():
            self.cfg.set(name, value)

    def load(  # type: ignore[override]  # aiohttp's worker wants no WSGI, but this
        self,
    ) -> Callable[[], Awaitable[web.AppRunner]]:
        """Return what each worker calls once it has its event loop."""
        settings = self._settings
        folder = self._folder.path

        async def make() -> web.AppRunner:
            # Not at the top: the master needs none of it.
            from proxy_app.app import runner

            return await runner(settings, folder)

        return make

    def _when_ready(self, arbiter: Any) -> None:
        settings = self._settings
        # Connections inherit it: the kernel drops one whose client does not take what was sent.
        milliseconds = int(settings.client_timeout * 1000)
        for listener in arbiter.LISTENERS:
            if listener.sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
                listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        logs.log.info(
            "listening on %s:%d%s: %d workers, %d MiB of L1, upstream %s, store %s",
            settings.bind,
            settings.port,
            " with TLS" if settings.tls_certificate else "",
            settings.worker_count,
            settings.memory,
            settings.upstream_url,
            settings.qdrant_url or "none",
        )

    def _child_exit(self, _: object, worker: Any) -> None:
        try:
            PurgeLog(self._folder, self._settings.worker_count).forget(worker.pid)
            Ledger(self._folder).close(worker.pid)
        except OSError as error:  # not the master's end, for a few counts
            logs.log.warning("metrics: what worker %d counted is lost: %s", worker.pid, error)

    def _on_exit(self, _: object) -> None:
        self._folder.remove()


def refuse_used_port(settings: Settings) -> None:
    """Raise OSError where the address cannot be listened on; a socket of systemd's is not ours."""
    if "LISTEN_FDS" in os.environ:
        return
    family, kind, protocol, _, address = socket.getaddrinfo(
        settings.bind, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def serve(settings: Settings) -> None:
    """Serve until a signal ends it; gunicorn exits the process."""
    logs.configure(settings)
    tls.check(settings)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is an open file
    refuse_used_port(settings)
    if not settings.qdrant_url:
        logs.log.warning(
            "no Qdrant (EMBEDRACK_QDRANT_URL is empty): L1 alone, not shared, not kept"
        )
    if settings.hash_function == "md5":
        logs.log.warning(
            "EMBEDRACK_HASH_FUNCTION is md5: texts that collide can be made; use sha256"
        )
    Server(settings).run()
