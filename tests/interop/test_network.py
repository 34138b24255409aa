"""The network of a whole server: who may do what, windows that are really used, and what the log tells of peers."""

import asyncio
import os
import re
import shlex
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydicom.uid import UID
from pynetdicom import AE, build_role
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation, UserIdentityNegotiation

from pacslite.access import Access
from pacslite.dataset.meta import encode_file_meta, private_information
from pacslite.scu.client import Client
from pacslite.scu.requestor import RequestorOptions
from tests.support.exchange import identifier, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.networks import Cable, launched
from tests.support.peers import Dcmtk
from tests.support.processes import ROOT, Pacslite, ServerFactory, free_port, run
from tests.support.raw import command, p_data, pdv, user_item
from tests.support.site import Site
from tests.support.wire import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    AbortedError,
    Answer,
    Context,
    RejectedError,
    Wire,
    associate_request,
)

SECRET = "a secret of at least thirty-two bytes"
CONTEXTS = [Context(1, VERIFICATION), Context(3, CT_IMAGE), Context(5, STUDY_ROOT_FIND), Context(7, STUDY_ROOT_MOVE)]
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) ")


def token(subject: str = "anna", seconds: float = 60) -> str:
    return jwt.encode({"sub": subject, "exp": time.time() + seconds}, SECRET, "HS256")


async def _logged(server: Pacslite, before: int, words: str) -> str:
    """The line with ``words`` that has come since ``before``."""
    for _ in range(100):
        found = [line for line in server.text()[before:].splitlines() if words in line]
        if found:
            return found[0]
        await asyncio.sleep(0.02)
    raise AssertionError(f"{words!r} is not in {server.text()[before:]}")


# who may what


async def test_peers_may_what_their_entry_says(new_server: ServerFactory) -> None:
    """Several titles of ours; title, address and permissions of theirs; nobody else, this machine included."""
    server = new_server(server={"called_ae_titles": ["OLDPACS"]}, access={"unknown_peers": "nobody"})
    server.remotes = [
        {"ae_title": "CT01", "host": "127.0.0.1", "allow": ["echo", "store"]},
        {"ae_title": "WARD", "host": "127.0.0.0/8", "allow": ["find"]},
        {"ae_title": "FAR", "host": "192.0.2.1"},
    ]
    instance = make_instance(1, seed=93)
    key = identifier("STUDY", StudyInstanceUID=instance.study_uid)

    async def statuses(calling: str, called: str) -> tuple[int, int, int]:
        async with await Wire.associate(server.port, CONTEXTS, calling=calling, called=called) as wire:
            stored = (await wire.store(CT_IMAGE, instance.sop_instance_uid, instance.data)).status
            await wire.start_query(STUDY_ROOT_FIND, key)
            found = [answer async for answer in wire.answers()][-1].status
            return await wire.echo(), stored, found

    async with server.running():
        for called in ("PACSLITE", "OLDPACS"):
            assert await statuses("CT01", called) == (0, 0, 0x0124)
            assert await statuses("WARD", called) == (0x0124, 0x0124, 0)
        for calling, called, codes in (
            ("CT01", "OTHER", (1, 1, 7)),
            ("FAR", "PACSLITE", (1, 1, 3)),
            ("ct01", "PACSLITE", (1, 1, 3)),
            ("WIRE", "PACSLITE", (1, 1, 3)),
        ):
            with pytest.raises(RejectedError) as caught:
                await statuses(calling, called)
            assert caught.value.codes == codes


async def test_who_is_not_on_this_machine_is_a_stranger(new_server: ServerFactory, cable: Cable) -> None:
    """As it comes: other hosts are refused but for those that are configured, this machine is not."""
    server = new_server()
    here, there = cable.here, cable.there
    server.settings = {"[listener]": {"host": here.address, "port": server.port}}
    server.remotes = [{"ae_title": "CT01", "host": there.address, "allow": ["echo"]}]
    server.prefix = here.prefix
    await launched(server)
    try:
        for network, address, calling, codes in (
            (there, here.address, "WIRE", (1, 1, 3)),
            (there, here.address, "PACSLITE", (1, 1, 3)),
            (there, here.address, "CT01", None),
            (here, "127.0.0.1", "WIRE", None),
            (here, here.address, "WIRE", (1, 1, 3)),  # not known to be this machine
        ):
            caught: tuple[int, ...] | None = None
            try:
                sock = await network.connect((address, server.port))
                async with await Wire.associate(server.port, CONTEXTS, calling=calling, sock=sock) as wire:
                    assert await wire.echo() == 0
            except RejectedError as rejected:
                caught = rejected.codes
            assert caught == codes
        await asyncio.to_thread(server.stop)
    finally:
        server.kill()


