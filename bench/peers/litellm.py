"""LiteLLM's proxy as a process: one worker, its cache of embeddings in memory.

Nothing of it leaves the machine: its list of prices is the one in the package, and it tells nobody
that it runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import servers
from tests.stand_ins.process import free_port

PROGRAM = servers.ROOT / ".venv-peers" / "bin" / "litellm"
#: Seconds that it may take to start: it reads much.
START = 90.0
#: Lines of its log that are shown where it does not start.
TAIL = 25

_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_MODE": "PRODUCTION",
    # Without a key it has less to do; it listens on the loopback alone.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "HF_HUB_OFFLINE": "1",
}


def version() -> str:
    """Return the version that is pinned."""
    pinned = re.search(r"^litellm==(\S+)", (servers.ROOT / "locks/peers.txt").read_text(), re.M)
    assert pinned, "locks/peers.txt pins no litellm"
    return pinned[1]


@contextmanager
def proxy(upstream: str, program: Path = PROGRAM) -> Iterator[str]:
    """Run it in front of an endpoint of OpenAI's dialect; gives its URL.

    Ends the benchmark with its log's last lines where it does not start.
    """
    if not program.exists():
        raise SystemExit(
            f"bench: {program} is not here; `python3 scripts/bootstrap.py peers` brings it"
        )
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="embedrack-bench-") as folder:
        # JSON is YAML too.
        configuration = Path(folder, "litellm.yaml")
        configuration.write_text(json.dumps(_configuration(upstream)))
        logging = Path(folder, "logging.json")
        logging.write_text(json.dumps(_LOGGING))
        log = Path(folder, "log")
        command = [str(program), "--config", str(configuration), "--log_config", str(logging)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--telemetry", "False"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | _ENVIRONMENT,
                cwd=folder,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _await(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    over = time.monotonic() + START
    while time.monotonic() < over and process.poll() is None:
        try:
            servers.fetch(url + "/health/liveliness")
            return
        except OSError:
            time.sleep(0.2)  # not up yet
    ended = process.poll()
    how = f"did not answer within {START:.0f} s" if ended is None else f"ended with {ended}"
    lines = log.read_text(errors="replace").splitlines()[-TAIL:]
    raise SystemExit("\n".join([f"bench: LiteLLM {how}; the end of its log:", *lines]))


def _configuration(upstream: str) -> dict[str, object]:
    """Write its settings: one model over the upstream's ``/v1``, embeddings cached in memory."""
    parameters = {
        "model": "hosted_vllm/bench",
        "api_base": f"{upstream}/v1",
        "api_key": "none",
    }
    cache = {"type": "local", "supported_call_types": ["embedding", "aembedding"]}
    return {
        "model_list": [{"model_name": "bench", "litellm_params": parameters}],
        "litellm_settings": {"cache": True, "cache_params": cache},
    }


#: Its errors alone are logged, as our own proxy's are.
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {"uvicorn.access": {"level": "WARNING"}},
}
