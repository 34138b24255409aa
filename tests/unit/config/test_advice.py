"""What ``config check`` says of values that are each allowed and cannot work, always with the place."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pacslite.config import ConfigError, load
from pacslite.config.advice import advice, check

PEM, PUBLIC = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
RSA = rsa.generate_private_key(65537, 2048)
RSA_KEY = RSA.public_key().public_bytes(PEM, PUBLIC).decode()
EC_KEY = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(PEM, PUBLIC).decode()
P384_KEY = ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(PEM, PUBLIC).decode()
PRIVATE_KEY = RSA.private_bytes(PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
REMOTE = '[[remote]]\nae_title = "WS"\nhost = "h"\nport = 104\n'


def wrong(tmp_path: Path, text: str) -> list[str]:
    """Each problem without the folder."""
    file = tmp_path / "x.toml"
    file.write_text(text)
    file.chmod(0o600)
    try:
        check(load(file, environ={}))
    except ConfigError as error:
        return [problem.removeprefix(f"{tmp_path}/") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ('to = "WS"\nwhen = { Foo = "1" }', "x.toml:7: forward[0].when: 'Foo' is no key of the index"),
        ('to = "WS"\n[forward.when]\nStudyDate = "x"', "x.toml:7: forward[0].when: StudyDate: "),
        (
            'to = "WS"\n[[forward]]\nto = "WS"\nwhen = { Modality = "" }',
            "x.toml:9: forward[1].when: Modality: an empty value says nothing",
        ),
    ],
)
def test_a_rule_that_is_none_is_told_with_its_line(tmp_path: Path, rules: str, told: str) -> None:
    (problem,) = wrong(tmp_path, f"{REMOTE}[[forward]]\n{rules}\n")
    assert problem.startswith(told)


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ("[server]\nport = 104\ntls = true", 3),
        ("[[listener]]\nport = 1\n[[listener]]\nport = 2762\ntls = true", 5),
    ],
)
def test_the_listener_that_wants_a_certificate_is_told(tmp_path: Path, tables: str, line: int) -> None:
    assert wrong(tmp_path, tables) == [f"x.toml:{line}: tls.certificate: is required by a listener with tls = true"]


@pytest.mark.parametrize("key", ["", "a secret of more than thirty-two bytes", RSA_KEY, EC_KEY])
def test_keys_that_prove_tokens(tmp_path: Path, key: str) -> None:
    text = f'[access]\njwt_key = """{key}"""\n'
    assert wrong(tmp_path, text) == []
    assert advice(load(tmp_path / "x.toml", environ={})) == []


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("-----BEGIN x", "no PEM public key: "),
        (RSA_KEY.replace("A", "!"), "no PEM public key: "),
        (PRIVATE_KEY, "no PEM public key: "),
        (P384_KEY, "neither RSA (RS256) nor on the curve P-256 (ES256)"),
        (f" {RSA_KEY}", "a PEM key has nothing before -----BEGIN"),
    ],
)
def test_keys_that_prove_no_token(tmp_path: Path, key: str, told: str) -> None:
    (problem,) = wrong(tmp_path, f'[access]\njwt_key = """{key}"""\n')
    assert problem.startswith(f"x.toml:2: access.jwt_key: {told}")
    assert base64.b64decode("".join(RSA_KEY.splitlines()[1:-1])).hex() not in problem
    assert "MII" not in problem


def test_a_secret_that_can_be_guessed_is_warned_about(tmp_path: Path) -> None:
    assert wrong(tmp_path, '[access]\njwt_key = "short"\n') == []
    told = f"{tmp_path}/x.toml:2: access.jwt_key has 5 bytes, HS256 wants 32 (RFC 7518 §3.2): it can be guessed"
    assert advice(load(tmp_path / "x.toml", environ={})) == [told]


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ("[[listener]]\nport = 11112", ["x.toml:2: listener[0].port = 11112: server.port listens there already"]),
        (
            '[server]\nhost = "::1"\nport = 1\n[[listener]]\nhost = "::1"\nport = 1',
            ["x.toml:6: listener[0].port = 1: {}/x.toml:3 listens there already"],
        ),
        (
            "[[listener]]\nport = 1\n[[listener]]\nport = 1",
            ["x.toml:4: listener[1].port = 1: {}/x.toml:2 listens there already"],
        ),
        ('[[listener]]\nhost = "127.0.0.1"\nport = 1\n[[listener]]\nhost = "::1"\nport = 1', []),
        ("[server]\nport = 0\n[[listener]]\nport = 0\n[[listener]]\nport = 0", []),
    ],
)
def test_an_address_is_listened_on_once(tmp_path: Path, tables: str, told: list[str]) -> None:
    assert wrong(tmp_path, tables) == [line.format(tmp_path) for line in told]


@pytest.mark.parametrize(
    ("tables", "warned"), [("", True), ('jwt_key = "' + "k" * 32 + '"', False), ('[[user]]\nusername = "a"', False)]
)
def test_an_identity_that_nobody_can_prove_is_warned_about(tmp_path: Path, tables: str, warned: bool) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f'[access]\nuser_identity = "required"\n{tables}\n')
    file.chmod(0o600)
    assert ["all are refused" in line for line in advice(load(file, environ={}))] == [True] * warned
