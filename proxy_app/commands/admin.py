"""``embedrack stats`` and ``embedrack purge``: the administrator's routes on a terminal."""

from __future__ import annotations

import argparse
import json
from typing import Any

from proxy_app.commands import client

MIB = 1024 * 1024


def add(verbs: Any) -> None:
    """Add both commands to the program's."""
    stats = verbs.add_parser("stats", help="hit rates, entries and bytes, over all workers")
    stats.add_argument("--json", action="store_true", help="as the endpoint tells it")
    stats.set_defaults(run=_stats)

    purge = verbs.add_parser("purge", help="forget a text, a namespace, or everything")
    what = purge.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", help="one text, as /embed takes it; see --set")
    what.add_argument("--namespace", metavar="COLLECTION", help="one that `stats` lists")
    what.add_argument("--all", action="store_true", help="everything of this deployment")
    client.add_fields(purge, "a field that the text was embedded with, such as normalize=false")
    purge.set_defaults(run=_purge)
    for verb in (stats, purge):
        verb.add_argument("--url", default=client.default_url(), help="default: %(default)s")
        verb.add_argument("--key", help="default: EMBEDRACK_ADMIN_KEY of the environment")


def _stats(options: argparse.Namespace) -> int:
    stats, _ = client.call(options.url.rstrip("/") + "/admin/stats", key=_key(options))
    if options.json:
        print(json.dumps(stats))
        return 0
    inputs, rates, l1, store = stats["inputs"], stats["hit_rate"], stats["l1"], stats["store"]
    print(f"model       {stats['model'] or 'not known yet'}")
    print(
        f"inputs      {sum(inputs.values())}: " + ", ".join(f"{n} {v}" for n, v in inputs.items())
    )
    print("hit rate    " + ", ".join(f"{name} {_percent(rate)}" for name, rate in rates.items()))
    limit = l1["limit_bytes"] / MIB
    print(f"L1          {l1['entries']} entries, {l1['bytes'] / MIB:.1f} of {limit:.0f} MiB")
    if store is None:
        print("store       none: L1 alone")
    elif "problem" in store:
        print(f"store       {store['problem']}")
    else:
        size = store["vector_bytes"] / MIB
        print(f"store       {store['entries']} entries, {size:.1f} MiB of vectors")
        for one in store["collections"]:
            present = "  (the present one)" if one["name"] == stats["collection"] else ""
            print(f"  {one['name']}: {one['entries']} entries{present}")
    return 0


def _purge(options: argparse.Namespace) -> int:
    body: dict[str, object] = {"all": True}
    if options.namespace is not None:
        body = {"namespace": options.namespace}
    elif options.text is not None:
        body = {"inputs": [options.text]} | client.fields(options.set)
    purged, _ = client.call(options.url.rstrip("/") + "/admin/purge", body, _key(options))
    if "texts" in purged:
        print(f"purged: {_count(purged['texts'], 'text')}")
    elif "collections" in purged:
        print(f"purged: {_count(len(purged['collections']), 'collection')}")
    else:
        print("purged: the workers' memory; there is no store")
    if purged["workers_late"]:
        late = _count(purged["workers_late"], "worker")
        raise client.CallError(f"{late} did not confirm it and may still hold it: purge again")
    return 0


def _key(options: argparse.Namespace) -> str:
    return str(options.key or client.admin_key())


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1%}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
