"""Fetches a model from the hub into its folder, named by commit; what is there already is kept.

    fetch_model.py resolve REPO REVISION ROOT            prints the commit
    fetch_model.py fetch   REPO COMMIT   ROOT            downloads; a line per step of progress
    fetch_model.py present REPO COMMIT   ROOT            exit status 0 if whole

The folder is ROOT/ORG--NAME/COMMIT. It counts as whole once its file ``.complete`` is there, so a
fetch that was cut short goes on where it stopped. Settings: HF_ENDPOINT, HF_TOKEN.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from pathlib import Path

#: What TEI reads (backend and router of 1.9: tokenizer, configurations, safetensors or ONNX).
CONFIGURATION = ["*.json", "*.txt", "*.model", "*/config.json", "1_Pooling/*", "2_Dense*/*"]
#: The forms of weights, best first: one of them is fetched, for the others would be the same again.
WEIGHTS = [
    ["*.safetensors"],
    ["onnx/model.onnx", "onnx/model.onnx_data", "model.onnx"],
    ["pytorch_model*.bin"],
]


def folder(root: str, repo: str, commit: str) -> Path:
    """Return the folder of a model's commit."""
    return Path(root, repo.replace("/", "--"), commit)


def refs(root: str, repo: str) -> Path:
    """Return the file that remembers which commit a branch or tag was."""
    return Path(root, repo.replace("/", "--"), "refs.json")


def resolve(repo: str, revision: str, root: str) -> int:
    """Print the commit of a revision; where the hub is away, the one it was last time."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        print(revision)
        return 0
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    memory = refs(root, repo)
    known = json.loads(memory.read_text()) if memory.exists() else {}
    try:
        commit = HfApi().model_info(repo, revision=revision, timeout=30).sha
    except RevisionNotFoundError:
        return fail(f"tei_revision: the model {repo} has no revision {revision!r} on the hub")
    except RepositoryNotFoundError:
        return fail(
            f"tei_model_id: there is no model {repo!r} on the hub, or it is gated and tei_hf_token "
            "is not set"
        )
    except Exception as error:
        if revision not in known:
            return fail(
                f"tei_hf_endpoint: the hub does not answer: {error}; name a mirror, or set "
                "tei_model_path to a folder that holds the model"
            )
        print(f"the hub does not answer ({error}); staying at the last commit", file=sys.stderr)
        commit = known[revision]
    known[revision] = commit
    if memory.parent.exists():
        memory.write_text(json.dumps(known))
    print(commit)
    return 0


def fetch(repo: str, commit: str, root: str) -> int:
    """Download what TEI needs, printing how far it is every two seconds."""
    from huggingface_hub import HfApi, snapshot_download

    target = folder(root, repo, commit)
    target.mkdir(parents=True, exist_ok=True)
    try:
        siblings = HfApi().model_info(repo, revision=commit, files_metadata=True).siblings or []
        names = {entry.rfilename: entry.size or 0 for entry in siblings}
        weights = next((form for form in WEIGHTS if any(matches(n, form) for n in names)), [])
        patterns = CONFIGURATION + weights
        total = sum(size for name, size in names.items() if matches(name, patterns))
        done = threading.Event()
        thread = threading.Thread(target=report, args=(target, total, done), daemon=True)
        thread.start()
        snapshot_download(repo, revision=commit, local_dir=target, allow_patterns=patterns)
        done.set()
        thread.join()
    except Exception as error:
        return fail(f"the model {repo} at {commit} could not be fetched: {error}")
    if not (target / "config.json").exists():
        return fail(f"tei_model_id: {repo} at {commit} has no config.json: TEI cannot serve it")
    Path(target, ".complete").touch()
    print("complete", flush=True)
    return 0


def matches(name: str, patterns: list[str]) -> bool:
    """Tell whether a file's name matches any of the patterns."""
    return any(Path(name).match(pattern) for pattern in patterns)


def report(target: Path, total: int, done: threading.Event) -> None:
    """Print the bytes that have arrived, until it is stopped."""
    while not done.wait(2.0):
        here = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        print(
            f"{here / 1e6:.0f} of {total / 1e6:.0f} MB at {time.strftime('%H:%M:%S')}", flush=True
        )


def fail(sentence: str) -> int:
    """Print why, and return the exit status of a failure."""
    print(sentence, file=sys.stderr)
    return 1


def main(verb: str, repo: str, revision: str, root: str) -> int:
    """Run a verb; returns the exit status."""
    if verb == "present":
        return 0 if (folder(root, repo, revision) / ".complete").exists() else 1
    return {"resolve": resolve, "fetch": fetch}[verb](repo, revision, root)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
