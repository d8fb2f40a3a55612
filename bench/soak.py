"""Memory over time: ``python -m bench.soak --minutes 10`` writes ``bench/results/soak.*``.

A mixed load over a proxy of two workers with little L1: Zipf-drawn texts, one to 64 in a request
and now and then a thousand, hits and misses, OpenAI's base64 beside, and clients that go away
before their reply comes. Ends with 1 where a worker's memory still grows once its caches are full.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import servers
from proxy_app.commands.load_test.mix import Mix, generated
from proxy_app.commands.load_test.plan import Plan
from proxy_app.commands.load_test.run import Run
from proxy_app.commands.load_test.tally import Tally
from tests.stand_ins.process import first_line, started

RESULTS = Path(__file__).parent / "results"
MIB = 2**20
#: MiB of L1, both workers: a few thousand vectors, so that it is full within a minute.
MEMORY = 64
#: MiB that a worker may have grown from the second quarter of the run to the last.
ALLOWED = 8.0
#: Seconds of a batch, and what clients that go away wait for their reply.
_BATCH, _PATIENCE = 0.03, 0.02
_SAMPLES = 5.0


@dataclass(frozen=True)
class Sample:
    """Resident MiB of each worker, and what the proxy accounts for, at a time in seconds."""

    at: float
    workers: list[float]
    l1: float
    entries: int
    write_queue: float


def main() -> int:
    """Soak, print, and write the results."""
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--rate", type=float, default=20, help="requests a second, of the main load"
    )
    options = parser.parse_args()
    with (
        servers.instances(1, _BATCH) as [upstream],
        started("tests.stand_ins.qdrant") as store,
        servers.proxy(upstream, first_line(store), workers=2, memory=MEMORY) as proxy,
    ):
        loads = Loads(proxy.url, options.minutes * 60, options.rate)
        samples = asyncio.run(watched(proxy, loads))
    grown = growth(samples)
    summary = verdict(samples, grown, loads)
    print(summary)
    write(samples, summary)
    return 1 if max(grown) > ALLOWED or loads.failed else 0


class Loads:
    """The three loads: of most clients, of OpenAI's, and of those that go away."""

    def __init__(self, url: str, seconds: float, rate: float) -> None:
        texts = generated(20_000, 12, 0)
        # Of twenty requests: twelve single texts, seven batches, a large one.
        sizes = (*[range(1, 2)] * 12, *[range(2, 65)] * 7, range(1000, 1025))
        main = Mix(texts, sizes=sizes, new=0.02, seed=1)
        openai = Mix(
            texts,
            sizes=(range(1, 2), range(2, 33)),
            fields={"encoding_format": "base64"},
            openai=True,
            seed=2,
        )
        away = Mix(texts, sizes=(range(1, 65),), new=1.0, seed=3)
        self.seconds = seconds
        self.main, self.openai, self.away = Tally(), Tally(), Tally()
        plan = Plan(url + "/embed", seconds=seconds, rate=rate, concurrency=200)
        beside = Plan(url + "/v1/embeddings", seconds=seconds, rate=rate / 4, concurrency=200)
        impatient = Plan(
            url + "/embed", seconds=seconds, rate=rate / 4, concurrency=200, timeout=_PATIENCE
        )
        self._runs = [
            Run(plan, main.bodies(), self.main.add),
            Run(beside, openai.bodies(), self.openai.add),
            Run(impatient, away.bodies(), self.away.add),
        ]

    async def go(self) -> None:
        """Send all of them."""
        await asyncio.gather(*(run.go() for run in self._runs))

    @property
    def failed(self) -> int:
        """Failures of those that stay for their reply."""
        return self.main.failed + self.openai.failed


