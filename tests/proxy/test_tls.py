"""TLS at the endpoint, by gunicorn."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy_app.http.tls import check
from proxy_app.settings import Settings, SettingsError
from tests.proxy.conftest import listening
from tests.stand_ins.process import free_port
from tests.stand_ins.tei import StandInTei


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost, signed by itself; gives its file and its key's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    place, key_place = tmp_path / "certificate.pem", tmp_path / "key.pem"
    place.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_place.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return place, key_place


async def test_the_endpoint_speaks_tls(certificate: tuple[Path, Path], tei: StandInTei) -> None:
    port = free_port()
    async with listening(tei.app()) as upstream:
        environment = os.environ | {
            "EMBEDRACK_UPSTREAM_URL": upstream,
            "EMBEDRACK_BIND": "127.0.0.1",
            "EMBEDRACK_PORT": str(port),
            "EMBEDRACK_WORKERS": "1",
            "EMBEDRACK_TLS_CERTIFICATE": str(certificate[0]),
            "EMBEDRACK_TLS_KEY": str(certificate[1]),
        }
        command = (sys.executable, "-m", "proxy_app")
        process = await asyncio.create_subprocess_exec(*command, "serve", env=environment)
        try:
            trusted = ssl.create_default_context(cafile=str(certificate[0]))
            assert await embed(f"https://localhost:{port}", trusted) == 200
            # The commands know by the same settings that and where it listens.
            embedding = await asyncio.create_subprocess_exec(
                *command, "embed", "a", env=environment, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(embedding.communicate(), 60)
            assert output.startswith(b"dimension 8 ")
            loading = await asyncio.create_subprocess_exec(
                *(*command, "load-test", "-r", "5"), env=environment, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(loading.communicate(), 60)
            assert b"100.00%: 5 good" in output
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 40)


async def embed(url: str, trusted: ssl.SSLContext) -> int:
    """Embed a text as soon as somebody listens; gives the status."""
    async with aiohttp.ClientSession() as session:
        for _ in range(300):
            try:
                async with session.post(url + "/embed", json={"inputs": "a"}, ssl=trusted) as reply:
                    return reply.status
            except aiohttp.ClientConnectorCertificateError:
                raise
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)
    raise AssertionError("it does not listen")


def test_what_is_wrong_with_a_certificate_is_said(certificate: tuple[Path, Path]) -> None:
    place, key = (str(path) for path in certificate)
    check(Settings(tls_certificate=place, tls_key=key))
    for given, sentence in (
        ((place, ""), "both or none"),
        ((place, "/nowhere"), "EMBEDRACK_TLS_KEY=/nowhere: No such file"),
        ((key, place), "both PEM"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            check(Settings(tls_certificate=given[0], tls_key=given[1]))
