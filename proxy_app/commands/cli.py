"""The command ``embedrack``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import fields
from pathlib import Path

from proxy_app import __version__
from proxy_app.commands import admin, client, gc, status, warm
from proxy_app.commands.load_test import command as load_test
from proxy_app.http import tls
from proxy_app.settings import PREFIX, Settings, SettingsError

#: Flags of ``serve`` and the settings that they stand for.
_FLAGS = {
    "upstream": "UPSTREAM_URL",
    "qdrant": "QDRANT_URL",
    "bind": "BIND",
    "port": "PORT",
    "workers": "WORKERS",
    "memory": "MEMORY",
    "log_level": "LOG_LEVEL",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status (1: the user's to mend)."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"embedrack: {line}", file=sys.stderr)
    except (OSError, client.CallError) as error:
        print(f"embedrack: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="embedrack",
        description="A caching proxy in front of text-embeddings-inference (TEI).",
        epilog="Every setting is a variable EMBEDRACK_…; `embedrack check --list` shows them.",
    )
    parser.add_argument("--version", action="version", version=f"embedrack {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    serve = verbs.add_parser("serve", help="run the proxy")
    serve.add_argument("--upstream", metavar="URL", help="TEI, or a balancer over several")
    serve.add_argument("--qdrant", metavar="URL", help="the shared cache; without it, L1 alone")
    serve.add_argument("--bind", metavar="ADDRESS")
    serve.add_argument("--port", metavar="N")
    serve.add_argument("--workers", metavar="N")
    serve.add_argument("--memory", metavar="MIB", help="L1 over all workers")
    serve.add_argument("--log-level", metavar="LEVEL")
    serve.set_defaults(run=_serve)

    check = verbs.add_parser("check", help="validate the settings in the environment")
    check.add_argument("--list", action="store_true", help="show every setting with its meaning")
    check.set_defaults(run=_check)

    embed = verbs.add_parser("embed", help="try an endpoint with a text")
    embed.add_argument("text")
    embed.add_argument("--url", default=client.default_url(), help="default: %(default)s")
    embed.add_argument("--key", default="", help="an API key, where the endpoint wants one")
    embed.set_defaults(run=_embed)

    status.add(verbs)

    admin.add(verbs)
    gc.add(verbs)
    warm.add(verbs)
    load_test.add(verbs)

    migrate = verbs.add_parser("migrate-env", help="turn the ancestor's .env into variables")
    migrate.add_argument("file", type=Path, metavar="ENV_FILE")
    migrate.add_argument("--output", type=Path, help="such as inventory/group_vars/all.yml")
    migrate.add_argument("--force", action="store_true", help="replace the output")
    migrate.set_defaults(run=_migrate)
    return parser


def _serve(options: argparse.Namespace) -> int:
    environment = dict(os.environ)
    for flag, name in _FLAGS.items():
        if (value := getattr(options, flag)) is not None:
            environment[PREFIX + name] = value
    settings = Settings.from_environment(environment)
    # Not at the top: `check` and `embed` need no server.
    from proxy_app.server import serve

    try:
        serve(settings)
    except OSError as error:
        raise OSError(
            f"cannot listen on {settings.bind}:{settings.port}: {error.strerror or error}; "
            "choose another with --port or EMBEDRACK_PORT"
        ) from None
    return 0


def _check(options: argparse.Namespace) -> int:
    if options.list:
        for entry in fields(Settings):
            choices = entry.metadata["choices"]
            meaning = ", ".join(filter(None, [entry.metadata["help"], " | ".join(choices)]))
            print(f"{PREFIX + entry.name.upper():36} {entry.default!s:24} {meaning}")
        return 0
    settings = Settings.from_environment(os.environ)
    tls.check(settings)
    for entry in fields(Settings):
        value = getattr(settings, entry.name)
        if value != entry.default:
            print(f"{PREFIX + entry.name.upper()}={value!r}")
    print("settings are well; not named here: the defaults (`embedrack check --list`)")
    return 0


def _embed(options: argparse.Namespace) -> int:
    url = options.url.rstrip("/") + "/embed"
    started = time.perf_counter()
    vectors, headers = client.call(url, {"inputs": [options.text]}, options.key)
    try:
        [vector] = vectors
        first = ", ".join(f"{number:.6f}" for number in vector[:4])
    except (ValueError, TypeError):
        raise client.CallError(f"{url} sends no embedding; is it --url's?") from None
    cache = headers.get("X-Cache", "unknown")
    milliseconds = (time.perf_counter() - started) * 1000
    print(f"dimension {len(vector)}   [{first}, …]   cache: {cache}   {milliseconds:.1f} ms")
    return 0


def _migrate(options: argparse.Namespace) -> int:
    from proxy_app.commands.migrate import MigrationError, write

    try:
        text, unknown = write(options.file, options.output, force=options.force)
    except MigrationError as error:
        print(f"embedrack: {options.file}: {error}", file=sys.stderr)
        return 2
    for sentence in unknown:
        print(f"embedrack: {options.file}: {sentence}", file=sys.stderr)
    if options.output is None:
        print(text, end="")
    else:
        print(f"written: {options.output}")
    return 0
