"""Nothing of ours is left, by a look at the host before and after."""

from scenario import Host, check

LOOK = (
    "find /etc /opt /usr/local /var/lib/embedrack /usr/lib/systemd -xdev "
    "-not -path '/etc/ssl/certs/*' -not -path '/etc/cni*' | sort; "
    "getent passwd | cut -d: -f1; "
    "dpkg-query -W -f '${Package} ${db:Status-Status}\\n' | grep ' installed'; "
    "systemctl list-unit-files --no-legend --plain | awk '{print $1}'; ss -ltnH | awk '{print $4}'"
)
#: What apt and systemd keep for themselves, on any host.
KEPT = ("/etc/ld.so.cache", "/etc/mailcap", "/etc/.pwd.lock", "/etc/passwd-", "/etc/group-")


def run(host: Host) -> None:
    """Take everything away, deploy to the bare host, and take it away again."""
    check(
        host.play("playbooks/remove.yml", remove_data=True).status == 0, "the first removal fails"
    )
    before = host.sh(LOOK, check_status=False).splitlines()
    host.deploy()
    play = host.play("playbooks/remove.yml")
    check(play.status == 0, f"remove fails:\n{play.output[-2500:]}")
    check("storage" in host.sh("ls /var/lib/embedrack/qdrant"), "the cache is gone unasked")
    play = host.play("playbooks/remove.yml", remove_data=True)
    check(play.status == 0, f"a second removal fails:\n{play.output[-2500:]}")
    after = host.sh(LOOK, check_status=False).splitlines()
    left = [line for line in after if line not in set(before) and not line.startswith(KEPT)]
    gone = [line for line in before if line not in set(after) and not line.startswith(KEPT)]
    host.say(f"left behind: {left or 'nothing'}; missing: {gone or 'nothing'}")
    check(not left and not gone, f"left behind: {left[:20]}; missing: {gone[:20]}")
