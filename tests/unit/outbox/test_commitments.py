"""Reports on new associations: when the AE that asked is left alone."""

from pathlib import Path
from typing import Any, cast

import pytest

from pacslite.net.ended import ConnectFailed
from pacslite.outbox.commitments import CommitmentOptions, Commitments
from pacslite.outbox.database import Database
from pacslite.outbox.offload import Offload
from pacslite.outbox.queue import Queue
from pacslite.outbox.transactions import Transactions
from pacslite.outbox.verification import Verifier
from pacslite.scu.commitment import CommitmentRequest, Reference
from pacslite.scu.requestor import Address, Requestor


class Unreachable:
    """A requestor that reaches nobody; the configuration is read again meanwhile."""

    def __init__(self, address: Address, then: Address) -> None:
        self.address, self._then = address, then

    async def associate(self, *_: object, **__: object) -> Any:
        self.address = self._then
        raise ConnectFailed("nobody is there")


@pytest.mark.parametrize(("then", "deferred"), [(104, True), (105, False)])
async def test_ae_that_moves_while_it_is_tried_is_not_left_alone(tmp_path: Path, then: int, deferred: bool) -> None:
    queue, offload = Queue(Database(tmp_path / "outbox.sqlite"), clock=lambda: 1000.0), Offload("outbox")
    transactions = Transactions(queue)
    requestor = Unreachable(Address("CT01", "127.0.0.1", 104), Address("CT01", "127.0.0.1", then))
    commitments = Commitments(
        queue,
        transactions,
        offload,
        verifier=cast("Verifier", None),
        requestor=cast("Requestor", requestor),
        address_of=lambda _: requestor.address,
        verified=lambda: None,
        options=CommitmentOptions(),
    )
    found = transactions.get(transactions.accept(CommitmentRequest("1.2.3", (Reference("1.2.1", "1.2.4"),)), "CT01"))
    assert found is not None
    transactions.verified(found[0], {})
    assert not await commitments.serve("CT01")
    assert [at > 1000 for *_, at in queue.destinations()] == [deferred]
    await offload.stop()
    queue.database.close()
