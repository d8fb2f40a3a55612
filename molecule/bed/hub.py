"""A model hub for the bed: what `huggingface_hub` asks of one, for the models in a folder.

`python3 hub.py FOLDER ADDRESS PORT`. A repository ORG/NAME is a folder; its one commit is the hash
of its files; `main` and `v1` lead to it. Routes as in the client: `/api/models/{repo}`,
`…/revision/{revision}` and `…/tree/{revision}`; `/{repo}/resolve/{revision}/{file}` with ETag,
X-Repo-Commit and ranges.
"""

import hashlib
import json
import sys
import urllib.parse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path()


def commit_of(repo: Path) -> str:
    """Return the repository's commit: 40 hexadecimal digits over names and contents."""
    total = hashlib.sha256()
    for path in sorted(path for path in repo.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(repo)).encode() + path.read_bytes())
    return total.hexdigest()[:40]


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Answer with headers alone."""
        self.answer(body=False)

    def do_GET(self) -> None:
        """Answer whole."""
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        """Find what is asked for."""
        parts = urllib.parse.unquote(self.path.split("?")[0]).strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) in (4, 6):
            tree = len(parts) == 6 and parts[4] == "tree"
            self.describe("/".join(parts[2:4]), parts[5] if len(parts) == 6 else "main", tree=tree)
        elif len(parts) >= 5 and parts[2] == "resolve":
            self.send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body=body)
        else:
            self.refuse("EntryNotFound")

    def find(self, name: str, revision: str) -> tuple[Path, str] | None:
        """Return folder and commit, or answer that there is none."""
        repo = (FOLDER / name).resolve()
        if FOLDER.resolve() not in repo.parents or not (repo / "config.json").is_file():
            self.refuse("RepoNotFound")
            return None
        commit = commit_of(repo)
        if revision not in ("main", "v1", commit):
            self.refuse("RevisionNotFound")
            return None
        return repo, commit

    def describe(self, name: str, revision: str, *, tree: bool) -> None:
        """Answer with a repository's commit and files, or with the files alone."""
        if not (found := self.find(name, revision)):
            return
        repo, commit = found
        files = sorted(path for path in repo.rglob("*") if path.is_file())
        sizes = {str(path.relative_to(repo)): path.stat().st_size for path in files}
        siblings = [{"rfilename": path, "size": size} for path, size in sizes.items()]
        entries = [
            {"type": "file", "oid": commit, "path": path, "size": size}
            for path, size in sizes.items()
        ]
        model = {"id": name, "modelId": name, "sha": commit, "private": False, "tags": []}
        data = json.dumps(entries if tree else model | {"siblings": siblings}).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_file(self, name: str, revision: str, entry: str, *, body: bool) -> None:
        """Answer with a file, from where a broken download stopped."""
        if not (found := self.find(name, revision)):
            return
        repo, commit = found
        path = (repo / entry).resolve()
        if repo not in path.parents or not path.is_file():
            self.refuse("EntryNotFound")
            return
        data = path.read_bytes()
        start = 0
        if (wanted := self.headers.get("Range", "")).startswith("bytes="):
            start = min(int(wanted[6:].split("-")[0] or 0), len(data))
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if body:
            self.wfile.write(data[start:])

    def refuse(self, code: str) -> None:
        """Answer 404 in the hub's way."""
        self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    ThreadingHTTPServer((sys.argv[2], int(sys.argv[3])), Handler).serve_forever()
