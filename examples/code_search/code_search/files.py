"""The files of a source: which are read, which are skipped and why."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from code_search.languages import language_of, language_of_shebang
from code_search.settings import Settings
from code_search.source import Source

#: Where a NUL byte is looked for, as git does.
_HEAD_BYTES = 8000
#: A line longer than this was not written by a person.
_LONG_LINE = 2000
_HASH = re.compile(r"[0-9a-fA-F]{40,}")
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}


@dataclass(frozen=True)
class File:
    """A file to read: its path below the source's folder, its language and bytes."""

    path: str
    language: str
    size: int

    @property
    def shown(self) -> str:
        """The path as text that can be stored: bytes that are not UTF-8 as ``\\xe9``."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Skipped:
    """A file that is not read; ``reason`` is one of few, to be counted."""

    path: str
    reason: str


@dataclass(frozen=True)
class Text:
    """What a file holds; ``committed`` where it is what the source's commit holds there."""

    content: str
    committed: bool


def walk(source: Source, settings: Settings) -> Iterator[File | Skipped]:
    """Look at every file that git does not ignore; links and devices are never opened."""
    for path in source.listing:
        full = source.folder / path
        try:
            status = os.lstat(full)
        except OSError:
            yield Skipped(path, "gone")
            continue
        if stat.S_ISLNK(status.st_mode):
            yield Skipped(path, "a link")
        elif stat.S_ISDIR(status.st_mode):
            yield Skipped(path, "another repository")
        elif not stat.S_ISREG(status.st_mode):
            yield Skipped(path, "not a file")
        elif status.st_size > settings.max_file_bytes:
            yield Skipped(path, f"over {settings.max_file_bytes / 1e6:g} MB")
        elif status.st_size == 0:
            yield Skipped(path, "empty")
        else:
            language = language_of(PurePosixPath(path).name) or _by_first_line(source, path)
            if language:
                yield File(path, language, status.st_size)
            else:
                yield Skipped(path, "of no known kind")


def read(source: Source, file: File, settings: Settings) -> Text | Skipped:
    """Read a file that `walk` gave, at most as much as it may have; it may have changed since."""
    content = _bytes(source.folder, file.path, settings.max_file_bytes + 1)
    if content is None:
        return Skipped(file.path, "not readable")
    if len(content) > settings.max_file_bytes:
        return Skipped(file.path, f"over {settings.max_file_bytes / 1e6:g} MB")
    encoding = next(
        (name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), ""
    )
    if not encoding and b"\0" in content[:_HEAD_BYTES]:
        return Skipped(file.path, "binary")
    text = _decoded(content, encoding)
    if sum(map(len, filter(_too_long, text.split("\n")))) > len(text) / 2:
        return Skipped(file.path, "minified")
    if sum(map(len, _HASH.findall(text))) > len(text) / 3:
        return Skipped(file.path, "mostly hashes")
    blob = source.blobs.get(file.path)
    return Text(text, blob is not None and blob == _git_hash(content, len(blob)))


def _by_first_line(source: Source, path: str) -> str:
    if PurePosixPath(path).suffix:
        return ""
    return language_of_shebang(_bytes(source.folder, path, 128) or b"")


def _bytes(folder: Path, path: str, limit: int) -> bytes | None:
    """Read up to ``limit`` bytes of a regular file inside the folder; None if it is none."""
    full = f"{os.path.realpath(folder)}/{path}"
    if os.path.realpath(full) != full:
        return None  # a link, below one, or outside
    try:
        # Where it has become a FIFO meanwhile, nobody waits for its other end.
        descriptor = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return stream.read(limit)


def _decoded(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\0", "")


def _too_long(line: str) -> bool:
    return len(line) > _LONG_LINE


def _git_hash(content: bytes, digits: int) -> str:
    """Hash as git names a blob (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects)."""
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % len(content) + content)
    return digest.hexdigest()
