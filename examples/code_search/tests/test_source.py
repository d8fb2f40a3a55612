"""What can be named, and that nothing else gets to git."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from code_search.errors import SourceError
from code_search.settings import Settings
from code_search.source import Source, open_source
from repositories import GitServer, Repository


def clones(settings: Settings) -> list[Path]:
    return list((settings.folder / "clones").iterdir())


def processes(mark: str) -> list[str]:
    """Return the command lines of running programs that have this in them."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if mark in line]


async def opened(text: str, settings: Settings) -> Source:
    async with open_source(text, settings) as source:
        return source


async def test_a_url_is_cloned_and_the_clone_removed(
    git_server: GitServer, repository: Repository, settings: Settings
) -> None:
    repository.write("src/a.py", "print()\n")
    repository.write("skipped.log", "")
    repository.write(".gitignore", "*.log\n")
    repository.commit()
    async with open_source(git_server.url + "/owner/project/.git", settings) as source:
        assert source.listing == (".gitignore", "src/a.py")
        assert (source.folder / "src/a.py").read_text() == "print()\n"
        assert clones(settings)
    assert not clones(settings)


HOSTILE = [
    "--upload-pack=touch marker",
    "-u touch marker",
    "ext::sh -c 'touch marker'",
    "ext://sh -c touch% marker",
    "file:///etc",
    "ssh://-oProxyCommand=touch%20marker/a/b",
    "git@github.com:owner/repository",
    "git://github.com/owner/repository",
    "https://",
    "https://host",
    "https://host:port/a/b",
    "https://[::1/a/b",
    "https://host/a b",
    "https://host/a\n--upload-pack=touch",
    "http://host/a\0b",
    "a\0b",
    "~nobody-of-this-name/a",
    "",
    "x" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_other_addresses_are_refused_before_git_sees_them(
    text: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")  # git would not be found
    with pytest.raises(SourceError) as raised:
        await opened(text, settings)
    assert "`git` is needed" not in str(raised.value)
    assert not (tmp_path / "marker").exists()


async def test_git_itself_refuses_other_transports(
    git_server: GitServer, repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    """Where the configuration of git rewrites an address, it is not followed to a program."""
    config = tmp_path / "gitconfig"
    config.write_text(f'[url "ext::touch {tmp_path}/marker "]\n\tinsteadOf = http://rewritten/\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        with pytest.raises(SourceError, match="transport 'ext' not allowed"):
            await opened("http://rewritten/a/b", settings)
    assert not (tmp_path / "marker").exists()


async def test_credentials_reach_the_host_and_nothing_else(
    git_server: GitServer, repository: Repository, settings: Settings
) -> None:
    repository.write("a.py", "pass\n")
    repository.commit()
    pair = base64.b64encode(b"user:s3cret/word").decode()
    git_server.authorization = f"Basic {pair}"
    url = git_server.url.replace("://", "://user:s3cret%2Fword@") + "/owner/project/.git"
    async with open_source(url, settings) as source:
        assert source.listing == ("a.py",)
        assert "s3cret" not in repr(source)
        for file in source.folder.parent.rglob("*"):
            if file.is_file():
                held = file.read_bytes()
                assert b"s3cret" not in held
                assert pair.encode() not in held
    wrong = git_server.url.replace("://", "://user:wr0ng@") + "/owner/project/.git"
    with pytest.raises(SourceError, match=r"Authentication failed|could not read") as raised:
        await opened(wrong, settings)
    assert "wr0ng" not in str(raised.value)


async def test_a_clone_that_grows_too_large_is_ended(
    git_server: GitServer, repository: Repository, settings: Settings
) -> None:
    repository.write("a.txt", "a line\n" * 100_000)  # compresses to little
    repository.commit()
    few = replace(settings, clone_bytes=400_000)
    with pytest.raises(SourceError, match=r"larger than 0 MB .CODE_SEARCH_CLONE_BYTES"):
        await opened(git_server.url + "/owner/project/.git", few)
    assert not clones(settings)


async def test_trees_of_trees_are_not_unfolded(
    git_server: GitServer, repository: Repository, settings: Settings
) -> None:
    """Eleven objects that name a million files."""
    tree = repository.git("hash-object", "-w", "--stdin", standard_input=b"a")
    kind = "100644 blob"
    for _ in range(6):
        entries = "".join(f"{kind} {tree}\tf{number}\n" for number in range(10))
        tree, kind = repository.git("mktree", standard_input=entries.encode()), "040000 tree"
    commit = repository.git("commit-tree", "-m", "bomb", tree)
    repository.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(SourceError, match=r"files, more than|printed more than"):
        await opened(git_server.url + "/owner/project/.git", settings)
    assert not clones(settings)


async def test_a_server_that_never_answers_is_given_up(
    git_server: GitServer, settings: Settings
) -> None:
    git_server.stalls = True
    with pytest.raises(SourceError, match="took longer than 1 s"):
        await opened(git_server.url + "/owner/project", replace(settings, clone_seconds=1))
    assert not clones(settings)
    assert not processes(git_server.url)


async def test_a_cancelled_clone_leaves_nothing(git_server: GitServer, settings: Settings) -> None:
    git_server.stalls = True
    work = asyncio.create_task(opened(git_server.url + "/owner/project", settings))
    await git_server.asked.wait()
    assert processes(git_server.url)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not clones(settings)
    assert not processes(git_server.url)


async def test_a_repository_without_commits(
    git_server: GitServer, repository: Repository, settings: Settings
) -> None:
    with pytest.raises(SourceError, match="Not a valid object name HEAD"):
        await opened(git_server.url + "/owner/project/.git", settings)


async def test_what_a_repository_configures_is_not_run(
    repository: Repository, settings: Settings, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    program = repository.write("program", f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    repository.write(".gitattributes", "*.py filter=evil diff=evil\n")
    repository.write("a.py", "pass\n")
    repository.commit()
    for name in ("core.fsmonitor", "core.sshCommand", "core.pager", "filter.evil.clean"):
        repository.git("config", name, str(program))
    repository.git("config", "diff.evil.textconv", str(program))
    repository.git("config", "remote.origin.url", f"ext::{program}")
    repository.git("config", "core.hooksPath", str(repository.folder))
    repository.write("a.py", "pass  # changed\n")
    source = await opened(str(repository.folder), settings)
    assert "a.py" in source.listing
    assert not marker.exists()
    repository.git("status")  # what it would have done
    assert marker.exists()


async def test_a_folder_in_no_repository_has_gits_rules_of_ignoring(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    for path in ("a.py", "b.log", "keep.log", "sub/c.py", "sub/d.tmp", "sub/e.log", "out/f.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("text\n")
    (folder / ".gitignore").write_text("*.log\n!keep.log\n/out/\n")
    (folder / "sub" / ".gitignore").write_text("*.tmp\n!e.log\n")
    source = await opened(str(folder), settings)
    assert source.listing == (
        *(".gitignore", "a.py", "keep.log"),
        *("sub/.gitignore", "sub/c.py", "sub/e.log"),
    )
    assert (source.url, source.commit) == ("", "")
    assert not (folder / ".git").exists()


async def test_a_folder_that_a_repository_ignores_is_listed_all_the_same(
    repository: Repository, settings: Settings
) -> None:
    repository.write(".gitignore", "work/\n")
    repository.write("work/a.py", "pass\n")
    source = await opened(str(repository.folder / "work"), settings)
    assert source.listing == ("a.py",)


async def test_the_origin_of_a_work_tree_is_known_without_its_credentials(
    repository: Repository, settings: Settings
) -> None:
    repository.write("sub/a.py", "pass\n")
    commit = repository.commit()
    repository.git("remote", "add", "origin", "https://user:s3cret@github.com/owner/project.git")
    source = await opened(str(repository.folder / "sub"), settings)
    assert (source.url, source.commit) == ("https://github.com/owner/project", commit)
    assert (source.prefix, list(source.blobs)) == ("sub/", ["a.py"])


async def test_too_many_files_are_refused(repository: Repository, settings: Settings) -> None:
    for number in range(3):
        repository.write(f"{number}.py", "pass\n")
    with pytest.raises(SourceError, match=r"3 files, more than 2 .CODE_SEARCH_MAX_FILES"):
        await opened(str(repository.folder), replace(settings, max_files=2))


async def test_away_from_loopback_only_named_folders_are_read(
    tmp_path: Path, settings: Settings
) -> None:
    inside, outside = tmp_path / "inside" / "project", tmp_path / "outside"
    inside.mkdir(parents=True)
    outside.mkdir()
    (inside.parent / "link").symlink_to(outside)
    (inside / "a.py").write_text("print()\n")
    everywhere = replace(settings, host="0.0.0.0")
    with pytest.raises(SourceError, match="may not be read here: CODE_SEARCH_ROOTS"):
        await opened(str(inside), everywhere)
    limited = replace(everywhere, roots=str(inside.parent))
    assert (await opened(str(inside), limited)).listing == ("a.py",)
    for other in (outside, inside.parent / "link", inside.parent / ".." / "outside"):
        with pytest.raises(SourceError, match="CODE_SEARCH_ROOTS"):
            await opened(str(other), limited)
    assert (await opened(str(outside), settings)).folder == outside.resolve()
