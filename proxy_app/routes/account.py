"""What is counted and logged of a request, once it is answered, whichever way it took."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from proxy_app.embedding.request import Answer
from proxy_app.errors import EmbedError
from proxy_app.http import reply
from proxy_app.routes import openai, tei
from proxy_app.routes.dialect import Dialect
from proxy_app.settings import Settings
from proxy_app.telemetry import metrics
from proxy_app.telemetry.logs import RequestLog

#: Paths that speak OpenAI's dialect, errors included, as does what is below the last one.
_OPENAI = frozenset(("/v1/embeddings", "/embeddings", "/v1/models"))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Account(msgspec.Struct, gc=False):
    """One request: what it is, when it began (``time.perf_counter``), and what came of it.

    ``route`` is one of metrics.ROUTES. ``inputs`` is 0 where there are none or they are not known.
    """

    method: str
    path: str
    route: str
    started: float
    inputs: int = 0
    answer: Answer | None = None
    error: str = ""


#: What answers a request, and notes in its account what came of it; raises EmbedError.
Work = Callable[[web.Request, Account], Awaitable[web.StreamResponse]]


class Accounts:
    """The accounts of one worker's requests."""

    def __init__(self, settings: Settings) -> None:
        self._log = RequestLog(settings)

    def answering(self, route: str, work: Work) -> Handler:
        """Return a handler of a route: its work, whose errors are answered, counted and logged."""

        async def handle(request: web.Request) -> web.StreamResponse:
            account = Account(request.method, request.path, route, time.perf_counter())
            try:
                response = await work(request, account)
            except EmbedError as error:
                response = reply.failure(error, failed(account, error))
            self.close(account, response.status)
            return response

        return handle

    def close(self, account: Account, status: int) -> None:
        """Count and log a request whose reply is about to be sent."""
        seconds = time.perf_counter() - account.started
        answer = account.answer
        if answer is None:
            metrics.count_request(account.route, status, seconds)
        else:
            metrics.count_request(account.route, status, seconds, answer.level)
            metrics.count_inputs(answer.l1, answer.l2, answer.misses)
        if self._log.wants(status, seconds):
            self._log.write(account.method, account.path, status, seconds, fields_of(account))


def failed(account: Account, error: EmbedError) -> bytes:
    """Note an error in its request's account, and write it in the dialect of the request."""
    account.error = error.message
    return dialect_of(account.path).error_body(error)


def dialect_of(path: str) -> Dialect:
    """Return the dialect whose errors a path answers with."""
    is_openai = path in _OPENAI or path.startswith("/v1/models/")
    return openai.DIALECT if is_openai else tei.DIALECT


def fields_of(account: Account) -> dict[str, object]:
    """Return what the log says of a request beside its first line."""
    fields: dict[str, object] = {}
    if account.inputs:
        fields["inputs"] = account.inputs
    if account.answer is not None:
        fields |= {"hits": account.answer.hits, "misses": account.answer.misses}
    if account.error:
        fields["error"] = account.error
    return fields
