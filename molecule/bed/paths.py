"""Where the bed keeps what it makes: outside the checkout, BED_DIR names another folder."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
STAND_INS = Path(__file__).resolve().parent / "stand_ins"
STATE = Path(os.environ.get("BED_DIR", "/var/lib/embedrack-bed"))
ARTIFACTS = STATE / "artifacts"
KEY = STATE / "key"


def base(system: str) -> Path:
    """Return the folder of a system's base image."""
    return STATE / "base" / system


def host(name: str) -> Path:
    """Return the folder of a host: its overlay, console and process id."""
    return STATE / "hosts" / name
