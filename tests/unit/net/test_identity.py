"""User identity, PS3.7 §D.3.3.7."""

import time

import jwt
import pytest

from pacslite.access import Refusal
from pacslite.net.identity import Identity, IdentityOptions, IdentityVerifier, User
from pacslite.upper_layer.items import UserIdentity, UserInformation
from pacslite.upper_layer.pdu import AAssociateRQ

KEY = "a secret of at least thirty-two bytes"
USERS = {"anna": User("anna", "right"), "ward": User("ward")}
OPEN = IdentityOptions(USERS, jwt_key=KEY, jwt_algorithms=("HS256",))
REQUIRED = IdentityOptions(USERS, required=True, jwt_key=KEY, jwt_algorithms=("HS256",), jwt_audience="pacs")
UNCONFIGURED = IdentityOptions({})


def token(key: str = KEY, **claims: object) -> bytes:
    return jwt.encode({"sub": "anna", "aud": "pacs", "exp": time.time() + 86_400} | claims, key, "HS256").encode()


def verify(options: IdentityOptions, item: UserIdentity | None) -> Identity | Refusal:
    request = AAssociateRQ("PACSLITE", "WS", (), UserInformation(user_identity=item))
    return IdentityVerifier(options).verify(request)


@pytest.mark.parametrize(
    ("options", "item", "user"),
    [
        (OPEN, None, ""),
        (UNCONFIGURED, UserIdentity(2, b"anybody", b"anything"), ""),  # ignoring it is legal
        (OPEN, UserIdentity(2, b"anna", b"right"), "anna"),
        (OPEN, UserIdentity(1, b"ward"), "ward"),
        (OPEN, UserIdentity(2, b"ward", b"of another server"), "ward"),  # the name alone is enough
        (OPEN, UserIdentity(4, b"<saml/>"), ""),
        (REQUIRED, UserIdentity(5, token()), "anna"),
        (OPEN, UserIdentity(5, token()), "anna"),  # whomever it is for, where no audience is configured
        (OPEN, UserIdentity(3, b"kerberos ticket"), ""),  # not supported, and no identity is required
        (OPEN, UserIdentity(9, b"of a later edition"), ""),
    ],
)
def test_who_is_let_in(options: IdentityOptions, item: UserIdentity | None, user: str) -> None:
    assert verify(options, item) == Identity(user, None)


@pytest.mark.parametrize(
    ("options", "item"),
    [
        (REQUIRED, None),
        (OPEN, UserIdentity(2, b"anna", b"wrong")),
        (OPEN, UserIdentity(1, b"anna")),  # has a password: the name alone is not enough
        (OPEN, UserIdentity(1, b"nobody")),
        (OPEN, UserIdentity(2, b"nobody", b"")),
        (REQUIRED, UserIdentity(3, b"kerberos ticket")),
        (REQUIRED, UserIdentity(5, token("another secret of thirty-two bytes!"))),
        (REQUIRED, UserIdentity(5, token(exp=time.time() - 60))),
        (REQUIRED, UserIdentity(5, token(aud="others"))),
        (REQUIRED, UserIdentity(5, token(sub=None))),
        (REQUIRED, UserIdentity(5, b"\xff no token")),
        (REQUIRED, UserIdentity(5, jwt.encode({"sub": "anna", "aud": "pacs", "exp": 4e9}, "", "none").encode())),
        (REQUIRED, UserIdentity(4, b"<saml/>")),
        (IdentityOptions({}, required=True), UserIdentity(2, b"anna", b"right")),  # nobody is configured
        (IdentityOptions(USERS, required=True), UserIdentity(5, token())),  # no key to prove it by
    ],
)
def test_who_is_refused_permanently_by_the_acse(options: IdentityOptions, item: UserIdentity | None) -> None:
    """§D.3.3.7.3."""
    refusal = verify(options, item)
    assert isinstance(refusal, Refusal)
    assert (refusal.result, refusal.source, refusal.reason) == (1, 2, 1)


def test_a_positive_response_is_given_when_asked_for() -> None:
    item = UserIdentity(2, b"anna", b"right", positive_response_requested=True)
    assert verify(OPEN, item) == Identity("anna", b"")
