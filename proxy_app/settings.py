"""Settings: one frozen, validated object, read from the environment once.

``EMBEDRACK_X`` is the inventory's ``proxy_x``. The fields below are the whole table: name, type,
default and, in ``metadata``, what the setting means and which values it takes. A variable with our
prefix that is not in the table is refused by name, so that a misspelt one cannot go unnoticed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

PREFIX = "EMBEDRACK_"
MIB = 1024 * 1024
#: Characters of a key that cannot be guessed.
LEAST_KEY = 16


class SettingsError(ValueError):
    """One or more settings are wrong; the text has a line for each, with the remedy."""


class ApiKeys(str):
    """Named keys by their hashes, as ``alice:SHA256 bob:SHA256``; ValueError where they are not."""

    __slots__ = ()

    def __new__(cls, text: str = "") -> ApiKeys:
        """Check names and hashes."""
        keys = super().__new__(cls, text)
        names = [name for name, _ in keys.pairs()]
        if len(set(names)) < len(names):
            raise ValueError("each name may stand there once")
        if "admin" in names:
            raise ValueError("the name admin is that of EMBEDRACK_ADMIN_KEY; choose another")
        return keys

    def __repr__(self) -> str:
        return "'" + " ".join(f"{name}:…" for name, _ in self.pairs()) + "'"

    def pairs(self) -> list[tuple[str, bytes]]:
        """Return each key's name and digest."""
        found = []
        for word in self.replace(",", " ").split():
            match = re.fullmatch(r"([A-Za-z0-9._-]{1,64}):([0-9A-Fa-f]{64})", word)
            if match is None:
                raise ValueError(
                    "NAME:SHA256, separated by spaces, is wanted; the hash in 64 hexadecimal "
                    "digits, as `printf %s KEY | sha256sum` prints it"
                )
            found.append((match[1], bytes.fromhex(match[2])))
        return found


