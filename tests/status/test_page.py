"""/status in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.proxy.conftest import StartProxy, listening, serving
from tests.stand_ins.process import free_port
from tests.stand_ins.tei import StandInTei
from tests.status.browser import MISSING, PROGRAM, Page, browsing
from tests.status.front import demanding

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=MISSING)


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    async with browsing() as opened:
        yield opened


def shows(name: str, text: str) -> str:
    return f"document.getElementById('{name}').textContent.includes('{text}')"


async def test_it_shows_refreshes_and_compares(start: StartProxy, page: Page) -> None:
    proxy = await start(workers=2)
    await page.open(proxy.url + "/status")
    await page.until(shows("verdict-words", "All is well"))
    assert "stand/in" in await page.text("model-name")
    assert "no inputs" in await page.text("rate-words")
    # Requests move the curve and the figures, without a reload.
    await page.value("window.loaded = true")
    curve = "document.querySelector('#curve .rate')?.getAttribute('d') || ''"
    assert await page.value(curve) == ""
    for _ in range(4):
        await proxy.embed(inputs=["a", "b"])
    await page.until(shows("rate-words", "of 8 inputs"))
    assert "%" in await page.text("rate")
    await page.until(f"({curve}) !== ''")
    former = await page.value(curve)
    await page.until(f"({curve}) !== {former!r}")
    assert await page.value("window.loaded")
    # The box: two texts, their cosine, and where they came from.
    await page.write("one", "a text")
    await page.write("other", "a text")
    await page.press("#compare")
    await page.until(shows("result", "Cosine 1.0000 · X-Cache: miss; hits=0; misses=2"))
    await page.press("#compare")
    await page.until(shows("result", "X-Cache: hit; hits=2; misses=0"))
    # Nothing was wrong, and nobody else was asked.
    assert page.errors == []
    asked = {urlsplit(url).netloc for url in page.requests if not url.startswith("data:")}
    assert asked == {urlsplit(proxy.url).netloc}


async def test_it_says_that_the_endpoint_went_away_and_recovers(
    tei: StandInTei, page: Page
) -> None:
    port = free_port()
    async with listening(tei.app()) as upstream:
        async with serving(upstream, port=port) as proxy:
            await proxy.until(proxy.is_ready)
            await page.open(proxy.url + "/status")
            await page.until(shows("verdict-words", "All is well"))
        await page.until(shows("verdict-words", "No answer from this endpoint"))
        assert await page.value("document.body.classList.contains('stale')")
        await page.press("#compare")
        await page.until(shows("result", "No answer from this endpoint"))
        async with serving(upstream, port=port) as proxy:
            await page.until(shows("verdict-words", "All is well"), 60)
            assert not await page.value("document.body.classList.contains('stale')")


async def test_it_asks_for_a_key_and_keeps_it_in_the_tab(start: StartProxy, page: Page) -> None:
    proxy = await start(workers=1)
    async with listening(demanding("the key", proxy)) as url:
        await page.open(url + "/status")
        await page.until("!document.getElementById('key').hidden")
        await page.write("key-field", "another")
        await page.press("#key-form button")
        await page.until(shows("key-words", "refused"))
        await page.write("key-field", "the key")
        await page.press("#key-form button")
        await page.until(shows("verdict-words", "All is well"))
        await page.press("#compare")
        await page.until(shows("result", "Cosine"))
        await page.open(url + "/status")
        await page.until(shows("verdict-words", "All is well"))
        assert await page.value("localStorage.length + document.cookie.length") == 0


async def test_it_can_be_read_and_what_others_wrote_is_text(
    start: StartProxy, tei: StandInTei, page: Page
) -> None:
    """On a phone nothing sticks out, every field has a label, and text stands out by 4.5 to 1."""
    tei.info["served_model_name"] = tei.info["model_id"] = "<img src=x onerror=alert(1)>"
    proxy = await start(workers=1)
    await proxy.embed(inputs=["a"])
    for width in (360, 1080):
        for dark in (False, True):
            await page.look(width, dark=dark)
            await page.open(proxy.url + "/status")
            await page.until(shows("rate-words", "of 1 inputs"))
            assert await page.value("document.documentElement.scrollWidth <= innerWidth")
            fields = "[...document.querySelectorAll('input')]"
            assert await page.value(f"{fields}.every(field => field.labels.length === 1)")
            assert await page.value(FAINT) == []
    assert await page.text("model-name") == "<img src=x onerror=alert(1)> · 8 dimensions"
    assert await page.value("document.images.length") == 0
    assert page.errors == []


#: The elements with text of their own whose color is too near to what is behind them.
FAINT = """
(() => {
  const parts = color => (color.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = parts(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('main *')]
    .filter(e => e.checkVisibility())
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .filter(e => {
      const style = getComputedStyle(e);
      const one = luminance(parts(e.namespaceURI.endsWith('svg') ? style.fill : style.color));
      const other = luminance(behind(e));
      return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
    })
    .map(e => e.outerHTML);
})()
"""
