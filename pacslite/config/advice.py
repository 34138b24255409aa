"""What is allowed but unwise, or cannot work: said by ``pacslite config check`` and at the start of ``serve``."""

import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from pacslite.config.load import Loaded
from pacslite.config.network import Http
from pacslite.config.problems import ConfigError, nearest

__all__ = ["advice", "check"]

_PEM = "-----BEGIN"
_HS256_BYTES = 32


def advice(loaded: Loaded) -> list[str]:
    """A sentence for each thing to reconsider."""
    settings = loaded.settings
    found = []
    if loaded.file is not None and _has_secrets(loaded) and _others_read(loaded.file):
        found.append(f"{loaded.file} holds secrets and others can read it: chmod o-r")
    key = settings.tls.key or settings.tls.certificate
    if key is not None and _others_read(key):
        found.append(f"{key} holds a private key and others can read it: chmod o-r")
    if settings.access.unknown_peers == "anybody":
        found.append('access.unknown_peers is "anybody": every host may do what access.unknown_allow says')
    if settings.storage.durability != "full":
        found.append(
            f'storage.durability is "{settings.storage.durability}": a power cut can lose acknowledged instances'
        )
    if settings.access.user_identity == "required" and not settings.user and not settings.access.jwt_key:
        found.append(
            'access.user_identity is "required", and there is neither a [[user]] nor access.jwt_key: all are refused'
        )
    secret = settings.access.jwt_key.get_secret_value().encode()
    if 0 < len(secret) < _HS256_BYTES and not secret.startswith(_PEM.encode()):
        found.append(
            f"{loaded.origin('access', 'jwt_key')}: access.jwt_key has {len(secret)} bytes, HS256 wants {_HS256_BYTES} "
            "(RFC 7518 §3.2): it can be guessed"
        )
    titles = [remote.ae_title for remote in settings.remote if remote.is_destination]
    found += [
        f"remote {title} has a port in several entries: the first is the move destination"
        for title in {title for title in titles if titles.count(title) > 1}
    ]
    return found + list(_widened(loaded))


def check(loaded: Loaded) -> None:
    """Check what no single value shows: files that TLS needs, users of one name, destinations that rules name.

    Raises:
        ConfigError: With a line for each thing that is wrong.
    """
    if problems := [
        *_listener_problems(loaded),
        *_tls_problems(loaded),
        *_token_problems(loaded),
        *_user_problems(loaded),
        *_forward_problems(loaded),
        *_not_yet(loaded),
    ]:
        raise ConfigError(problems)


def _widened(loaded: Loaded) -> Iterator[str]:
    """The short form of a remote allows everything: over an entry that does not, that may not be meant."""
    for title, (origin, before) in loaded.replaced.items():
        allowed = {word for one in before for word in one.allow}
        for index, one in enumerate(loaded.settings.remote):
            more = [word for word in one.allow if word not in allowed] if one.ae_title == title else []
            if more:
                yield f"{loaded.origin('remote', index)} lets {title} also {', '.join(more)}, which {origin} does not"


def _listener_problems(loaded: Loaded) -> Iterator[str]:
    """One address can be listened on once; any free port may be asked for as often as one likes."""
    server = loaded.settings.server
    taken = {(server.host, server.port): loaded.origin("server", "port")}
    for index, one in enumerate(loaded.settings.listener):
        where = loaded.origin("listener", index, "port")
        earlier = taken.setdefault((one.host, one.port), where) if one.port else where
        if earlier != where:
            yield f"{where}: listener[{index}].port = {one.port}: {_by(earlier)} listens there already"


def _by(origin: str) -> str:
    return "server.port" if origin == "default" else origin


