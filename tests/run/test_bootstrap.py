import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pip
import pytest

from tests.run.launch import PATIENCE_S, ROOT
from tests.stand_ins.process import free_port, heeding_signals

PYENV = Path.home() / ".pyenv" / "versions"
OLD = [
    python
    for version in ("2.7", "3.6", "3.7", "3.8", "3.9")
    for python in sorted(PYENV.glob(f"{version}.*/bin/python"))
]


class Checkout(NamedTuple):
    """A checkout with the real scripts and locks of one tiny package, fetched from a folder."""

    path: Path
    wheels: Path
    modules: Path
    """What every Python of it can import: pip, where its environments have none."""

    def start(self, *before: str, lock: str = "run", **variables: str) -> subprocess.Popen[str]:
        """Begin to make the environments of some locks, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, *(before or ["scripts/bootstrap.py"]), *lock.split()],
            cwd=self.path,
            env=os.environ
            | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_RETRIES": "0"}
            | {"PYTHONPATH": str(self.modules)}
            | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *before: str, lock: str = "run", **variables: str) -> tuple[int, str]:
        """Make the environments of some locks: the exit code and all that was printed."""
        with self.start(*before, lock=lock, **variables) as process:
            said, _ = process.communicate()
        return process.returncode, said

    def lock(self, name: str, digest: str) -> None:
        for lock in ("run", "test", "clients"):
            text = f"{name}==1.0 \\\n    --hash=sha256:{digest}\n"
            (self.path / "locks" / f"{lock}.txt").write_text(text)


@pytest.fixture
def whole(tmp_path: Path) -> Checkout:
    path, wheels, modules = tmp_path / "check out", tmp_path / "wheels", tmp_path / "modules"
    wheels.mkdir()
    modules.mkdir()
    shutil.copytree(ROOT / "scripts", path / "scripts")
    (path / "locks").mkdir()
    (path / "proxy_app").mkdir()
    (path / "proxy_app" / "__main__.py").write_text("import sys, tiny; print(tiny, sys.argv[1:])")
    made = Checkout(path, wheels, modules)
    made.lock("tiny", hashlib.sha256(wheel(wheels).read_bytes()).hexdigest())
    return made


@pytest.fixture
def checkout(whole: Checkout) -> Checkout:
    """Its environments use the pip of these tests: one in each would take ten times longer."""
    script = whole.path / "scripts" / "environment.py"
    with_pip, without_pip = '"-m", "venv", ', '"-m", "venv", "--without-pip", '
    text = script.read_text()
    assert text.count(with_pip) == 1
    script.write_text(text.replace(with_pip, without_pip))
    (whole.modules / "pip").symlink_to(Path(pip.__file__).parent)
    return whole


def wheel(folder: Path) -> Path:
    """A package with nothing in it."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    files = {
        "tiny.py": b"",
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()[:-1]},"
        f"{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("tiny-1.0.dist-info/RECORD", f"{record}tiny-1.0.dist-info/RECORD,,\n")
    return path


def test_it_is_made_once(whole: Checkout) -> None:
    code, said = whole.call()
    assert code == 0, said
    assert ".venv: making it with Python " in said
    assert ".venv: 1 package, 0.0 MB fetched, " in said

    stamp = whole.path / ".venv" / "embedrack.json"
    made = stamp.stat().st_mtime_ns
    assert whole.call() == (0, "")
    assert stamp.stat().st_mtime_ns == made

    command = [str(whole.path / ".venv" / "bin" / "embedrack"), "check", "a b"]
    shown = subprocess.check_output(command, cwd=whole.path.parent, text=True)
    assert shown.rstrip().endswith("['check', 'a b']")


def test_it_is_made_again_when_stale(checkout: Checkout) -> None:
    code, said = checkout.call()
    assert code == 0, said
    stamp = checkout.path / ".venv" / "embedrack.json"
    whole = json.loads(stamp.read_text())
    for stale in ({"python": "CPython 3.10.0"}, {"locks": {"run": ""}}):
        stamp.write_text(json.dumps(whole | stale))
        assert "making it with" in checkout.call()[1]
        assert json.loads(stamp.read_text()) == whole
    stamp.write_text("{}")
    assert "making it with" in checkout.call()[1]
    (checkout.path / ".venv" / "bin" / "python").unlink()
    assert "making it with" in checkout.call()[1]


