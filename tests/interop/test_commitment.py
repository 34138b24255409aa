"""Storage commitment with pynetdicom on the other side, as SCU and as SCP: over restarts, kills and refusals."""

import asyncio
import contextlib
import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.dsutils import encode

from pacslite.scu.client import Client, OperationFailed
from pacslite.scu.commitment import FailedReference, Reference
from pacslite.scu.report_listener import ReportListener
from tests.faults.strace import tracing
from tests.support.exchange import send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite, ServerFactory, free_port
from tests.support.wire import CT_IMAGE, SECONDARY_CAPTURE, Context, Message, Wire

SCU = "PYNETDICOM"
PUSH_MODEL, WELL_KNOWN = UID("1.2.840.10008.1.20.1"), UID("1.2.840.10008.1.20.1.1")
QUICK = {"retry_seconds": 0.3, "maximum_retry_seconds": 0.6}


@pytest.fixture(scope="module")
def settings() -> Mapping[str, Mapping[str, object]]:
    return {"outbox": QUICK, "commitment": {"grace_seconds": 0.6}}


@dataclass
class Report:
    """An N-EVENT-REPORT as pynetdicom understood it."""

    event_type: int
    transaction: str
    committed: list[tuple[str, str]]
    failed: dict[str, int]
    requestor: str  # AE title of who opened the association
    role: tuple[bool | None, bool | None]  # proposed to be SCU, SCP


