"""What is to be indexed: a clone of a Git URL, or a folder of this machine."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from code_search.errors import SourceError
from code_search.git import git
from code_search.permalink import web_address
from code_search.settings import Settings

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TRANSPORTS = "https:http"
#: How often the size of a growing clone is looked at, in seconds.
_LOOK = 0.5


@dataclass(frozen=True)
class Source:
    """A folder whose files can be read, and what is known of its origin.

    ``name`` is the same whenever the same text is given. ``url`` and ``commit`` are "" where the
    origin is at no known host. ``listing`` has the paths, relative and as git tells them.
    ``blobs`` maps a path to what the commit holds there, by git's hash.
    """

    folder: Path
    name: str
    url: str = ""
    commit: str = ""
    prefix: str = ""
    listing: tuple[str, ...] = ()
    blobs: Mapping[str, str] = field(default_factory=dict, repr=False)


@asynccontextmanager
async def open_source(text: str, settings: Settings) -> AsyncIterator[Source]:
    """Give what a text names: an ``https://`` or ``http://`` URL, else a folder.

    A clone is removed when the context ends, however it does. Raises SourceError.
    """
    text = text.strip()
    if not text:
        raise SourceError("name a repository's https:// address or a folder")
    if _URL.match(text):
        async with _clone(text, settings) as source:
            yield source
        return
    folder = _folder(text)
    if not settings.may_read(folder):
        raise SourceError(
            f"{text!r} may not be read here: CODE_SEARCH_ROOTS names the folders that may; "
            "an https:// address can be given instead"
        )
    yield await _described(Source(folder, _shown(str(folder))), settings)


def _folder(text: str) -> Path:
    try:
        folder = Path(text).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise SourceError(
            f"{text!r} is neither a folder here nor an https:// or http:// address"
        ) from None
    if not folder.is_dir():
        raise SourceError(f"{text!r} is not a folder")
    return folder


@asynccontextmanager
async def _clone(url: str, settings: Settings) -> AsyncIterator[Source]:
    address, environment = _address(url)
    parts = urlsplit(address)
    name = parts.netloc.lower() + parts.path.removesuffix("/").removesuffix(".git").rstrip("/")
    clones = settings.folder / "clones"
    clones.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="clone-", dir=clones))
    try:
        work = asyncio.create_task(_fetch(address, folder / "work", environment, settings))
        try:
            await _within_limits(work, folder, settings)
        finally:
            work.cancel()
            await asyncio.wait({work})
        yield await _described(Source(folder / "work", name), settings)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


def _address(url: str) -> tuple[str, dict[str, str]]:
    """Return the URL without credentials, and the environment that has git send them."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SourceError(
            "this address is broken: https://host/owner/repository is wanted"
        ) from None
    if parts.scheme.lower() not in ("https", "http"):
        raise SourceError(
            f"{parts.scheme}:// is not taken: give the repository's https:// or http:// address"
        )
    if not host or not parts.path.strip("/") or re.search(r"[\x00-\x20\x7f]", url):
        raise SourceError("this address is broken: https://host/owner/repository is wanted")
    netloc = f"[{host}]" if ":" in host else host
    netloc += f":{port}" if port else ""
    address = f"{parts.scheme.lower()}://{netloc}{parts.path}"
    if parts.username is None and parts.password is None:
        return address, {}
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    # Neither in the command line nor in the clone's configuration; only for this host.
    return address, {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{parts.scheme.lower()}://{netloc}/.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}",
    }


