"""The load test: ``python bench/load_test.py URL``, which is ``embedrack load-test URL``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy_app.commands.cli import main

if __name__ == "__main__":
    sys.exit(main(["load-test", *sys.argv[1:]]))
