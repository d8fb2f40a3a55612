"""The routes that answer with embeddings, on either way of a request, by the same functions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

from aiohttp import web

from proxy_app.embedding.request import Answer
from proxy_app.embedding.service import Service
from proxy_app.errors import EmbedError
from proxy_app.http import lane, reply
from proxy_app.http.bodies import Bodies
from proxy_app.http.reply import Reply
from proxy_app.routes import cache_control, openai, tei
from proxy_app.routes.account import Account, Accounts, Handler, failed
from proxy_app.routes.dialect import Asked, Dialect
from proxy_app.routes.inputs import SMALL, Limits, refuse_too_many, refuse_unbounded
from proxy_app.settings import Settings

#: Inputs of a request that the fast lane answers: a third of a millisecond's work.
AT_ONCE = 64


class Embeddings:
    """The embeddings of one worker; ``tei`` and ``openai`` are the handlers of the two dialects."""

    def __init__(
        self, settings: Settings, service: Service, bodies: Bodies, accounts: Accounts
    ) -> None:
        self._limits = Limits.of(settings)
        self._service = service
        self._bodies = bodies
        self._accounts = accounts
        self.tei = self._handler(tei.DIALECT)
        self.openai = self._handler(openai.DIALECT)

    def lanes(self) -> dict[str, lane.Answer]:
        """Return what the fast lane asks, by path."""
        dialects = {
            "/embed": tei.DIALECT,
            "/v1/embeddings": openai.DIALECT,
            "/embeddings": openai.DIALECT,
        }
        return {path: partial(self._at_once, path, dialects[path]) for path in dialects}

    def _handler(self, dialect: Dialect) -> Handler:
        return self._accounts.answering(dialect.route, partial(self._embed, dialect))

    async def _embed(self, dialect: Dialect, request: web.Request, account: Account) -> Reply:
        body = await self._bodies.read(request)
        asked = lane.parsed_of(request, body)
        if isinstance(asked, Asked):
            account.inputs = len(asked.items)
        else:
            if len(body) > SMALL:
                refuse_unbounded(body, self._limits)
                await asyncio.sleep(0)  # to read a large body takes as long again
            asked = self._read(dialect, body, account)
        control = cache_control.read(request.headers)
        answer = await self._service.embed(asked.items, asked.options, control)
        pieces = await asked.write(answer, self._service.memory)
        account.answer = answer
        return Reply(pieces, header_lines(answer, account.started))

    def _at_once(self, path: str, dialect: Dialect, body: bytes) -> lane.Looked:
        """Answer a body without waiting, out of L1 alone or with an error, or only read it."""
        account = Account("POST", path, dialect.route, time.perf_counter())
        status, lines = 200, ""
        try:
            asked = self._read(dialect, body, account)
            if account.inputs > AT_ONCE:
                return None, asked
            answer = self._service.at_once(asked.items, asked.options)
            if answer is None:
                return None, asked
            pieces = result_of(asked.write(answer, self._service.memory))
            if pieces is None:
                return None, asked
            account.answer = answer
            lines = header_lines(answer, account.started)
        except EmbedError as error:
            status, lines = error.status, reply.retry_line(error)
            pieces = [failed(account, error)]
        whole = reply.whole(pieces, lines, status)
        self._accounts.close(account, status)
        return whole, None

    def _read(self, dialect: Dialect, body: bytes, account: Account) -> Asked:
        asked = dialect.parse(body)
        account.inputs = len(asked.items)
        refuse_too_many(account.inputs, self._limits.inputs)
        return asked


def result_of(coroutine: Coroutine[Any, Any, list[bytes]]) -> list[bytes] | None:
    """Return what a coroutine returns without waiting; None where it waits, which ends it."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: list[bytes] = done.value
        return result
    coroutine.close()
    return None


def header_lines(answer: Answer, started: float) -> str:
    """Write where an answer came from, as header lines; ``started`` is of time.perf_counter."""
    hits, misses = answer.hits, answer.misses
    word = "hit" if not misses else "partial" if hits else "miss"
    lines = f"X-Cache: {word}; hits={hits}; misses={misses}\r\n"
    timing = f"total;dur={(time.perf_counter() - started) * 1000:.3f}"
    if answer.l2_seconds:
        timing += f", l2;dur={answer.l2_seconds * 1000:.3f}"
    if misses:
        timing += f", upstream;dur={answer.upstream_seconds * 1000:.3f}"
        for name, value in tei.compute_headers(answer.headers).items():
            lines += f"{name}: {value}\r\n"
    return f"{lines}Server-Timing: {timing}\r\n"
