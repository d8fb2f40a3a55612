"""The bed's own network: a bridge, and a way out through this machine's address."""

from pathlib import Path

import paths
from command import Failure, run

BRIDGE = "erbed0"
TABLE = "embedrack_bed"
PREFIX = "10.97.43"
GATEWAY = f"{PREFIX}.1"
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def up() -> None:
    """Make bridge and rules; what was there already stays."""
    former = paths.STATE / "ip_forward"
    if not former.exists():
        former.write_text(FORWARD.read_text())
    FORWARD.write_text("1\n")
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
    try:
        run("nft", "list", "table", "ip", TABLE)
    except Failure:
        out = f'ip saddr {PREFIX}.0/24 oifname != "{BRIDGE}" masquerade'
        run("nft", "add", "table", "ip", TABLE)
        run("nft", f"add chain ip {TABLE} out {{ type nat hook postrouting priority 100 ; }}")
        run("nft", f"add rule ip {TABLE} out {out}")


def down() -> None:
    """Remove all of it and put forwarding back as it was."""
    for command in (["nft", "delete", "table", "ip", TABLE], ["ip", "link", "delete", BRIDGE]):
        try:
            run(*command)
        except Failure as failure:
            if not any(word in str(failure) for word in ("No such file", "Cannot find")):
                raise
    former = paths.STATE / "ip_forward"
    if former.exists():
        FORWARD.write_text(former.read_text())
        former.unlink()
