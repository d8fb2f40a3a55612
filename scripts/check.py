"""The checks of `make test`, each with its time: `.venv/bin/python scripts/check.py`."""

import subprocess
import sys
import time

CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "roles": ["ansiblelint", "--profile", "production", "--offline"],
    "tests": ["pytest"],
}


def main() -> int:
    """Run every check, also after one that failed; 1 if any did."""
    failed = []
    for name, command in CHECKS.items():
        print(f"== {name}: {' '.join(command)}", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, "-m", *command], check=False).returncode
        verdict = f"failed (exit code {code})" if code else "ok"
        print(f"== {name}: {verdict}, {time.monotonic() - began:.1f} s", flush=True)
        if code:
            failed.append(name)
    print(f"== failed: {', '.join(failed)}" if failed else "== all checks passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
