"""Turns the ancestor's ``.env`` into the variables file of the deployment.

The names on the left are the ancestor's, those on the right our inventory's. What a value means
here is said beside it where it differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class MigrationError(ValueError):
    """A line that cannot be read or a value that cannot be meant; names line and remedy."""


@dataclass(frozen=True)
class Entry:
    """One of the ancestor's variables: our name, how its text is read, what differs."""

    name: str
    read: Callable[[str], object]
    comment: str = ""
    #: Hosts, or hosts with ports, that meant a part of the ancestor's own: ours takes its place.
    its_own: tuple[str, ...] = ()


def _text(text: str) -> object:
    return text


def _address(text: str) -> object:
    if not re.fullmatch(r"[\w.-]+|(?:[0-9A-Fa-f]*:){2,}[0-9A-Fa-f.]*", text):
        raise ValueError("a host's name or address is wanted, without http:// and port")
    return text


def _url(text: str) -> object:
    if not re.fullmatch(r"https?://[^/\s?#]+[^\s?#]*", text):
        raise ValueError("a URL such as http://127.0.0.1:8081 is wanted")
    return text


def _number(least: int, most: int) -> Callable[[str], object]:
    def read(text: str) -> object:
        if not re.fullmatch(r"\d+", text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most} is wanted")
        return int(text)

    return read


def _choice(*choices: str) -> Callable[[str], object]:
    def read(text: str) -> object:
        if text.lower() not in choices:
            raise ValueError(f"one of {', '.join(choices)} is wanted")
        return text.lower()

    return read


def _flag(text: str) -> object:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError("true or false is wanted")
    return text.lower() in ("true", "1", "yes")


TABLE = {
    "MODEL_ID": Entry("tei_model_id", _text),
    "REVISION": Entry("tei_revision", _text, "Resolved to a commit when it is fetched."),
    "EMBEDDING_DIMENSION": Entry(
        "tei_dimension", _number(1, 65536), "Read from the model; this one is only checked."
    ),
    "AUTO_TRUNCATE": Entry("tei_auto_truncate", _flag),
    "DTYPE": Entry("tei_dtype", _choice("float16", "float32", "bfloat16")),
    "MAX_BATCH_TOKENS": Entry("tei_max_batch_tokens", _number(1, 10**9)),
    "NUM_REPLICAS": Entry("tei_gpus", _number(1, 64), "One instance a GPU; `all` takes every one."),
    "TEI_IMAGE": Entry(
        "tei_image", _text, "A tag or a full name; `auto` picks the tag by the GPU."
    ),
    "HUGGING_FACE_HUB_TOKEN": Entry(
        "tei_hf_token", _text, "A secret: move it into a vault (`ansible-vault encrypt_string`)."
    ),
    "HOST_PORT": Entry("proxy_port", _number(1, 65535)),
    "LOG_LEVEL": Entry("proxy_log_level", _choice("debug", "info", "warning", "error")),
    "CACHE_HASH_FUNCTION": Entry(
        "proxy_hash_function", _choice("sha256", "md5"), "Texts that collide under md5 can be made."
    ),
    "NGINX_UPSTREAM_URL": Entry(
        "proxy_upstream_url",
        _url,
        "A TEI of your own: with it, no instance is deployed here.",
        its_own=("nginx", "nginx-internal-lb", "localhost:8081", "127.0.0.1:8081"),
    ),
    "QDRANT_HOST": Entry(
        "qdrant_host",
        _address,
        "A server of your own is used as it is and not installed.",
        its_own=("qdrant", "qdrant-db", "localhost", "127.0.0.1"),
    ),
    "QDRANT_PORT": Entry("qdrant_port", _number(1, 65535)),
    "QDRANT_COLLECTION": Entry(
        "qdrant_collection",
        _text,
        "How our collections' names begin. The old entries stay unused: their keys leave out what"
        " changes a vector.",
    ),
}


def migrate(text: str) -> tuple[str, list[str]]:
    """Return the variables file for an ``.env``, and a sentence for each name that is unknown.

    Raises MigrationError, naming the line, for what cannot be read or meant.
    """
    lines = ["# From the ancestor's .env; docs/variables.md lists every variable.", ""]
    unknown = []
    for number, name, value in parse(text):
        if value == "":
            continue
        if name not in TABLE:
            unknown.append(f"line {number}: {name} has no variable here; it stays as a comment")
            lines += [f"# {name}={value}", ""]
            continue
        entry = TABLE[name]
        try:
            read = entry.read(value)
        except ValueError as error:
            raise MigrationError(f"line {number}: {name}={value!r}: {error}") from None
        if not set(entry.its_own).isdisjoint(_hosts(value)):
            lines += [f"# {entry.name}: {name} meant a part of its own; ours by default.", ""]
            continue
        lines += [f"# {name}. {entry.comment}".rstrip(), f"{entry.name}: {_yaml(read)}", ""]
    return "\n".join(lines), unknown


def _hosts(value: str) -> tuple[str, str]:
    """Return the host that a URL or an address names, with its port and without."""
    host = re.sub(r"^[a-z]+://", "", value).split("/")[0]
    return host, host.split(":")[0]


def _yaml(value: object) -> str:
    # JSON's strings, numbers and truths are YAML's.
    return json.dumps(value, ensure_ascii=False)


def parse(text: str) -> list[tuple[int, str, str]]:
    """Read an ``.env``: (line number, name, value) of each line; of a name twice, the last."""
    found: dict[str, tuple[int, str, str]] = {}
    # Not splitlines: it takes more characters for ends of lines than an .env does.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)", line)
        if match is None:
            raise MigrationError(f"line {number}: NAME=value is wanted")
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", line):
            raise MigrationError(f"line {number}: there is a control character in it; remove it")
        name, value = match.groups()
        quoted = re.fullmatch(r"""("|')(.*?)\1\s*(?:#.*)?""", value)
        if quoted is None and value[:1] in ("'", '"'):
            raise MigrationError(
                f"line {number}: {name}: a closing {value[0]} at the end is wanted"
            )
        value = quoted.group(2) if quoted else re.split(r"(?:^|\s)#", value)[0].strip()
        found[name] = (number, name, value)
    return sorted(found.values())


def write(source: Path, target: Path | None, *, force: bool) -> tuple[str, list[str]]:
    """Migrate a file into another, or return the text where there is no target.

    Raises MigrationError, also where the target is there already and ``force`` is not set.
    """
    if target is not None and target.exists() and not force:
        raise MigrationError(f"{target} is there already; --force replaces it")
    try:
        text, unknown = migrate(source.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise MigrationError(f"{source} is not UTF-8 text") from None
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return text, unknown
