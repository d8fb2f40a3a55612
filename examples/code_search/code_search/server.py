"""The web server of the page: one process, one event loop, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket

# Read by Gradio and huggingface_hub when they are imported: without these they would call home.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import fastapi
import gradio
import uvicorn

from code_search.endpoint import Endpoint
from code_search.errors import CodeSearchError
from code_search.index import Indexes
from code_search.origin import OwnOrigin
from code_search.page import CSS, THEME, Page
from code_search.settings import Settings

#: Seconds that open tabs get at the end.
_GRACE = 1


async def serve(settings: Settings) -> None:
    """Serve the page until a signal. Raises CodeSearchError where it cannot be served."""
    listening = _listen(settings)
    async with Endpoint(settings) as endpoint, Indexes(settings) as indexes:
        await _tell(settings, endpoint, indexes)
        page = Page(settings, endpoint, indexes)
        # uvicorn hears a signal, ends, and raises it again: nobody needs to hear it twice.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        config = uvicorn.Config(
            _application(page, settings),
            log_level="critical",
            timeout_graceful_shutdown=_GRACE,
        )
        try:
            await uvicorn.Server(config).serve(sockets=[listening])
        finally:
            await page.stop()
    print("Stopped; the indexes stay.", flush=True)


def _application(page: Page, settings: Settings) -> fastapi.FastAPI:
    application: fastapi.FastAPI = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page.blocks,
        path="/",
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size="1kb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=THEME,
        css=CSS,
    )
    application.add_middleware(OwnOrigin, loopback=settings.is_local)
    return application


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise CodeSearchError(
            f"cannot listen on {settings.host} port {settings.port} ({error.strerror}): "
            "CODE_SEARCH_PORT and CODE_SEARCH_HOST name others"
        ) from None


async def _tell(settings: Settings, endpoint: Endpoint, indexes: Indexes) -> None:
    """Print what the page stands on."""
    try:
        model = await endpoint.info()
        shown = f"{settings.endpoint}, {model.model_id}, {model.dimension} dimensions"
    except CodeSearchError as error:
        shown = str(error)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"endpoint    {shown}")
    print(f"indexes     {len(await indexes.stored())} in {settings.qdrant or settings.folder}")
    print(f"page        http://{host}:{settings.port}")
    print("Ctrl-C stops it.", flush=True)
