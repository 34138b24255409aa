"""TLS by the BCP 195 profiles: PS3.15 §B.12 (RFC 8996, RFC 9325) and §B.13; §B.9 to §B.11 are retired."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pacslite.errors import PacsliteError

__all__ = ["Certificates", "TlsError", "TlsOptions", "certificate_names", "telling_of_failure", "tls_problem"]

log = logging.getLogger("pacslite.tls")

# RFC 9325 §4.2: forward secrecy and authenticated encryption only. TLS 1.3 brings its own suites
_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
)
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_EXPIRY_WARNING_SECONDS = 30 * 86_400
_EXPIRY_CHECK_SECONDS = 86_400

_PROBLEMS = {  # OpenSSL's reasons in words that say what to look at
    "HTTP_REQUEST": "an HTTP request",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer shows no certificate",
    "NO_SHARED_CIPHER": "no common cipher suite",
    "UNSUPPORTED_PROTOCOL": "the peer's TLS version is too old",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "no common signature algorithm, as with a TLS version that is too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the peer refuses our TLS version",
    "TLSV1_ALERT_UNKNOWN_CA": "the peer does not know the authority of our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the peer refuses our certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the peer refuses our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer wants a certificate of us",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer finds nothing in common, a cipher suite or our certificate",
}


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


class _Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


class Certificates:
    """The contexts of our listeners and of our outbound associations, and the files behind them.

    Reading the files again makes new contexts, and what begins then uses them: no listener is opened anew, and files
    that do not go together (a new certificate, its key not yet there) leave the old contexts as they are.

    Raises:
        TlsError: A file is missing or is not what it should be.
    """

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self._seen = _stamps(options)
        self._contexts = _contexts(options)
        self._expiry_checked = float("-inf")
        self._warn_of_expiry()

    @property
    def server(self) -> ssl.SSLContext:
        """For the next handshake of a peer with us."""
        return self._contexts.server

    @property
    def client(self) -> ssl.SSLContext:
        """For our next handshake with a peer."""
        return self._contexts.client

    def reload(self, options: TlsOptions | None = None) -> None:
        """Read everything again, by other ``options`` if they have changed.

        Raises:
            TlsError: As when they were first read; what was read before stays in use.
        """
        options = options or self._options
        seen = _stamps(options)
        self._contexts = _contexts(options)
        self._options, self._seen = options, seen
        self._expiry_checked = float("-inf")
        self._warn_of_expiry()
        log.info("certificate reloaded", extra={"file": str(options.certificate)})

    def reload_if_changed(self) -> None:
        """Read the files again if one is not what it was; a bad one is logged, once, and the old stays in use."""
        seen = _stamps(self._options)
        if seen == self._seen:
            return self._warn_of_expiry()
        try:
            self.reload()
        except TlsError as error:
            self._seen = seen
            log.error("certificate not reloaded", extra={"why": str(error)})
        return None

    async def watch(self, seconds: float = 10.0) -> None:
        """Call ``reload_if_changed`` every ``seconds`` until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.reload_if_changed)

    def _warn_of_expiry(self) -> None:
        """Once a day, from thirty days before."""
        certificate = self._options.certificate
        if certificate is None or time.monotonic() - self._expiry_checked < _EXPIRY_CHECK_SECONDS:
            return
        self._expiry_checked = time.monotonic()
        from cryptography import x509

        try:
            chain = x509.load_pem_x509_certificates(certificate.read_bytes())
            not_after = min(one.not_valid_after_utc for one in chain)
        except (OSError, ValueError) as error:  # what is in use stays in use
            log.warning("certificate's end not known", extra={"file": str(certificate), "why": str(error)})
            return
        left = not_after.timestamp() - time.time()
        if left < _EXPIRY_WARNING_SECONDS:
            event = "certificate has expired" if left < 0 else "certificate expires"
            log.warning(event, extra={"file": str(certificate), "not_after": not_after.isoformat()})


class _Handshake(ssl.SSLObject):
    """Tells the peer why its handshake fails: asyncio and uvloop close with OpenSSL's alert unsent (RFC 8446 §6.2)."""

    output: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            handle = _in_handshake.get()
            if handle is not None:
                with contextlib.suppress(OSError):
                    handle.send(self.output.read())
            raise


class _Context(ssl.SSLContext):
    sslobject_class = _Handshake

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        handshake = super().wrap_bio(incoming, outgoing, *args, **kwargs)
        assert isinstance(handshake, _Handshake)
        handshake.output = outgoing
        return handshake


_in_handshake: ContextVar[socket.socket | None] = ContextVar("in_handshake", default=None)


@contextlib.contextmanager
def telling_of_failure(handle: socket.socket) -> Iterator[None]:
    """What shakes hands in the block, through ``handle`` and a context of ``Certificates``, tells why it fails."""
    token = _in_handshake.set(handle)
    try:
        yield
    finally:
        _in_handshake.reset(token)


def certificate_names(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Names that a verified certificate (as ``SSLSocket.getpeercert`` gives it) is made out to, in lower case.

    Subject Alternative Names of all kinds, and the common name, which medical devices still have alone.
    """
    names = {str(value) for kind, value in certificate.get("subjectAltName", ()) if kind != "DirName"}
    for part in certificate.get("subject", ()):
        names |= {str(value) for key, value in part if key == "commonName"}
    return frozenset(name.lower() for name in names)


def tls_problem(error: OSError) -> str:
    """Why a handshake has failed, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        return _PROBLEMS.get(reason) or reason.replace("_", " ").lower() or "TLS failed"
    if isinstance(error, ConnectionAbortedError):
        return str(error) or "handshake aborted"
    return error.strerror or "connection closed during the handshake"


def _contexts(options: TlsOptions) -> _Contexts:
    contexts = _Contexts(_context(ssl.PROTOCOL_TLS_SERVER, options), _context(ssl.PROTOCOL_TLS_CLIENT, options))
    contexts.server.verify_mode = _VERIFY[options.client_certificate]
    contexts.client.check_hostname = options.check_names
    return contexts


def _context(protocol: int, options: TlsOptions) -> ssl.SSLContext:
    context = _Context(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if options.minimum_version == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF  # what is cut off, PDUs tell; peers close without close_notify
    file = options.ca
    try:
        if file is not None:
            context.load_verify_locations(file)
        else:
            context.load_default_certs()
        file = options.certificate
        if file is not None:
            # as a function: for None OpenSSL asks at the terminal, where a server would wait for an answer
            context.load_cert_chain(file, options.key, lambda: options.key_password)
    except ssl.SSLError as error:
        if not error.reason and file is not options.ca:  # it has no words for a wrong password, nor for no PEM
            names = " or ".join(str(one) for one in (file, options.key) if one is not None)
            raise TlsError(f"{names}: no certificate, or no key that tls.key_password opens") from error
        raise TlsError(f"{file}: {(error.reason or str(error)).replace('_', ' ').lower()}") from error
    except OSError as error:
        names = f"{file}" if options.key is None or file is options.ca else f"{file} or {options.key}"
        raise TlsError(f"{names}: {error.strerror or error}") from error
    return context


def _stamps(options: TlsOptions) -> tuple[tuple[int, int, int], ...]:
    """What changes when a file is written, or another takes its name."""
    stamps = []
    for file in (options.certificate, options.key, options.ca):
        try:
            found = file.stat() if file is not None else None
        except OSError:
            found = None
        stamps.append((found.st_mtime_ns, found.st_size, found.st_ino) if found is not None else (0, 0, 0))
    return tuple(stamps)
