"""Indexing: what is embedded, kept and removed, and that an index is whole whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from code_search.endpoint import Endpoint
from code_search.errors import CodeSearchError, EndpointError, SourceError, StoreError
from code_search.index import Indexes, Place
from code_search.indexing import Progress, index
from code_search.settings import Settings
from repositories import GitServer, Repository
from stand_in import StandIn

BODY = "    total = total + 1\n" * 30


class Example:
    """The example's parts at work: indexes, endpoint, and a source to index."""

    def __init__(self, settings: Settings, indexes: Indexes, endpoint: Endpoint) -> None:
        self.settings, self.indexes, self.endpoint = settings, indexes, endpoint

    async def index(self, text: str) -> Progress:
        """Index to the end; gives the last progress."""
        progress = Progress()
        async for progress in index(text, self.settings, self.endpoint, self.indexes):
            assert progress.files <= progress.files_total
        assert progress.done
        return progress

    async def places(self) -> list[Place]:
        """Return where the chunks of the only index are, by path and line."""
        [stored] = await self.indexes.stored()
        found = await self.indexes.places(stored.collection)
        return sorted(found.values(), key=lambda place: (place.path, place.start))

    async def paths(self) -> list[str]:
        return [place.path for place in await self.places()]


@pytest.fixture
async def example(settings: Settings, stand_in: StandIn) -> AsyncIterator[Example]:
    """With a stand-in for the endpoint."""
    settings = replace(settings, endpoint=stand_in.url, batch=2)
    async with Indexes(settings) as indexes, Endpoint(settings) as endpoint:
        yield Example(settings, indexes, endpoint)


async def test_a_folder_is_indexed(
    example: Example, repository: Repository, stand_in: StandIn
) -> None:
    repository.write("src/a.py", f"def one():\n{BODY}\n\ndef two():\n{BODY}")
    repository.write("b.md", "# Title\n\nText.\n")
    repository.write("image.png", "")
    progress = await example.index(str(repository.folder))
    assert (progress.files, progress.files_total, progress.chunks, progress.embedded) == (
        2,
        2,
        3,
        3,
    )
    assert dict(progress.skipped) == {"empty": 1}
    assert (progress.kept, progress.removed, progress.cancelled) == (0, 0, False)
    assert await example.places() == [
        Place("b.md", 1, 3, ""),
        Place("src/a.py", 1, 31, ""),
        Place("src/a.py", 34, 64, ""),
    ]
    assert "src/a.py src a py\ntwo\ndef two():" in "".join(stand_in.texts)
    [stored] = await example.indexes.stored()
    assert (stored.name, stored.complete) == (str(repository.folder), True)
    assert (stored.model_id, stored.dimension, stored.chunks) == ("stand-in", 8, 3)


async def test_again_only_what_changed_is_embedded(
    example: Example, repository: Repository, stand_in: StandIn
) -> None:
    repository.write("a.py", f"def one():\n{BODY}\n\ndef two():\n{BODY}")
    repository.write("b.py", "gone = True\n")
    repository.write("c.py", "same = True\n")
    await example.index(str(repository.folder))
    stand_in.texts.clear()
    progress = await example.index(str(repository.folder))
    assert (progress.chunks, progress.kept, progress.embedded, progress.removed) == (4, 4, 0, 0)
    assert stand_in.texts == []
    repository.write("a.py", f"import os\n\n\ndef one():\n{BODY}\n\ndef three():\n{BODY}")
    (repository.folder / "b.py").unlink()
    progress = await example.index(str(repository.folder))
    assert (progress.chunks, progress.kept, progress.embedded, progress.removed) == (4, 2, 2, 2)
    assert [text.split("\n")[1] for text in stand_in.texts] == ["import os", "three"]
    assert await example.places() == [
        Place("a.py", 1, 1, ""),
        Place("a.py", 4, 34, ""),  # moved, not embedded
        Place("a.py", 37, 67, ""),
        Place("c.py", 1, 1, ""),
    ]


async def test_equal_chunks_are_all_kept(example: Example, repository: Repository) -> None:
    repository.write("a.txt", ("the same line\n" * 200))
    progress = await example.index(str(repository.folder))
    assert progress.chunks == len(await example.places()) > 2
    progress = await example.index(str(repository.folder))
    assert progress.kept == progress.chunks


async def test_chunks_know_the_commit_that_holds_them(
    example: Example, repository: Repository
) -> None:
    repository.git("remote", "add", "origin", "git@github.com:owner/project.git")
    repository.write("a.py", "a = 1\n")
    repository.write("b.py", "b = 1\n")
    first = repository.commit()
    repository.write("b.py", "b = 2\n")
    await example.index(str(repository.folder))
    assert await example.places() == [Place("a.py", 1, 1, first), Place("b.py", 1, 1, "")]
    second = repository.commit()
    await example.index(str(repository.folder))
    # At the first commit the lines are the same, so that its link is as good.
    assert await example.places() == [Place("a.py", 1, 1, first), Place("b.py", 1, 1, second)]
    [stored] = await example.indexes.stored()
    assert (stored.url, stored.commit) == ("https://github.com/owner/project", second)


