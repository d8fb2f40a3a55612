"""The page: index a repository, choose an index, ask it.

Nothing of a browser tab is kept here but the switch that cancels its indexing, under the tab's own
name; what several tabs share are the indexes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from code_search import render
from code_search.endpoint import Endpoint, Model
from code_search.errors import CodeSearchError
from code_search.highlight import stylesheet
from code_search.index import Indexes, Stored
from code_search.indexing import index
from code_search.search import MAX_TOP, search
from code_search.settings import Settings

#: Gradio's own overlays are for slow functions; here each place says itself what goes on.
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
CSS = Path(__file__).with_name("page.css").read_text() + stylesheet()
#: Seconds that an indexing has to end when the server does.
_PATIENCE = 5
_Updates = dict[Any, Any]


@dataclass
class _Run:
    """A tab's indexing: what cancels it, and whether it has ended."""

    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Page:
    """The page over one endpoint and one store of indexes."""

    def __init__(self, settings: Settings, endpoint: Endpoint, indexes: Indexes) -> None:
        """Lay the page out; ``blocks`` is what Gradio serves."""
        self._settings = settings
        self._endpoint = endpoint
        self._indexes = indexes
        self._running: dict[str, _Run] = {}
        with gr.Blocks(title="Code search", analytics_enabled=False) as self.blocks:
            gr.HTML("<h1>Code search</h1>")
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    self._lay_out_indexing()
                with gr.Column(scale=3, min_width=320):
                    self._lay_out_search()
        with self.blocks:
            self._connect()

    async def stop(self) -> None:
        """Cancel every indexing, and wait until none runs."""
        for run in self._running.values():
            run.cancel.set()
        ends = [asyncio.create_task(run.ended.wait()) for run in self._running.values()]
        if ends:
            await asyncio.wait(ends, timeout=_PATIENCE)

    def _lay_out_indexing(self) -> None:
        self._source = gr.Textbox(
            label="Repository",
            placeholder="https://host/owner/repository, or a folder of this machine",
            max_lines=1,
            elem_id="source",
        )
        with gr.Row():
            self._start = gr.Button("Index", variant="primary", elem_id="start")
            self._cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel")
        self._progress = gr.HTML(elem_id="progress")
        self._chosen = gr.Dropdown(label="Index to search", choices=[], elem_id="chosen")
        self._dropping = gr.Button("Drop this index", size="sm", elem_id="drop")
        with gr.Row(visible=False) as self._question:
            self._sure = gr.Button("Yes, drop it", variant="stop", size="sm", elem_id="sure")
            self._keep = gr.Button("Keep it", size="sm", elem_id="keep")
        waiting = render.message("Asking the endpoint …", kind="note")
        self._status = gr.HTML(waiting, elem_id="status")

    def _lay_out_search(self) -> None:
        self._query = gr.Textbox(
            label="Question",
            placeholder="as you would ask a colleague: where are failed requests sent again?",
            max_lines=1,
            elem_id="query",
        )
        with gr.Row():
            self._languages = gr.Dropdown(
                label="Languages",
                choices=[],
                multiselect=True,
                info="none: all",
                elem_id="languages",
            )
            self._path = gr.Textbox(
                label="Path", info="how it begins, or a pattern: src/*.py", elem_id="path"
            )
            self._top = gr.Slider(1, MAX_TOP, value=10, step=1, label="Results", elem_id="top")
        self._ask = gr.Button("Search", variant="primary", elem_id="ask")
        self._results = gr.HTML(elem_id="results")

    def _connect(self) -> None:
        opened = [self._chosen, self._languages, self._status]
        self.blocks.load(self._opened, None, opened, **_QUIET)
        self.blocks.unload(self._cancel_of)
        gr.on(
            [self._start.click, self._source.submit],
            self._index,
            self._source,
            [self._progress, self._start, self._cancel, *opened],
            concurrency_limit=None,
            **_QUIET,
        )
        self._cancel.click(self._cancel_of, None, None, **_QUIET)
        described = [self._languages, self._status]
        self._chosen.input(self._describe, self._chosen, described, **_QUIET)
        self._dropping.click(_shown, None, self._question, **_QUIET)
        self._keep.click(_hidden, None, self._question, **_QUIET)
        self._sure.click(
            self._drop,
            self._chosen,
            [self._question, self._progress, self._results, *opened],
            **_QUIET,
        )
        gr.on(
            [self._ask.click, self._query.submit],
            self._search,
            [self._chosen, self._query, self._languages, self._path, self._top],
            self._results,
            concurrency_limit=None,
            **_QUIET,
        )

    def _cancel_of(self, request: gr.Request) -> None:
        """Cancel a tab's indexing, also where the tab was closed; the next goes on from there."""
        if request.session_hash in self._running:
            self._running[request.session_hash].cancel.set()

    async def _index(self, text: str, request: gr.Request) -> AsyncIterator[_Updates]:
        tab = str(request.session_hash)
        if tab in self._running:
            return  # the button is off meanwhile
        run = self._running[tab] = _Run()
        name, shown = "", render.message("Reading the repository …", kind="note")
        try:
            yield {
                self._start: gr.update(interactive=False),
                self._cancel: gr.update(interactive=True),
                self._progress: shown,
            }
            work = index(text, self._settings, self._endpoint, self._indexes, run.cancel)
            async with aclosing(work):
                async for now in work:
                    name, shown = now.name, render.progress(now)
                    if not now.done:
                        yield {self._progress: shown}
        except CodeSearchError as error:
            shown = render.message(str(error))
        finally:
            del self._running[tab]
            run.ended.set()
        yield {
            self._progress: shown,
            self._start: gr.update(interactive=True),
            self._cancel: gr.update(interactive=False),
            **await self._opened(name),
        }

    async def _opened(self, name: str = "") -> _Updates:
        """Show the indexes, the one of this name chosen, else the latest."""
        try:
            found = await self._indexes.stored()
        except CodeSearchError as error:
            return {self._status: render.message(str(error))}
        latest = sorted(found, key=lambda one: one.updated, reverse=True)
        names = list(dict.fromkeys(one.name for one in latest))
        chosen = name if name in names else names[0] if names else None
        return {
            self._chosen: gr.update(choices=names, value=chosen),
            **await self._describe(chosen),
        }

    async def _describe(self, name: str | None) -> _Updates:
        """Show what is known of an index and of the endpoint."""
        model: Model | None = None
        try:
            model = await self._endpoint.info()
            served = f"{model.model_id}, {model.dimension} dimensions"
            problem = ""
        except CodeSearchError as error:
            served, problem = "does not answer", str(error)
        rows = [("endpoint", self._settings.endpoint), ("model", served)]
        languages: list[str] = []
        try:
            for one in await self._named(name):
                is_served = model is not None and one.of(model)
                rows += _rows(one, is_served)
                if is_served or not languages:
                    languages = sorted(await self._indexes.values(one.collection, "language"))
        except CodeSearchError as error:
            problem = str(error)
        shown = render.message(problem) if problem else ""
        return {
            self._languages: gr.update(choices=languages, value=[]),
            self._status: shown + render.table(rows),
        }

    async def _named(self, name: str | None) -> list[Stored]:
        """Return the indexes of a source, one for each model that it was indexed with."""
        return [one for one in await self._indexes.stored() if one.name == name]

    async def _drop(self, name: str | None) -> _Updates:
        shown = ""
        try:
            for one in await self._named(name):
                await self._indexes.drop(one.collection)
                shown = render.message(f"The index of {name} is dropped.", kind="note")
        except CodeSearchError as error:
            shown = render.message(str(error))
        return {
            self._question: gr.update(visible=False),
            self._progress: shown,
            self._results: "",
            **await self._opened(),
        }

    async def _search(
        self, name: str | None, query: str, languages: list[str], path: str, top: float
    ) -> str:
        if not name:
            return render.message("Index a repository first, on the left.")
        began = time.perf_counter()
        try:
            found = await search(
                *(self._indexes, self._endpoint, name, query),
                languages=languages,
                path=path.strip(),
                top=int(top),
            )
        except CodeSearchError as error:
            return render.message(str(error))
        seconds = time.perf_counter() - began
        # Many lines to colour: not in the loop that serves everybody.
        return await asyncio.to_thread(render.results, found, query, seconds)


def _rows(one: Stored, is_served: bool) -> list[tuple[str, str]]:
    state = "complete" if one.complete else "not complete: index it again to go on"
    if not is_served:
        state = f"made with {one.model_id}, which is not served now"
    return [
        ("index", one.name),
        ("state", state),
        ("chunks", f"{one.chunks:,}"),
        ("commit", one.commit[:12] or "none known"),
        ("updated", one.updated),
    ]


def _shown() -> dict[str, Any]:
    return gr.update(visible=True)


def _hidden() -> dict[str, Any]:
    return gr.update(visible=False)