# attention


async def test_a_server_that_was_asked_something_sleeps_again(server: Pacslite) -> None:
    """It looks for what comes next, for the tenth of a millisecond; not as long as the association lasts."""

    def used() -> float:
        fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async with await Wire.associate(server.port, CONTEXTS) as wire:
        for _ in range(20):  # it may have other things to do, at first
            assert await wire.echo() == 0
            before = used()
            await asyncio.sleep(0.5)
            if used() - before < 0.1:
                break
        else:
            pytest.fail("it never sleeps")


# users


@pytest.fixture
def users() -> Mapping[str, Mapping[str, object]]:
    return {
        "access": {"user_identity": "required", "jwt_key": SECRET},
        "[user]": {"username": "anna", "password": "right"},  # [[user]]
    }


async def test_user_identity_with_dcmtk(
    new_server: ServerFactory, users: Mapping[str, Mapping[str, object]], dcmtk: Dcmtk, ct_slice: Path, tmp_path: Path
) -> None:
    """All types of PS3.7 §D.3.3.7 as DCMTK sends them; what is not proved is rejected, permanently by the ACSE."""
    server = new_server()
    server.settings = users
    good, old, assertion = (tmp_path / name for name in ("good.jwt", "old.jwt", "assertion.xml"))
    good.write_text(token())
    old.write_text(token(seconds=-60))
    assertion.write_text("<saml/>")
    async with server.running():
        peer = ("-aec", server.ae_title, "127.0.0.1", server.port, ct_slice)
        for words in (("-usr", "anna", "-pwd", "right"), ("--jwt", good)):
            await dcmtk("storescu", "-rsp", *words, *peer)
        for refused in (
            (),
            ("-usr", "anna", "-pwd", "wrong"),
            ("-usr", "anna"),
            ("-usr", "nobody", "-epw"),
            ("--jwt", old),
            ("--saml", assertion),
            ("-kt", assertion),
        ):
            done = await dcmtk("storescu", *refused, *peer, expect=1)
            assert "Rejected Permanent" in done
            assert "Source: Service Provider (ACSE Related)" in done
        assert "right" not in server.text()
        assert "wrong" not in server.text()


async def test_users_are_read_again_on_sighup(
    new_server: ServerFactory, users: Mapping[str, Mapping[str, object]], dcmtk: Dcmtk, ct_slice: Path
) -> None:
    """And what is not read again is named, key by key, instead of being passed over in silence."""
    server = new_server()
    server.settings = users
    async with server.running():
        peer = ("-aec", server.ae_title, "127.0.0.1", server.port, ct_slice)
        await dcmtk("storescu", "-usr", "anna", "-pwd", "right", *peer)
        config = server.log.with_suffix(".toml")
        config.write_text(
            config.read_text().replace('"right"', '"new"')
            + "[storage]\nduplicates = 'reject'\n[timeouts]\nidle_seconds = 7\n"
        )
        server.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(5):
            while "need a restart" not in server.text():
                await asyncio.sleep(0.02)
        assert 'keys="timeouts.idle_seconds storage.duplicates"' in server.text()
        await dcmtk("storescu", "-usr", "anna", "-pwd", "right", *peer, expect=1)
        await dcmtk("storescu", "-usr", "anna", "-pwd", "new", *peer)


