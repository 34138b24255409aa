"""What SIGHUP takes over and what it leaves, in a server on this loop."""

import asyncio
import contextlib
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trustme

from pacslite.app import Server, _reload_on, run
from pacslite.config import Settings, load
from pacslite.errors import PacsliteError
from tests.support.wire import VERIFICATION, Context, RejectedError, Wire

Configure: TypeAlias = Callable[..., Settings]

BASE = """
[server]
host = "127.0.0.1"
port = 0
ae_title = "{ae_title}"
tls = {tls}
data_dir = "{folder}/data"
[storage]
min_free_bytes = 0
journal_bytes = 1048576
"""


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Gives the settings of such a file, with more behind it."""

    def written(more: str = "", *, ae_title: str = "RUNNING", tls: str = "false") -> Settings:
        file = tmp_path / "pacslite.toml"
        file.write_text(BASE.format(folder=tmp_path, ae_title=ae_title, tls=tls) + more)
        return load(file, environ={}).settings

    return written


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    server = Server(settings)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def is_answered(server: Server, called: str) -> bool:
    try:
        async with await Wire.associate(server.ports[0], [Context(1, VERIFICATION)], called=called) as wire:
            return await wire.echo() == 0
    except RejectedError:
        return False


async def test_the_title_stays_until_the_restart_that_is_asked_for(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    """Retrieve AE Title names it all the while, and who retrieves calls it."""
    async with running(configure()) as server:
        await server.reload(configure(ae_title="OTHER"))
        (left,) = [vars(one)["keys"] for one in caplog.records if one.message == "changed settings need a restart"]
        assert left == "server.ae_title"
        assert await is_answered(server, "RUNNING")
        assert not await is_answered(server, "OTHER")


async def test_a_rule_that_is_none_leaves_everything_as_it_was(configure: Configure, tmp_path: Path) -> None:
    """The versions of TLS too, that stand elsewhere in the same file."""
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    tls = f'[tls]\ncertificate = "{tmp_path}/own.pem"\nclient_certificate = "none"\n'
    remote = '[[remote]]\nae_title = "A"\nhost = "127.0.0.1"\nport = 104\n'
    async with running(configure(tls, tls="true")) as server:

        async def shake_hands() -> str | None:
            _, writer = await asyncio.open_connection("127.0.0.1", server.ports[0], ssl=client)
            version: str = writer.get_extra_info("ssl_object").version()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return version

        stricter = tls + 'minimum_version = "1.3"\n' + remote
        with pytest.raises(PacsliteError, match="Modalty"):
            await server.reload(configure(stricter + '[[forward]]\nto = "A"\nwhen = {Modalty = "CT"}\n', tls="true"))
        assert await shake_hands() == "TLSv1.2"
        await server.reload(configure(stricter, tls="true"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await shake_hands()


async def test_a_fault_of_ours_is_told_and_the_next_sighup_is_heard(
    configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pacslite")
    faults = iter([ZeroDivisionError()])

    def read() -> Settings:
        for fault in faults:
            raise fault
        return configure()

    hung_up = asyncio.Event()

    async def after_hanging_up(event: str) -> None:
        hung_up.set()
        async with asyncio.timeout(5):
            while event not in [record.message for record in caplog.records]:
                await asyncio.sleep(0.01)

    async with running(configure()) as server:
        reloading = asyncio.create_task(_reload_on(hung_up, server, read))
        await after_hanging_up("configuration not reloaded")
        await after_hanging_up("configuration reloaded")
        reloading.cancel()


async def test_whatever_fails_after_the_start_stops_the_server(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads would keep the process, and SIGTERM would not end it."""

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pacslite.app._greet", fails)
    monkeypatch.setattr("gc.freeze", lambda: None)
    settings = configure()
    switch_interval = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        await run(settings)
    sys.setswitchinterval(switch_interval)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().remove_signal_handler(number)
    async with running(settings) as server:  # nobody else has the data directory
        assert await is_answered(server, "RUNNING")
