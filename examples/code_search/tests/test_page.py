"""The page in a real browser, over the real stack."""

from __future__ import annotations

import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import FOLDER, page_served, tab

from tests.stand_ins.process import free_port
from tests.status.browser import MISSING, PROGRAM

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)

ROOT = FOLDER.parents[1]
#: Where the answer is, and where else it could be: the proxy's own code has lists of upstreams too.
#: The whole repository takes a CPU two minutes.
PARTS = ["inventory", "playbooks", "proxy_app/upstream", "roles", "site.yml", "README.md"]
HOSTILE = "<img src=x onerror=window.__pwned=1>"


@pytest.fixture(scope="module")
def url(endpoint_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("page") / "data"
    # The embedder of a machine with much else to do may take long for a batch.
    with page_served(data, endpoint_url, PATIENCE="300") as (address, _):
        yield address


@pytest.fixture(scope="module")
def this_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedrack")
    packed = subprocess.run(
        ["git", "archive", "HEAD", "--", *PARTS], cwd=ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x"], cwd=folder, input=packed.stdout, check=True)
    return folder


def small(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "fruit.py").write_text('def ripe(apple):\n    """Tell whether it is red."""\n')
    (folder / "notes.md").write_text("# Harvest\n\nApples are picked in autumn.\n")
    return folder


@pytest.mark.timeout(600)
async def test_this_repository_is_indexed_and_asked(url: str, this_repository: Path) -> None:
    async with tab(url) as page:
        await page.write("source", str(this_repository))
        await page.press("start")
        await page.page.until(
            "[...document.querySelectorAll('#progress dl div')]"
            ".some(e => e.innerText.startsWith('embedded') && !/\\D0$/.test(e.innerText))",
            280,
        )
        await page.press("cancel")
        await page.state("cancelled")
        kept = int((await page.counts())["embedded"].replace(",", ""))
        assert kept > 0

        counts = await page.index(str(this_repository), 280)
        assert counts["embedded"] != counts["chunks"], "what was written before it was cancelled"
        paths = await page.ask("where is the nginx upstream list written")
        first = list(dict.fromkeys(paths))[:3]
        assert any(path.startswith("roles/nginx/tasks/") for path in first)

        counts = await page.index(str(this_repository))
        assert counts["kept"] == counts["chunks"]
        assert counts["embedded"] == "0"
        assert page.page.errors == []
        assert all(asked.startswith(url) for asked in page.page.requests), page.page.requests


async def test_what_is_in_a_repository_stays_text(url: str, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    code = f'</pre><script>window.__pwned=2</script>{HOSTILE} ${{window.__pwned=3}} {{{{ x }}}} "'
    (folder / f"{HOSTILE}.py").write_text(f'def apple(): """{code}"""\n')
    async with tab(url) as page:
        await page.index(str(folder))
        assert await page.ask(f"an apple {HOSTILE}") == [f"{HOSTILE}.py"]
        await page.shows("results", code)
        await page.write("path", HOSTILE + "nowhere")
        assert await page.ask(HOSTILE) == []
        await page.shows("results", f"Nothing found for “{HOSTILE}”")
        assert await page.page.value("typeof window.__pwned") == "undefined"
        assert (
            await page.page.value("document.querySelectorAll('img[src=x], pre script').length") == 0
        )
        assert page.page.errors == []


async def test_a_dropped_index_is_made_anew_from_the_endpoint_s_cache(
    url: str, tmp_path: Path
) -> None:
    folder = small(tmp_path / "orchard")
    async with tab(url) as page:
        assert (await page.index(str(folder)))["cache hits"] == "0 (0%)"
        await page.press("drop")
        await page.press("sure")
        await page.shows("progress", f"The index of {folder} is dropped.")
        assert (await page.index(str(folder)))["cache hits"] == "2 (100%)"


async def test_results_are_limited_by_language_path_and_number(url: str, tmp_path: Path) -> None:
    folder = small(tmp_path / "orchard")
    async with tab(url) as page:
        await page.index(str(folder))
        assert sorted(await page.ask("apples")) == ["fruit.py", "notes.md"]
        await page.write("path", "*.md")
        assert await page.ask("apples, once more") == ["notes.md"]
        await page.write("path", "")
        await page.choose("languages", "python")
        assert await page.ask("which apples?") == ["fruit.py"]


async def test_tabs_know_nothing_of_each_other(url: str, tmp_path: Path) -> None:
    one, other = small(tmp_path / "one"), small(tmp_path / "other")
    (other / "notes.md").unlink()
    async with tab(url) as first, tab(url) as second:
        await first.index(str(one))
        await second.index(str(other))
        assert sorted(await first.ask("apples")) == ["fruit.py", "notes.md"]
        assert await second.ask("apples") == ["fruit.py"]
        await second.press("drop")
        await second.press("sure")
        await second.shows("progress", "is dropped")
        await first.shows("progress", "done")


async def test_a_wrong_source_is_answered_with_a_sentence(url: str) -> None:
    async with tab(url) as page:
        # No two in turn are answered alike, so that each answer is seen to come.
        for source, said in (
            ("", "name a repository"),
            ("/nowhere/at/all", "is neither a folder here nor"),
            ("ssh://host/owner/project", "ssh:// is not taken"),
            ("--upload-pack=touch /tmp/x", "is neither a folder here nor"),
        ):
            await page.write("source", source)
            await page.press("start")
            await page.shows("progress", said)


async def test_the_page_opens_without_an_endpoint_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    with page_served(tmp_path / "data", away, PATIENCE="1") as (url, process):
        async with tab(url) as page:
            await page.shows("status", f"{away} could not be had")
            await page.shows("status", "`make run` starts one")
            await page.write("source", str(small(tmp_path / "orchard")))
            await page.press("start")
            await page.shows("progress", "`make run` starts one")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


def test_other_sites_are_refused(url: str) -> None:
    for headers in ({"Origin": "http://elsewhere.example"}, {"Host": "elsewhere.example"}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(url + "/config", headers=headers))
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Origin": url})) as reply:
        assert reply.status == 200