async def watched(proxy: servers.Proxy, loads: Loads) -> list[Sample]:
    """Run the loads; returns a sample every few seconds, and prints one each half a minute."""
    samples: list[Sample] = []
    began = shown = time.monotonic()
    running = asyncio.create_task(loads.go())
    while not running.done():
        text = (await asyncio.to_thread(servers.fetch, proxy.url + "/metrics"))[1].decode()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        gauges = {name: float(value) for name, value in lines}
        sample = Sample(
            round(time.monotonic() - began, 1),
            [round(servers.resident(pid) / MIB, 1) for pid in proxy.workers()],
            round(gauges["embedrack_bytes"] / MIB, 1),
            int(gauges["embedrack_entries"]),
            round(gauges["embedrack_write_queue_bytes"] / MIB, 1),
        )
        samples.append(sample)
        if time.monotonic() >= shown:
            shown += 30
            print(line_of(sample), loads.main.requests, "requests", flush=True)
        await asyncio.wait([running], timeout=_SAMPLES)
    await running
    return samples


def line_of(sample: Sample) -> str:
    """Say a sample in a line."""
    workers = ", ".join(f"{resident:.1f}" for resident in sample.workers)
    return (
        f"{sample.at:5.0f} s: workers {workers} MiB, "
        f"L1 {sample.l1:.1f} MiB in {sample.entries} entries,"
    )


def growth(samples: list[Sample]) -> list[float]:
    """Return what each worker grew by from the second quarter of the run to the last, in MiB."""
    quarter = max(1, len(samples) // 4)
    earlier, later = samples[quarter : 2 * quarter], samples[-quarter:]
    workers = range(len(samples[0].workers))
    return [
        statistics.fmean(one.workers[n] for one in later)
        - statistics.fmean(one.workers[n] for one in earlier)
        for n in workers
    ]


def verdict(samples: list[Sample], grown: list[float], loads: Loads) -> str:
    """Sum the run up in Markdown."""
    main, openai, away = loads.main, loads.openai, loads.away
    changes = " and ".join(f"{change:+.1f}" for change in grown)
    word = "stays" if max(grown) <= ALLOWED else f"GROWS by more than {ALLOWED:g} MiB"
    full = next((one.at for one in samples if one.l1 >= 0.97 * MEMORY), None)
    rows = [
        f"| {one.at:.0f} | {' | '.join(f'{mib:.1f}' for mib in one.workers)} | {one.l1:.1f} |"
        for one in every(samples, 30)
    ]
    return "\n".join(
        [
            f"`python -m bench.soak`: {loads.seconds / 60:g} minutes, two workers, "
            f"{MEMORY} MiB of L1, {os.cpu_count()} cores, Python {platform.python_version()}.",
            "",
            f"Memory {word}: from the second quarter of the run to the last the workers changed "
            f"by {changes} MiB (L1 full after {full and round(full)} s).",
            "",
            f"{main.requests} requests of {main.texts} texts ({main.hit_rate or 0:.0%} hits, "
            f"{main.failed} failed), {openai.requests} in OpenAI's dialect ({openai.failed} "
            f"failed), and {away.requests} of clients that wait {_PATIENCE * 1e3:.0f} ms, of which "
            f"{away.failed} were gone before the reply.",
            "",
            "| s | worker 1 (MiB) | worker 2 (MiB) | L1 of both (MiB) |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def every(samples: list[Sample], seconds: float) -> list[Sample]:
    """Take a sample of each so many seconds."""
    taken: list[Sample] = []
    for sample in samples:
        if not taken or sample.at >= taken[-1].at + seconds - _SAMPLES / 2:
            taken.append(sample)
    return taken


def write(samples: list[Sample], summary: str) -> None:
    """Write the table, the samples for programs, and the plot."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    (RESULTS / "soak.md").write_text(summary + "\n")
    (RESULTS / "soak.json").write_text(
        json.dumps([asdict(one) for one in samples], separators=(",", ":")) + "\n"
    )
    drawn, axes = pyplot.subplots(figsize=(9, 4))
    minutes = [one.at / 60 for one in samples]
    for number in range(len(samples[0].workers)):
        axes.plot(minutes, [one.workers[number] for one in samples], label=f"worker {number + 1}")
    axes.plot(minutes, [one.l1 for one in samples], "--", color="grey", label="L1 of both")
    axes.set_xlabel("minutes")
    axes.set_ylabel("resident MiB")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    drawn.tight_layout()
    drawn.savefig(RESULTS / "soak.png", dpi=100)


if __name__ == "__main__":
    sys.exit(main())