async def test_a_file_that_went_away_is_no_empty_configuration(tmp_path: Path) -> None:
    """Nobody named it: it was found in the folder. SIGHUP without it must not take all remotes away."""
    file, aside = tmp_path / "pacslite.toml", tmp_path / "aside"
    file.write_text(
        '[server]\nhost = "127.0.0.1"\nport = 0\n[storage]\njournal_bytes = 0\n'
        '[[remote]]\nae_title = "CT01"\nhost = "192.0.2.1"\n'
    )
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pacslite", "serve",
        cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def line_with(text: str) -> str:
        assert server.stderr is not None
        async with asyncio.timeout(20):
            while text not in (line := (await server.stderr.readline()).decode()):
                assert line, f"ended without {text}"
            return line

    try:
        await line_with(" serving ")
        file.rename(aside)
        server.send_signal(signal.SIGHUP)
        assert "pacslite.toml: No such file" in await line_with("configuration")
        aside.rename(file)
        server.send_signal(signal.SIGHUP)
        assert "remotes=1" in await line_with("configuration")
    finally:
        server.terminate()
        await server.communicate()
    assert server.returncode == 0


async def test_user_identity_with_pynetdicom(
    new_server: ServerFactory, users: Mapping[str, Mapping[str, object]]
) -> None:
    server = new_server()
    server.settings = users

    def associate(kind: int, primary: bytes, secondary: bytes = b"") -> Any:
        item = UserIdentityNegotiation()
        item.user_identity_type, item.primary_field, item.positive_response_requested = kind, primary, True
        if secondary:
            item.secondary_field = secondary
        ae = AE("WS7")
        ae.add_requested_context(VERIFICATION)
        return ae.associate("127.0.0.1", server.port, ae_title=server.ae_title, ext_neg=[item])

    def try_all() -> None:
        for kind, primary, secondary in ((2, b"anna", b"right"), (5, token().encode(), b"")):
            association = associate(kind, primary, secondary)
            assert association.is_established
            (answer,) = [
                item
                for item in association.acceptor.primitive.user_information
                if isinstance(item, UserIdentityNegotiation)
            ]
            assert answer.server_response == b""
            assert association.send_c_echo().Status == 0
            association.release()
        assert not associate(2, b"anna", b"wrong").is_established  # on a busy machine it takes it for an abort

    async with server.running():
        await asyncio.to_thread(try_all)
        assert "reason=1/2/1" in await _logged(server, 0, "association rejected")


def test_roles_and_extended_negotiation_with_pynetdicom(server: Pacslite) -> None:
    """Storage takes both roles, for C-GET; verification does not; queries answer what they can do."""
    ae = AE("WS7")
    for uid in (VERIFICATION, CT_IMAGE, STUDY_ROOT_GET, STUDY_ROOT_FIND):
        ae.add_requested_context(uid)
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = UID(STUDY_ROOT_FIND)
    extended.service_class_application_information = b"\1\1\1\1\1\1"
    negotiation: list[Any] = [
        build_role(CT_IMAGE, scp_role=True, scu_role=True),
        build_role(VERIFICATION, scp_role=True),
        extended,
    ]
    association = ae.associate("127.0.0.1", server.port, ae_title=server.ae_title, ext_neg=negotiation)
    assert association.is_established
    roles = {context.abstract_syntax: (context.as_scu, context.as_scp) for context in association.accepted_contexts}
    answer: Any = association.acceptor.primitive
    answers = [
        item.service_class_application_information
        for item in answer.user_information
        if isinstance(item, SOPClassExtendedNegotiation)
    ]
    association.release()
    assert roles[UID(CT_IMAGE)] == (True, True)
    assert UID(VERIFICATION) not in roles or roles[UID(VERIFICATION)] == (False, False)
    assert answers == [b"\1\1\1\1\0\0"]  # relational, date-time, fuzzy, timezone; no enhanced, nothing unknown


@pytest.mark.parametrize(("proposed", "status"), [(None, 0xA900), (b"\0", 0xA900), (b"\1", 0), (b"\1\0\0\0\0", 0)])
async def test_a_relational_query_needs_its_negotiation(server: Pacslite, proposed: bytes | None, status: int) -> None:
    """PS3.4 §C.4.1.3.2: series of all studies. What was answered is what is done."""
    uid = STUDY_ROOT_FIND.encode()
    item = b"" if proposed is None else user_item(0x56, struct.pack(">H", len(uid)) + uid + proposed)
    async with await Wire.associate(server.port, CONTEXTS, user_items=item) as wire:
        answered = [one[2 + len(uid) :] for one in wire.user_items.get(0x56, [])]
        assert answered == ([] if proposed is None else [proposed])
        await wire.start_query(STUDY_ROOT_FIND, identifier("SERIES", SeriesInstanceUID="1.2.3"))
        assert [answer.status async for answer in wire.answers()] == [status]


