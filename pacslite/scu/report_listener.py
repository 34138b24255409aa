"""Listens for storage commitment reports that an SCP sends on an association of its own (PS3.4 §J.3.3), as most do.

async with ReportListener("WS1", port=11113) as listener:
    async with Client("ARCHIVE@127.0.0.1:11112", calling_ae_title="WS1", reports=listener.reports) as client:
        report = await client.commitment(references, seconds=600)
"""

import asyncio
from types import TracebackType
from typing import Self

from pacslite.access import EVERYTHING, Access
from pacslite.budget import HostBudget
from pacslite.net.acceptor import Acceptor, AcceptorOptions
from pacslite.net.dispatch import Dispatcher
from pacslite.net.identity import IdentityOptions, IdentityVerifier
from pacslite.net.limits import Limits, LimitsOptions
from pacslite.net.listener import Endpoint, Listener
from pacslite.net.sending import Sending
from pacslite.net.timeouts import Timeouts
from pacslite.scu.reports import Reports, ReportService

__all__ = ["ReportListener"]

_HELD_BYTES = 16_777_216  # of all connections together that are no reports yet


class ReportListener:
    """Listens for reports that an SCP sends on an association of its own. ``port`` 0 takes a free one."""

    def __init__(self, ae_title: str, *, host: str = "", port: int = 0, timeouts: Timeouts | None = None) -> None:
        self.reports = Reports()
        self.port = port
        self._host = host
        options = AcceptorOptions()
        ready = asyncio.Event()
        ready.set()
        access = Access((ae_title,), unknown=EVERYTHING)
        nobody = IdentityVerifier(IdentityOptions(users={}))
        limits = Limits(LimitsOptions(), asyncio.get_running_loop().time)
        acceptor = Acceptor(
            Dispatcher((ReportService(self.reports),)),
            lambda: access,
            lambda: nobody,
            limits,
            options,
            ready,
        )
        self._listener = Listener(
            acceptor,
            timeouts or Timeouts(),
            limits,
            HostBudget(_HELD_BYTES),
            Sending(asyncio.get_running_loop(), _HELD_BYTES),
            maximum_length=options.maximum_length,
        )

    async def __aenter__(self) -> Self:
        (self.port,) = await self._listener.start([Endpoint(self._host, self.port)])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._listener.stop(0)
