"""The embedder as a process: how it starts, dies and ends, and what it counts."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local_stack.embedder.__main__ import main

from .process import JSON, ROOT, Process, Reply, command
from .test_recorded import CASES


def test_ready_line_tells_where_and_what(embedder: Process) -> None:
    assert set(embedder.ready) == {"url", "model", "dimension", "fingerprint"}
    assert embedder.ready["dimension"] == 384
    assert embedder.ready["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert re.fullmatch(r"[0-9a-f]{64}", embedder.ready["fingerprint"])
    assert embedder.ask("GET", "/health").status == 200


def test_metrics_begin_with_the_first_request() -> None:
    recorded = next(case["names"] for case in CASES if "names" in case)
    with Process() as process:
        page = process.ask("GET", "/metrics")
        assert page.headers["content-type"] == "text/plain; charset=utf-8"
        assert page.body == b""
        assert process.post("/embed", {"inputs": ["a", "b"]}).status == 200
        assert process.post("/embed", {"inputs": ""}).status == 400
        text = process.ask("GET", "/metrics").body.decode()
    names = re.findall(r"^# TYPE (\S+ \S+)$", text, re.MULTILINE)
    assert sorted(names) == recorded
    assert 'te_request_success{method="batch"} 1\n' in text
    assert 'te_request_failure{err="tokenization"} 1\n' in text
    assert 'te_request_input_length_bucket{le="2"} 0\n' in text
    assert 'te_request_input_length_bucket{le="+Inf"} 2\n' in text


@pytest.mark.parametrize("inputs", [[999999], [[999999], [888888]]])
def test_a_batch_without_a_token_ends_the_process(inputs: list[object]) -> None:
    with Process() as process:
        with pytest.raises((ConnectionError, OSError)):
            process.post("/embed", {"inputs": inputs})
        assert process.popen.wait(timeout=30) != 0
        assert process.popen.stderr is not None
        assert "without a single token" in process.popen.stderr.read()


def test_beside_others_an_input_without_a_token_is_null(embedder: Process) -> None:
    reply = embedder.post("/embed", {"inputs": [[999999], "hello"]})
    empty, full = reply.json()
    assert empty == [None] * 384
    assert full == embedder.post("/embed", {"inputs": "hello"}).json()[0]
    assert reply.headers["x-compute-tokens"] == "3"


@pytest.mark.skipif(sys.platform == "win32", reason="no signal asks a process to end there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_are_answered_before_it_ends(number: signal.Signals) -> None:
    with Process() as process, ThreadPoolExecutor(1) as threads:
        texts = [f"{index} " + "word " * 300 for index in range(12)]
        pending = threads.submit(process.post, "/embed", {"inputs": texts})
        while b"te_request_count" not in process.ask("GET", "/metrics").body:
            time.sleep(0.01)
        process.popen.send_signal(number)
        assert len(pending.result().json()) == 12
        assert process.popen.wait(timeout=60) == 0


def test_a_port_in_use_is_said_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = ("--port", str(port))
        done = subprocess.run(
            command(*flags), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"embedder: Cannot listen on 127.0.0.1:{port}: ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[str], str]]:
    """Run the program on a folder that it refuses, and give what it says.

    In this process, since another takes two seconds to start.
    """

    def refused(folder: str) -> str:
        assert main(["--port", "0", "--model-dir", folder]) == 1
        out, errors = capfd.readouterr()
        assert out == ""
        return errors

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield refused
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "has neither model.onnx nor onnx/model.onnx."),
        ({"model.onnx": "no model"}, "has no tokenizer.json."),
        ({"model.onnx": "no model", "tokenizer.json": "{}"}, "cannot be run: "),
        ({"onnx/model.onnx": "", "tokenizer.json": "", "config.json": "{"}, "is no JSON: "),
        (
            {
                "model.onnx": "",
                "tokenizer.json": "",
                "1_Pooling/config.json": json.dumps({"pooling_mode_lasttoken": True}),
            },
            "asks for pooling_mode_lasttoken; only mean and cls are served.",
        ),
    ],
)
def test_a_broken_model_folder_is_said_in_one_sentence(
    tmp_path: Path, files: dict[str, str], complaint: str, run: Callable[[str], str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    errors = run(str(tmp_path))
    assert str(tmp_path) in errors
    assert complaint in errors
    assert errors.count("\n") == 1


def test_a_missing_model_folder_is_said(run: Callable[[str], str]) -> None:
    assert run("no-such-folder") == "embedder: The model folder no-such-folder does not exist.\n"


def test_permits_are_given_back(strict: Process) -> None:
    headers = {**JSON, "authorization": "Bearer secret"}

    def ask(inputs: list[str]) -> Reply:
        return strict.ask("POST", "/embed", json.dumps({"inputs": inputs}).encode(), headers)

    for _ in range(3):
        assert ask(["a", "b", "c", "d"]).status == 200
        assert ask(["a", "b", "c", ""]).status == 400
        assert ask(["a", "b", "c", "d", "e"]).status == 429
