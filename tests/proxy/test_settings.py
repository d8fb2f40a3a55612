"""Settings and the command: wrong ones are named, with the remedy, and the exit status says so."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from proxy_app.settings import Settings, SettingsError
from proxy_app.telemetry.logs import JsonFormatter, RequestLog
from tests.proxy.conftest import StartProxy


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("EMBEDRACK_PROT", "1", "did you mean EMBEDRACK_PORT?"),
        ("EMBEDRACK_ZZZ", "1", "check --list"),
        ("EMBEDRACK_PORT", "http", "a whole number is wanted"),
        ("EMBEDRACK_PORT", "70000", "from 0 to 65535"),
        ("EMBEDRACK_WORKERS", "-1", "at least 0"),
        ("EMBEDRACK_STORE_TIMEOUT", "nan", "a number is wanted"),
        ("EMBEDRACK_UPSTREAM_URL", "localhost:8081", "http://127.0.0.1:8081"),
        ("EMBEDRACK_QDRANT_URL", "http://", "a URL"),
        ("EMBEDRACK_QDRANT_URL", "http://a:b", "Port"),
        ("EMBEDRACK_HASH_FUNCTION", "sha1", "one of sha256, md5"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: value})
    assert str(caught.value).startswith(name)
    assert words in str(caught.value)


def test_all_wrong_settings_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"EMBEDRACK_PORT": "x", "EMBEDRACK_MEMORY": "y", "HOME": "/"})
    assert len(str(caught.value).splitlines()) == 2


def test_secrets_hide() -> None:
    settings = Settings.from_environment({"EMBEDRACK_QDRANT_API_KEY": "s3cret"})
    assert settings.qdrant_api_key == "s3cret"
    assert "s3cret" not in repr(settings)


def embedrack(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy_app", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


def test_check() -> None:
    done = embedrack("check", EMBEDRACK_PORT="9", EMBEDRACK_UPSTREAM_API_KEY="s3cret")
    assert done.returncode == 0
    assert "EMBEDRACK_PORT=9" in done.stdout
    assert "s3cret" not in done.stdout
    done = embedrack("check", EMBEDRACK_PROT="9")
    assert done.returncode == 1
    assert (
        done.stderr
        == "embedrack: EMBEDRACK_PROT: there is no such setting; did you mean EMBEDRACK_PORT?\n"
    )
    listed = embedrack("check", "--list").stdout
    assert "EMBEDRACK_UPSTREAM_URL" in listed


def test_a_used_port_is_one_sentence() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = embedrack("serve", "--bind", "127.0.0.1", "--port", port)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"cannot listen on 127.0.0.1:{port}" in last
    assert "EMBEDRACK_PORT" in last
    assert "Traceback" not in done.stderr


async def test_embed_tries_an_endpoint(start: StartProxy) -> None:
    import asyncio

    proxy = await start()
    for word in ("miss", "hit"):
        done = await asyncio.to_thread(embedrack, "embed", "a text", "--url", proxy.url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("dimension 8   [")
        assert f"cache: {word};" in done.stdout
        assert " ms" in done.stdout
    done = await asyncio.to_thread(embedrack, "embed", "", "--url", proxy.url)
    assert done.returncode == 1
    assert "cannot be empty" in done.stderr
    done = await asyncio.to_thread(embedrack, "embed", "a", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "--url" in done.stderr


async def test_the_log_has_errors_slow_requests_and_a_sample(start: StartProxy) -> None:
    proxy = await start(log_sample=10)
    for _ in range(20):
        await proxy.embed(inputs="a secret text")
    await proxy.embed(inputs=[])
    proxy.process.terminate()
    await proxy.process.wait()
    lines = [json.loads(line) for line in proxy.log.splitlines()]
    requests = [line for line in lines if line.get("path") == "/embed"]
    assert [line["status"] for line in requests] == [200, 200, 400]
    assert requests[0]["inputs"] == 1
    assert b"a secret text" not in proxy.log


def test_a_slow_request_is_always_logged() -> None:
    log = RequestLog(Settings(log_sample=0, log_slow=0.5))
    assert [log.wants(200, 0.1), log.wants(200, 0.6), log.wants(422, 0.1)] == [False, True, True]


def test_json_lines_hold_tracebacks() -> None:
    import logging

    try:
        raise ValueError("inside")
    except ValueError:
        record = logging.LogRecord("x", 40, "", 1, "failed", None, sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "failed"
    assert "inside" in line["traceback"]
