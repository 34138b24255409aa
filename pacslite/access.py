"""Who may do what: called and calling AE titles, hosts, permissions, user identities.

An AE title alone grants nothing, since everybody can write one into an A-ASSOCIATE-RQ: a ``Remote`` is its title *and*
its address. Loopback may do everything, so that a first try on one machine just works.
"""

import ipaddress
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["EVERYTHING", "Access", "Grant", "Refusal", "Remote"]

EVERYTHING = frozenset({"echo", "store", "find", "move", "get", "commit"})

_KNOWN = 1_024  # peers whose verdict is remembered: most come again, and a host and a title can be invented

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Remote:
    """An application entity that we know.

    ``addresses`` are those that ``host`` stands for (IP addresses or networks; empty: any address). ``port`` is where
    it listens, 0 if it never does. ``certificate_name`` must be in the certificate that it shows when it connects,
    from this machine too; empty is not checked.
    """

    ae_title: str
    host: str
    port: int = 0
    allow: frozenset[str] = EVERYTHING
    tls: bool = False
    addresses: tuple[str, ...] = ()
    certificate_name: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """The association may be accepted; ``known`` bounds what metrics are labelled with."""

    allow: frozenset[str]
    known: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Result, source and reason of the A-ASSOCIATE-RJ (PS3.8 §9.3.4), and why for the log."""

    result: int
    source: int
    reason: int
    why: str


@dataclass(frozen=True)
class Access:
    """The policy.

    Args:
        ae_titles: Titles that we answer to; the first is our own.
        any_called_ae_title: Accept whatever title we are called by.
        remotes: Known peers by AE title.
        unknown: What peers may do that no entry names and that do not come from loopback; empty: nothing, rejected.
        loopback: Peers on this machine may do everything.
    """

    ae_titles: Sequence[str]
    any_called_ae_title: bool = False
    remotes: Sequence[Remote] = ()
    unknown: frozenset[str] = frozenset()
    loopback: bool = True
    _by_title: Mapping[str, list[tuple[Remote, list[_Network]]]] = field(init=False, repr=False)
    _known: dict[tuple[str, str, str], Grant | Refusal] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        by_title: dict[str, list[tuple[Remote, list[_Network]]]] = {}
        for remote in self.remotes:
            networks = [ipaddress.ip_network(address, strict=False) for address in remote.addresses]
            by_title.setdefault(remote.ae_title, []).append((remote, networks))
        object.__setattr__(self, "_by_title", by_title)

    def admit(
        self, *, calling_ae_title: str, called_ae_title: str, host: str, certificate_names: Set[str] | None = None
    ) -> Grant | Refusal:
        """Judge an association request.

        Args:
            host: An IP address as text.
            certificate_names: Lower-case names in the certificate of the peer; None where it does not speak TLS.
        """
        if certificate_names is not None:
            return self._judge(calling_ae_title, called_ae_title, host, certificate_names)
        asked = calling_ae_title, called_ae_title, host
        verdict = self._known.get(asked)
        if verdict is None:
            verdict = self._judge(*asked, frozenset())
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[asked] = verdict
        return verdict

    def destination(self, ae_title: str) -> Remote | None:
        """The remote that ``ae_title`` names as a C-MOVE destination."""
        for remote, _ in self._by_title.get(ae_title, ()):
            if remote.port:
                return remote
        return None

    def _judge(
        self, calling_ae_title: str, called_ae_title: str, host: str, certificate_names: Set[str]
    ) -> Grant | Refusal:
        if not self.any_called_ae_title and called_ae_title not in self.ae_titles:
            return Refusal(1, 1, 7, f"called AE title {called_ae_title!r} is not ours")
        address = _address(host)
        refused = ""
        for remote, networks in self._by_title.get(calling_ae_title, ()):
            if not networks or (address is not None and any(address in network for network in networks)):
                name = remote.certificate_name.lower()
                if not name or name in certificate_names:
                    return Grant(EVERYTHING if self._is_loopback(address) else remote.allow, known=True)
                refused += f" or {name!r}" if refused else repr(name)
        if refused:  # on this machine too: who claims a title that is somebody's must prove it
            shown = ", ".join(sorted(certificate_names)) or "none"
            return Refusal(1, 1, 3, f"{calling_ae_title!r} must have a certificate for {refused}, has {shown}")
        if self._is_loopback(address):
            return Grant(EVERYTHING, known=False)
        if self.unknown:
            return Grant(self.unknown, known=False)
        return Refusal(1, 1, 3, f"calling AE title {calling_ae_title!r} from {host} is not configured")

    def _is_loopback(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
        return self.loopback and address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address
