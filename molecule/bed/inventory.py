"""The inventory of a host of the bed: each stand-in by a variable alone."""

import json
from pathlib import Path

import artifacts
import network
import paths

HUB_PORT = 8090


def write(name: str, address: str) -> Path:
    """Write the inventory folder of a host and return it."""
    folder = paths.STATE / f"inventory-{name}"
    (folder / "group_vars").mkdir(parents=True, exist_ok=True)
    host = {
        "ansible_host": address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(paths.KEY),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        " -o ControlMaster=auto -o ControlPersist=60s",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    groups = {group: {"hosts": {name: host}} for group in ("tei", "qdrant", "proxy")}
    (folder / "hosts.yml").write_text(json.dumps(groups, indent=2) + "\n")
    (folder / "group_vars" / "all.yml").write_text(json.dumps(variables(), indent=2) + "\n")
    return folder


def variables() -> dict[str, object]:
    """Return the variables that put stand-ins where the real parts go."""
    archive = paths.ARTIFACTS / "qdrant-stand-in.tar.gz"
    return {
        # GPUs: the bed's own CDI specification in place of NVIDIA's toolkit.
        "nvidia_toolkit_install": False,
        "tei_gpus": 2,
        # TEI: its protocol on the CPU, in an archive in place of a registry's image.
        "tei_image": artifacts.IMAGE,
        "tei_image_archive": str(paths.ARTIFACTS / "tei-stand-in.tar"),
        "tei_model_id": artifacts.MODEL,
        "tei_hf_endpoint": f"http://{network.GATEWAY}:{HUB_PORT}",
        # Qdrant: its REST calls on its embedded engine, in an archive shaped like its release.
        "qdrant_archive_url": f"file://{archive}",
        "qdrant_archive_checksum": f"sha256:{artifacts.sha256_of(archive)}",
        # What a container may not do inside this sandbox.
        "tei_podman_extra_args": [
            "--cgroups=disabled",
            *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"),
            *("--ulimit", "memlock=65536:65536"),
        ],
        "preflight_disk_reserve_gb": 2,
        "proxy_workers": 2,
    }