class Secret(str):
    """A string that hides itself in ``repr`` and so in logs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'" if self else "''"


def _setting(
    default: Any, help: str, *, least: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    return field(default=default, metadata={"help": help, "least": least, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """Everything that an operator can say to the proxy."""

    upstream_url: str = _setting("http://127.0.0.1:8081", "TEI, or a balancer over several TEIs")
    upstream_api_key: Secret = _setting(Secret(), "TEI's --api-key, if it has one")
    upstream_instances: int = _setting(
        1, "how many TEI instances the upstream URL leads to", least=1
    )
    upstream_instances_file: str = _setting(
        "", 'JSON file {"instances": [...]} that replaces the number and may change while running'
    )
    upstream_timeout: float = _setting(60.0, "seconds for one batch", least=0.1)
    upstream_payload_limit: int = _setting(
        2_000_000, "TEI's --payload-limit: bytes of one batch's body", least=1000
    )
    qdrant_url: str = _setting("", "Qdrant's REST address; empty: no shared cache, L1 alone")
    qdrant_api_key: Secret = _setting(Secret(), "Qdrant's API key, if it has one")
    qdrant_collection: str = _setting("embedrack", "how the names of our collections begin")
    store_timeout: float = _setting(
        0.05, "seconds for a look-up of up to 64 inputs; then they are misses", least=0.001
    )
    write_queue: int = _setting(
        64, "MiB of embeddings, all workers, that wait to be stored", least=1
    )
    bind: str = _setting("0.0.0.0", "address to listen on")
    port: int = _setting(8080, "port to listen on", least=0)
    tls_certificate: str = _setting("", "PEM file, the chain that clients see; empty: no TLS")
    tls_key: str = _setting("", "PEM file, the certificate's key")
    api_keys: ApiKeys = _setting(
        ApiKeys(), "who may ask, as NAME:SHA256 NAME:SHA256 of their keys; empty: everybody"
    )
    admin_key: Secret = _setting(
        Secret(), "the key to /admin, at least 16 characters; empty: no /admin"
    )
    workers: int = _setting(0, "processes; 0: one per core, at most 8", least=0)
    memory: int = _setting(512, "MiB of L1 over all workers", least=0)
    max_inputs: int = _setting(2048, "inputs in one request", least=1)
    max_queue: int = _setting(8192, "inputs per worker that may wait for the upstream", least=1)
    queue_timeout: float = _setting(
        30.0, "seconds that a request may wait for the upstream; then 429", least=0.01
    )
    max_body: int = _setting(64, "MiB of one request's body", least=1)
    body_memory: int = _setting(
        256, "MiB of large requests under way, all workers; beyond it 429", least=1
    )
    client_timeout: float = _setting(
        75.0,
        "seconds for a client to send a head, to send a body or take a reply (and 1 s more per "
        "MiB), or to be idle",
        least=0.1,
    )
    hash_function: str = _setting("sha256", "of the cache's keys", choices=("sha256", "md5"))
    cache_ttl: int = _setting(
        0, "seconds after which an entry is a miss and may be deleted; 0: never", least=0
    )
    cache_max_entries: int = _setting(
        0, "entries in a collection that `embedrack gc` leaves, the newest; 0: all", least=0
    )
    namespace_days: int = _setting(
        30,
        "days without a new entry after which `embedrack gc` removes another model's collection; "
        "0: never",
        least=0,
    )
    namespace: str = _setting(
        "", "your own word in the cache's namespace; another word, another cache"
    )
    dimension: int = _setting(
        0, "the model's dimension, to be checked; 0: as the model says", least=0
    )
    data_folder: str = _setting(
        "", "folder where the next start finds which model was served; empty: it asks TEI first"
    )
    log_level: str = _setting("info", "", choices=("debug", "info", "warning", "error"))
    log_format: str = _setting("auto", "auto: text on a terminal", choices=("auto", "json", "text"))
    log_sample: int = _setting(1000, "log one of this many good requests; 0: none", least=0)
    log_slow: float = _setting(1.0, "seconds from which a request is always logged", least=0)

    @property
    def worker_count(self) -> int:
        """The number of worker processes, 0 made concrete."""
        return self.workers or min(8, os.cpu_count() or 1)

    @property
    def memory_bytes(self) -> int:
        """One worker's share of L1, in bytes."""
        return self.memory * MIB // self.worker_count

    @property
    def write_queue_bytes(self) -> int:
        """One worker's share of the write queue, in bytes."""
        return self.write_queue * MIB // self.worker_count

    @property
    def body_memory_bytes(self) -> int:
        """One worker's share of the large requests, in bytes."""
        return self.body_memory * MIB // self.worker_count

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read and validate all ``EMBEDRACK_*`` variables.

        Raises SettingsError with a line for each wrong one.
        """
        table = {PREFIX + f.name.upper(): f for f in fields(cls)}
        values: dict[str, Any] = {}
        wrong = []
        for name, text in environment.items():
            if not name.startswith(PREFIX):
                continue
            if name not in table:
                wrong.append(_unknown(name, list(table)))
                continue
            try:
                values[table[name].name] = _parse(table[name], text.strip())
            except ValueError as error:
                wrong.append(f"{name}={_shown(table[name], text)}: {error}")
        for name in ("upstream_url", "qdrant_url"):
            if values.get(name):
                values[name] = values[name].rstrip("/")
        if wrong:
            raise SettingsError("\n".join(wrong))
        return cls(**values)


def _unknown(name: str, known: list[str]) -> str:
    suffixes = [entry.removeprefix(PREFIX) for entry in known]
    near = difflib.get_close_matches(name.removeprefix(PREFIX), suffixes, n=1)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "`embedrack check --list` shows all"
    return f"{name}: there is no such setting; {hint}"


def _shown(entry: Any, text: str) -> str:
    return "…" if isinstance(entry.default, Secret | ApiKeys) else repr(text)


def _parse(entry: Any, text: str) -> Any:
    """Turn a variable's text into the field's type; ValueError says what is wanted."""
    default = entry.default
    if isinstance(default, int):
        number = _number(int, text, entry.metadata["least"], "a whole number")
        if entry.name == "port" and number > 65535:
            raise ValueError("a port from 0 to 65535 is wanted")
        return number
    if isinstance(default, float):
        return _number(float, text, entry.metadata["least"], "a number")
    if entry.metadata["choices"] and text not in entry.metadata["choices"]:
        raise ValueError("one of " + ", ".join(entry.metadata["choices"]) + " is wanted")
    if entry.name == "admin_key" and 0 < len(text) < LEAST_KEY:
        raise ValueError(f"at least {LEAST_KEY} characters are wanted")
    if entry.name.endswith("_url") and text:
        _check_url(text)
    return type(default)(text)


def _number(kind: type[int] | type[float], text: str, least: float | None, wanted: str) -> Any:
    try:
        number = kind(text)
    except ValueError:
        raise ValueError(f"{wanted} is wanted") from None
    if not number < float("inf"):
        raise ValueError(f"{wanted} is wanted")
    if least is not None and number < least:
        raise ValueError(f"at least {least} is wanted")
    return number


def _check_url(text: str) -> None:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL such as http://127.0.0.1:8081 is wanted")
    if parts.query or parts.fragment:
        raise ValueError("a URL without ? and # is wanted")
    _ = parts.port  # ValueError for a port that is none
