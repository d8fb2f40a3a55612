"""How many TEI instances stand behind the upstream URL: a number, or a file that may change.

The balancer's role writes the file at a rescale and every worker reads it again, so that no proxy
restarts. While models change, instances of another namespace than the file's own do not count.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

log = logging.getLogger("embedrack")


class _Instance(msgspec.Struct):
    namespace: str = ""


class _File(msgspec.Struct):
    instances: list[_Instance]
    namespace: str = ""


_file = msgspec.json.Decoder(_File)


class Instances:
    """The number of instances, at least 1."""

    def __init__(self, count: int, path: str) -> None:
        self.count = count
        self._path = Path(path) if path else None
        self._content = b""

    def read(self) -> None:
        """Read the file again, if there is one; a broken one is reported and changes nothing."""
        if self._path is None:
            return
        try:
            content = self._path.read_bytes()
            if content == self._content:
                return
            self._content = content
            told = _file.decode(content)
            count = max(1, sum(one.namespace in ("", told.namespace) for one in told.instances))
        except (OSError, msgspec.DecodeError) as error:
            log.warning(
                "instances: %s cannot be read, %d it stays: %s", self._path, self.count, error
            )
            return
        log.info("instances: %d", count)
        self.count = count
