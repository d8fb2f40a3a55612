"""``python -m proxy_app`` is the command ``embedrack``."""

import sys

from proxy_app.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
