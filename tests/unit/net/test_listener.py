"""Listening: addresses, many connections at once, restart on the same port, what is too much."""

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Iterator

import pytest

from pacslite.net.limits import LimitsOptions
from pacslite.net.listener import Endpoint
from pacslite.net.sockets import listening_sockets, tune
from pacslite.net.timeouts import Timeouts
from tests.support.site import MakeSite, Site
from tests.support.wire import CT_IMAGE, VERIFICATION, Context, Wire, associate_request

CONTEXTS = [Context(1, VERIFICATION), Context(3, CT_IMAGE)]


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Room for some more descriptors than are open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe.fileno() + 40, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_all_addresses_share_one_port(make_site: MakeSite) -> None:
    """IPv4 and IPv6, on the port that the system chose."""
    site = make_site()
    await site.start()
    await site.listener.start([Endpoint("::1", site.port)])
    for host in ("127.0.0.1", "::1"):
        async with await Wire.associate(site.port, CONTEXTS, host=host) as wire:
            assert await wire.echo() == 0
    everywhere = listening_sockets("", 0, Timeouts())
    families = {one.family for one in everywhere}
    ports = {one.getsockname()[1] for one in everywhere}
    for one in everywhere:
        one.close()
    assert families == {socket.AF_INET, socket.AF_INET6}
    assert len(ports) == 1


async def test_ipv6_alone(make_site: MakeSite) -> None:
    site = make_site(host="::1")
    await site.start()
    async with await Wire.associate(site.port, CONTEXTS, host="::1") as wire:
        assert await wire.echo() == 0
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", site.port)


async def test_several_endpoints_at_once(make_site: MakeSite) -> None:
    site = make_site()
    await site.start()
    ports = await site.listener.start([Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", 0)])
    for port in (site.port, *ports):
        async with await Wire.associate(port, CONTEXTS) as wire:
            assert await wire.echo() == 0


async def test_the_same_port_again_at_once(make_site: MakeSite) -> None:
    """Connections of the one before are in TIME_WAIT; no SO_REUSEPORT, with which two servers could share a port."""
    first = make_site()
    await first.start()
    wire = await Wire.associate(first.port, CONTEXTS)
    stopping = asyncio.create_task(first.stop())
    assert (await wire.reader.readexactly(10))[:1] == b"\x07"
    wire.close()
    await stopping
    again = make_site()
    again.ports = await again.listener.start([Endpoint("127.0.0.1", first.port)])
    async with await Wire.associate(again.port, CONTEXTS) as wire:
        assert await wire.echo() == 0


async def test_a_port_that_is_taken_is_told(site: Site, make_site: MakeSite) -> None:
    other = make_site()
    with pytest.raises(OSError, match=rf"127\.0\.0\.1 port {site.port}: Address already in use") as caught:
        await other.listener.start([Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", site.port)])
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match=r"192\.0\.2\.1 port 0: Cannot assign requested address"):
        listening_sockets("192.0.2.1", 0, Timeouts())


def test_a_host_that_is_not_known_is_named() -> None:
    with pytest.raises(OSError, match=r"nowhere\.invalid: ") as caught:
        listening_sockets("nowhere.invalid", 0, Timeouts())
    assert str(caught.value.strerror).startswith("nowhere.invalid: ")


async def test_connections_beyond_all_measure_are_closed_and_told_once(
    make_site: MakeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """One host takes its places and no more, whatever it opens; another is served."""
    site = make_site(limits=LimitsOptions(associations=100, associations_per_host=10))
    await site.start()
    flood = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(150)]
    await asyncio.sleep(0.1)
    assert site.listener.connections == 120
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, local_addr=("127.0.0.2", 0))
    writer.write(associate_request(CONTEXTS, "PACSLITE", "WIRE", 16_384))
    assert await reader.readexactly(1) == b"\x02"
    writer.close()
    lines = [record for record in caplog.records if record.message == "connection refused"]
    assert len(lines) == 1
    for _, writer in flood:
        writer.close()


async def test_a_thousand_at_once(make_site: MakeSite) -> None:
    """All are answered; none is lost to a short backlog."""
    site = make_site(limits=LimitsOptions(associations=2_000))
    await site.start()

    async def associate() -> int:
        async with await Wire.associate(site.port, CONTEXTS) as wire:
            return await wire.echo()

    assert await asyncio.gather(*(associate() for _ in range(1_000))) == [0] * 1_000


async def test_descriptors_that_run_out_come_back(make_site: MakeSite, few_descriptors: None) -> None:
    """While there are none nobody new is heard; afterwards everybody is."""
    site = make_site()
    await site.start()
    sockets: list[socket.socket] = []
    with contextlib.suppress(OSError):  # EMFILE
        while True:
            sockets.append(socket.socket())
    waiting = sockets[0]
    waiting.setblocking(False)
    await asyncio.get_running_loop().sock_connect(waiting, ("127.0.0.1", site.port))
    await asyncio.sleep(0.1)
    for one in sockets[1:]:
        one.close()
    waiting.close()
    async with asyncio.timeout(5):
        async with await Wire.associate(site.port, CONTEXTS) as wire:
            assert await wire.echo() == 0


@pytest.mark.parametrize(
    ("keepalive", "write", "user_timeout"),
    [(40, 12.5, 80_000), (40, 80, 80_000), (40, 81, 0), (40, 0, 0), (0, 12.5, 12_500), (0, 0, 0)],
)
def test_vanished_peers_are_noticed_by_the_system(keepalive: float, write: float, user_timeout: int) -> None:
    """Keep-alive for idle associations, a user timeout for bytes that nobody acknowledges: it never ends the other."""
    with socket.socket() as one:
        tune(one, Timeouts(write_seconds=write, keepalive_seconds=keepalive))
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == (keepalive > 0)
        if keepalive:
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 40
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
            assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == user_timeout


async def test_accepted_connections_are_tuned_too(site: Site) -> None:
    """They inherit it from the socket that listens."""
    async with await Wire.associate(site.port, CONTEXTS):
        (connection,) = site.listener._connections
        assert connection._transport is not None
        accepted = connection._transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
