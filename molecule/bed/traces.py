"""What a bed could leave on this machine, to be compared before and after."""

from pathlib import Path

import network
import paths
from command import run


def found() -> list[str]:
    """List links, rules, forwarding, mounts and processes that a bed could have made."""
    links = (line.split(":")[1].split("@")[0] for line in run("ip", "-o", "link").splitlines())
    mounts = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [
        *(f"link{link}" for link in links),
        *(f"rules: {line}" for line in run("nft", "list", "tables").splitlines()),
        f"ip_forward {network.FORWARD.read_text().strip()}",
        *(f"mount {mount}" for mount in mounts if str(paths.STATE) in mount),
        *(f"process {name}" for name in processes()),
    ]


def processes() -> list[str]:
    """Return the command lines of processes that name the bed's folder."""
    lines = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has ended meanwhile
            continue
        if f"{paths.STATE}/" in line:
            lines.append(" ".join(line.split())[:200])
    return sorted(lines)
