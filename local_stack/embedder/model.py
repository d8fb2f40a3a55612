"""The model: token ids in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from local_stack.embedder.errors import ModelError
from local_stack.embedder.files import ModelFiles
from local_stack.embedder.wire import Floats

_QUANTISED = (b"QuantizeLinear", b"MatMulInteger", b"MatMulNBits")
_INTEGERS: dict[str, type[np.integer[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


class Model:
    """A BERT-like model in ONNX. ``run`` may be called from several threads at once."""

    def __init__(self, files: ModelFiles) -> None:
        """Load the model and run it once. Raises ``ModelError`` when it is broken."""
        self.files = files
        try:
            self._session = _session(files)
            self._inputs = self._checked_inputs()
            self._output = self._token_output()
            self.dimension = int(self.token_vectors([0, 0]).shape[1])
        except ModelError:
            raise
        # onnxruntime has no common class for what may go wrong in a file.
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"The model {files.model} cannot be run: {reason}") from error
        self.dtype = files.dtype or self._dtype()

    def token_vectors(self, ids: Sequence[int]) -> Floats:
        """Run one text: float32 of shape (tokens, dimension).

        Each text runs alone and on one thread, so that its vector is bit for bit the same whatever
        else is asked for. In batches onnxruntime may add in another order (another kernel for
        another shape, other padding), and a model with dynamic quantisation would scale its
        activations over all the batch. Of the packaged model, whose int8 weights are unpacked to
        float32, 480 of 480 vectors in batches came out equal on one machine, and a batch of short
        texts ran three times as fast; but nothing promises the equality on another processor.
        """
        row = np.array([ids])
        values = {
            "input_ids": row,
            "attention_mask": np.ones_like(row),
            "token_type_ids": np.zeros_like(row),
        }
        feed = {name: values[name].astype(kind) for name, kind in self._inputs.items()}
        output: NDArray[Any] = self._session.run([self._output], feed)[0]
        return np.asarray(output[0], np.float32)

    def vector(self, ids: Sequence[int]) -> Floats:
        """Run one text and pool: float32 of shape (dimension,), not normalised."""
        vectors = self.token_vectors(ids)
        if self.files.pooling == "cls":
            return np.asarray(vectors[0], np.float32)
        return np.asarray(vectors.mean(axis=0, dtype=np.float64), np.float32)

    def _checked_inputs(self) -> dict[str, type[np.integer[Any]]]:
        inputs = {item.name: item.type for item in self._session.get_inputs()}
        unknown = sorted(set(inputs) - {"input_ids", "attention_mask", "token_type_ids"})
        if unknown or "input_ids" not in inputs:
            raise ModelError(
                f"The model {self.files.model} takes {', '.join(sorted(inputs))}; a text embedder "
                "takes input_ids, attention_mask and, where it has them, token_type_ids."
            )
        return {name: _INTEGERS[kind] for name, kind in inputs.items()}

    def _token_output(self) -> str:
        outputs = self._session.get_outputs()
        for output in outputs:
            if len(output.shape) == 3:
                return str(output.name)
        names = ", ".join(str(output.name) for output in outputs)
        raise ModelError(f"The model {self.files.model} has no vectors of tokens, only {names}.")

    def _dtype(self) -> str:
        content = self.files.model.read_bytes()
        if any(name in content for name in _QUANTISED):
            return "int8"
        kinds = {item.name: item.type for item in self._session.get_outputs()}
        return "float16" if "float16" in kinds[self._output] else "float32"


def _session(files: ModelFiles) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(files.model), options, providers=["CPUExecutionProvider"]
    )


def prepared(vector: Floats, dimensions: int | None, *, normalize: bool) -> Floats:
    """Cut a vector to its leading ``dimensions`` and then normalise it, in TEI's arithmetic."""
    cut = vector[:dimensions]
    if not normalize:
        return cut
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.float32(1.0 / np.sqrt(np.sum(np.square(cut, dtype=np.float64))))
        return np.asarray(cut * scale, np.float32)
