"""Under load: 2 → 3 → 1 → 2 GPUs, and the first GPU removed once, each by an inventory edit."""

from host import Host, check, touched
from scenario import main

STEPS = [
    (3, ["0", "1", "2"]),
    (1, ["0"]),
    (2, ["0", "1"]),
    ([1, 2], ["1", "2"]),
    (2, ["0", "1"]),
]


def run(host: Host) -> None:
    """Rescale by the tag alone, and look after each step at what runs and what was touched."""
    with host.load() as load:
        for gpus, wanted in STEPS:
            before = host.units()
            play = host.deploy("--tags", "tei", tei_gpus=gpus)
            after = host.units()
            running = [unit[4:-8] for unit in sorted(after) if unit.startswith("tei@")]
            check(running == wanted, f"tei_gpus {gpus}: instances {running}, not {wanted}")
            changed = touched(before, after)
            concerned = {f"tei@{name}.service" for name in "012"} - (
                {u for u in before if u.startswith("tei@")} & {f"tei@{n}.service" for n in wanted}
            )
            check(set(changed) <= concerned, f"tei_gpus {gpus}: touched {changed}")
            host.report(
                f"tei_gpus {gpus}: {play.seconds:.0f} s, touched {', '.join(changed) or 'none'}"
            )
            left = host.sh("ls /etc/embedrack/tei").split()
            check(left == [f"{name}.env" for name in wanted], f"settings left behind: {left}")
            upstreams = host.sh("grep -c max_fails /etc/nginx/conf.d/embedrack.conf").strip()
            check(upstreams == str(len(wanted)), f"nginx leads to {upstreams} instances")
    check(load["failed"] == 0, f"requests failed: {load['failures']}")


if __name__ == "__main__":
    main(run)
