"""Real Git repositories, and a server of them by git's own ``http-backend``."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web


class Repository:
    """A work tree of a test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, standard_input: bytes = b"") -> str:
        """Run git in it, as nobody in particular; gives what it printed."""
        identity = {
            **{f"GIT_{who}_NAME": "Someone" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "someone@localhost" for who in ("AUTHOR", "COMMITTER")},
        }
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments],
            env={**os.environ, **identity},
            input=standard_input,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()

    def write(self, path: str, text: str) -> Path:
        """Write a file, with its folders."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def commit(self) -> str:
        """Commit everything; gives the commit's name."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=change")
        return self.git("rev-parse", "HEAD")


class GitServer:
    """Serves the repositories below a folder: at once, after a password, or never."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = ""
        self.authorization = ""
        self.stalls = False
        self.asked = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.set()
        if self.authorization and request.headers.get("Authorization") != self.authorization:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
        if self.stalls:
            await asyncio.sleep(3600)
        process = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": request.method,
                "PATH_INFO": request.path,
                "QUERY_STRING": request.query_string,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                # The tests' folders may belong to somebody else.
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate(await request.read())
        head, _, body = printed.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        return web.Response(status=status, headers=headers, body=body)


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[GitServer]:
    """Run a server on a free port of the loopback."""
    server = GitServer(root)
    # The body as it came: what is compressed, http-backend itself unpacks.
    runner = web.ServerRunner(
        web.Server(server.answer, auto_decompress=False), shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    yield server
    await runner.cleanup()
