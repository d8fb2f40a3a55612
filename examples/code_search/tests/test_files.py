"""Which files are read, and that no other is ever opened."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from code_search.files import File, Skipped, Text, read, walk
from code_search.languages import kinds, language_of, language_of_shebang
from code_search.settings import Settings
from code_search.source import Source, open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


async def looked_at(folder: Path, settings: Settings) -> dict[str, str]:
    """Return each path with its language, or with why it was skipped, read included."""
    found = {}
    async with open_source(str(folder), settings) as source:
        for one in walk(source, settings):
            if isinstance(one, File):
                text = read(source, one, settings)
                found[one.path] = text.reason if isinstance(text, Skipped) else one.language
            else:
                found[one.path] = one.reason
    return found


async def test_links_devices_and_giants_are_not_opened(folder: Path, settings: Settings) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("SECRET = 1\n")
    (folder / "out.py").symlink_to(outside / "secret.py")
    (folder / "out").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "self.py").symlink_to("self.py")
    os.mkfifo(folder / "pipe.py")
    with (folder / "giant.py").open("wb") as giant:
        giant.truncate(2_000_000_000)  # sparse: it takes no space
    (folder / "a.py").write_text("pass\n")
    (folder / "empty.py").write_text("")
    (folder / "image.py").write_bytes(b"\x89PNG\0\0")
    (folder / "unknown.xyz").write_text("text\n")
    found = await looked_at(folder, settings)
    assert found.pop("pipe.py", "not a file") == "not a file"  # git does not even list it
    assert found == {
        "a.py": "python",
        "empty.py": "empty",
        "giant.py": "over 5 MB",
        "image.py": "binary",
        "loop": "a link",
        "out": "a link",
        "out.py": "a link",
        "self.py": "a link",
        "unknown.xyz": "of no known kind",
    }


async def test_a_listing_that_leads_out_reads_nothing(folder: Path, settings: Settings) -> None:
    """Git never lists such paths; something may have changed since."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("SECRET = 1\n")
    (folder / "out").symlink_to(outside)
    os.mkfifo(folder / "pipe.py")
    paths = ("out/secret.py", "../outside/secret.py", str(outside / "secret.py"), "pipe.py")
    source = Source(folder, "name", listing=paths)
    for path in paths:
        outcome = read(source, File(path, "python", 10), settings)
        assert outcome == Skipped(path, "not readable")
    assert Skipped("pipe.py", "not a file") in list(walk(source, settings))


async def test_a_file_that_grew_is_skipped(folder: Path, settings: Settings) -> None:
    (folder / "a.py").write_text("x = 1\n" * 100)
    few = replace(settings, max_file_bytes=100)
    outcome = read(Source(folder, "name"), File("a.py", "python", 6), few)
    assert outcome == Skipped("a.py", "over 0.0001 MB")


async def test_another_repository_inside_is_left_alone(folder: Path, settings: Settings) -> None:
    (folder / "inner" / ".git").mkdir(parents=True)
    (folder / "inner" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "inner" / ".git" / "objects").mkdir()
    (folder / "inner" / ".git" / "refs").mkdir()
    (folder / "a.py").write_text("pass\n")
    (folder / "inner" / "b.py").write_text("pass\n")
    found = await looked_at(folder, settings)
    assert found == {"a.py": "python", "inner/": "another repository"}


NAMES = {
    b"<script>alert(1)<\\script>.py": "<script>alert(1)<\\script>.py",
    b"new\nline.py": "new\nline.py",
    b"caf\xe9.py": "caf\\xe9.py",
    "café \N{RIGHT-TO-LEFT OVERRIDE}.py".encode(): "café \N{RIGHT-TO-LEFT OVERRIDE}.py",
    b"-rf.py": "-rf.py",
    b"$(touch marker).py": "$(touch marker).py",
    b":(glob)*.py": ":(glob)*.py",
}


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_is_data(name: bytes, folder: Path, settings: Settings) -> None:
    try:
        (folder / os.fsdecode(name)).write_text("pass\n")
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    async with open_source(str(folder), settings) as source:
        [file] = walk(source, settings)
        assert isinstance(file, File)
        assert file.shown == NAMES[name]
        assert read(source, file, settings) == Text("pass\n", committed=False)


CONTENTS = {
    "utf-8": ("é\n".encode(), "é\n"),
    "latin-1": (b"\xe9\n", "é\n"),
    "utf-16": ("é\n".encode("utf-16"), "é\n"),
    "a mark": (b"\xef\xbb\xbfa\n", "a\n"),
    "windows": (b"a\r\nb\r\n", "a\nb\n"),
    "a broken utf-16": (b"\xff\xfea\0\xff", "\xff\xfeaÿ"),
    "a late zero": (b"a\n" * 5000 + b"\0b", "a\n" * 5000 + "b"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_any_content_is_text(kind: str, folder: Path, settings: Settings) -> None:
    content, text = CONTENTS[kind]
    (folder / "a.txt").write_bytes(content)
    outcome = read(Source(folder, "name"), File("a.txt", "text", len(content)), settings)
    assert outcome == Text(text, committed=False)


async def test_what_nobody_wrote_is_skipped(folder: Path, settings: Settings) -> None:
    (folder / "min.js").write_text("function(){};" * 320_000)  # 4 MB in one line
    (folder / "lock.txt").write_text("package==1 --hash=sha256:" + 64 * "a" + "\n")
    (folder / "long.md").write_text("A paragraph of one line. " * 60 + "\n")
    found = await looked_at(folder, settings)
    assert found == {"min.js": "minified", "lock.txt": "mostly hashes", "long.md": "markdown"}


async def test_a_program_is_known_by_its_first_line(folder: Path, settings: Settings) -> None:
    (folder / "tool").write_text("#!/usr/bin/env -S python3.11 -u\nprint()\n")
    (folder / "data").write_text("nothing\n")
    found = await looked_at(folder, settings)
    assert found == {"tool": "python", "data": "of no known kind"}


@pytest.mark.parametrize(
    ("line", "language"),
    [
        (b"#!/bin/sh\n", "bash"),
        (b"#!/usr/bin/env node\n", "javascript"),
        (b"#! /usr/bin/perl -w\n", "perl"),
        (b"#!/opt/unheard-of\n", ""),
        (b"#!", ""),
        (b"", ""),
    ],
)
def test_first_lines(line: bytes, language: str) -> None:
    assert language_of_shebang(line) == language


def test_kinds() -> None:
    suffixes = {suffix for names in kinds().values() for suffix in names}
    assert len(suffixes) >= 100
    assert {language_of(f"x.{one}") for one in ("py", "PY", "pyi")} == {"python"}
    assert language_of("Dockerfile") == "dockerfile"
    assert language_of("site.conf.j2") == "template"
    assert language_of(".py") == ""
