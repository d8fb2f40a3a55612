"""``python -m local_stack.embedder``: serve a text embedder until a signal stops it.

One line of JSON on standard output tells that it listens, and where.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from local_stack.embedder.app import App
from local_stack.embedder.errors import StartError
from local_stack.embedder.files import in_folder, model_fingerprint, packaged
from local_stack.embedder.model import Model
from local_stack.embedder.service import Limits, Service

DRAIN_SECONDS = 60.0
"""How long requests under way may take after the signal to stop."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve. Returns the exit status: 0 after a signal, 1 with a sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_serve(options))
    except StartError as error:
        print(f"embedder: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(options: argparse.Namespace) -> None:
    stop = _stop_signal()
    files = packaged() if options.model_dir is None else in_folder(options.model_dir)
    model = Model(files)
    service = Service(
        model,
        Limits(
            max_client_batch_size=options.max_client_batch_size,
            payload_limit=options.payload_limit,
            max_batch_tokens=options.max_batch_tokens,
            max_concurrent_requests=options.max_concurrent_requests,
            auto_truncate=options.auto_truncate,
        ),
        threads=options.threads,
        served_model_name=options.served_model_name,
    )
    runner = web.AppRunner(
        App(service, options.api_key).web_app(), access_log=None, shutdown_timeout=DRAIN_SECONDS
    )
    await runner.setup()
    try:
        await _listen(runner, options.host, options.port)
        service.start()
        ready = {
            "url": _url(runner),
            "model": service.served_model_name,
            "dimension": model.dimension,
            "fingerprint": model_fingerprint(files),
        }
        print(json.dumps(ready, separators=(",", ":")), flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
        await service.stop()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        raise StartError(f"Cannot listen on {host}:{port}: {reason}.") from error


def _stop_signal() -> asyncio.Event:
    """Set the event at the first SIGINT or SIGTERM; ``add_signal_handler`` is not everywhere."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    return stop


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _parser() -> argparse.ArgumentParser:
    defaults = Limits()
    parser = argparse.ArgumentParser(
        prog="python -m local_stack.embedder",
        description="A text embedder on the CPU that speaks the HTTP of TEI 1.9.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument(
        "--model-dir",
        type=Path,
        help="a folder with model.onnx (or onnx/model.onnx) and tokenizer.json; "
        "without it all-MiniLM-L6-v2 of the installed packages",
    )
    parser.add_argument("--served-model-name", help="the name in replies; the model's own")
    parser.add_argument("--api-key", help="what requests must bring as a bearer token")
    parser.add_argument("--threads", type=_positive, default=os.cpu_count() or 1)
    for name in (
        "max_client_batch_size",
        "payload_limit",
        "max_batch_tokens",
        "max_concurrent_requests",
    ):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=_positive, default=getattr(defaults, name))
    parser.add_argument(
        "--auto-truncate", type=_boolean, nargs="?", const=True, default=defaults.auto_truncate
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false")
    return text == "true"


if __name__ == "__main__":
    sys.exit(main())
