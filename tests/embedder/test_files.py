"""Model folders and what they say of themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from local_stack.embedder.files import in_folder, model_fingerprint, packaged
from local_stack.embedder.model import Model
from local_stack.embedder.tokens import Tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The packaged model, laid out as a model folder."""
    files = packaged()
    (tmp_path / "onnx").mkdir()
    shutil.copyfile(files.model, tmp_path / "onnx/model.onnx")
    shutil.copyfile(files.tokenizer, tmp_path / "tokenizer.json")
    return tmp_path


def write(path: Path, settings: dict[str, object]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings))


def test_a_folder_without_settings_is_served_by_mean(folder: Path) -> None:
    files = in_folder(folder)
    assert (files.pooling, files.max_length) == ("mean", 512)
    ids = [101, 7592, 102]
    assert (Model(files).vector(ids) == Model(packaged()).vector(ids)).all()


def test_a_folder_says_how_to_pool_and_how_long_texts_are(folder: Path) -> None:
    write(folder / "1_Pooling/config.json", {"pooling_mode_cls_token": True})
    write(folder / "config.json", {"max_position_embeddings": 512})
    write(folder / "sentence_bert_config.json", {"max_seq_length": 16})
    files = in_folder(folder)
    model = Model(files)
    ids = [101, 7592, 102]
    assert (model.vector(ids) == model.token_vectors(ids)[0]).all()
    assert model.dimension == 384
    tokenizer = Tokenizer(files.tokenizer, files.max_length)
    text = "word " * 100
    assert len(tokenizer.encode(text, truncate=True, left=False, prompt_name=None)) == 16


def test_positions_that_start_later_leave_less_room(folder: Path) -> None:
    write(
        folder / "config.json",
        {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1},
    )
    assert in_folder(folder).max_length == 512


def test_the_fingerprint_is_of_what_decides_a_vector(folder: Path) -> None:
    def fingerprint() -> str:
        return model_fingerprint(in_folder(folder))

    seen = {fingerprint()}
    assert fingerprint() in seen
    write(folder / "sentence_bert_config.json", {"max_seq_length": 128})
    seen.add(fingerprint())
    write(folder / "1_Pooling/config.json", {"pooling_mode_cls_token": True})
    seen.add(fingerprint())
    (folder / "onnx/model.onnx_data").write_bytes(b"weights")
    seen.add(fingerprint())
    with (folder / "tokenizer.json").open("a") as tokenizer:
        tokenizer.write("\n")
    seen.add(fingerprint())
    assert len(seen) == 5


def test_vectors_do_not_know_their_neighbours() -> None:
    model = Model(packaged())
    before = model.vector([101, 7592, 102])
    model.vector([101, *range(1000, 1200), 102])
    assert np.array_equal(model.vector([101, 7592, 102]), before)