# asynchronous operations


async def test_several_stores_are_outstanding_at_once(server: Pacslite) -> None:
    """As SCP, with a window of 8: all are sent before the first answer is read, and each is stored."""
    instances = [make_instance(n, seed=97, size=100_000) for n in range(40)]
    window = user_item(0x53, struct.pack(">HH", 8, 1))
    async with await Wire.associate(server.port, CONTEXTS, user_items=window) as wire:
        assert wire.user_items[0x53] == [struct.pack(">HH", 8, 1)]
        outstanding: set[int] = set()
        for number, instance in enumerate(instances, 1):
            store = command(
                0x0001,
                message_id=number,
                sop_class=CT_IMAGE,
                sop_instance=instance.sop_instance_uid,
                has_data=True,
            )
            wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 2, instance.data)))
            outstanding.add(number)
            if len(outstanding) == 8:
                message = await wire.receive()
                assert message.number(0x0900) == 0
                outstanding.remove(message.number(0x0120) or 0)
        while outstanding:
            message = await wire.receive()
            assert message.number(0x0900) == 0
            outstanding.remove(message.number(0x0120) or 0)
        key = identifier("STUDY", StudyInstanceUID=instances[0].study_uid, NumberOfStudyRelatedInstances="")
        (found,) = await wire.find(STUDY_ROOT_FIND, key)
        assert found[0x00201208].strip() == b"40"


@pytest.fixture(scope="module")
def study(server: Pacslite) -> Sequence[Instance]:
    instances = [make_instance(n, seed=98, size=50_000) for n in range(24)]
    asyncio.run(send_instances(server.port, instances))
    return instances


@pytest.mark.parametrize(("offered", "at_once"), [(5, 5), (1, 1)])
async def test_several_sub_operations_are_outstanding_at_once(
    server: Pacslite, study: Sequence[Instance], destinations: Mapping[str, int], offered: int, at_once: int
) -> None:
    """As SCU of a C-MOVE: as many as the destination takes."""
    site = Site(operations=offered, access=Access(("STORESCP",)))
    site.listen_on(destinations["STORESCP"])
    await site.start()
    site.storage.go = asyncio.Event()
    try:
        async with await Wire.associate(server.port, CONTEXTS) as wire:
            key = identifier("STUDY", StudyInstanceUID=study[0].study_uid)
            await wire.start_query(STUDY_ROOT_MOVE, key, destination="STORESCP")
            for _ in range(200):
                if site.storage.running == at_once:
                    break
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.05)
            assert site.storage.running == at_once
            site.storage.go.set()
            final = [answer async for answer in wire.answers()][-1]
            assert (final.status, final.completed) == (0, len(study))
        assert site.storage.most_running == at_once
    finally:
        await site.stop()
    assert sorted(bytes(sink.data) for sink in site.storage.sinks) == sorted(one.data for one in study)


async def test_files_are_sent_several_at_once(tmp_path: Path) -> None:
    """As SCU of C-STORE: a client that asks for a window, and a receiver that grants less."""
    instances = [make_instance(n, seed=94, size=300_000) for n in range(9)]
    for number, instance in enumerate(instances):
        meta = encode_file_meta(
            sop_class_uid=CT_IMAGE,
            sop_instance_uid=instance.sop_instance_uid,
            transfer_syntax_uid=EXPLICIT_LITTLE,
            source_ae_title="",
            private=private_information(len(instance.data), bytes(16)),
        )
        (tmp_path / f"{number}.dcm").write_bytes(meta + instance.data)
    site = Site(operations=3)
    await site.start()
    site.storage.go = asyncio.Event()
    try:
        options = RequestorOptions(operations=5)
        async with Client(f"PACSLITE@127.0.0.1:{site.port}", calling_ae_title="CT01", options=options) as client:
            sending = asyncio.create_task(_statuses(client, tmp_path))
            for _ in range(200):
                if site.storage.running == 3:
                    break
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert site.storage.running == 3
            site.storage.go.set()
            assert await sending == [0] * 9
    finally:
        await site.stop()
    site.assert_clean()
    assert sorted(bytes(sink.data) for sink in site.storage.sinks) == sorted(one.data for one in instances)


