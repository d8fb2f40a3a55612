"""What the routes do, short of HTTP: permits, limits, tokens, vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np

from local_stack.embedder.batcher import Answer, Batcher
from local_stack.embedder.errors import TeiError
from local_stack.embedder.metrics import Metrics
from local_stack.embedder.model import Model, prepared
from local_stack.embedder.request import (
    DecodeRequest,
    EmbedRequest,
    Inputs,
    SimilarityRequest,
    TokenizeRequest,
)
from local_stack.embedder.tokens import Tokenizer
from local_stack.embedder.wire import Floats, Timing

T = TypeVar("T")
TEI_VERSION = "1.9.3"


@dataclass(frozen=True)
class Limits:
    """TEI's flags of the same names; ``payload_limit`` is in bytes."""

    max_client_batch_size: int = 32
    payload_limit: int = 2_000_000
    max_batch_tokens: int = 16384
    max_concurrent_requests: int = 512
    auto_truncate: bool = True


@dataclass(frozen=True)
class Embedded:
    """The answer to an embedding request: one array an input, and what it cost."""

    vectors: list[Floats]
    characters: int
    tokens: int
    timings: list[Timing]


class Service:
    """One model, served within ``limits``. Lives in one event loop."""

    def __init__(
        self, model: Model, limits: Limits, *, threads: int, served_model_name: str | None = None
    ) -> None:
        self.model, self.limits = model, limits
        self.served_model_name = served_model_name or model.files.model_id
        self.tokenizer = Tokenizer(model.files.tokenizer, model.files.max_length)
        self.metrics = Metrics(model.files.max_length)
        self._batcher = Batcher(
            model, self.metrics, max_batch_tokens=limits.max_batch_tokens, threads=threads
        )
        # One thread: a tokenizer is not shared, and a long text must not hold up the event loop.
        self._tokenization = ThreadPoolExecutor(1, thread_name_prefix="tokenization")
        self._permits = limits.max_concurrent_requests

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._batcher.start()

    async def stop(self) -> None:
        """End, when no request is under way."""
        await self._batcher.stop()
        self._tokenization.shutdown()

    def info(self) -> dict[str, Any]:
        """What ``/info`` tells."""
        return {
            "model_id": self.model.files.model_id,
            "model_sha": None,
            "model_dtype": self.model.dtype,
            "served_model_name": self.served_model_name,
            "model_type": {"embedding": {"pooling": self.model.files.pooling}},
            "max_concurrent_requests": self.limits.max_concurrent_requests,
            "max_input_length": self.model.files.max_length,
            "max_batch_tokens": self.limits.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": self.limits.max_client_batch_size,
            "auto_truncate": self.limits.auto_truncate,
            "tokenization_workers": 1,
            "version": TEI_VERSION,
            "sha": None,
            "docker_label": None,
        }

    # ------------------------------------------------------------ embeddings

    async def embed(self, request: EmbedRequest, *, pooled: bool = True) -> Embedded:
        """Embed the inputs of a request.

        One array an input: (dimensions,), or (tokens, dimension) unless ``pooled``. Raises
        ``TeiError``: one bad input refuses all of them.
        """
        with _Permits(self, request.inputs):
            return await self._embed(request, pooled=pooled)

    async def _embed(self, request: EmbedRequest, *, pooled: bool) -> Embedded:
        started = time.perf_counter()
        items = request.inputs.items
        for _ in items:
            self.metrics.count("te_embed_count")
        if request.dimensions == 0:
            raise _invalid("`dimensions` should be positive")
        sequences = await self._in_thread(lambda: self._sequences(request))
        tokenization = (time.perf_counter() - started) / len(items)
        answers = await self._batcher.run(sequences, pooled=pooled)
        timings = [Timing(tokenization, answer.queue, answer.inference) for answer in answers]
        self._record(sequences, timings, started, single=request.inputs.single)
        return Embedded(
            vectors=[_finished(answer, request, pooled=pooled) for answer in answers],
            characters=sum(map(len, items)),
            tokens=sum(map(len, sequences)),
            timings=timings,
        )

    def _sequences(self, request: EmbedRequest) -> list[list[int]]:
        truncate = self.limits.auto_truncate if request.truncate is None else request.truncate
        sequences = []
        for item in request.inputs.items:
            sequences.append(
                self.tokenizer.encode(
                    item, truncate=truncate, left=request.left, prompt_name=request.prompt_name
                )
            )
            if request.dimensions is not None and request.dimensions > self.model.dimension:
                raise _invalid(
                    "`dimensions` should be smaller than the maximum embedding dimension."
                )
        return sequences

    def _record(
        self, sequences: list[list[int]], timings: list[Timing], started: float, *, single: bool
    ) -> None:
        total = time.perf_counter() - started
        for ids, timing in zip(sequences, timings, strict=True):
            self.metrics.record("te_request_input_length", len(ids))
            self.metrics.count("te_embed_success")
            self._record_times("te_embed", total, timing)
        mean = Timing(
            tokenization=sum(timing.tokenization for timing in timings) / len(timings),
            queue=sum(timing.queue for timing in timings) / len(timings),
            inference=sum(timing.inference for timing in timings) / len(timings),
        )
        self._record_times("te_request", total, mean)
        self.metrics.count("te_request_success", _method(single))

    def _record_times(self, name: str, total: float, timing: Timing) -> None:
        self.metrics.record(f"{name}_duration", total)
        self.metrics.record(f"{name}_tokenization_duration", timing.tokenization)
        self.metrics.record(f"{name}_queue_duration", timing.queue)
        self.metrics.record(f"{name}_inference_duration", timing.inference)

    async def similarity(self, request: SimilarityRequest) -> tuple[Floats, Embedded]:
        """Compare texts with one: the cosines, float32 of shape (sentences,), and their cost."""
        if not request.inputs.sentences:
            raise TeiError("Empty", "`inputs.sentences` cannot be empty", "validation")
        items: list[Any] = [request.inputs.source_sentence, *request.inputs.sentences]
        self.check_batch_size(len(items))
        how = request.parameters
        embedded = await self.embed(
            EmbedRequest(
                Inputs(items, single=False),
                truncate=how.truncate if how else None,
                truncation_direction=how.truncation_direction if how else "Right",
                prompt_name=how.prompt_name if how else None,
            )
        )
        source, *others = embedded.vectors
        cosines = np.array([np.dot(source, other) for other in others], np.float32)
        return cosines, embedded

    def refuse(self, inputs: Inputs, message: str) -> NoReturn:
        """Answer a route of another kind of model: raises the ``TeiError`` that TEI raises."""
        with _Permits(self, inputs):
            raise TeiError("Backend", f"Backend error: {message}", "model_type")

    # ------------------------------------------------------------ tokens

    async def tokenize(self, request: TokenizeRequest) -> list[list[dict[str, Any]]]:
        """Describe the tokens of texts; see ``Tokenizer.tokenize``."""
        self._check_batch(len(request.inputs), "inputs")
        return await self._in_thread(
            lambda: [
                self.tokenizer.tokenize(
                    text,
                    add_special_tokens=request.add_special_tokens,
                    prompt_name=request.prompt_name,
                )
                for text in request.inputs
            ]
        )

    async def decode(self, request: DecodeRequest) -> list[str]:
        """Turn lists of ids into texts; see ``Tokenizer.decode``."""
        self._check_batch(len(request.ids), "ids")
        return await self._in_thread(
            lambda: [
                self.tokenizer.decode(ids, skip_special_tokens=request.skip_special_tokens)
                for ids in request.ids
            ]
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._tokenization, work)

    # ------------------------------------------------------------ limits

    def _check_batch(self, size: int, name: str) -> None:
        if not size:
            raise TeiError("Empty", f"`{name}` cannot be empty", "validation")
        self.check_batch_size(size)

    def check_batch_size(self, size: int) -> None:
        """Raise ``TeiError`` for more inputs in a request than the limit."""
        limit = self.limits.max_client_batch_size
        if size > limit:
            message = f"batch size {size} > maximum allowed batch size {limit}"
            raise TeiError("Validation", message, "batch_size")

    def acquire(self, inputs: Inputs) -> None:
        """Take a permit an input, without waiting. Raises ``TeiError`` when they do not suffice."""
        self.metrics.count("te_request_count", _method(inputs.single))
        if not inputs.single:
            self.check_batch_size(len(inputs.items))
        if len(inputs.items) > self._permits:
            raise TeiError("Overloaded", "Model is overloaded", "overloaded")
        self._permits -= len(inputs.items)

    def release(self, inputs: Inputs) -> None:
        """Give back the permits that ``acquire`` took."""
        self._permits += len(inputs.items)


class _Permits:
    def __init__(self, service: Service, inputs: Inputs) -> None:
        self._service, self._inputs = service, inputs

    def __enter__(self) -> None:
        self._service.acquire(self._inputs)

    def __exit__(self, *_: object) -> None:
        self._service.release(self._inputs)


def _method(single: bool) -> str:
    return f'method="{"single" if single else "batch"}"'


def _invalid(message: str) -> TeiError:
    return TeiError("Validation", f"Input validation error: {message}", "validation")


def _finished(answer: Answer, request: EmbedRequest, *, pooled: bool) -> Floats:
    if not pooled:
        return answer.vectors
    return prepared(answer.vectors, request.dimensions, normalize=request.normalize)
