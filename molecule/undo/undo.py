"""Under load: what cannot work fails with its reason, and the former state serves on."""

from typing import Any

from host import Host, check
from scenario import main

#: Another image whose program ends at once.
BREAK_IMAGE = """\
c=$(podman create localhost/embedrack/tei-stand-in:1.9) &&
podman commit --quiet --change 'ENTRYPOINT ["/bin/false"]' $c localhost/broken:1 &&
podman rm $c
"""


def run(host: Host) -> None:
    """A configuration nginx refuses, a model that is not there, an image that does not start."""
    before = host.units()
    with host.load() as load:
        fails(host, "nginx did not take the new configuration", nginx_keepalive=-1)
        fails(host, "tei_model_id: there is no model", tei_model_id="nobody/nothing")
        fails(host, "has no revision", tei_revision="v9")
        host.sh(BREAK_IMAGE)
        fails(
            host,
            "Its former settings are back and serve",
            tei_image="localhost/broken:1",
            tei_image_archive="",
        )
    check(load["failed"] == 0, f"requests failed: {load['failures']}")
    after = host.units()
    check(before.keys() == after.keys(), f"units before {sorted(before)}, after {sorted(after)}")
    play = host.deploy()
    host.report(f"site.yml: {play.seconds:.0f} s, {play.changed} changed")
    check(play.changed == 0, f"changed after the failures: {play.changes}")


def fails(host: Host, sentence: str, **variables: Any) -> None:
    """Expect the play to fail with a sentence, and the endpoint to verify as before."""
    play = host.play("site.yml", "--tags", "tei", **variables)
    printed = " ".join(play.output.split())
    check(play.status != 0, f"{variables} was deployed")
    check(sentence in printed, f"{variables}: no {sentence!r} in:\n{play.output[-2500:]}")
    verify = host.play("playbooks/verify.yml")
    check(verify.status == 0, f"{variables}: verify fails:\n{verify.output[-1500:]}")
    host.report(f"{variables}: {play.seconds:.0f} s, {sentence}")


if __name__ == "__main__":
    main(run)