async def _statuses(client: Client, folder: Path) -> list[int | None]:
    return [result.status async for result in client.store([folder])]


async def test_a_destination_that_vanishes_in_its_midst(
    server: Pacslite, study: Sequence[Instance], destinations: Mapping[str, int]
) -> None:
    """It aborts after a few, and again: what it did not answer has failed, and is named; the rest was tried."""
    site = Site(operations=1, access=Access(("STORESCP",)))
    site.listen_on(destinations["STORESCP"])
    await site.start()

    async def vanish() -> None:
        for _ in range(2):
            seen = len(site.storage.stored)
            while len(site.storage.stored) < seen + 3:
                await asyncio.sleep(0.001)
            for connection in list(site.listener._connections):
                connection.drop()

    vanishing = asyncio.create_task(vanish())
    try:
        async with await Wire.associate(server.port, CONTEXTS) as wire:
            key = identifier("STUDY", StudyInstanceUID=study[0].study_uid)
            final = (await wire.move(STUDY_ROOT_MOVE, key, "STORESCP"))[-1]
            assert final.status in (0xB000, 0)
            assert (final.completed or 0) + (final.failed or 0) == len(study)
            assert (final.failed or 0) <= 2 * 2
            assert await wire.echo() == 0
    finally:
        vanishing.cancel()
        await site.stop()


# addresses


async def test_ipv6(new_server: ServerFactory) -> None:
    server, port = new_server(), free_port()
    server.settings = {"[listener]": {"host": "::1", "port": port}}
    async with server.running():
        async with await Wire.associate(port, CONTEXTS, host="::1") as wire:
            assert await wire.echo() == 0
        line = await _logged(server, 0, "association accepted")
        assert 'peer="WIRE@::1"' in line or "peer=WIRE@::1" in line


async def test_an_address_that_swallows_everything_leaves_time_for_the_next(
    new_server: ServerFactory, tmp_path: Path
) -> None:
    """A host of two addresses; the backlog of who listens on the first is full, so the system drops what comes."""
    server, port = new_server(), free_port()
    server.settings = {"[listener]": {"host": "127.0.0.2", "port": port}}
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 pair\n127.0.0.2 pair\n")
    words = server.command("echo", f"{server.ae_title}@pair:{port}")
    script = f"mount --bind {hosts} /etc/hosts && exec {shlex.join(words)}"
    waiting: list[socket.socket] = []
    async with server.running():
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            listener.listen(0)
            for _ in range(4):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
                waiting.append(one)
            await run("unshare", "--mount", "sh", "-c", script, seconds=20, cwd=ROOT)
            for one in waiting:
                one.close()


async def test_the_same_port_at_once_after_a_kill(new_server: ServerFactory) -> None:
    """With connections open, and others in TIME_WAIT."""
    server = new_server()
    server.start()
    wires = [await Wire.associate(server.port, CONTEXTS) for _ in range(5)]
    await wires[0].release()
    server.kill()
    async with server.running(), await Wire.associate(server.port, CONTEXTS) as wire:
        assert await wire.echo() == 0
    for one in wires:
        one.close()


async def test_more_peers_than_the_shell_allows_files(new_server: ServerFactory) -> None:
    """The usual soft limit of 1,024 descriptors is raised to the hard one."""
    server = new_server()
    server.prefix = ("prlimit", "--nofile=256:4096")
    async with server.running():
        peers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(600)]
        async with asyncio.timeout(5):
            async with await Wire.associate(server.port, CONTEXTS) as wire:
                assert await wire.echo() == 0
        for _, writer in peers:
            writer.close()


# what the log tells


