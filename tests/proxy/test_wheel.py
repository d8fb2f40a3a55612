"""The proxy works alone: from a wheel, without the rest of this repository."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import aiohttp

from tests.proxy.conftest import listening
from tests.stand_ins.process import free_port
from tests.stand_ins.tei import StandInTei

ROOT = Path(__file__).parents[2]
#: What the package is made of, in whatever folder.
FILES = ("*.py", "*.html", "py.typed")


def build_wheel(folder: Path) -> Path:
    """Build the wheel out of a copy of what git tracks, so that the checkout stays clean."""
    source = folder / "source"
    for pattern in FILES:
        for file in (ROOT / "proxy_app").rglob(pattern):
            copy = source / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


async def test_serve_from_the_wheel(tmp_path: Path, tei: StandInTei) -> None:
    wheel = await asyncio.to_thread(build_wheel, tmp_path)
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        tops = {name.split("/")[0] for name in names}
        assert tops == {"proxy_app", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
        files = {path for pattern in FILES for path in (ROOT / "proxy_app").rglob(pattern)}
        ours = {str(path.relative_to(ROOT)) for path in files}
        assert {name for name in names if name.startswith("proxy_app/")} == ours
        [points] = [name for name in names if name.endswith("entry_points.txt")]
        assert b"embedrack = proxy_app.commands.cli:main" in archive.read(points)
        archive.extractall(site)
    port = free_port()
    async with listening(tei.app()) as upstream:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy_app", "serve", "--upstream", upstream),
            *("--bind", "127.0.0.1", "--port", str(port), "--workers", "2"),
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(site)},
        )
        try:
            async with aiohttp.ClientSession() as session:
                for _ in range(200):
                    try:
                        url = f"http://127.0.0.1:{port}/embed"
                        async with session.post(url, json={"inputs": "a"}) as reply:
                            assert reply.status == 200
                        async with session.get(f"http://127.0.0.1:{port}/docs") as reply:
                            assert "<!doctype html>" in await reply.text()
                        break
                    except aiohttp.ClientConnectionError:
                        await asyncio.sleep(0.1)
                else:
                    raise AssertionError("it does not listen")
        finally:
            process.terminate()
            await process.wait()
