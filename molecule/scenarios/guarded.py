"""With API keys and TLS: who may ask; a purge; the collector under its hardening."""

import hashlib
import json
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from scenario import CACHE_ENTRIES, Host, check

KEY = "a key of somebody's"


def run(host: Host) -> None:
    """Ask with and without a key over TLS, then empty the cache in each way."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = certify(Path(folder), host.address)
        keys = [{"name": "somebody", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
        tls = {"proxy_tls_certificate": str(certificate), "proxy_tls_key": str(key)}
        play = host.deploy(tei_gpus=2, proxy_api_keys=keys, **tls)
        host.say(f"site.yml with keys and TLS: {play.seconds:.0f} s, verified")
        trusted = ssl.create_default_context(cafile=str(certificate))
        statuses = {
            "the key": ask(host, trusted, KEY),
            "another key": ask(host, trusted, "guessed"),
            "no key": ask(host, trusted, ""),
        }
        host.say(f"POST /embed over TLS: {statuses}")
        check(list(statuses.values()) == [200, 401, 401], f"keys: {statuses}")
        told = host.sh("systemctl start embedrack-gc && journalctl -u embedrack-gc -o cat -n 20")
        host.say("the collector: " + " ".join(told.split())[-200:])
        held = [int(count) for count in host.sh(CACHE_ENTRIES).split()]
        check(sum(held) > 0, f"nothing is stored: {held}")
        purge = host.play("playbooks/purge.yml")
        check(purge.status == 0, f"purge fails:\n{purge.output[-1500:]}")
        left = [int(count) for count in host.sh(CACHE_ENTRIES).split()]
        check(sum(left) == 0, f"after the purge the store has {left} entries")
        host.say(f"purge: {purge.seconds:.0f} s, entries {held} then {left or 'none'}")
        doctor = host.play("playbooks/doctor.yml")
        check(doctor.status == 0, f"doctor fails:\n{doctor.output[-1500:]}")
    host.deploy(tei_gpus=2)


def certify(folder: Path, address: str) -> tuple[Path, Path]:
    """Make a certificate for an address; returns it and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=bed", "-addext", f"subjectAltName=IP:{address}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def ask(host: Host, trusted: ssl.SSLContext, key: str) -> int:
    """Return the status of one request; the certificate is checked."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    body = json.dumps({"inputs": "guarded"}).encode()
    request = urllib.request.Request(f"https://{host.address}:8080/embed", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60, context=trusted) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
