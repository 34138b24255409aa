"""User identity negotiation (PS3.7 §D.3.3.7): user name, user name and password, JWT; others as the standard wants."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from pacslite.access import Refusal
from pacslite.upper_layer.pdu import AAssociateRQ

__all__ = ["Identity", "IdentityOptions", "IdentityVerifier", "User"]

_USERNAME, _USERNAME_AND_PASSCODE, _KERBEROS, _SAML, _JWT = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class User:
    """A configured user; without a password the name alone is enough."""

    name: str
    password: str = ""


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """``required``: an association without an accepted identity is rejected."""

    users: Mapping[str, User]
    required: bool = False
    jwt_key: str = ""  # PEM public key, or a shared secret for HS256
    jwt_algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwt_audience: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user, and what goes into the A-ASSOCIATE-AC (None: no user identity item)."""

    user: str = ""
    response: bytes | None = None


_NOBODY = Identity()
_REFUSED = (1, 2, 1)  # rejected-permanent, ACSE, no reason (PS3.7 §D.3.3.7.3)


class IdentityVerifier:
    """Verifies what a requestor says of its user, against the configuration."""

    def __init__(self, options: IdentityOptions) -> None:
        self._options = options

    def needs_time(self, request: AAssociateRQ) -> bool:
        """Verifying its item is no matter of a moment: a token's signature."""
        item = request.user_information.user_identity
        return item is not None and item.identity_type == _JWT and bool(self._options.jwt_key)

    def verify(self, request: AAssociateRQ) -> Identity | Refusal:
        """Verify the user identity item of ``request``; in a thread, if it ``needs_time``.

        Without users and without a JWT key configured nothing is verified: the item is ignored, which the standard
        allows, and gets no response.
        """
        options = self._options
        item = request.user_information.user_identity
        if item is None or not (options.users or options.jwt_key):
            return Refusal(*_REFUSED, "a user identity is required") if options.required else _NOBODY
        kind = item.identity_type
        if kind == _USERNAME_AND_PASSCODE:
            user = self._verify_password(item.primary, item.secondary)
        elif kind == _JWT and options.jwt_key:
            user = self._verify_jwt(item.primary)
        elif kind == _USERNAME:
            user = self._verify_password(item.primary, b"")
        else:  # Kerberos and SAML need a domain that we are not part of
            return Refusal(*_REFUSED, f"user identity type {kind} is not supported") if options.required else _NOBODY
        if user is None:
            return Refusal(*_REFUSED, f"user identity of type {kind} is not accepted")
        return Identity(user, b"" if item.positive_response_requested else None)

    def _verify_password(self, name: bytes, password: bytes) -> str | None:
        user = self._options.users.get(name.decode("utf-8", "replace"))
        expected = user.password.encode() if user is not None else b""
        matches = hmac.compare_digest(password, expected)  # an unknown name costs the same time as a wrong password
        return user.name if user is not None and (matches or not expected) else None

    def _verify_jwt(self, token: bytes) -> str | None:
        import jwt

        options = self._options
        try:
            claims = jwt.decode(
                token.decode("ascii", "replace"),
                options.jwt_key,
                algorithms=list(options.jwt_algorithms),
                audience=options.jwt_audience or None,
                options={"require": ["exp", "sub"], "verify_aud": bool(options.jwt_audience)},
            )
        except jwt.PyJWTError:
            return None
        subject = claims["sub"]
        return subject if isinstance(subject, str) else None
