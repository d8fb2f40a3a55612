"""The stack with a part that misbehaves: `python -m tests.run.parts EMBEDDER dies`.

Without arguments that it knows it is that part, and behaves as the variable PART says.
"""

import os
import signal
import sys
import time
from pathlib import Path

from local_stack import __main__ as program
from local_stack.run import stack


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] in ("EMBEDDER", "STORE", "PROXY"):
        setattr(stack, sys.argv[1], "tests.run.parts")
        os.environ["PART"] = sys.argv[2]
        del sys.argv[1:]
        return program.main()
    return behave(os.environ["PART"])


def behave(how: str) -> int:
    if how == "dies":
        print("the model file is missing", file=sys.stderr)
        return 3
    if how == "babbles":
        print("hello", flush=True)
    if how.startswith("/"):
        # Will not go, and says so by this file.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(how).touch()
    time.sleep(120)
    return 0


if __name__ == "__main__":
    sys.exit(main())
