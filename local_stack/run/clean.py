"""`make clean`: drops the cache that `make run` keeps."""

import os
import sys

from local_stack.run.failure import Failure
from local_stack.run.folder import Folder
from local_stack.run.settings import Settings


def main() -> int:
    """Drop the cache and say where it was."""
    try:
        folder = Folder(Settings.read({"DATA_DIR": os.environ.get("DATA_DIR", "")}).data_dir)
        dropped = folder.clean()
    except Failure as failure:
        print(f"failed: {failure}", file=sys.stderr)
        return 1
    print(f"dropped the cache in {folder.path}" if dropped else f"no cache in {folder.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