async def _fetch(address: str, work: Path, environment: dict[str, str], settings: Settings) -> None:
    options = ("--depth=1", "--single-branch", "--no-tags", "--no-checkout", "--quiet")
    await git(
        *("clone", *options, "--no-recurse-submodules", "--template=", "--", address, str(work)),
        seconds=settings.clone_seconds,
        environment=environment,
        transports=_TRANSPORTS,
    )
    # What a checkout would write is known before it is written: a few hundred bytes can hold
    # trees of trees that unfold to billions of files.
    tree = await git("ls-tree", "-r", "-l", "-z", "HEAD", folder=work)
    entries = [entry.split(b"\t", 1)[0].split() for entry in tree.split(b"\0") if entry]
    if len(entries) > settings.max_files:
        raise SourceError(
            f"the repository has {len(entries):,} files, more than {settings.max_files:,}"
        )
    size = sum(int(entry[3]) for entry in entries if entry[3] != b"-")
    if size > settings.clone_bytes:
        raise _too_large(settings)
    await git("checkout", "--quiet", "--force", "HEAD", folder=work, seconds=settings.clone_seconds)


async def _within_limits(work: asyncio.Task[None], folder: Path, settings: Settings) -> None:
    """Wait for a clone; raises SourceError as soon as it is too large or has taken too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + settings.clone_seconds
    while not work.done():
        await asyncio.wait({work}, timeout=_LOOK)
        if await asyncio.to_thread(_size, folder, settings.clone_bytes) > settings.clone_bytes:
            raise _too_large(settings)
        if loop.time() > end and not work.done():
            raise SourceError(f"cloning took longer than {settings.clone_seconds} s: ended")
    work.result()


def _too_large(settings: Settings) -> SourceError:
    return SourceError(
        f"the repository is larger than {settings.clone_bytes / 1e6:,.0f} MB "
        "(CODE_SEARCH_CLONE_BYTES): ended"
    )


def _size(folder: Path, enough: int) -> int:
    """Sum up what a folder's files take, until it is more than enough."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue  # git moved it meanwhile
        if total > enough:
            break
    return total


async def _described(source: Source, settings: Settings) -> Source:
    """Add the listing, and where the folder belongs to a repository its origin and commit."""
    try:
        prefix = await git("rev-parse", "--show-prefix", folder=source.folder)
        listed = await git("ls-files", "-co", "--exclude-standard", "-z", folder=source.folder)
    except SourceError:
        listed = b""  # no repository, or none that git trusts
    if not listed:  # or a folder that the repository around it ignores as a whole
        return replace(source, listing=_listing(await _plainly(source.folder), settings))
    source = replace(source, listing=_listing(listed, settings))
    try:
        remote = await git("config", "--local", "--get", "remote.origin.url", folder=source.folder)
        commit = await git("rev-parse", "--verify", "HEAD^{commit}", folder=source.folder)
    except SourceError:
        return source  # from nowhere, or never committed
    url = web_address(remote.decode("utf-8", "replace").strip())
    if not url:
        return source
    tree = await git("ls-tree", "-r", "-z", "HEAD", folder=source.folder)
    return replace(
        source,
        url=url,
        commit=commit.decode().strip(),
        prefix=os.fsdecode(prefix).rstrip("\n"),
        blobs=dict(map(_blob, filter(None, tree.split(b"\0")))),
    )


async def _plainly(folder: Path) -> bytes:
    """List a folder that is in no repository; an empty one lends it git's rules of ignoring."""
    with tempfile.TemporaryDirectory() as empty:
        await git("init", "--quiet", "--bare", "--template=", empty)
        where = {"GIT_DIR": empty, "GIT_WORK_TREE": str(folder)}
        return await git(
            *("ls-files", "-o", "--exclude-standard", "-z"), folder=folder, environment=where
        )


def _listing(listed: bytes, settings: Settings) -> tuple[str, ...]:
    # A path with a conflict is listed once per side.
    paths = dict.fromkeys(os.fsdecode(path) for path in listed.split(b"\0") if path)
    if len(paths) > settings.max_files:
        raise SourceError(
            f"there are {len(paths):,} files, more than {settings.max_files:,} "
            "(CODE_SEARCH_MAX_FILES): name a folder below"
        )
    return tuple(sorted(paths))


def _blob(entry: bytes) -> tuple[str, str]:
    marks, path = entry.split(b"\t", 1)
    return os.fsdecode(path), marks.split()[2].decode()


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