@dataclass
class CommitmentScu:
    """A modality: asks, and takes reports on the association of the request or on its own port."""

    server: Pacslite
    called: str = "PACSLITE"
    statuses: list[int] = field(default_factory=list)  # of the next answers; then 0000
    reports: "queue.Queue[Report]" = field(default_factory=queue.Queue)

    def ask(self, references: Sequence[tuple[str, str]], transaction: str | None = None) -> Any:
        """Send N-ACTION; returns the open association."""
        ae = AE(ae_title=SCU)
        ae.add_requested_context(PUSH_MODEL)
        association = ae.associate(
            "127.0.0.1",
            self.server.port,
            ae_title=self.called,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)],
        )
        assert association.is_established
        status, _ = association.send_n_action(
            _action(references, transaction or generate_uid()), 1, PUSH_MODEL, WELL_KNOWN
        )
        assert status.Status == 0x0000
        return association

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        ae = AE(ae_title=SCU)
        ae.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
        scp = ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)]
        )
        assert scp is not None
        try:
            yield
        finally:
            scp.shutdown()

    def report(self, seconds: float = 10) -> Report:
        return self.reports.get(timeout=seconds)

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        information = event.event_information
        association = event.assoc
        proposed = association.requestor.role_selection.get(PUSH_MODEL)
        failed = information.get("FailedSOPSequence", [])
        self.reports.put(
            Report(
                event.event_type or 0,
                str(information.TransactionUID),
                [
                    (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
                    for item in information.get("ReferencedSOPSequence", [])
                ],
                {str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in failed},
                str(association.requestor.ae_title),
                (proposed.scu_role, proposed.scp_role) if proposed is not None else (None, None),
            )
        )
        return (self.statuses.pop(0) if self.statuses else 0x0000), None


def _action(references: Sequence[tuple[str, str]], transaction: str) -> Dataset:
    data_set = Dataset()
    data_set.TransactionUID = transaction
    data_set.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        data_set.ReferencedSOPSequence.append(item)
    return data_set


def references(instances: Sequence[Instance]) -> list[tuple[str, str]]:
    return [(one.sop_class_uid, one.sop_instance_uid) for one in instances]


def stored(server: Pacslite, seed: int, count: int = 3) -> list[Instance]:
    instances = [make_instance(n, seed=seed, size=20_000) for n in range(count)]
    asyncio.run(send_instances(server.port, instances))
    return instances


@pytest.fixture
def scu(server: Pacslite) -> CommitmentScu:
    return CommitmentScu(server)


def test_all_committed_on_the_same_association(server: Pacslite, scu: CommitmentScu) -> None:
    instances = stored(server, 100)
    transaction = generate_uid()
    association = scu.ask(references(instances), transaction)
    report = scu.report()
    association.release()
    assert report == Report(1, transaction, references(instances), {}, SCU, (None, None))


def test_each_failure_has_its_reason(server: Pacslite, scu: CommitmentScu) -> None:
    good, damaged, conflict = instances = stored(server, 101)
    _wait_until_settled(server, damaged)
    _damage(server, damaged)
    missing = make_instance(9, seed=101)
    wanted = references([good, damaged, missing])
    association = scu.ask([*wanted, (SECONDARY_CAPTURE, conflict.sop_instance_uid)])
    report = scu.report()
    association.release()
    assert report.event_type == 2
    assert report.committed == references([good])
    assert report.failed == {
        damaged.sop_instance_uid: 0x0110,
        missing.sop_instance_uid: 0x0112,
        conflict.sop_instance_uid: 0x0119,
    }
    assert [line for line in server.text().splitlines() if "instance is damaged" in line]
    server.expected = (*server.expected, "instance is damaged")
    assert len(instances) == 3


def test_instances_that_arrive_after_the_request(server: Pacslite, scu: CommitmentScu) -> None:
    late = [make_instance(n, seed=102, size=20_000) for n in range(2)]
    association = scu.ask(references(late))
    asyncio.run(send_instances(server.port, late))
    report = scu.report()
    association.release()
    assert (report.event_type, report.committed) == (1, references(late))


def test_on_a_new_association_with_role_selection(
    server: Pacslite, scu: CommitmentScu, destinations: Mapping[str, int]
) -> None:
    instances = stored(server, 103)
    with scu.listening(destinations[SCU]):
        scu.ask([*references(instances), (CT_IMAGE, "1.2.3.4")]).release()  # the grace outlives the association
        report = scu.report()
    assert report.requestor == "PACSLITE"
    assert report.role == (False, True)
    assert (report.committed, report.failed) == (references(instances), {"1.2.3.4": 0x0112})
    assert scu.reports.empty()


def test_report_comes_from_the_title_that_was_asked(new_server: ServerFactory) -> None:
    """A device that has kept the title of the archive before us knows no other."""
    port = free_port()
    server = new_server(server={"called_ae_titles": ["OLDPACS"]}, outbox=QUICK, commitment={"grace_seconds": 0})
    server.remotes = [{"ae_title": SCU, "host": "127.0.0.1", "port": port}]
    server.start()
    for called in ("OLDPACS", "PACSLITE"):
        CommitmentScu(server, called).ask([(CT_IMAGE, "1.2.3.4")]).release()
    server.stop()
    server.start()
    scu = CommitmentScu(server)
    with scu.listening(port):
        assert sorted(scu.report().requestor for _ in range(2)) == ["OLDPACS", "PACSLITE"]
    server.stop()


def test_refused_report_is_sent_again(server: Pacslite, scu: CommitmentScu, destinations: Mapping[str, int]) -> None:
    instances = stored(server, 104)
    scu.statuses = [0x0110, 0xFE00]
    with scu.listening(destinations[SCU]):
        association = scu.ask(references(instances))
        here, second, third = (scu.report() for _ in range(3))
        association.release()
        time.sleep(1)
    assert [one.requestor for one in (here, second, third)] == [SCU, "PACSLITE", "PACSLITE"]
    assert here.committed == second.committed == third.committed == references(instances)
    assert scu.reports.empty()


async def test_reports_of_one_association_come_one_after_the_other(server: Pacslite) -> None:
    """No window was negotiated: one operation may be outstanding (PS3.7 §D.3.3.3)."""
    instance = make_instance(0, seed=108)
    await send_instances(server.port, [instance])
    reports: list[Message] = []
    async with await Wire.associate(server.port, [Context(1, PUSH_MODEL)]) as wire:

        async def next_response() -> int | None:
            while (message := await wire.receive()).number(0x0100) == 0x0100:
                reports.append(message)
            return message.number(0x0900)

        async def another_report() -> bool:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    reports.append(await wire.receive())
                    return True
            return False

        names = {0x0003: PUSH_MODEL.encode(), 0x1001: WELL_KNOWN.encode(), 0x1008: b"\1\0"}
        for number in range(1, 4):
            action = encode(_action(references([instance]), f"1.2.840.108.{number}"), False, True)
            await wire.send(1, names | {0x0100: b"\x30\x01", 0x0110: bytes((number, 0))}, action)
            assert await next_response() == 0
        for count in range(1, 4):
            if len(reports) < count:
                assert await another_report()
            assert not await another_report()
            assert len(reports) == count
            invocation = (reports[-1].number(0x0110) or 0).to_bytes(2, "little")
            await wire.send(1, {0x0100: b"\0\x81", 0x0120: invocation, 0x0900: b"\0\0", 0x1002: b"\1\0"})


def test_same_request_again_is_the_same_transaction(
    server: Pacslite, scu: CommitmentScu, destinations: Mapping[str, int]
) -> None:
    """A device that has not heard our answer sends its request once more; another one under its UID is refused."""
    instances = stored(server, 105)
    transaction = generate_uid()
    wanted = [*references(instances), (CT_IMAGE, "1.2.3.4")]
    first, second = scu.ask(wanted, transaction), scu.ask(wanted, transaction)
    ae = AE(ae_title=SCU)
    ae.add_requested_context(PUSH_MODEL)
    third = ae.associate("127.0.0.1", server.port, ae_title="PACSLITE")
    status, _ = third.send_n_action(_action(wanted[:1], transaction), 1, PUSH_MODEL, WELL_KNOWN)
    assert status.Status == 0x0115
    report = scu.report()
    time.sleep(0.5)
    for association in (first, second, third):
        association.release()
    assert report.transaction == transaction
    assert scu.reports.empty()


def test_request_is_synced_before_it_is_answered(server: Pacslite, scu: CommitmentScu) -> None:
    association = scu.ask([(CT_IMAGE, "1.2.3.5")])
    with tracing(server.pid, calls=("pwrite64", "fdatasync", "fsync", "write", "writev", "sendto", "sendmsg")) as trace:
        status, _ = association.send_n_action(_action([(CT_IMAGE, "1.2.3.6")], "1.2.840.98"), 1, PUSH_MODEL, WELL_KNOWN)
    association.release()
    assert status.Status == 0x0000
    calls = [(call.name, call.text) for call in trace.calls]
    answered = next(at for at, (name, text) in enumerate(calls) if "<TCP" in text)
    written = [at for at, (name, text) in enumerate(calls[:answered]) if name == "pwrite64" and "outbox.sqlite" in text]
    synced = [at for at, (name, text) in enumerate(calls[:answered]) if "sync" in name and "outbox.sqlite" in text]
    assert written, trace.raw
    assert synced, trace.raw
    assert max(written) < max(synced), trace.raw


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restart_between_request_and_report(new_server: ServerFactory, how: str) -> None:
    port = free_port()
    server = new_server(outbox=QUICK, commitment={"grace_seconds": 0.5})
    server.remotes = [{"ae_title": SCU, "host": "127.0.0.1", "port": port}]
    scu = CommitmentScu(server)
    server.start()
    instances = stored(server, 106)
    transactions = [generate_uid() for _ in range(3)]
    for transaction in transactions:
        association = scu.ask([*references(instances), (CT_IMAGE, "1.2.3.4")], transaction)
        association.abort() if how == "kill" else association.release()
    if how == "kill":
        server.kill()  # what was answered 0000 is on disk
    else:
        time.sleep(1)  # verified, and a first report was tried in vain
        server.stop()
    server.start()
    with scu.listening(port):
        reports = [scu.report() for _ in transactions]
        time.sleep(0.5)
    server.stop()
    assert sorted(one.transaction for one in reports) == sorted(transactions)
    assert all(one.committed == references(instances) for one in reports)
    assert all(one.failed == {"1.2.3.4": 0x0112} for one in reports)
    assert scu.reports.empty()


async def test_queue_lists_and_drops_reports(new_server: ServerFactory) -> None:
    server = new_server(outbox=QUICK, commitment={"grace_seconds": 0})
    async with server.running():
        scu = CommitmentScu(server)
        await asyncio.to_thread(lambda: scu.ask([(CT_IMAGE, "1.2.3.4")], "1.2.840.99").abort())
        await asyncio.sleep(0.6)
        listed = await server.tool("queue", "list", "--data-dir", server.data_dir)
        assert "commitment to PYNETDICOM: 1.2.840.99" in listed
        assert "no [[remote]] with a port" in listed
        assert "1 entry dropped" in await server.tool("queue", "drop", "--all", "--data-dir", server.data_dir)


# our own client


async def test_client(server: Pacslite) -> None:
    instances = [make_instance(n, seed=107, size=20_000) for n in range(2)]
    await send_instances(server.port, instances)
    wanted = [Reference(*one) for one in references(instances)]
    async with Client(f"PACSLITE@127.0.0.1:{server.port}", calling_ae_title="WS1") as client:
        report = await client.commitment([*wanted, Reference(CT_IMAGE, "1.2.3.4")], seconds=10)
        assert report.committed == tuple(wanted)
        assert report.failed == (FailedReference(CT_IMAGE, "1.2.3.4", 0x0112),)
        assert (await client.commitment(wanted, seconds=10)).failed == ()
        with pytest.raises(OperationFailed, match="0115"):
            await client.request_commitment([])


async def test_client_whose_scp_reports_on_an_association_of_its_own() -> None:
    """pynetdicom is SCP, and opens an association for the report as most archives do."""
    wanted = [Reference(CT_IMAGE, "1.2.3"), Reference(CT_IMAGE, "1.2.4")]
    outcome: list[int] = []

    def report(transaction: str, port: int) -> None:
        ae = AE(ae_title="ARCHIVE")
        ae.add_requested_context(PUSH_MODEL)
        association = ae.associate("127.0.0.1", port, ae_title="WS1", ext_neg=[build_role(PUSH_MODEL, scp_role=True)])
        information = _action([(CT_IMAGE, "1.2.3")], transaction)
        information.FailedSOPSequence = _action([(CT_IMAGE, "1.2.4")], "1").ReferencedSOPSequence
        information.FailedSOPSequence[0].FailureReason = 0x0110
        status, _ = association.send_n_event_report(information, 2, PUSH_MODEL, WELL_KNOWN)
        outcome.append(status.Status)
        association.release()

    async with ReportListener("WS1", host="127.0.0.1") as listener:
        transactions: list[str] = []

        def on_action(event: evt.Event) -> tuple[int, None]:
            transactions.append(str(event.action_information.TransactionUID))
            return 0x0000, None

        ae = AE(ae_title="ARCHIVE")
        ae.add_supported_context(PUSH_MODEL)
        port = free_port()
        scp = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_ACTION, on_action)])
        assert scp is not None
        async with Client(f"ARCHIVE@127.0.0.1:{port}", calling_ae_title="WS1", reports=listener.reports) as client:
            transaction = await client.request_commitment(wanted)
        assert transactions == [transaction]
        await asyncio.to_thread(report, transaction, listener.port)
        found = await listener.reports.get(transaction, 5)
        await asyncio.to_thread(scp.shutdown)
    assert outcome == [0]
    assert found.committed == (wanted[0],)
    assert found.failed == (FailedReference(CT_IMAGE, "1.2.4", 0x0110),)


def _file_of(server: Pacslite, instance: Instance) -> list[Path]:
    return list((server.data_dir / "instances").rglob(f"{instance.sop_instance_uid}.dcm"))


def _wait_until_settled(server: Pacslite, instance: Instance) -> None:
    for _ in range(500):
        if _file_of(server, instance):
            return
        time.sleep(0.02)
    raise AssertionError("not settled within 10 s")


def _damage(server: Pacslite, instance: Instance) -> None:
    """Flip one bit in the last byte of the pixels."""
    (path,) = _file_of(server, instance)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
