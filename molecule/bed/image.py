"""A base image for each system: a plain Debian server, made once by debootstrap."""

import re
import shutil
from pathlib import Path

import paths
from command import Failure, run, say

SYSTEMS = ("bookworm", "trixie")
INCLUDED = (
    *("systemd", "systemd-sysv", "dbus", "python3", "openssh-server", "ca-certificates"),
    *("procps", "iproute2", "curl", "sudo"),
)
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
SOURCES = """\
Types: deb
URIs: {mirror}
Suites: {system} {system}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {security}
Suites: {system}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def mirrors() -> tuple[str, str]:
    """Return this machine's own mirrors of Debian: packages, security updates."""
    shown = "$(ORIGIN)|$(RELEASE)|$(REPO_URI)"
    targets = run("apt-get", "indextargets", "--format", shown, "Created-By: Packages")
    found: dict[bool, str] = {}
    for line in targets.splitlines():
        origin, release, uri = line.split("|")
        if origin == "Debian":
            found[release.endswith("-security")] = uri
    if len(found) != 2:
        raise Failure("no mirror of Debian in apt's sources; `apt-get update` comes first")
    return found[False], found[True]


def ensure(system: str) -> Path:
    """Return the system's base image, made now if it is not there."""
    root = paths.base(system)
    if (root / ".ready").exists():
        return root
    say(f"making the base image of {system} (two minutes)")
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    mirror, security = mirrors()
    included = f"--include={','.join(INCLUDED)}"
    run("debootstrap", "--variant=minbase", included, system, root, mirror)
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(
        SOURCES.format(system=system, mirror=mirror, security=security)
    )
    shutil.copytree("/etc/apt/apt.conf.d", root / "etc/apt/apt.conf.d", dirs_exist_ok=True)
    for name in ("docker-clean", "docker-gzip-indexes", "docker-no-languages"):
        (root / "etc/apt/apt.conf.d" / name).unlink(missing_ok=True)
    trust(root)
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {BUNDLE}\n")
    run("systemctl", f"--root={root}", "enable", "systemd-networkd", "ssh")
    # Not in a container: the kernel's modules are its host's.
    run("systemctl", f"--root={root}", "mask", "systemd-modules-load", "systemd-timesyncd")
    run("systemctl", f"--root={root}", "mask", "apt-daily.timer", "apt-daily-upgrade.timer")
    (root / ".ready").touch()
    return root


def trust(root: Path) -> None:
    """Have the image trust what this machine trusts beyond Debian's own authorities."""
    bundle = root / BUNDLE.relative_to("/")
    own = {text.replace("\n", "") for text in CERTIFICATE.findall(bundle.read_text())}
    place = root / "usr/local/share/ca-certificates"
    for number, text in enumerate(CERTIFICATE.findall(BUNDLE.read_text())):
        if text.replace("\n", "") not in own:
            (place / f"bed-{number}.crt").write_text(text + "\n")
    run("chroot", root, "update-ca-certificates")
