"""What the cache takes: ``python -m bench.cache_size [DIMENSION …]`` prints a table in Markdown.

For each dimension a proxy of one worker, in front of a TEI whose vectors are normalised random
numbers as TEI prints them, is sent texts that it does not know, while the store of ``make run``
keeps them. Counted are the worker's resident memory, between COUNT entries and twice as many, and
the store's files less its write-ahead log. A million's worth is extrapolated from that. Then each
entry is looked up once in the store by a second proxy without L1, and the store's resident memory
is reported as it is.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench import load, servers
from bench.__main__ import machine
from tests.stand_ins.process import first_line, started

DIMENSIONS = (384, 768, 1024, 1536)
COUNT = 25_000
#: Texts of a request, of those that fill and of those that look up.
FILL, LOOK_UP = 250, 50
MILLION, GB = 1_000_000, 1e9
HEAD = (
    "dimension",
    "a vector's JSON",
    "an entry in L1",
    "a million in L1",
    "a million on disk",
    "the store's own memory",
    "and pages of its files",
)


@dataclass(frozen=True)
class Sizes:
    """Bytes at one moment: the worker's memory, the store's files, and its own memory.

    ``private`` is what the store's process alone has; ``mapped`` are pages of its files, which the
    system takes back when it needs them.
    """

    worker: int
    disk: int
    private: int
    mapped: int


def main() -> None:
    """Measure the dimensions asked for, or the usual ones."""
    parser = argparse.ArgumentParser(prog="bench.cache_size", description=__doc__)
    parser.add_argument("dimensions", nargs="*", type=int, metavar="DIMENSION")
    options = parser.parse_args()
    print(f"{2 * COUNT} entries, {machine()}; a million's worth is extrapolated\n")
    print(f"| {' | '.join(HEAD)} |")
    print("|" + "---|" * len(HEAD))
    for dimension in options.dimensions or DIMENSIONS:
        print(measure(dimension), flush=True)


def measure(dimension: int) -> str:
    """Return a dimension's line of the table."""
    with (
        tempfile.TemporaryDirectory(prefix="embedrack-bench-") as folder,
        started("bench.instance", "--dimension", str(dimension), "--vectors", "500") as instance,
        started("local_stack.qdrant", "--data-dir", folder, "--port", "0") as store,
    ):
        upstream = first_line(instance)
        qdrant = str(orjson.loads(first_line(store))["url"])
        with servers.proxy(upstream, qdrant, memory=4096, write_queue=1024) as proxy:
            empty = sizes(proxy, store.pid, Path(folder))
            fill(proxy, qdrant, "first", COUNT)
            before = sizes(proxy, store.pid, Path(folder))
            fill(proxy, qdrant, "second", 2 * COUNT)
            after = sizes(proxy, store.pid, Path(folder))
            json = len(servers.fetch(proxy.url + "/embed", {"inputs": "first 0 0"})[1]) - 2
        with servers.proxy(upstream, qdrant, memory=0) as proxy:
            for word in ("first", "second"):
                known = [
                    orjson.dumps({"inputs": batch[at : at + LOOK_UP]})
                    for batch in texts(word)
                    for at in range(0, FILL, LOOK_UP)
                ]
                load.send(proxy.url + "/embed", known, 4, "hit")
            read = sizes(proxy, store.pid, Path(folder))
    each = (after.worker - before.worker) / COUNT
    cells = [
        str(dimension),
        f"{json / 1000:.1f} kB",
        f"{each / 1000:.2f} kB",
        f"{each * MILLION / GB:.1f} GB",
        f"{(after.disk - empty.disk) / (2 * COUNT) * MILLION / GB:.2f} GB",
        f"{read.private / 1e6:.0f} MB ({empty.private / 1e6:.0f} empty)",
        f"{read.mapped / 1e6:.0f} MB ({empty.mapped / 1e6:.0f} empty)",
    ]
    return f"| {' | '.join(cells)} |"


def texts(word: str) -> list[list[str]]:
    """Return COUNT texts in batches of FILL."""
    return [[f"{word} {batch} {i}" for i in range(FILL)] for batch in range(COUNT // FILL)]


def fill(proxy: servers.Proxy, qdrant: str, word: str, count: int) -> None:
    """Have COUNT new texts embedded, and wait until the store holds ``count`` entries, at rest."""
    load.send(proxy.url + "/embed", load.bodies(word, COUNT // FILL, FILL), 2, "miss")
    [name] = [
        entry["name"]
        for entry in orjson.loads(servers.fetch(qdrant + "/collections")[1])["result"][
            "collections"
        ]
    ]
    servers.until(
        f"{qdrant}/collections/{name}",
        lambda reply: reply["result"]["points_count"] == count,
        f"the store ({count} entries)",
    )
    time.sleep(8)  # it flushes every five seconds, and puts its segments in order when it is quiet


def sizes(proxy: servers.Proxy, store: int, folder: Path) -> Sizes:
    """Look at both processes and the files, less those of the store's write-ahead log."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "wal"]
    files = [path.stat() for path in paths]
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{store}/status").read_text().splitlines()
    )
    private, mapped = (int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return Sizes(proxy.resident(), sum(file.st_blocks for file in files) * 512, private, mapped)


if __name__ == "__main__":
    main()
