"""Runs scenarios on a host of the bed and prints what each saw: `run.py [--os SYSTEM] [NAME …]`."""

import argparse
import importlib
import os
import shutil
import sys
import time
import traceback

from scenario import Failed, Host

SCENARIOS = (
    *("bad_input", "one_host", "rescale", "another_model", "faults", "proxy_restart"),
    *("guarded", "undo", "remove"),
)


def main() -> int:
    """Run them one after another on one host; 1 if any failed, 3 if none could run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--os", default="bookworm")
    parser.add_argument("--host", default="", help="default: the system's name")
    parser.add_argument(
        "--keep", action="store_true", help="use the host as it is, and leave it running"
    )
    options = parser.parse_args()
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if os.geteuid() != 0 or not shutil.which("systemd-nspawn"):
        print("NOT RUN: scenarios need root and systemd-nspawn (package systemd-container)")
        return 3
    host = Host(options.host or options.os)
    if not options.keep:
        host.down()  # one that a run which was cut off left: the first scenarios want an empty one
    before = host.traces()
    verdicts = []
    try:
        host.up(options.os)
        for name in options.scenarios or SCENARIOS:
            verdicts.append(run(name, host, options.os))
    finally:
        if not options.keep:
            host.down()
    if not options.keep:
        verdicts.append(compare(options.os, before, host))
    print("\n".join(verdicts))
    return 1 if any("FAILED" in verdict for verdict in verdicts) else 0


def compare(system: str, before: set[str], host: Host) -> str:
    """Return the line of the table about what the bed left on this machine."""
    for _ in range(20):  # connections that were kept end a moment after their host
        left = sorted(before ^ host.traces())
        if not left:
            break
        time.sleep(1)
    return f"== {system} bed: {f'FAILED: left or gone: {left}' if left else 'ok, no trace is left'}"


def run(name: str, host: Host, system: str) -> str:
    """Run one scenario and print what it saw; returns its line of the table."""
    began = time.monotonic()
    host.log.clear()
    try:
        importlib.import_module(f"scenarios.{name}").run(host)
        verdict = "ok"
    except Failed as failure:
        verdict = f"FAILED: {failure}"
        host.say(str(failure))
    except Exception:
        verdict = f"FAILED: {traceback.format_exc()}"
    print(f"== {system} {name}", *(f"   {line}" for line in host.log), sep="\n")
    line = f"== {system} {name}: {verdict}, {time.monotonic() - began:.0f} s"
    print(line, flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