async def test_a_url_is_indexed_under_its_name(
    example: Example, repository: Repository, git_server: GitServer
) -> None:
    repository.write("a.py", "pass\n")
    repository.commit()
    url = git_server.url.replace("://", "://user:s3cret@") + "/owner/project/.git"
    progress = await example.index(url)
    [stored] = await example.indexes.stored()
    assert stored.name == progress.name == git_server.url.removeprefix("http://") + "/owner/project"
    assert await example.paths() == ["a.py"]
    held = [file.read_bytes() for file in example.settings.folder.rglob("*") if file.is_file()]
    assert not any(b"s3cret" in content for content in held)


async def test_cancelling_ends_it_at_once_and_leaves_whole_files(
    example: Example, repository: Repository, stand_in: StandIn
) -> None:
    for number in range(20):
        text = "".join(f"def f{part}():\n{BODY}\n\n" for part in range(3))
        repository.write(f"{number:02}.py", text)
    stand_in.answers = 10  # of two chunks each; what is asked then is never answered
    cancel = asyncio.Event()
    progress = Progress()
    async for progress in index(
        str(repository.folder), example.settings, example.endpoint, example.indexes, cancel
    ):
        if progress.embedded == 20:
            cancel.set()
    assert progress.done
    assert progress.cancelled
    paths = await example.paths()
    assert {paths.count(path) for path in paths} <= {3}
    [stored] = await example.indexes.stored()
    assert not stored.complete
    stand_in.answers = 1000
    stand_in.gate.set()
    again = await example.index(str(repository.folder))
    assert (again.kept, again.embedded) == (len(paths), 60 - len(paths))
    assert len(await example.places()) == 60


async def test_closing_the_progress_ends_it_too(
    example: Example, repository: Repository, stand_in: StandIn
) -> None:
    repository.write("a.py", "pass\n")
    stand_in.gate.clear()
    telling = index(str(repository.folder), example.settings, example.endpoint, example.indexes)
    async for progress in telling:
        if progress.chunks:
            break
    await telling.aclose()
    stand_in.gate.set()
    assert (await example.index(str(repository.folder))).embedded == 1


async def test_an_endpoint_that_fails_is_told_and_what_was_written_stays(
    example: Example, repository: Repository, stand_in: StandIn
) -> None:
    repository.write("a.py", "a = 1\n")
    await example.index(str(repository.folder))
    repository.write("a.py", "a = 2\n")
    stand_in.fails = [web.Response(status=422, text="no")]
    with pytest.raises(EndpointError, match="422: no"):
        await example.index(str(repository.folder))
    assert await example.paths() == ["a.py"]
    progress = await example.index(str(repository.folder))
    assert (progress.embedded, progress.removed) == (1, 1)


async def test_a_write_that_fails_is_told(
    example: Example, repository: Repository, stand_in: StandIn
) -> None:
    """A vector of another dimension than the collection's: the endpoint changed meanwhile."""
    repository.write("a.py", "a = 1\n")
    stand_in.info["embedrack"] = {"dimension": 9, "namespace": "x"}
    with pytest.raises(StoreError, match="Qdrant at"):
        await example.index(str(repository.folder))
    [stored] = await example.indexes.stored()
    assert not stored.complete


async def test_two_at_once_are_refused(
    example: Example, repository: Repository, stand_in: StandIn
) -> None:
    repository.write("a.py", "a = 1\n")
    stand_in.gate.clear()
    work = asyncio.create_task(example.index(str(repository.folder)))
    await stand_in.asked.wait()
    with pytest.raises(StoreError, match="being written"):
        await example.index(str(repository.folder))
    [stored] = await example.indexes.stored()
    with pytest.raises(StoreError, match="being written"):
        await example.indexes.drop(stored.collection)
    stand_in.gate.set()
    assert (await work).embedded == 1


async def test_limits_are_told(example: Example, repository: Repository) -> None:
    repository.write("a.txt", "words of a line\n" * 1000)
    example.settings = replace(example.settings, max_chunks=3)
    with pytest.raises(CodeSearchError, match=r"more than 3 chunks .CODE_SEARCH_MAX_CHUNKS"):
        await example.index(str(repository.folder))
    with pytest.raises(SourceError, match="neither a folder here nor"):
        await example.index("--upload-pack=x")


async def test_hostile_files_are_indexed_as_data_or_skipped(
    example: Example, tmp_path: Path, stand_in: StandIn
) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "<img src=x onerror=alert(1)>.html").write_text("<script>alert(1)</script>\n")
    (folder / "new\nline.py").write_text("pass\n")
    with contextlib.suppress(OSError):  # not every file system has such names
        (folder / os.fsdecode(b"caf\xe9.py")).write_bytes(b"s = '\xe9'\n")
    (folder / "out.py").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "pipe.py")
    with (folder / "giant.py").open("wb") as giant:
        giant.truncate(2_000_000_000)
    (folder / "min.js").write_text("f();" * 1_000_000)
    # As many quotes in quotes end the process that parses them.
    (folder / "deep.md").write_text(">" * 1000 + " text\n" * 10)
    (folder / "z.py").write_text("after = True\n")
    progress = await example.index(str(folder))
    paths = await example.paths()
    assert {"<img src=x onerror=alert(1)>.html", "new\nline.py", "z.py"} <= set(paths)
    assert {"out.py", "pipe.py", "giant.py", "min.js"}.isdisjoint(paths)
    assert "deep.md" in paths
    assert progress.skipped["a link"] == 2
    assert progress.skipped["over 5 MB"] == progress.skipped["minified"] == 1
    assert not any("root:" in text for text in stand_in.texts)
