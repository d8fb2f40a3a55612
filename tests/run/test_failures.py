import errno
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from local_stack.__main__ import main
from local_stack.run import folder
from tests.run.launch import VARIABLES, attempt
from tests.stand_ins.process import free_port


def sentence(*arguments: str, **variables: object) -> str:
    """What a stack says that cannot start; it says it in one line, without a traceback."""
    variables = {"PORT": free_port()} | variables
    code, _, errors = attempt(*arguments, **variables)
    assert code == 1
    assert errors.startswith("failed: ")
    assert "Traceback" not in errors
    return errors.removeprefix("failed: ").rstrip("\n")


@pytest.fixture
def stranger() -> Iterator[str]:
    """A web server that is none of ours."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "0", "is not a whole number from 1 to 65535: try PORT=8080, the default"),
        ("PORT", "http", "is not a whole number from 1 to 65535: try PORT=8080, the default"),
        ("WORKERS", "0", "is not a whole number from 1 to 64: try WORKERS=2, the default"),
        ("WORKERS", "-1", "is not a whole number from 1 to 64: try WORKERS=2, the default"),
        ("WORKERS", "²", "is not a whole number from 1 to 64: try WORKERS=2, the default"),
        ("TEI_URL", "127.0.0.1:80", "is not an address: write it as TEI_URL=http://HOST:PORT"),
        ("QDRANT_URL", "http://", "is not an address: write it as QDRANT_URL=http://HOST:PORT"),
        ("QDRANT_URL", "http://a:b", "is not an address: write it as QDRANT_URL=http://HOST:PORT"),
        ("MODEL_DIR", "/nowhere", "is not a folder: name the one that has the model"),
    ],
)
def test_wrong_variables(
    variable: str,
    value: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process: each of the others below is a process of its own."""
    monkeypatch.setattr("sys.argv", ["local_stack"])
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    assert main() == 1
    assert capsys.readouterr() == ("", f"failed: {variable}={value} {said}\n")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        said = sentence(PORT=number, DATA_DIR=tmp_path)
    assert said.startswith(f"port {number} is in use by another program: try `make run PORT=")
    assert number < int(said.rpartition("=")[2].rstrip("`")) < 65536


@pytest.mark.parametrize("variable", ["TEI_URL", "QDRANT_URL"])
def test_a_server_that_is_not_there(variable: str, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    said = sentence(DATA_DIR=tmp_path, **{variable: url})
    assert said.startswith(f"{variable}={url} cannot be reached (")
    assert said.endswith(f"or leave {variable} out to have `make run` start its own")


@pytest.mark.parametrize(
    ("variable", "asked"),
    [("TEI_URL", "GET /info gave 501"), ("QDRANT_URL", "GET /readyz gave 501")],
)
def test_a_server_that_is_another(variable: str, asked: str, stranger: str, tmp_path: Path) -> None:
    said = sentence(DATA_DIR=tmp_path, **{variable: stranger})
    assert said.startswith(f"{variable}={stranger} answers, but not as ")
    assert asked in said
    assert said.endswith(f"or leave {variable} out")


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert sentence(DATA_DIR=tmp_path / "file").endswith("is not a folder: name one with DATA_DIR=")


def test_a_data_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    said = (
        f"{tmp_path} holds files that are not this stack's: name a folder of its own with DATA_DIR="
    )
    assert sentence(DATA_DIR=tmp_path) == said
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    # Root may write anywhere but where the kernel itself says no.
    parent = tmp_path if os.geteuid() else Path("/sys")
    said = f"cannot write to {parent}/cache: name a folder of yours with DATA_DIR="
    assert sentence(DATA_DIR=parent / "cache") == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk of /data is full: make room, or name another folder"),
        (errno.EDQUOT, "the disk of /data is full: make room, or name another folder"),
        (errno.EROFS, "cannot write to /data: name a folder of yours"),
        (errno.ENAMETOOLONG, "/data: File name too long: name another folder"),
    ],
)
def test_what_the_system_refuses(number: int, said: str) -> None:
    error = OSError(number, os.strerror(number))
    assert folder.explain(error, Path("/data")) == f"{said} with DATA_DIR="


def test_a_part_that_dies_at_once(tmp_path: Path) -> None:
    said = sentence("tests.run.parts", "EMBEDDER", "dies", DATA_DIR=tmp_path)
    first, last = said.splitlines()
    assert first == "the embedder ended by itself (exit code 3); its last lines:"
    assert last.strip() == "the model file is missing"


def test_a_part_that_says_something_else(tmp_path: Path) -> None:
    said = sentence("tests.run.parts", "STORE", "babbles", DATA_DIR=tmp_path)
    assert said == "the store did not say where it listens but: hello"


def test_a_proxy_that_dies(tmp_path: Path) -> None:
    said = sentence("tests.run.parts", "PROXY", "dies", DATA_DIR=tmp_path)
    assert said.startswith("the proxy ended by itself (exit code 3); its last lines:")


def test_arguments_are_answered_with_the_variables() -> None:
    code, output, _ = attempt("local_stack", "--help")
    assert code == 0
    assert "QDRANT_URL" in output
    assert attempt("local_stack", "--port=1")[0] == 2
