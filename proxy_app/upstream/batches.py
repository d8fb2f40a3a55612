"""Inputs as they go into a request's body, split by TEI's limits."""

from __future__ import annotations

import msgspec
import orjson

from proxy_app.entries.keys import Item, Params
from proxy_app.errors import EmbedError, Kind
from proxy_app.settings import Settings


class Load(msgspec.Struct, frozen=True, gc=False):
    """One input on its way: its key, and its JSON as it goes into a body."""

    key: bytes
    item: Item
    json: bytes


def encode(item: Item) -> bytes:
    """Write an input as JSON."""
    return orjson.dumps(item)


def payload_limit(settings: Settings) -> int:
    """Return the bytes of JSON inputs that a batch may hold; its other fields need room too."""
    return settings.upstream_payload_limit - 512


def refuse_too_large(size: int, limit: int) -> None:
    """Raise EmbedError where an input's JSON has more bytes than the upstream takes."""
    if size > limit:
        raise EmbedError(
            Kind.VALIDATION,
            f"an input has {size} bytes as JSON, and the upstream takes {limit} (its "
            "--payload-limit, EMBEDRACK_UPSTREAM_PAYLOAD_LIMIT)",
            status=413,
        )


def split(loads: list[Load], most: int, payload_limit: int) -> list[list[Load]]:
    """Split inputs, in order, into batches of at most ``most`` and about ``payload_limit`` bytes.

    An input that is too large by itself gets a batch of its own.
    """
    batches: list[list[Load]] = []
    size = 0
    for load in loads:
        cost = len(load.json) + 1
        if not batches or len(batches[-1]) >= most or size + cost > payload_limit:
            batches.append([])
            size = 0
        batches[-1].append(load)
        size += cost
    return batches


def fields_of(params: Params) -> bytes:
    """Write the end of a request's body: the fields after ``inputs``, all explicit."""
    fields: dict[str, object] = {"normalize": params.normalize, "truncate": params.truncate}
    if params.left:
        fields["truncation_direction"] = "Left"
    if params.dimensions:
        fields["dimensions"] = params.dimensions
    if params.prompt_name is not None:
        fields["prompt_name"] = params.prompt_name
    return orjson.dumps(fields)[1:]