def _tls_problems(loaded: Loaded) -> Iterator[str]:
    settings, tls = loaded.settings, loaded.settings.tls
    listening: list[tuple[str | int, ...]] = [("server", "tls")] if settings.server.tls else []
    listening += [("listener", index, "tls") for index, listener in enumerate(settings.listener) if listener.tls]
    if listening and tls.certificate is None:
        yield f"{loaded.origin(*listening[0])}: tls.certificate: is required by a listener with tls = true"
    if tls.certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(tls.certificate, tls.key, tls.key_password.get_secret_value)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            where = loaded.origin("tls", "certificate")
            is_told = not isinstance(error, ssl.SSLError) or error.reason
            why = error if is_told else "no certificate, or no key that tls.key_password opens"
            yield f"{where}: tls.certificate = {str(tls.certificate)!r}, tls.key = {str(tls.key or '')!r}: {why}"
    if tls.ca is not None:
        try:
            ssl.create_default_context(cafile=str(tls.ca))
        except OSError as error:
            yield f"{loaded.origin('tls', 'ca')}: tls.ca = {str(tls.ca)!r}: {error}"


def _token_problems(loaded: Loaded) -> Iterator[str]:
    """A key that proves no token: who brings one would be refused, each time."""
    key = loaded.settings.access.jwt_key.get_secret_value()
    if _PEM in key and (problem := _pem_problem(key)):
        yield f"{loaded.origin('access', 'jwt_key')}: access.jwt_key: {problem}"


def _pem_problem(key: str) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm  # 110 ms: not for who has no such key
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if not key.startswith(_PEM):  # it would be taken for a secret
        return f"a PEM key has nothing before {_PEM}"
    try:
        public = load_pem_public_key(key.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        return f"no PEM public key: {str(error).partition('. See ')[0]}"  # without cryptography's address
    if isinstance(public, rsa.RSAPublicKey):
        return ""
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        return ""
    return "neither RSA (RS256) nor on the curve P-256 (ES256)"


def _user_problems(loaded: Loaded) -> Iterator[str]:
    """Only one of two passwords could count."""
    first: dict[str, int] = {}
    for index, user in enumerate(loaded.settings.user):
        earlier = first.setdefault(user.username, index)
        if earlier != index:
            where = f"{loaded.origin('user', index, 'username')}: user[{index}].username = {user.username!r}"
            yield f"{where}: is the username of {loaded.origin('user', earlier, 'username')} already"


def _forward_problems(loaded: Loaded) -> Iterator[str]:
    titles = [remote.ae_title for remote in loaded.settings.remote if remote.is_destination]
    for index, rule in enumerate(loaded.settings.forward):
        if rule.to not in titles:
            near = nearest(rule.to, titles)
            where = f"{loaded.origin('forward', index, 'to')}: forward[{index}].to = {rule.to!r}"
            hint = f"; nearest is {near}" if near else ""
            yield f"{where}: no [[remote]] with a port, and a host that is no network, has this AE title{hint}"
    if loaded.settings.forward:
        from pacslite.outbox.rules import RuleError, make_rule  # 50 ms: not for who has no rules

        for index, rule in enumerate(loaded.settings.forward):
            try:
                make_rule(rule.to, rule.when)
            except RuleError as error:
                yield f"{loaded.origin('forward', index, 'when')}: forward[{index}].when: {error}"


def _not_yet(loaded: Loaded) -> Iterator[str]:
    """Keys that have their place and nobody who serves them: better refused than ignored."""
    settings = loaded.settings
    if settings.http.port or settings.http.host != Http().host:
        yield f"{loaded.origin('http', 'port')}: http.port = {settings.http.port}: HTTP comes with a later version"
    if settings.audit.file is not None or settings.audit.syslog:
        key = "file" if settings.audit.file is not None else "syslog"
        yield f"{loaded.origin('audit', key)}: audit.{key}: the audit trail comes with a later version"


def _has_secrets(loaded: Loaded) -> bool:
    """Whether the file itself holds a secret that is not empty."""
    settings = loaded.settings
    secrets: list[tuple[tuple[str | int, ...], SecretStr]] = [
        (("tls", "key_password"), settings.tls.key_password),
        (("access", "jwt_key"), settings.access.jwt_key),
        *((("user", index, "password"), user.password) for index, user in enumerate(settings.user)),
    ]
    return any(
        value.get_secret_value() and loaded.origin(*path).startswith(str(loaded.file)) for path, value in secrets
    )


def _others_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False
