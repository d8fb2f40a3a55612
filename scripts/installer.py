"""pip at work on one lock: progress while it runs, one sentence when it fails."""

import re
import subprocess
import sys
import time
from pathlib import Path

UNITS = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}
DOWNLOAD = re.compile(r"^\s*Downloading \S+ \(([\d.]+) (bytes|kB|MB|GB)\)")

# The locks whose packages every start imports, whoever starts it: compiled when installed. Most
# modules of the others are never imported, and Python compiles one when it first is.
ALL_IMPORTED = ("run", "example")

# The first that is found in what pip said is the reason; the texts have long been pip's own.
REASONS = (
    (
        ("No space left on device", "Disk quota exceeded"),
        "the disk is full: make room (about 300 MB) and call again",
    ),
    (
        ("THESE PACKAGES DO NOT MATCH THE HASHES",),
        "a fetched package is not the one in the lock, so nothing was installed: "
        "the package index or a proxy on the way altered it; call again, or ask who runs it",
    ),
    (
        (
            "WARNING: Retrying",
            "Temporary failure in name resolution",
            "Name or service not known",
            "nodename nor servname",
            "Connection refused",
            "Network is unreachable",
            "NewConnectionError",
            "ConnectTimeout",
            "Read timed out",
            "ReadTimeoutError",
            "ProxyError",
            "SSLError",
            "CERTIFICATE_VERIFY_FAILED",
        ),
        "the package index cannot be reached: check the network, or set PIP_INDEX_URL, "
        "HTTPS_PROXY or PIP_CERT for yours, and call again",
    ),
    (
        ("No matching distribution found",),
        "the package index has no ready-made package for this system and Python: "
        "Python 3.10 to 3.13 on Linux (x86-64, arm64) or macOS is needed; name one with PYTHON=",
    ),
)


class Installer:
    """One run of pip, from the packages and hashes of a lock and nothing else."""

    def __init__(self, python: Path, lock: Path) -> None:
        """Prepare to install this lock with this Python's pip."""
        self._command = [
            *(str(python), "-m", "pip", "install", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--no-input", "--disable-pip-version-check"),
            *("--progress-bar", "off", "--no-color", "-r", str(lock)),
        ]
        if lock.stem not in ALL_IMPORTED:
            self._command.append("--no-compile")
        self._name = python.parent.parent.name
        self._packages = 0
        self._megabytes = 0.0
        self._began = time.monotonic()
        self._shown = self._began

    def run(self) -> str:
        """Install; the reason in one sentence if that failed, else an empty text."""
        lines: list[str] = []
        with subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as pip:
            assert pip.stdout is not None
            for line in pip.stdout:
                lines.append(line.rstrip())
                self._count(line)
                self._show()
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)
        return reason(lines) if pip.returncode else ""

    def summary(self) -> str:
        """What was installed and fetched."""
        plural = "" if self._packages == 1 else "s"
        return f"{self._packages} package{plural}, {self._megabytes:.1f} MB fetched"

    def _count(self, line: str) -> None:
        # The second is a package that lies in a folder.
        if line.startswith(("Collecting ", "Processing ")):
            self._packages += 1
        found = DOWNLOAD.match(line)
        if found and ".metadata" not in line:
            self._megabytes += float(found[1]) * UNITS[found[2]]

    def _show(self) -> None:
        """Tell that it goes on: a line that moves on a terminal, else one in five seconds."""
        now = time.monotonic()
        terminal = sys.stdout.isatty()
        if now - self._shown < (0.1 if terminal else 5):
            return
        self._shown = now
        text = f"{self._name}: {self.summary()}, {now - self._began:.0f} s"
        print(f"\r{text}\033[K" if terminal else text, end="" if terminal else "\n", flush=True)


def reason(lines: list[str]) -> str:
    """Why pip failed, from what it said."""
    output = "\n".join(lines)
    for signs, sentence in REASONS:
        if any(sign in output for sign in signs):
            return sentence
    errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no output"]
    return f"pip failed: {errors[-1]}"
