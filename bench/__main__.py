"""The benchmark: ``python -m bench [PART …]`` measures, prints, and writes ``bench/results/``.

1024-d vectors, one worker, 16 connections, stand-ins that are not the bottleneck. Every ratio is of
two things measured in turn in this one run. Exits with 1 where a figure is not what it has to be.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

from bench import servers
from bench.figure import Figure

PARTS = ("hits", "cpu", "misses", "delay", "latency", "memory", "store")
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure the parts asked for, or all."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if not Path("/proc/self/stat").exists():
        raise SystemExit("bench: CPU times are read from /proc, which this system lacks")
    try:
        servers.need("nginx", "wrk")
    except servers.Missing as missing:
        raise SystemExit(f"bench: {missing}") from None
    began = time.monotonic()
    found: list[Figure] = []
    for part in options.parts or PARTS:
        for figure in importlib.import_module(f"bench.figures.{part}").measure():
            found.append(figure)
            print(line(figure), flush=True)
    print(f"{time.monotonic() - began:.0f} s in all, {machine()}")
    if not options.parts:
        write(found)
    return 0 if all(figure.met for figure in found) else 1


def line(figure: Figure) -> str:
    """Return the figure as a line of the table on the terminal."""
    mark = "ok    " if figure.met else "MISSED"
    return f"{mark} {figure.name:66} {figure.shown:>9} {figure.target:>9}   {figure.made_of}"


def machine() -> str:
    """Say what was measured on, without naming the machine."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def write(figures: list[Figure]) -> None:
    """Write the table, the same for programs, and the plot."""
    RESULTS.mkdir(exist_ok=True)
    rows = [
        f"| {f.name} | {f.shown} | {f.target} | {'yes' if f.met else 'no'} | {f.made_of} |"
        for f in figures
    ]
    head = ["| figure | measured | wanted | met | made of |", "|---|---|---|---|---|"]
    setting = f"`make bench`: {machine()}.\n"
    (RESULTS / "table.md").write_text("\n".join([setting, *head, *rows]) + "\n")
    entries = [
        {"name": f.name, "value": f.value, "unit": f.unit, "limit": f.limit, "met": f.met}
        for f in figures
    ]
    (RESULTS / "figures.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    plot(figures)


def plot(figures: list[Figure]) -> None:
    """Draw how far each figure is from its limit; 1 is just met, more is better."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = [f"{f.name}\n{f.shown} ({f.target})" for f in figures]
    margins = [f.limit / f.value if f.at_most else f.value / f.limit for f in figures]
    drawn, axes = pyplot.subplots(figsize=(10, 0.55 * len(figures) + 1.2))
    colours = ["#2f7d4f" if f.met else "#b3402e" for f in figures]
    axes.barh(names[::-1], margins[::-1], color=colours[::-1], height=0.6)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times as good as it has to be")
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.tight_layout()
    drawn.savefig(RESULTS / "figures.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    sys.exit(main())
