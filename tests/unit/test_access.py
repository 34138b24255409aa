"""Who may associate, and what each may do."""

import pytest

from pacslite.access import EVERYTHING, Access, Grant, Refusal, Remote
from pacslite.app import _access
from pacslite.config import Settings

CT = Remote("CT01", "10.0.0.12", 104, frozenset({"store"}), addresses=("10.0.0.12",))
WARD = Remote("WARD", "10.1.0.0/16", 0, frozenset({"find", "move"}), addresses=("10.1.0.0/16",))
ANYWHERE = Remote("LAPTOP", "*", 11112, frozenset({"echo"}))
ACCESS = Access(("PACSLITE", "OLDPACS"), remotes=(CT, WARD, ANYWHERE))


def admit(calling: str, host: str, called: str = "PACSLITE", access: Access = ACCESS) -> Grant | Refusal:
    return access.admit(calling_ae_title=calling, called_ae_title=called, host=host)


@pytest.mark.parametrize(
    ("calling", "host", "allowed"),
    [
        ("CT01", "10.0.0.12", {"store"}),
        ("CT01", "::ffff:10.0.0.12", {"store"}),  # IPv4 that came over an IPv6 socket
        ("WARD", "10.1.200.3", {"find", "move"}),
        ("LAPTOP", "192.0.2.9", {"echo"}),
        ("CT01", "127.0.0.1", EVERYTHING),  # loopback may do everything, whatever its title
        ("ANYONE", "::1", EVERYTHING),
    ],
)
def test_title_and_address_together_are_known(calling: str, host: str, allowed: set[str]) -> None:
    grant = admit(calling, host)
    assert isinstance(grant, Grant)
    assert grant.allow == allowed


@pytest.mark.parametrize(
    ("calling", "host"),
    [
        ("CT01", "10.0.0.13"),  # a title alone grants nothing
        ("ct01", "10.0.0.12"),  # PS3.5 §6.2: AE titles are case sensitive
        ("CT01", "fe80::1%eth0"),
        ("CT01", "unix"),
        ("NOBODY", "192.0.2.1"),
    ],
)
def test_others_are_rejected_as_unknown_callers(calling: str, host: str) -> None:
    refusal = admit(calling, host)
    assert isinstance(refusal, Refusal)
    assert (refusal.result, refusal.source, refusal.reason) == (1, 1, 3)


def test_a_wrong_called_title_is_told_first() -> None:
    refusal = admit("NOBODY", "192.0.2.1", called="OTHER")
    assert isinstance(refusal, Refusal)
    assert (refusal.result, refusal.source, refusal.reason) == (1, 1, 7)
    assert isinstance(admit("CT01", "10.0.0.12", called="OLDPACS"), Grant)
    assert isinstance(admit("CT01", "10.0.0.12", "X", Access((), any_called_ae_title=True, remotes=(CT,))), Grant)


def test_strangers_may_what_is_configured_for_them() -> None:
    access = Access(("PACSLITE",), unknown=frozenset({"echo"}), loopback=False)
    for host in ("192.0.2.1", "127.0.0.1"):
        grant = admit("ANYONE", host, access=access)
        assert isinstance(grant, Grant)
        assert grant == Grant(frozenset({"echo"}), known=False)
    assert isinstance(admit("ANYONE", "127.0.0.1", access=Access(("PACSLITE",), loopback=False)), Refusal)


def test_only_who_listens_is_a_destination() -> None:
    assert ACCESS.destination("CT01") is CT
    assert ACCESS.destination("WARD") is None
    assert ACCESS.destination("NOBODY") is None


@pytest.mark.parametrize("host", ["10.0.0.12", "127.0.0.1", "::1"])
def test_a_certificate_that_is_configured_binds_wherever_the_peer_is(host: str) -> None:
    """On this machine too: everybody there may do everything, but not under a title that must be proved."""
    remotes = [
        Remote("CT01", "x", addresses=("10.0.0.12", "127.0.0.0/8", "::1"), allow=frozenset({"store"}),
               certificate_name=name)
        for name in ("CT01.ward", "ct01.hospital")  # two for the time in which it is renewed under another name
    ]  # fmt: skip
    access = Access(("PACSLITE",), remotes=remotes)

    def judge(names: set[str] | None) -> Grant | Refusal:
        return access.admit(calling_ae_title="CT01", called_ae_title="PACSLITE", host=host, certificate_names=names)

    for names in (None, set(), {"other.ward"}):
        refusal = judge(names)
        assert isinstance(refusal, Refusal)
        assert (refusal.result, refusal.source, refusal.reason) == (1, 1, 3)
        assert "'ct01.ward' or 'ct01.hospital'" in refusal.why
    for name in ("ct01.ward", "ct01.hospital"):
        assert isinstance(judge({"other.ward", name}), Grant)


@pytest.mark.parametrize("network", ["10.1.0.0/16", "10.1.0.7/32", "fd00::/64"])
async def test_a_network_is_no_destination_whatever_its_port(network: str) -> None:
    remote = [{"ae_title": "WARD", "host": network, "port": 104}, {"ae_title": "WARD", "host": "10.2.0.7", "port": 105}]
    for remotes, port in ((remote[:1], 0), (remote, 105)):
        destination = (await _access(Settings.model_validate({"remote": remotes}), "PACSLITE")).destination("WARD")
        assert (destination.port if destination is not None else 0) == port


@pytest.mark.parametrize(("allow", "granted"), [(["store", "echo"], {"store", "echo", "commit"}), (["find"], {"find"})])
async def test_whoever_may_store_may_ask_whether_it_is_kept(allow: list[str], granted: set[str]) -> None:
    settings = Settings.model_validate(
        {
            "remote": [{"ae_title": "CT01", "host": "192.0.2.7", "allow": allow}],
            "access": {"unknown_peers": "anybody", "unknown_allow": allow},
        }
    )
    access = await _access(settings, "PACSLITE")
    for calling, host in (("CT01", "192.0.2.7"), ("ANYONE", "192.0.2.8")):
        grant = admit(calling, host, access=access)
        assert isinstance(grant, Grant)
        assert grant.allow == granted
