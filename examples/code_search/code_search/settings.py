"""Where the example's parts are and its limits: one table, read from ``CODE_SEARCH_*``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from code_search.errors import CodeSearchError

_PREFIX = "CODE_SEARCH_"
#: Where only this machine's own programs reach what listens.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """What can be set; the variable of ``data_dir`` is ``CODE_SEARCH_DATA_DIR``."""

    endpoint: str = field(
        default="http://127.0.0.1:8080", metadata={"help": "the embeddings endpoint"}
    )
    api_key: str = field(default="", repr=False, metadata={"help": "the endpoint's key, if any"})
    qdrant: str = field(
        default="", metadata={"help": "URL of a Qdrant server; empty: embedded, in data_dir"}
    )
    qdrant_api_key: str = field(
        default="", repr=False, metadata={"help": "the Qdrant server's key, if any"}
    )
    data_dir: str = field(
        default="", metadata={"help": "folder of the indexes; empty: below XDG_STATE_HOME"}
    )
    host: str = field(default="127.0.0.1", metadata={"help": "address that the page listens on"})
    port: int = field(default=7860, metadata={"help": "port that the page listens on"})
    roots: str = field(
        default="",
        metadata={
            "help": "folders (separated as in PATH) below which local ones may be indexed; "
            "empty: every folder while host is on loopback, none otherwise"
        },
    )
    max_file_bytes: int = field(default=5_000_000, metadata={"help": "larger files are skipped"})
    max_files: int = field(default=50_000, metadata={"help": "more files are refused"})
    max_chunks: int = field(default=200_000, metadata={"help": "more chunks are refused"})
    clone_bytes: int = field(
        default=1_000_000_000, metadata={"help": "a clone that becomes larger is ended"}
    )
    clone_seconds: int = field(default=300, metadata={"help": "a slower clone is ended"})
    batch: int = field(default=64, metadata={"help": "chunks in one request to the endpoint"})
    concurrency: int = field(default=4, metadata={"help": "requests to the endpoint at once"})
    patience: int = field(
        default=60, metadata={"help": "seconds in which a batch is sent again (429, 503, lost)"}
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the environment. Raises CodeSearchError that names the variable."""
        given = os.environ if environment is None else environment
        known = {_PREFIX + one.name.upper(): one for one in fields(cls)}
        values: dict[str, str | int] = {}
        for name, text in given.items():
            if not name.startswith(_PREFIX):
                continue
            if name not in known:
                raise CodeSearchError(f"{name} is no setting; there are {', '.join(known)}")
            one = known[name]
            if isinstance(one.default, int):
                if not (text.isdecimal() and int(text) > 0):
                    raise CodeSearchError(f"{name} is {text!r}: a whole number above 0 is wanted")
                values[one.name] = int(text)
            else:
                values[one.name] = text
        return cls(**values)  # type: ignore[arg-type]

    @property
    def is_local(self) -> bool:
        """Whether only this machine's users can reach the page."""
        return self.host in LOOPBACK

    def may_read(self, folder: Path) -> bool:
        """Say whether a local folder (resolved) may be indexed."""
        roots = [Path(root).expanduser().resolve() for root in self.roots.split(os.pathsep) if root]
        if not roots:
            return self.is_local
        return any(folder.is_relative_to(root) for root in roots)

    @property
    def folder(self) -> Path:
        """The folder of the indexes and, for a while, of clones."""
        if self.data_dir:
            return Path(self.data_dir).expanduser()
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(state).expanduser() / "embedrack-code-search"
