"""Each stop of preflight: its sentence, and nothing changed on the host."""

from typing import Any

from scenario import Host, check

#: What is set wrongly -> what the sentence must name.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tei_modle_id": "x"}, "tei_modle_id: there is no such variable"),
    ({"tei_gpus": [0, 0]}, "tei_gpus names GPU 0 twice"),
    ({"tei_gpus": [0, 9]}, "tei_gpus names GPU 9, which is not there; present: 0, 1, 2, 3"),
    ({"tei_gpus": 7}, "tei_gpus is 7, but this host has 4 GPUs"),
    ({"tei_gpus": 0}, "tei_gpus is 0: at least one GPU is wanted"),
    ({"tei_gpus": "some"}, "tei_gpus names GPU some"),
    ({"tei_max_batch_tokens": "many"}, "tei_max_batch_tokens"),
    ({"proxy_log_level": "loud"}, "proxy_log_level"),
    ({"tei_device": "tpu"}, "tei_device"),
    ({"proxy_port": 22}, "proxy_port: port 22 is somebody else's"),
    ({"proxy_port": 99999}, "proxy_port is 99999: a port from 1 to 65535"),
    ({"nginx_port": 8080}, "proxy_port and nginx_port are both 8080"),
    ({"preflight_disk_reserve_gb": 1000000}, "make room"),
]


def run(host: Host) -> None:
    """Send each wrong value, then take the GPUs and the free qdrant.service away."""
    state = "find /etc /opt /usr/local -newer /tmp/mark -not -name .ansible_tmp | sort"
    host.sh("touch /tmp/mark; sleep 1")
    for variables, sentence in WRONG:
        stop(host, sentence, **variables)
    host.sh("mv /usr/bin/nvidia-smi /usr/bin/nvidia-smi.away")
    try:
        stop(host, "nvidia-smi shows no GPU here")
    finally:
        host.sh("mv /usr/bin/nvidia-smi.away /usr/bin/nvidia-smi")
    if not host.sh("ls /etc/systemd/system/qdrant.service", check_status=False).startswith("/"):
        host.sh(
            "printf '[Service]\\nExecStart=/bin/true\\n' > /usr/lib/systemd/system/qdrant.service"
        )
        try:
            stop(host, "qdrant.service is somebody else's")
        finally:
            host.sh("rm /usr/lib/systemd/system/qdrant.service")
    changed = host.sh(state).split()
    check(changed == [], f"changed on the host: {changed}")


def stop(host: Host, sentence: str, **variables: Any) -> None:
    """Expect the play to fail with the sentence and no change."""
    play = host.play("site.yml", **variables)
    said = " ".join(play.output.split())
    check(play.status != 0, f"{variables} was accepted")
    check(sentence in said, f"{variables}: no {sentence!r} in:\n{play.output[-1500:]}")
    check(play.changed == 0, f"{variables}: {play.changed} tasks changed something")
    host.say(f"{variables or 'the host'}: {sentence}")
