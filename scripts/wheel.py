"""Builds the proxy's wheel on the controller: prints {"release", "wheel"} as JSON.

The release is named by version and by what goes into it, so that an unchanged checkout builds and
deploys nothing.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("pyproject.toml", "locks/proxy.txt", "README.md", "LICENSE")


def main(artifacts: str) -> int:
    """Build into `build/wheels/RELEASE`, or take the one wheel that `artifacts` holds."""
    if artifacts:
        wheels = sorted(Path(artifacts).glob("embedrack-*.whl"))
        if len(wheels) != 1:
            sys.exit(
                f"common_artifacts_dir: {artifacts} holds {len(wheels)} embedrack wheels, not one"
            )
        print(json.dumps(described(wheels[0], digest([wheels[0]]))))
        return 0
    files = [*(ROOT / "proxy_app").rglob("*.py"), *(ROOT / "proxy_app").rglob("*.html")]
    sources = sorted(files) + [ROOT / part for part in PARTS]
    mark = digest(sources)
    folder = ROOT / "build" / "wheels" / mark
    if not list(folder.glob("embedrack-*.whl")):
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
        done = subprocess.run(
            [*command, str(folder), str(ROOT)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"the proxy's wheel could not be built:\n{done.stderr[-2000:]}")
    print(json.dumps(described(next(folder.glob("embedrack-*.whl")), mark)))
    return 0


def digest(paths: list[Path]) -> str:
    """Return the first 12 digits of a hash over names and contents."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def described(wheel: Path, mark: str) -> dict[str, str]:
    """Describe a wheel for the role."""
    version = wheel.name.split("-")[1]
    return {"release": f"{version}-{mark}", "wheel": str(wheel)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
