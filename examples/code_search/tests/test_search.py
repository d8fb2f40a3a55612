"""Searching real indexes made through the real endpoint."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from code_search.endpoint import Endpoint, Model
from code_search.errors import CodeSearchError, StoreError
from code_search.index import Indexes, collection_of
from code_search.indexing import Progress, index
from code_search.search import Result, fused, search
from code_search.settings import Settings
from repositories import Repository

FILES = {
    "web/upstream.py": '''
def write_upstream_list(servers):
    """Write nginx's upstream block, one line per server."""
    return "\\n".join(f"server {one};" for one in servers)
''',
    "web/login.ts": """
/** Check a user's password against its hash. */
export function checkPassword(password: string, hash: string): boolean {
  return bcrypt.compareSync(password, hash);
}
""",
    "docs/backup.md": "# Backups\n\nEvery night the database is dumped and copied elsewhere.\n",
    "docs/colours.md": "# Colours\n\nThe sky is blue, grass is green.\n",
    "zip.go": "package zip\n\n// Unpack extracts an archive.\nfunc Unpack(path string) {\n}\n",
}


class Example:
    """An index of those files, and how it is asked."""

    def __init__(self, name: str, settings: Settings, indexes: Indexes, endpoint: Endpoint) -> None:
        self.name, self.settings = name, settings
        self.indexes, self.endpoint = indexes, endpoint

    async def index(self) -> Progress:
        parts = (self.settings, self.endpoint, self.indexes)
        return [progress async for progress in index(self.name, *parts)][-1]

    async def ask(
        self, query: str, languages: tuple[str, ...] = (), path: str = "", top: int = 10
    ) -> list[Result]:
        return await search(
            *(self.indexes, self.endpoint, self.name, query),
            languages=languages,
            path=path,
            top=top,
        )

    async def paths(self, query: str, languages: tuple[str, ...] = (), path: str = "") -> list[str]:
        return [one.path for one in await self.ask(query, languages, path)]


@pytest.fixture
async def example(
    settings: Settings, endpoint_url: str, repository: Repository
) -> AsyncIterator[Example]:
    settings = replace(settings, endpoint=endpoint_url)
    for path, text in FILES.items():
        repository.write(path, text)
    async with Indexes(settings) as indexes, Endpoint(settings) as endpoint:
        example = Example(str(repository.folder), settings, indexes, endpoint)
        await example.index()
        yield example


async def test_questions_find_what_they_mean(example: Example) -> None:
    for question, path in {
        "which code makes the lines for the web server's balancer": "web/upstream.py",
        "authentication": "web/login.ts",
        "how is data kept safe from loss": "docs/backup.md",
        "checkPassword": "web/login.ts",
        "extract a compressed file": "zip.go",
    }.items():
        assert (await example.paths(question))[0] == path, question


async def test_a_result_has_all_that_is_shown(example: Example) -> None:
    best = (await example.ask("write the upstream list"))[0]
    assert (best.path, best.language, best.symbol) == (
        *("web/upstream.py", "python"),
        "write_upstream_list",
    )
    assert (best.start, best.end) == (2, 4)
    assert best.text == FILES["web/upstream.py"].strip("\n")
    assert 0 < best.similarity <= best.score <= 1
    assert best.url == ""


async def test_filters(example: Example) -> None:
    query = "the sky"
    assert await example.paths(query, languages=("go",)) == ["zip.go"]
    assert set(await example.paths(query, languages=("go", "markdown"))) == {
        *("zip.go", "docs/backup.md", "docs/colours.md"),
    }
    assert set(await example.paths(query, path="web/")) == {"web/upstream.py", "web/login.ts"}
    assert await example.paths(query, path="*.py") == ["web/upstream.py"]
    assert await example.paths(query, path="*/[bc]*up*") == ["docs/backup.md"]
    assert await example.paths(query, languages=("go",), path="docs/") == []
    assert await example.paths(query, path="*" * 200 + "x") == []
    assert await example.paths(query, languages=("no such",)) == []
    [stored] = await example.indexes.stored()
    assert await example.indexes.values(stored.collection, "language") == {
        **{"go": 1, "markdown": 2, "python": 1, "typescript": 1},
    }


async def test_as_many_as_asked_for(example: Example) -> None:
    assert len(await example.ask("anything", top=1)) == 1
    results = await example.ask("anything", top=30)
    assert len(results) == len(FILES)
    assert [one.score for one in results] == sorted((one.score for one in results), reverse=True)
    for top in (0, 31):
        with pytest.raises(CodeSearchError, match=f"1 to 30 results can be had, not {top}"):
            await example.ask("anything", top=top)


@pytest.mark.parametrize(
    "query", ["' OR 1=1 --", "<script>", "?!", "\x00\ud800", "東京", "the " * 400]
)
async def test_any_question_is_text(example: Example, query: str) -> None:
    assert len(await example.ask(query)) == len(FILES)


async def test_no_question_is_told(example: Example) -> None:
    with pytest.raises(CodeSearchError, match="ask something"):
        await example.ask("  \n")
    with pytest.raises(CodeSearchError, match="2,001 characters, more than 2,000"):
        await example.ask("x" * 2001)


async def test_links_lead_to_the_commit(example: Example, repository: Repository) -> None:
    commit = repository.commit()
    repository.git("remote", "add", "origin", "https://github.com/owner/project")
    await example.index()
    best = (await example.ask("write the upstream list"))[0]
    start = "https://github.com/owner/project/blob"
    assert best.url == f"{start}/{commit}/web/upstream.py#L2-L4"


async def test_a_dropped_index_is_made_again_from_the_endpoints_cache(example: Example) -> None:
    [stored] = await example.indexes.stored()
    await example.indexes.drop(stored.collection)
    with pytest.raises(StoreError, match="is not indexed yet"):
        await example.ask("anything")
    progress = await example.index()
    assert (progress.embedded, progress.hits, progress.hit_rate) == (5, 5, 1.0)


async def test_an_index_of_another_model_is_refused(example: Example) -> None:
    [stored] = await example.indexes.stored()
    other = Model("other/model", 384, "x")
    with pytest.raises(
        StoreError, match=r"made with sentence-transformers/.* now serves other/model"
    ):
        await example.indexes.find(example.name, other)
    assert collection_of(example.name, other) != stored.collection
    await example.indexes.create(example.name, other)
    assert len(await example.paths("anything")) == len(FILES)  # each model has its own


async def test_indexes_outlive_their_process_and_belong_to_one(example: Example) -> None:
    script = "import sys; from code_search.__main__ import main; sys.exit(main())"
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, "list"),
        cwd=Path(__file__).parents[1],
        env={"CODE_SEARCH_DATA_DIR": example.settings.data_dir, "PATH": ""},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await program.communicate()
    assert program.returncode == 1
    assert b"failed: another process has the indexes in" in errors
    assert b"CODE_SEARCH_QDRANT" in errors
    await example.indexes.close()
    async with Indexes(example.settings) as again:
        [stored] = await again.stored()
        assert (stored.name, stored.chunks, stored.complete) == (example.name, 5, True)
        example.indexes = again
        assert len(await example.paths("anything")) == len(FILES)


async def test_a_server_that_is_away_is_told(settings: Settings) -> None:
    with pytest.raises(StoreError, match=r"Qdrant at http://127\.0\.0\.1:1"):
        await Indexes(replace(settings, qdrant="http://127.0.0.1:1")).__aenter__()


def test_words_and_meaning_are_fused() -> None:
    cosines = {"a": 0.9, "b": 0.8, "c": 0.1}
    assert [one for one, _ in fused(cosines, {}, 0.5)] == ["a", "b", "c"]
    ranked = fused(cosines, {"b": 7.0, "c": 3.5}, 0.5)
    assert [one for one, _ in ranked] == ["b", "a", "c"]
    assert [score for _, score in ranked] == pytest.approx([0.9, 0.45, 0.3])
