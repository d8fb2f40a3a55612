import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from local_stack.run import port
from tests.run.launch import PATIENCE_S, ROOT, attempt, environment, running
from tests.run.processes import descendants, left
from tests.stand_ins.process import free_port


def post(url: str, body: bytes) -> list[list[float]]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        vectors: list[list[float]] = json.load(answer)
    return vectors


def steps(output: list[str]) -> list[str]:
    return [line for line in output if re.match(r"\d ", line)]


def test_it_runs_stops_and_finds_its_cache_again(tmp_path: Path) -> None:
    number = free_port()
    variables = {"PORT": number, "DATA_DIR": tmp_path / "cache", "NO_COLOR": 1}
    with running(**variables) as run:
        run.wait_for("Ready")
        names = [line.split()[1] for line in steps(run.output)]
        assert names == ["environment", "embedder", "store", "proxy", "self-test"]
        assert all(re.search(r"  \d+\.\d s$", line) for line in steps(run.output))
        assert "no entries yet" in steps(run.output)[2]
        assert re.search(r"miss [\d.]+ ms, then hit [\d.]+ ms, the same 384 fl", run.output[4])
        assert "\033" not in "".join(run.output)

        curl = shlex.split(next(line for line in run.output if "curl" in line))
        assert curl[1] == f"http://127.0.0.1:{number}/embed"
        assert len(post(curl[1], curl[-1].encode())[0]) == 384
        run.wait_for("POST /embed 200")

        code, _, errors = attempt(**variables)
        assert code == 1
        assert f"a stack runs already at http://127.0.0.1:{number} (process " in errors
        code, _, errors = attempt(PORT=number, DATA_DIR=tmp_path / "other")
        assert code == 1
        assert f"Embedrack runs already at http://127.0.0.1:{number}:" in errors
        code, _, errors = attempt("local_stack.run.clean", DATA_DIR=tmp_path / "cache")
        assert code == 1
        assert "a stack runs already" in errors

        children = run.children()
        assert len(children) >= 5
        assert run.end(signal.SIGINT) == 0
    assert "Stopped: proxy, store, embedder." in run.output
    stays = f"The cache stays in {tmp_path}/cache; `make clean DATA_DIR={tmp_path}/cache` drops it."
    assert stays in run.output
    assert not left(children, within_s=0)
    assert not port.trouble(number)

    with running(**variables) as run:
        run.wait_for("Ready")
        assert "2 entries in" in steps(run.output)[2]
        assert "self-test   hit" in run.output[4]
        children = run.children()
        assert run.end(signal.SIGHUP) == 0
    assert not left(children, within_s=0)

    code, output, _ = attempt("local_stack.run.clean", DATA_DIR=tmp_path / "cache")
    assert (code, output) == (0, f"dropped the cache in {tmp_path}/cache\n")
    assert not (tmp_path / "cache").exists()


def test_a_part_that_dies_takes_the_others_along(tmp_path: Path) -> None:
    with running(PORT=free_port(), DATA_DIR=tmp_path, WORKERS=1) as run:
        run.wait_for("Ready")
        children = run.children()
        os.kill(store_of(tmp_path, children), signal.SIGKILL)
        assert run.result() == 1
    assert "failed: the store ended by itself (signal SIGKILL), without a word" in run.errors
    assert not left(children, within_s=0)


def store_of(folder: Path, processes: set[int]) -> int:
    if not Path("/proc/self").exists():
        pytest.skip("without /proc the store's process cannot be found among the others")
    for pid in processes:
        if f"{folder}/qdrant" in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(processes)


def test_nothing_outlives_a_stack_that_is_killed(tmp_path: Path) -> None:
    variables = {"PORT": free_port(), "DATA_DIR": tmp_path, "WORKERS": 1}
    with running(**variables) as run:
        run.wait_for("Ready")
        children = run.children()
        assert run.end(signal.SIGKILL) == -signal.SIGKILL
    # At once, while the parts may still be ending.
    with running(**variables) as run:
        run.wait_for("1 entry in")
        assert not left(children, within_s=15)


def test_it_runs_on_servers_that_are_there(tmp_path: Path) -> None:
    with running(PORT=free_port(), DATA_DIR=tmp_path / "first", WORKERS=1) as first:
        first.wait_for("Ready")
        upstream = re.findall(r"http://[\w.:]+", steps(first.output)[3])[0]
        with running(PORT=free_port(), DATA_DIR=tmp_path / "second", TEI_URL=upstream) as second:
            second.wait_for(f"sentence-transformers/all-MiniLM-L6-v2 at {upstream}")
            second.wait_for("Ready")
            assert second.end(signal.SIGTERM) == 0
        assert "Stopped: proxy, store." in second.output


@pytest.mark.skipif(sys.platform != "linux", reason="takes its terminal as Linux gives it")
def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    name = os.ttyname(theirs)
    # The first terminal that a session's leader opens becomes the session's own.
    process = subprocess.Popen(
        ["sh", "-c", '"$@" <"$0" >"$0" 2>"$0"', name, sys.executable, "-m", "local_stack"],
        cwd=ROOT,
        env=environment(PORT=free_port(), DATA_DIR=tmp_path, WORKERS=1, TERM="xterm"),
        start_new_session=True,
    )
    shown = b""
    while b"Ready" not in shown:
        shown += os.read(ours, 4096)
    children = descendants(process.pid)
    os.write(ours, b"\x03")
    while b"drops it" not in shown:
        shown += os.read(ours, 4096)
    process.wait(PATIENCE_S)
    assert not left(children, within_s=1)
    assert b"Stopped: proxy, store, embedder." in shown
    assert b"Traceback" not in shown
    assert b"\033[1m5\033[0m" in shown
    os.close(ours)
    os.close(theirs)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    arguments = ("tests.run.parts", "EMBEDDER", str(hangs))
    with running(*arguments, PORT=free_port(), DATA_DIR=tmp_path / "cache") as run:
        while not hangs.exists():
            time.sleep(0.02)
        children = run.children()
        run.process.send_signal(signal.SIGINT)
        assert left(children, within_s=0.5)
        assert run.end(signal.SIGINT) == 0
    assert "Stopped: embedder." in run.output
    assert not left(children, within_s=0)
