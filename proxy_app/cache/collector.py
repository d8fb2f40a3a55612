"""``embedrack gc``: deletes what is too old or too much in the store; one process, on a timer.

Deletes by filter make Qdrant wait for all updates before them, so they happen here and nowhere
else, and only where a count says that there is something to delete.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from proxy_app.entries.collection import is_ours
from proxy_app.settings import Settings
from proxy_app.upstream.client import Upstream
from proxy_app.upstream.model import Model

#: Points deleted by their ids in one call.
PAGE = 1000
DAY = 86400
#: Seconds for one call: a filter over millions of points takes its time.
TIMEOUT = 300


class CollectorError(Exception):
    """Why nothing, or not all, was collected."""


class Collector:
    """One run over our collections; ``say`` gets a line for each thing done."""

    def __init__(self, settings: Settings, say: Callable[[str], None], dry_run: bool) -> None:
        self._settings = settings
        self._say = say
        self._dry_run = dry_run
        with warnings.catch_warnings():
            # The key goes over the loopback or over a network that the operator chose.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure")
            self._qdrant = QdrantClient(
                url=settings.qdrant_url,
                api_key=settings.qdrant_api_key or None,
                timeout=TIMEOUT,
                check_compatibility=False,
            )

    def run(self) -> None:
        """Collect; raises CollectorError."""
        settings = self._settings
        try:
            prefix = settings.qdrant_collection
            names = [c.name for c in self._qdrant.get_collections().collections]
            ours = sorted(name for name in names if is_ours(name, prefix))
            if settings.namespace_days:
                ours = self._remove_former(ours)
            for name in ours:
                self._remove_old(name)
                self._remove_surplus(name)
        except (ApiException, UnexpectedResponse) as error:
            raise CollectorError(f"Qdrant at {settings.qdrant_url}: {_short(error)}") from None
        finally:
            self._qdrant.close()

    def _remove_former(self, ours: list[str]) -> list[str]:
        """Remove collections of former models; returns those that are left."""
        current = asyncio.run(current_collection(self._settings))
        if not current:
            self._say("the model is not known now: no collection is removed")
            return ours
        limit = int(time.time()) - self._settings.namespace_days * DAY
        left = []
        for name in ours:
            newest = None if name == current else self._newest(name)
            if name == current or (newest is not None and newest >= limit):
                left.append(name)
                continue
            age = "it is empty" if newest is None else f"its newest entry is of {_date(newest)}"
            self._do(
                f"removes {name}, of another model: {age}",
                partial(self._qdrant.delete_collection, name, timeout=TIMEOUT),
            )
        return left

    def _newest(self, name: str) -> int | None:
        """Return when a collection's newest entry was written (Unix seconds), None where none."""
        order = models.OrderBy(key="t", direction=models.Direction.DESC)
        points, _ = self._qdrant.scroll(name, limit=1, order_by=order, with_payload=["t"])
        return int((points[0].payload or {})["t"]) if points else None

    def _remove_old(self, name: str) -> None:
        if not self._settings.cache_ttl:
            return
        limit = int(time.time()) - self._settings.cache_ttl
        count = self._count_before(name, limit)
        if count:
            sentence = f"deletes {count} entries of {name} from before {_date(limit)}"
            self._do(sentence, partial(self._delete_before, name, limit))

    def _remove_surplus(self, name: str) -> None:
        """Delete the oldest entries beyond the limit: whole seconds by filter, the rest by ids."""
        most = self._settings.cache_max_entries
        surplus = self._qdrant.count(name, exact=True).count - most
        if not most or surplus <= 0:
            return
        second = last_within(surplus, partial(self._count_before, name), int(time.time()) + 1)
        whole = self._count_before(name, second)
        self._do(
            f"deletes the {surplus} oldest entries of {name}, which has {surplus + most}",
            partial(self._delete_oldest, name, second, whole, surplus - whole),
        )

    def _delete_oldest(self, name: str, second: int, whole: int, rest: int) -> None:
        if whole:
            self._delete_before(name, second)
        of_second = models.FieldCondition(key="t", range=models.Range(gte=second, lte=second))
        while rest > 0:
            points, _ = self._qdrant.scroll(
                name,
                scroll_filter=models.Filter(must=[of_second]),
                limit=min(rest, PAGE),
                with_payload=False,
            )
            if not points:
                return  # somebody else deleted them
            ids = models.PointIdsList(points=[point.id for point in points])
            self._qdrant.delete(name, ids, wait=True)
            rest -= len(points)

    def _count_before(self, name: str, limit: int) -> int:
        return self._qdrant.count(name, count_filter=before(limit), exact=True).count

    def _delete_before(self, name: str, limit: int) -> None:
        self._qdrant.delete(name, models.FilterSelector(filter=before(limit)), wait=True)

    def _do(self, sentence: str, action: Callable[[], object]) -> None:
        self._say(f"would do: {sentence}" if self._dry_run else sentence)
        if not self._dry_run:
            action()


def before(limit: int) -> models.Filter:
    """Match entries written before a time (Unix seconds)."""
    return models.Filter(must=[models.FieldCondition(key="t", range=models.Range(lt=limit))])


def last_within(most: int, count_before: Callable[[int], int], end: int) -> int:
    """Find the last second, up to ``end``, before which at most ``most`` entries were written."""
    low, high = 0, end
    while low < high:
        middle = (low + high + 1) // 2
        if count_before(middle) <= most:
            low = middle
        else:
            high = middle - 1
    return low


async def current_collection(settings: Settings) -> str:
    """Ask the upstream for its model; returns its collection's name, "" where none is known."""
    with tempfile.TemporaryDirectory() as folder:
        upstream = Upstream(settings, Path(folder))
        try:
            model = Model(settings, upstream)
            await model.look()
            return model.identity.collection(settings.qdrant_collection) if model.identity else ""
        finally:
            await upstream.close()


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _short(error: Exception) -> str:
    return str(error).replace("\n", " ")[:300]
