"""The TEI instances behind the upstream URL: a number, or a file that may change.

The balancer's role writes the file at a rescale and every worker reads it again, so that no proxy
restarts. While models change, instances of another namespace than the file's own do not count.
"""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from proxy_app.settings import Settings

log = logging.getLogger("embedrack")


class Instance(msgspec.Struct, frozen=True):
    """One of the file's instances: where it listens, and the namespace that it serves."""

    name: str = ""
    address: str = ""
    port: int = 0
    namespace: str = ""

    @property
    def url(self) -> str:
        """Return its URL."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{address}:{self.port}"


class Listed(msgspec.Struct, frozen=True):
    """The file: all instances, and the namespace that the balancer leads to."""

    instances: list[Instance]
    namespace: str = ""

    def serves(self, one: Instance) -> bool:
        """Tell whether an instance serves the file's own namespace."""
        return one.namespace in ("", self.namespace)


_listed = msgspec.json.Decoder(Listed)


class Instances:
    """What is known of the instances; ``count`` is at least 1.

    ``listed`` is what the file said when it could be read last, None without a file.
    """

    def __init__(self, settings: Settings) -> None:
        path = settings.upstream_instances_file
        self.count = settings.upstream_instances
        self.listed: Listed | None = None
        self._url = settings.upstream_url
        self._path = Path(path) if path else None
        self._content = b""

    @property
    def is_pinned(self) -> bool:
        """Whether the upstream URL is the path of one namespace, that of the file.

        The balancer has no instance of another model there (``templates/etc/nginx``).
        """
        namespace = self.listed.namespace if self.listed else ""
        return bool(namespace) and urlsplit(self._url).path == f"/{namespace}"

    def read(self) -> None:
        """Read the file again, if there is one; a broken one is reported and changes nothing."""
        if self._path is None:
            return
        try:
            content = self._path.read_bytes()
            if content == self._content:
                return
            self._content = content
            listed = _listed.decode(content)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning(
                "instances: %s cannot be read, %d it stays: %s", self._path, self.count, error
            )
            return
        self.listed = listed
        self.count = max(1, sum(map(listed.serves, listed.instances)))
        log.info("instances: %d", self.count)
