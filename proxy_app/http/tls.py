"""TLS at the endpoint: the certificate that clients are shown."""

from __future__ import annotations

import ssl

from proxy_app.settings import Settings, SettingsError


def check(settings: Settings) -> None:
    """Raise SettingsError where certificate and key cannot be used together."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if not certificate and not key:
        return
    if not certificate or not key:
        raise SettingsError("EMBEDRACK_TLS_CERTIFICATE and EMBEDRACK_TLS_KEY: set both or none")
    for name, path in (("CERTIFICATE", certificate), ("KEY", key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise SettingsError(f"EMBEDRACK_TLS_{name}={path}: {error.strerror}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"EMBEDRACK_TLS_CERTIFICATE={certificate}, EMBEDRACK_TLS_KEY={key}: not a certificate "
            f"chain and its unencrypted key, both PEM: {error}"
        ) from None