def test_the_other_locks_packages_are_added(checkout: Checkout) -> None:
    assert checkout.call()[0] == 0
    stamp = checkout.path / ".venv" / "embedrack.json"
    code, said = checkout.call(lock="test")
    assert code == 0
    assert "making it" not in said
    assert set(json.loads(stamp.read_text())["locks"]) == {"run", "test"}
    assert checkout.call() == (0, "")


def test_the_clients_live_apart(checkout: Checkout) -> None:
    code, said = checkout.call(lock="clients")
    assert code == 0, said
    assert ".venv-clients: 1 package, 0.0 MB fetched, " in said
    assert not (checkout.path / ".venv").exists()
    python = checkout.path / ".venv-clients" / "bin" / "python"
    subprocess.run([python, "-c", "import tiny"], cwd=checkout.path.parent, check=True)
    assert checkout.call(lock="clients") == (0, "")


def test_several_are_made_side_by_side(checkout: Checkout) -> None:
    code, said = checkout.call(lock="run clients")
    assert code == 0, said
    for name in (".venv", ".venv-clients"):
        assert f"\n{name}: making it with Python " in f"\n{said}"
        assert f"\n{name}: 1 package, 0.0 MB fetched, " in said
        assert (checkout.path / name / "embedrack.json").exists()
    assert checkout.call(lock="run clients") == (0, "")


def test_one_of_several_fails(checkout: Checkout) -> None:
    lock = checkout.path / "locks" / "clients.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{'0' * 64}\n")
    code, said = checkout.call(lock="clients run")
    assert code == 1
    assert "failed: a fetched package is not the one in the lock, so nothing was installed" in said
    assert said.endswith("\nfailed: .venv-clients; the reason stands above\n")
    assert checkout.call() == (0, "")


def test_ctrl_c_ends_all_of_several(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        with heeding_signals():
            process = checkout.start(lock="run clients", PIP_NO_INDEX="0", PIP_INDEX_URL=index)
        silent.accept()[0].close()  # pip is at work
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    for name in (".venv", ".venv-clients"):
        assert f"\nfailed: interrupted; the next call starts {name} anew\n" in said
    assert "Traceback" not in said


def test_a_package_that_was_altered(checkout: Checkout) -> None:
    checkout.lock("tiny", "0" * 64)
    code, said = checkout.call()
    assert code == 1
    assert "failed: a fetched package is not the one in the lock, so nothing was installed" in said


def test_a_package_that_is_not_there(checkout: Checkout) -> None:
    checkout.lock("tinier", "0" * 64)
    code, said = checkout.call()
    assert code == 1
    assert "failed: the package index has no ready-made package for this system" in said


def test_an_index_that_is_not_there(checkout: Checkout) -> None:
    checkout.lock("tinier", "0" * 64)
    index = f"http://127.0.0.1:{free_port()}/simple"
    code, said = checkout.call(PIP_NO_INDEX="0", PIP_INDEX_URL=index, PIP_RETRIES="1")
    assert code == 1
    assert "failed: the package index cannot be reached: check the network, or set " in said


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_venv(checkout: Checkout, module: str) -> None:
    without = f"import runpy, sys; sys.modules[{module!r}] = None; sys.path.insert(0, 'scripts')"
    code, said = checkout.call(
        "-c", f"{without}; runpy.run_path('scripts/bootstrap.py', run_name='__main__')"
    )
    assert code == 1
    assert f"has no module {module}: `apt install python3-venv` brings it" in said


def test_a_folder_that_somebody_else_made(checkout: Checkout) -> None:
    (checkout.path / ".venv").mkdir()
    (checkout.path / ".venv" / "letter.txt").touch()
    code, said = checkout.call()
    assert code == 1
    assert "is there, but make did not make it: move it away or delete it" in said
    assert (checkout.path / ".venv" / "letter.txt").exists()


def test_an_old_python_is_named() -> None:
    pretend = "import sys; sys.version_info = (3, 9, 18); exec(open('scripts/bootstrap.py').read())"
    ended = subprocess.run(
        [sys.executable, "-c", pretend], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Python 3.10 or newer is needed, this is ")


@pytest.mark.skipif(not OLD, reason="no Python older than 3.10 is installed")
@pytest.mark.parametrize("python", OLD, ids=lambda path: path.parts[-3])
def test_a_python_that_is_old(python: Path) -> None:
    ended = subprocess.run(
        [python, "scripts/bootstrap.py", "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    said = f"Python 3.10 or newer is needed, this is {python.parts[-3]} ({python}"
    assert ended.stderr.startswith(said)
    assert ended.stderr.rstrip().endswith("as in `make run PYTHON=python3.12`.")
