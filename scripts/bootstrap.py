"""Makes environments from locks: `python3 scripts/bootstrap.py LOCK...`.

LOCK is run or test (`.venv`), or clients, peers or example, which have one of their own each.
Several are made side by side. Without a lock's name it only checks the Python. This file stays
readable by any old Python, so that it can say which one is needed; the work is in
`environment.py` beside it.
"""

import platform
import sys

if sys.version_info < (3, 10):  # noqa: UP036 - the whole point: it may be run by an older one
    sys.exit(
        "Python 3.10 or newer is needed, this is "
        + platform.python_version()
        + " ("
        + sys.executable
        + "): install a newer one and name it, as in `make run PYTHON=python3.12`."
    )

import environment

if __name__ == "__main__":
    sys.exit(environment.main(sys.argv[1:]))
