"""The address of some lines of a file at a commit, at hosts whose form of it is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote, urlsplit

_Form = Callable[[str, str, int, int], str]

_FORMS: dict[str, _Form] = {
    "github.com": lambda commit, path, start, end: f"blob/{commit}/{path}#L{start}-L{end}",
    "gitlab.com": lambda commit, path, start, end: f"-/blob/{commit}/{path}#L{start}-{end}",
    "codeberg.org": lambda commit, path, start, end: f"src/commit/{commit}/{path}#L{start}-L{end}",
    "gitea.com": lambda commit, path, start, end: f"src/commit/{commit}/{path}#L{start}-L{end}",
    "bitbucket.org": lambda commit, path, start, end: f"src/{commit}/{path}#lines-{start}:{end}",
}
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
#: ``git@host:owner/repository.git``, git's own short form for SSH.
_SHORT_SSH = re.compile(r"(?:[^@/:]+@)?([A-Za-z0-9.-]+):(?!/)(.+)")


def web_address(remote: str) -> str:
    """Return where a remote is browsed, or "" for one at no known host; without credentials."""
    short = _SHORT_SSH.fullmatch(remote)
    if short and "://" not in remote:
        host, path = short[1], short[2]
    else:
        try:
            parts = urlsplit(remote)
            host, path = parts.hostname or "", parts.path
        except ValueError:
            return ""
        if parts.scheme not in ("https", "http", "ssh", "git"):
            return ""
    host = host.lower().removeprefix("www.")
    names = path.strip("/").removesuffix(".git").split("/")
    if host not in _FORMS or len(names) < 2 or not all(map(_plain, names)):
        return ""
    return f"https://{host}/{'/'.join(names)}"


def permalink(url: str, commit: str, path: str, start: int, end: int) -> str:
    """Return the address of lines ``start`` to ``end`` (from 1, inclusive), or "" if unknown.

    ``url`` is what `web_address` gave, ``path`` the file's in its repository, as text in UTF-8.
    """
    if not url or not _COMMIT.fullmatch(commit):
        return ""
    form = _FORMS[urlsplit(url).hostname or ""]
    return f"{url}/{form(commit, quote(path), start, end)}"


def _plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_.~-]+", name) is not None and name not in (".", "..")