@pytest.mark.parametrize("form", ["text", "json"])
async def test_what_peers_write_stays_in_its_line(new_server: ServerFactory, form: str) -> None:
    """CR LF, ESC, NUL, C1 and bidirectional marks in titles, UIDs and destinations: one line in, one line out."""
    server = new_server(log={"format": form, "level": "debug"})
    evil = "A\r\nB\x1b[31m\x9b\x7f"
    async with server.running():
        before = len(server.text())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        request = associate_request(CONTEXTS, "PACSLITE", "EVIL", 16_384)
        writer.write(request[:26] + evil.encode("latin-1").ljust(16)[:16] + request[42:])
        assert (await reader.readexactly(1)) == b"\x02"
        writer.close()
        with pytest.raises(RejectedError):
            await Wire.associate(server.port, CONTEXTS, called="X\r\n2026-01-01 Y")
        async with await Wire.associate(server.port, CONTEXTS) as wire:
            uid = "1.2\r\nERROR\x1b[2J"
            answer = await wire.store(CT_IMAGE, uid, make_instance(1, seed=99).data)
            assert answer.status != 0
            body = command(0x0021, sop_class=STUDY_ROOT_MOVE, destination=evil, has_data=True)
            wire.writer.write(p_data(pdv(7, 3, body), pdv(7, 2, identifier("STUDY", StudyInstanceUID="1.2.3"))))
            answer = Answer.of(await wire.receive())
            assert answer.status == 0xA801
            assert not re.search(r"[\x00-\x1f\x7f]", answer.comment)
            body = command(0x0030, message_id=9, sop_class="1.2\r\n\x1b]0;title\x07")
            wire.writer.write(p_data(pdv(1, 3, body)))
            assert Answer.of(await wire.receive()).status == 0x0122
        await asyncio.sleep(0.05)
        written = server.log.read_bytes()[before:]
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", written)
    for line in written.decode().splitlines():
        assert line.startswith('{"time": "') if form == "json" else LINE.match(line), line


async def test_no_patient_in_the_log(new_server: ServerFactory) -> None:
    """Names and IDs, in data sets that are stored, refused, broken or asked for; comments too."""
    server = new_server(storage={"patient_conflict": "reject"})
    names = ("Geheimnis^Anna", "PID-4711-SECRET")
    instance = make_instance(1, seed=96)

    def data_set(study: int, *, broken: bool = False) -> tuple[str, bytes]:
        one = make_instance(1, seed=96, study=study)
        data = one.data.replace(b"Load^Number96x%d" % study, b"Geheimnis^Anna"[: len(b"Load^Number96x%d" % study)])
        data = data.replace(one.patient_id.encode(), b"SECRET"[: len(one.patient_id)])
        return one.sop_instance_uid, data[: len(data) // 4] if broken else data

    comments: list[str] = []
    async with server.running():
        async with await Wire.associate(server.port, CONTEXTS) as wire:
            for study, broken in ((0, False), (1, True), (0, False)):
                answer = await wire.store(CT_IMAGE, *data_set(study, broken=broken))
                comments.append(answer.comment)
            comments.append((await wire.store(CT_IMAGE, instance.sop_instance_uid + ".7", data_set(2)[1])).comment)
            for level, keys in (
                ("STUDY", {"PatientName": names[0], "PatientID": names[1]}),
                ("NONSENSE", {"PatientName": names[0]}),
                ("STUDY", {"PatientName": names[0], "StudyDate": "Geheimnis"}),
            ):
                await wire.start_query(STUDY_ROOT_FIND, identifier(level, **keys))
                comments += [answer.comment async for answer in wire.answers()]
        wire = await Wire.associate(server.port, CONTEXTS)
        wire.writer.write(p_data(pdv(1, 3, names[0].encode() * 10)))
        with pytest.raises(AbortedError):
            await wire.receive()
        wire.close()
        text = server.text()
    for secret in ("Geheimnis", "Anna", "SECRET", "4711"):
        assert secret not in text
        assert not any(secret in comment for comment in comments), comments


async def test_a_refused_handshake_and_a_knock_are_told_apart(server: Pacslite) -> None:
    """A port scanner is no warning; who speaks another protocol is one, in one line."""
    before = len(server.text())
    with socket.create_connection(("127.0.0.1", server.port)):
        pass
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert (await reader.read(10))[:1] == b"\x07"
    writer.close()
    line = await _logged(server, before, "no association")
    assert "this is an HTTP request" in line
    assert server.text()[before:].count("no association") == 1
