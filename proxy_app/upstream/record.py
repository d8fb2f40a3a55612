"""The record of the model that was served last: a file that outlives the proxy.

A restart while TEI is away, or loads a large model for minutes, finds there what ``/info`` said,
the default prompt and the dimension. Whether that is still the model is ``model``'s to decide.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from proxy_app.settings import Settings

log = logging.getLogger("embedrack")


class Record(msgspec.Struct, frozen=True):
    """What was known of a model: the upstream's URL, the operator's word, ``/info`` as it came."""

    url: str
    word: str
    info: str
    prompt: list[int]
    dimension: int


class _Info(msgspec.Struct):
    model_id: str


def read(settings: Settings) -> Record | None:
    """Return the record of this upstream, None where there is none."""
    if not settings.data_folder:
        return None
    try:
        record = msgspec.json.decode(_path(settings).read_bytes(), type=Record)
        msgspec.json.decode(record.info, type=_Info)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    theirs = (record.url, record.word, record.dimension)
    ours = (settings.upstream_url, settings.namespace, settings.dimension or record.dimension)
    return record if theirs == ours else None


def write(settings: Settings, record: Record) -> None:
    """Replace the record; a failure is logged, and costs a later start its hits."""
    if not settings.data_folder:
        return
    path = _path(settings)
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.encode(record))
        draft.replace(path)
    except OSError as error:
        log.warning("the model is not remembered for the next start: %s", error)


def _path(settings: Settings) -> Path:
    return Path(settings.data_folder) / "model.json"
