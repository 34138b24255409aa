"""TLS by the BCP 195 profiles: PS3.15 §B.12 (RFC 8996, RFC 9325) and §B.13; §B.9 to §B.11 are retired."""

import asyncio
import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pacslite.errors import PacsliteError

__all__ = ["Certificates", "TlsError", "TlsOptions"]

log = logging.getLogger("pacslite.tls")

# RFC 9325 §4.2: forward secrecy and authenticated encryption only. TLS 1.3 brings its own suites
_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
)
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_EXPIRY_WARNING_SECONDS = 30 * 86_400


class TlsError(PacsliteError):
    """Certificate, key or authorities cannot be used; the text names the file."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Files in PEM; ``key`` None: it is in the certificate's file. ``ca`` None: the system's authorities."""

    certificate: Path | None = None
    key: Path | None = None
    key_password: str = ""
    ca: Path | None = None
    client_certificate: Literal["none", "optional", "required"] = "required"
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    check_names: bool = True  # of those we connect to


class Certificates:
    """The contexts of our listeners and of our outbound associations, and the files behind them.

    A certificate loaded into a context in use is served from the next handshake on: no listener is opened anew.

    Raises:
        TlsError: A file is missing or is not what it should be.
    """

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self.server = self._context(ssl.PROTOCOL_TLS_SERVER)
        self.client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        self.server.verify_mode = _VERIFY[options.client_certificate]
        self.client.check_hostname = options.check_names
        self._seen = self._modified()
        self.reload()

    def reload(self) -> None:
        """Read certificate and key again."""
        options = self._options
        if options.certificate is None:
            return
        try:
            for context in (self.server, self.client):
                context.load_cert_chain(options.certificate, options.key, options.key_password or None)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"{options.certificate}: {_reason(error)}") from error
        self._warn_of_expiry(options.certificate)

    def reload_if_changed(self) -> None:
        """Read the files again if one is newer than when they were read; a bad one is logged, the old stays in use."""
        modified = self._modified()
        if modified == self._seen:
            return
        self._seen = modified
        try:
            self.reload()
        except TlsError as error:
            log.error("certificate not reloaded", extra={"why": str(error)})
        else:
            log.info("certificate reloaded", extra={"file": str(self._options.certificate)})

    async def watch(self, seconds: float = 60.0) -> None:
        """Call ``reload_if_changed`` every ``seconds`` until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.reload_if_changed)

    # private

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = (
            ssl.TLSVersion.TLSv1_3 if self._options.minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
        )
        context.set_ciphers(_SUITES)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        ca = self._options.ca
        try:
            if ca is not None:
                context.load_verify_locations(ca)
            else:
                context.load_default_certs()
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"{ca}: {_reason(error)}") from error
        return context

    def _modified(self) -> tuple[int, ...]:
        files = (self._options.certificate, self._options.key)
        return tuple(file.stat().st_mtime_ns for file in files if file is not None and file.exists())

    def _warn_of_expiry(self, certificate: Path) -> None:
        from cryptography import x509

        not_after = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(certificate.read_bytes()))
        if not_after.timestamp() < time.time() + _EXPIRY_WARNING_SECONDS:
            log.warning("certificate expires", extra={"file": str(certificate), "not_after": not_after.isoformat()})


def _reason(error: OSError | ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return error.strerror or str(error)
