"""From an empty host: check mode, converge, converge again, verify from the host itself, reboot."""

import time

from scenario import CACHE_ENTRIES, Host, check


def run(host: Host) -> None:
    """Deploy to a clean host and look at everything that was promised."""
    before = host.sh("ls /etc /opt /var/lib")
    check_run = host.play("site.yml", "--check")
    check(check_run.status == 0, f"check mode failed:\n{check_run.output[-3000:]}")
    check(check_run.changed > 5, "check mode says that a clean host needs nothing")
    check(host.sh("ls /etc /opt /var/lib") == before, "check mode changed the host")
    host.say(
        f"check mode on the clean host: {check_run.seconds:.0f} s, {check_run.changed} to change"
    )
    first = host.deploy()
    host.say(f"first run: {first.seconds:.0f} s, {first.changed} changed")
    second = host.deploy()
    host.say(f"second run: {second.seconds:.0f} s, {second.changed} changed")
    check(second.changed == 0, "the second run changed something")
    checked = host.deploy("--check")
    check(checked.changed == 0, "check mode finds something to change on a deployed host")
    host.say(summary(first.output))
    look(host)
    held = host.sh(CACHE_ENTRIES).strip()
    host.sh("systemctl reboot", check_status=False)
    began = time.monotonic()
    time.sleep(3)
    while "running" not in host.sh("systemctl is-system-running", check_status=False):
        check(time.monotonic() - began < 120, "the host did not come back within two minutes")
        time.sleep(1)
    host.say(f"reboot: running again after {time.monotonic() - began:.0f} s")
    check(host.play("playbooks/verify.yml").status == 0, "verify fails after the reboot")
    after = int(host.sh(CACHE_ENTRIES))
    check(after >= int(held) > 0, f"the cache held {held} entries before the reboot, {after} after")
    look(host)
    for playbook in ("doctor", "status"):
        play = host.play(f"playbooks/{playbook}.yml")
        check(play.status == 0, f"{playbook} fails:\n{play.output[-1500:]}")
    for playbook in ("stop", "start"):
        play = host.play(f"playbooks/{playbook}.yml")
        check(play.status == 0, f"{playbook} fails:\n{play.output[-1500:]}")
        host.say(f"{playbook}: {play.seconds:.0f} s")
    for unit in ("qdrant", "embedrack-proxy", "tei@0"):
        told = host.sh(f"systemd-analyze security --no-pager {unit}.service | tail -1").strip()
        host.say(f"{unit}: {told.lstrip('→ ')}")


def summary(output: str) -> str:
    """Return the summary that site.yml ended with."""
    lines = output.rsplit("PLAY RECAP", 1)[0].rsplit("Summarise", 1)[-1].splitlines()
    return "summary of site.yml:\n" + "\n".join(line for line in lines[1:] if line.strip())


def look(host: Host) -> None:
    """Look from the host itself."""
    units = "tei@0 tei@1 qdrant nginx embedrack-proxy.socket embedrack-proxy embedrack.target "
    units += "embedrack-gc.timer"
    states = host.sh(f"systemctl is-active {units}", check_status=False).split()
    check(set(states) == {"active"}, f"{units}: {states}")
    for gpu in ("0", "1"):
        seen = host.sh(f"podman exec -e STAND_IN_GPU={gpu} tei-{gpu} sh -c 'ls /dev/stand-in-gpu*'")
        check(seen.split() == [f"/dev/stand-in-gpu{gpu}"], f"tei-{gpu} sees {seen}")
        told = host.sh(f"curl -sf 127.0.0.1:810{gpu}/info")
        check("/models/embedrack--all-minilm-l6-v2/" in told, f"tei@{gpu} serves {told}")
    config = host.sh("cat /etc/nginx/conf.d/embedrack.conf")
    generation = host.sh("curl -sf 127.0.0.1:8081/generation").strip()
    check(f'"{generation}\\n"' in config, f"nginx answers with generation {generation}")
    listeners = host.sh("ss -ltnH | awk '{print $4}'").split()
    public = sorted({one for one in listeners if not one.startswith(("127.", "[::1]"))})
    check(public == ["0.0.0.0:22", "0.0.0.0:8080", "[::]:22"], f"listeners: {public}")
