"""`embedrack warm`: a file of texts becomes hits."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path

import pytest

from proxy_app.commands import texts
from tests.proxy.conftest import StartProxy
from tests.stand_ins.process import free_port
from tests.stand_ins.tei import StandInTei


async def warm(path: Path, url: str, *options: str) -> tuple[int, str, str]:
    """Run `embedrack warm`; gives exit status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy_app", "warm", str(path), "--url", url, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_a_second_run_costs_only_look_ups(
    start: StartProxy, tei: StandInTei, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"a key").hexdigest()
    proxy = await start(api_keys=f"warmer:{digest}")
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"text {n}\r\n\n" for n in range(150)) + "the last\u2028one")
    tei.faults.extend(["overloaded"])  # which the client sees as 429, and sends again
    status, output, errors = await warm(path, proxy.url, "--key", "a key", "--batch", "32")
    assert (status, errors) == (0, "")
    assert output.startswith("151 texts, 0 of them hits, ")
    sent = {text for call in tei.calls for text in call}
    assert sent == {f"text {n}" for n in range(150)} | {"the last\u2028one"}
    tei.calls.clear()
    status, output, _ = await warm(path, proxy.url, "--key", "a key")
    assert (status, output.split(",")[1]) == (0, " 151 of them hits")
    assert not tei.calls

    status, output, errors = await warm(path, proxy.url)
    assert (status, output) == (1, "")
    assert "answered 401: the key is wrong or missing (--key); done so far: 0 texts" in errors


async def test_json_lines_and_fields(start: StartProxy, tei: StandInTei, tmp_path: Path) -> None:
    proxy = await start()
    path = tmp_path / "texts.jsonl"
    path.write_text('{"title": "one"}\n\n"two"\n{"title": ""}\n')
    flags = ("--field", "title", "--set", "normalize=false")
    assert (await warm(path, proxy.url, *flags))[0] == 0
    assert tei.calls == [["one", "two"]]
    _, _, headers = await proxy.embed(inputs=["one", "two"], normalize=False)
    assert headers["X-Cache"].startswith("hit")

    path.write_text(json.dumps({"title": "three"}) + '\n{"text": "four"}\n')
    status, _, errors = await warm(path, proxy.url, *flags, "--batch", "1")
    assert status == 1
    assert "line 2: no text in the field 'title'; --field names another" in errors


async def test_an_endpoint_that_stays_away_is_said(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a\nb\n")
    status, _, errors = await warm(path, f"http://127.0.0.1:{free_port()}", "--patience", "0.5")
    assert status == 1
    assert errors.startswith("embedrack: rows 1 to 2: http://127.0.0.1:")
    assert "does not answer" in errors
    assert "--patience" in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"{", "line 1: no JSON"),
        ("a.jsonl", b"[1]", "line 1: no text in the field 'text'"),
        ("a.txt", b"good\n\xff\n", "line 2: no UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(texts.FileError, match=sentence):
        list(texts.read(tmp_path / name, "text")[1])
