"""What `make run` was asked for."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from local_stack.run.failure import Failure
from local_stack.run.folder import default_folder

MOST_WORKERS = 64


@dataclasses.dataclass(frozen=True)
class Settings:
    """The variables given to `make run`, checked."""

    port: int
    data_dir: Path
    workers: int
    model_dir: Path | None
    tei_url: str
    qdrant_url: str

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Settings":
        """Check the variables; one that is empty counts as not given."""
        model_dir = variables.get("MODEL_DIR", "")
        if model_dir and not Path(model_dir).expanduser().is_dir():
            raise Failure(f"MODEL_DIR={model_dir} is not a folder: name the one that has the model")
        data_dir = variables.get("DATA_DIR", "")
        return cls(
            port=number(variables, "PORT", 8080, 65535),
            data_dir=Path(data_dir).expanduser().resolve() if data_dir else default_folder(),
            workers=number(variables, "WORKERS", 2, MOST_WORKERS),
            model_dir=Path(model_dir).expanduser().resolve() if model_dir else None,
            tei_url=address(variables, "TEI_URL"),
            qdrant_url=address(variables, "QDRANT_URL"),
        )

    @property
    def url(self) -> str:
        """Where the proxy will answer."""
        return f"http://127.0.0.1:{self.port}"


def number(variables: Mapping[str, str], name: str, default: int, most: int) -> int:
    """The variable as a whole number from 1 to `most`."""
    text = variables.get(name, "").strip() or str(default)
    if text.isascii() and text.isdigit() and 1 <= int(text) <= most:
        return int(text)
    raise Failure(
        f"{name}={text} is not a whole number from 1 to {most}: try {name}={default}, the default"
    )


def address(variables: Mapping[str, str], name: str) -> str:
    """The variable as a base URL without its last slash; empty where it is not given."""
    text = variables.get(name, "").strip()
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if text and not valid:
        raise Failure(f"{name}={text} is not an address: write it as {name}=http://HOST:PORT")
    return text.rstrip("/")
