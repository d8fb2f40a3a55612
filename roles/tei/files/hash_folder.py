"""Prints the content hash of a model's folder: sha256 over each file's name, size and bytes."""

import hashlib
import sys
from pathlib import Path


def main(root: str) -> int:
    """Print the first 40 hexadecimal digits; a folder without config.json is refused."""
    if not Path(root, "config.json").is_file():
        print(f"tei_model_path: {root} holds no config.json: it is not a model", file=sys.stderr)
        return 1
    total = hashlib.sha256()
    for path in sorted(path for path in Path(root).rglob("*") if path.is_file()):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        name = str(path.relative_to(root)).encode()
        total.update(len(name).to_bytes(8, "big") + name + content.digest())
    print(total.hexdigest()[:40])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
