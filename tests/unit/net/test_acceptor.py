"""The acceptor over the wire: every rejection with its codes, negotiation, windows, what a request ends in."""

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pacslite.access import Access, Remote
from pacslite.log import TextFormatter
from pacslite.net.identity import IdentityOptions, User
from pacslite.net.limits import LimitsOptions
from tests.support.raw import RELEASE_RQ, command, p_data, pdv, read_to_end, user_item
from tests.support.site import Getter, MakeSite, Sink, Site
from tests.support.wire import (
    CT_IMAGE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    VERIFICATION,
    Answer,
    Context,
    RejectedError,
    Wire,
    associate_request,
)

CONTEXTS = [Context(1, VERIFICATION), Context(3, CT_IMAGE), Context(5, STUDY_ROOT_FIND)]
USERS = IdentityOptions({"anna": User("anna", "right")}, required=True)


def identity_item(kind: int, primary: bytes, secondary: bytes = b"", *, response: bool = False) -> bytes:
    """58H (PS3.7 §D.3.3.7.1)."""
    fields = struct.pack(">BBH", kind, response, len(primary)) + primary + struct.pack(">H", len(secondary)) + secondary
    return user_item(0x58, fields)


def window_item(invoked: int, performed: int) -> bytes:
    """53H (PS3.7 §D.3.3.3.1)."""
    return user_item(0x53, struct.pack(">HH", invoked, performed))


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    assert len(old) == len(new)
    return lambda request: request.replace(old, new, 1)


# rejections


@pytest.mark.parametrize(
    ("options", "associate", "codes"),
    [
        ({}, {"called": "OTHER"}, (1, 1, 7)),
        ({}, {"called": "pacslite"}, (1, 1, 7)),  # AE titles are case sensitive
        ({"access": Access(("PACSLITE",), loopback=False)}, {}, (1, 1, 3)),
        (
            {"access": Access(("PACSLITE",), remotes=[Remote("CT", "x", addresses=("10.0.0.1",))], loopback=False)},
            {"calling": "CT"},
            (1, 1, 3),
        ),
        ({}, {"maximum_length": 7}, (1, 1, 1)),  # no room for a fragment
        ({}, {"contexts": ()}, (1, 1, 1)),  # PS3.8 §9.3.2 wants one at least
        ({"identity": USERS}, {}, (1, 2, 1)),
        ({"identity": USERS}, {"user_items": identity_item(2, b"anna", b"wrong")}, (1, 2, 1)),
        ({"identity": USERS}, {"user_items": identity_item(3, b"ticket")}, (1, 2, 1)),
    ],
)
async def test_rejections(
    make_site: MakeSite, options: dict[str, Any], associate: dict[str, Any], codes: tuple[int, int, int]
) -> None:
    """Result, source and reason of PS3.8 Table 9-21; PS3.7 §D.3.3.7.3 for the user identity."""
    site = make_site(**options)
    await site.start()
    with pytest.raises(RejectedError) as caught:
        await Wire.associate(site.port, **{"contexts": CONTEXTS} | associate)
    assert caught.value.codes == codes


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (replaced(b"\0\x01\0\0PACSLITE", b"\0\x02\0\0PACSLITE"), (1, 2, 2)),  # protocol version: bit 0 decides
        (replaced(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"), (1, 1, 2)),  # application context
    ],
)
async def test_rejections_of_unsound_requests(
    site: Site, change: Callable[[bytes], bytes], codes: tuple[int, int, int], caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(change(associate_request(CONTEXTS, "PACSLITE", "WIRE", 16_384)))
    answer = await reader.readexactly(10)
    assert answer == bytes((3, 0, 0, 0, 0, 4, 0, *codes))
    writer.close()
    (line,) = [record for record in caplog.records if record.message == "association rejected"]
    assert vars(line)["reason"] == "/".join(map(str, codes))


@pytest.mark.parametrize(
    ("words", "answer", "line"),
    [
        (associate_request(CONTEXTS, "OTHER", "WIRE", 16_384), b"\x03", "association rejected"),
        (b"GET / HTTP/1.1\r\n\r\n", b"\x07", "no association"),
        (RELEASE_RQ, b"\x07", "no association"),
    ],
    ids=["rejected", "another protocol", "not expected"],
)
async def test_a_peer_that_is_turned_away_without_end_does_not_fill_the_log(
    site: Site, words: bytes, answer: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(words)
        assert (await reader.readexactly(10))[:1] == answer
        writer.close()
        await writer.wait_closed()
    lines = [record for record in caplog.records if record.message == line]
    assert 20 <= len(lines) < 60


async def test_other_bits_of_the_protocol_version_are_other_versions(site: Site) -> None:
    """PS3.8 §9.3.2: bit 0 only is tested."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    request = associate_request(CONTEXTS, "PACSLITE", "WIRE", 16_384)
    writer.write(request[:6] + b"\xff\xff" + request[8:])
    assert (await reader.readexactly(6))[:1] == b"\x02"
    writer.write(RELEASE_RQ)
    await reader.read(65_536)
    writer.close()


@pytest.mark.parametrize(
    ("limits", "callings", "codes"),
    [
        (LimitsOptions(associations=2), ["A", "B", "C"], (2, 3, 2)),
        (LimitsOptions(associations_per_host=2), ["A", "B", "C"], (2, 3, 2)),
        (LimitsOptions(associations_per_ae_title=2), ["A", "A", "B", "A"], (2, 3, 2)),
        (LimitsOptions(connections_per_second=2), ["A", "A", "A"], (2, 3, 1)),
    ],
)
async def test_too_many(
    make_site: MakeSite, limits: LimitsOptions, callings: Sequence[str], codes: tuple[int, int, int]
) -> None:
    """Local limit exceeded, or temporary congestion: transient; and an association that ends makes room."""
    site = make_site(limits=limits)
    await site.start()
    *fitting, last = callings
    wires = [await Wire.associate(site.port, CONTEXTS, calling=calling) for calling in fitting]
    with pytest.raises(RejectedError) as caught:
        await Wire.associate(site.port, CONTEXTS, calling=last)
    assert caught.value.codes == codes
    for wire in wires:
        assert await wire.echo() == 0
        await wire.release()
        wire.close()
    if codes == (2, 3, 2):
        await asyncio.sleep(0.02)
        async with await Wire.associate(site.port, CONTEXTS, calling=last) as wire:
            assert await wire.echo() == 0


# negotiation


async def test_titles_are_known_without_their_padding(make_site: MakeSite) -> None:
    """PS3.8 §9.3.2: leading and trailing spaces are not significant; the answer repeats the bytes received."""
    remote = Remote("CT", "x", addresses=("127.0.0.0/8",))
    site = make_site(access=Access(("PACSLITE",), remotes=[remote], loopback=False))
    await site.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    request = associate_request(CONTEXTS, "  PACSLITE", "    CT", 16_384)
    writer.write(request)
    answer = await reader.readexactly(74)
    assert answer[0] == 2
    assert answer[10:42] == request[10:42]
    writer.close()


async def test_who_we_are_and_what_we_take_is_told(site: Site) -> None:
    """51H and 52H are mandatory; nothing is answered that was not proposed (PS3.7 §D.3.3)."""
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        assert set(wire.user_items) == {0x51, 0x52, 0x55}
        assert wire.user_items[0x52] == [b"1.2.826.0.1.3680043.8.498.2"]
        assert wire.user_items[0x55] == [b"SITE"]
        assert wire.peer_maximum_length == 131_072


@pytest.mark.parametrize(
    ("proposed", "answered"),
    [((3, 2), (3, 2)), ((0, 0), (4, 4)), ((100, 1), (4, 1)), ((1, 1), (1, 1))],
)
async def test_the_window_is_the_smaller_of_both(
    site: Site, proposed: tuple[int, int], answered: tuple[int, int]
) -> None:
    """PS3.7 §D.3.3.3; 0 is unlimited. The site performs 4."""
    async with await Wire.associate(site.port, CONTEXTS, user_items=window_item(*proposed)) as wire:
        assert wire.user_items[0x53] == [struct.pack(">HH", *answered)]


async def test_roles_are_those_that_both_take(make_site: MakeSite) -> None:
    """PS3.7 §D.3.3.4: 1 only where 1 was proposed, and no item that was not."""
    site = make_site(services=[Getter()])
    await site.start()
    contexts = [
        Context(1, VERIFICATION, scp_role=True),
        Context(3, CT_IMAGE, scp_role=True),
        Context(5, STUDY_ROOT_GET),
    ]
    async with await Wire.associate(site.port, contexts) as wire:
        roles = {item[2:-2].decode(): tuple(item[-2:]) for item in wire.user_items[0x54]}
        assert roles == {VERIFICATION: (1, 0), CT_IMAGE: (1, 1)}


async def test_extended_negotiation_is_answered_in_its_length(site: Site) -> None:
    """The site's query service does all but fuzzy matching; what follows is nothing it knows (PS3.4 §C.5.1.1)."""
    uid = STUDY_ROOT_FIND.encode()
    for proposed, answered in ((b"\1", b"\1"), (b"\1\1\1\1\1", b"\1\1\0\1\0"), (b"\0\1", b"\0\1")):
        item = user_item(0x56, struct.pack(">H", len(uid)) + uid + proposed)
        async with await Wire.associate(site.port, CONTEXTS, user_items=item) as wire:
            assert wire.user_items[0x56] == [struct.pack(">H", len(uid)) + uid + answered]


async def test_a_private_class_is_storage_if_its_proposer_says_so(site: Site) -> None:
    """57H (PS3.7 §D.3.3.6, PS3.4 §B.4.1.2)."""
    private, storage = b"1.2.826.0.1.9.9", b"1.2.840.10008.4.2"
    item = user_item(
        0x57, struct.pack(">H", len(private)) + private + struct.pack(">H", len(storage)) + storage + b"\0\0"
    )
    contexts = [Context(1, private.decode())]
    async with await Wire.associate(site.port, contexts, user_items=item) as wire:
        assert wire.results == {1: 0}
        assert (await wire.store(private.decode(), "1.2.3", b"abcd")).status == 0
    async with await Wire.associate(site.port, contexts) as wire:
        assert wire.results == {1: 3}


@pytest.mark.parametrize("response", [True, False])
async def test_a_user_who_is_known_is_told_so_when_asked(make_site: MakeSite, response: bool) -> None:
    """59H with an empty server-response, if a positive response was requested (PS3.7 §D.3.3.7.2)."""
    site = make_site(identity=USERS)
    await site.start()
    item = identity_item(2, b"anna", b"right", response=response)
    async with await Wire.associate(site.port, CONTEXTS, user_items=item) as wire:
        assert wire.user_items.get(0x59) == ([b"\0\0"] if response else None)
        assert await wire.echo() == 0


async def test_an_answer_too_long_for_its_item_is_a_rejection(make_site: MakeSite) -> None:
    """User information of 65,535 bytes to which nothing can be added."""
    site = make_site(services=[Getter()])
    await site.start()
    room = 65_535 - 8 - (4 + len(b"1.2.826.0.1.3680043.8.498.1"))
    uid = STUDY_ROOT_FIND.encode()
    head = struct.pack(">H", len(uid)) + uid
    item = user_item(0x56, head + bytes(room - 4 - len(head)))
    with pytest.raises(RejectedError) as caught:
        await Wire.associate(site.port, CONTEXTS, user_items=item)
    assert caught.value.codes == (1, 1, 1)


async def test_a_peer_that_leaves_while_its_identity_is_verified(make_site: MakeSite) -> None:
    site = make_site(identity=IdentityOptions({}, jwt_key="a secret of at least thirty-two bytes"))
    await site.start()
    item = identity_item(5, b"no token")
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(associate_request(CONTEXTS, "PACSLITE", "WIRE", 16_384, item))
    writer.close()
    await writer.wait_closed()
    while site.listener.connections:
        await asyncio.sleep(0.01)


async def test_associations_for_more_than_verification_wait_until_the_services_are_there(make_site: MakeSite) -> None:
    site = make_site()
    site.ready.clear()
    await site.start()
    waiting = asyncio.create_task(Wire.associate(site.port, CONTEXTS))
    async with await Wire.associate(site.port, [Context(1, VERIFICATION)]) as wire:
        assert await wire.echo() == 0
    assert not waiting.done()
    site.ready.set()
    async with await waiting as wire:
        assert await wire.echo() == 0


# operations


@pytest.mark.parametrize(("window", "at_once"), [(window_item(3, 1), 3), (b"", 1), (window_item(0, 0), 4)])
async def test_as_many_stores_are_performed_at_once_as_the_window_allows(
    make_site: MakeSite, window: bytes, at_once: int
) -> None:
    site = make_site()
    await site.start()
    site.storage.go = asyncio.Event()
    async with await Wire.associate(site.port, CONTEXTS, user_items=window) as wire:
        for number in range(1, 13):
            store = command(0x0001, message_id=number, sop_class=CT_IMAGE, sop_instance=f"1.2.{number}", has_data=True)
            wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 2, bytes(10_000))))
        await asyncio.sleep(0.05)
        assert site.storage.running == at_once
        site.storage.go.set()
        answered = {(await wire.receive()).number(0x0120) for _ in range(12)}
        assert answered == set(range(1, 13))
    assert site.storage.most_running == at_once
    assert len(site.storage.stored) == 12


@pytest.mark.parametrize(("window", "outstanding"), [(window_item(1, 4), 4), (b"", 1)])
async def test_sub_operations_of_a_get_are_outstanding_as_the_window_allows(
    make_site: MakeSite, window: bytes, outstanding: int
) -> None:
    """We are SCU on the requestor's association: so many C-STORE-RQs come before the first is answered."""
    getter = Getter(count=8, outstanding=outstanding)
    site = make_site(services=[getter])
    await site.start()
    contexts = [Context(1, STUDY_ROOT_GET), Context(3, CT_IMAGE, scp_role=True)]
    async with await Wire.associate(site.port, contexts, user_items=window) as wire:
        await wire.start_query(STUDY_ROOT_GET, b"")
        held = [await wire.receive() for _ in range(outstanding)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await wire.receive()
        for request in reversed(held):
            await wire.answer_store(request, 0)
        left = 8 - outstanding
        while True:
            message = await wire.receive()
            if message.number(0x0100) == 0x8010:
                break
            left -= 1
            await wire.answer_store(message, 0xB000)
        assert left == 0
        assert sorted(getter.statuses) == [0] * outstanding + [0xB000] * (8 - outstanding)


async def refused(wire: Wire, context_id: int, body: bytes, status: int, data: bytes | None = None) -> Answer:
    """Refused in the protocol's terms, with a comment; the association goes on."""
    wire.writer.write(p_data(pdv(context_id, 3, body)))
    if data is not None:
        wire.writer.write(p_data(pdv(context_id, 2, data)))
    answer = Answer.of(await wire.receive())
    assert answer.status == status, answer
    assert answer.comment
    assert answer.identifier is None
    assert await wire.echo() == 0
    return answer


async def test_requests_that_cannot_be_performed(make_site: MakeSite) -> None:
    """PS3.7 Annex C."""
    remote = Remote("WIRE", "x", allow=frozenset({"echo", "store"}), addresses=("127.0.0.1",))
    site = make_site(access=Access(("PACSLITE",), remotes=[remote], loopback=False))
    await site.start()
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        await refused(wire, 3, command(0x0030, sop_class=CT_IMAGE), 0x0211)  # C-ECHO of a storage class
        await refused(wire, 1, command(0x0777, sop_class=VERIFICATION), 0x0211)  # no command of the standard
        await refused(wire, 1, command(0x0110, sop_class=VERIFICATION), 0x0211)  # N-GET of verification
        await refused(wire, 1, command(0x0030, sop_class="1.2.3"), 0x0122)  # not the class of the context
        find = command(0x0020, sop_class=STUDY_ROOT_FIND, has_data=True)
        answer = await refused(wire, 5, find, 0x0124, b"\0" * 100)
        assert answer.comment == "WIRE is not allowed to find"
        store = command(0x0001, sop_class="1.2.840.10008.5.1.4.1.1.4", sop_instance="1.2.3", has_data=True)
        await refused(wire, 3, store, 0x0122, b"\0" * 100_000)  # an MR on the context of CT
        assert not site.storage.sinks
        site.storage.refuse = True
        store = command(0x0001, sop_class=CT_IMAGE, sop_instance="1.2.3", has_data=True)
        await refused(wire, 3, store, 0xA700, b"\0" * 100_000)  # read to its end, then answered


async def test_a_fault_of_ours_is_answered_0110_and_told_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    name = "Doe^John"

    def fail() -> None:
        raise ZeroDivisionError(name)

    site.storage.fail = fail
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        answer = await wire.store(CT_IMAGE, "1.2.3", b"abcd")
        assert (answer.status, answer.comment) == (0x0110, "internal error: ZeroDivisionError")
        assert await wire.echo() == 0
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    line = TextFormatter().format(record)
    assert "C-STORE failed why=ZeroDivisionError" in line
    assert "test_acceptor.py" in line  # where
    assert "Doe" not in line
    assert site.storage.sinks[0].aborted  # nothing of it stays


async def test_a_message_id_twice_at_once_is_refused_and_the_first_goes_on(site: Site) -> None:
    """0210, duplicate invocation; C-CANCEL still means the first."""
    site.finder.count, site.finder.go = 100, asyncio.Event()
    async with await Wire.associate(site.port, CONTEXTS, user_items=window_item(2, 1)) as wire:
        message_id = await wire.start_query(STUDY_ROOT_FIND, b"")
        echo = command(0x0030, message_id=message_id, sop_class=VERIFICATION)
        wire.writer.write(p_data(pdv(1, 3, echo)))
        await asyncio.sleep(0.02)
        await wire.cancel(STUDY_ROOT_FIND, message_id)
        await asyncio.sleep(0.02)
        site.finder.go.set()
        first, second = Answer.of(await wire.receive()), Answer.of(await wire.receive())
        assert (first.status, second.status) == (0xFE00, 0x0210)
        assert site.finder.ended == "cancelled"


async def test_a_peer_that_goes_away_leaves_nothing_running(site: Site) -> None:
    site.storage.go = asyncio.Event()
    wire = await Wire.associate(site.port, CONTEXTS, user_items=window_item(4, 4))
    for number in range(1, 5):
        store = command(0x0001, message_id=number, sop_class=CT_IMAGE, sop_instance=f"1.2.{number}", has_data=True)
        wire.writer.write(p_data(pdv(3, 3, store), pdv(3, 2, b"abcd")))
    await asyncio.sleep(0.05)
    assert site.storage.running == 4
    await wire.abort()
    await asyncio.sleep(0.05)
    site.storage.go.set()
    while site.listener.connections:
        await asyncio.sleep(0.01)
    assert site.storage.running == 0


async def test_draining_ends_an_association_after_its_operation(make_site: MakeSite) -> None:
    """What is running ends; the next is not begun; who is idle, or has not associated, goes at once."""
    site = make_site()
    await site.start()
    site.storage.go = asyncio.Event()
    busy = await Wire.associate(site.port, CONTEXTS)
    idle = await Wire.associate(site.port, CONTEXTS)
    silent, _ = knock = await asyncio.open_connection("127.0.0.1", site.port)
    storing = asyncio.create_task(busy.store(CT_IMAGE, "1.2.3", b"abcd"))
    await asyncio.sleep(0.05)
    stopping = asyncio.create_task(site.stop(10))
    assert (await idle.reader.readexactly(10))[:1] == b"\x07"
    idle.close()
    assert await read_to_end(silent) == b""
    assert not storing.done()
    with pytest.raises(OSError):  # noqa: PT011
        await asyncio.open_connection("127.0.0.1", site.port)
    site.storage.go.set()
    assert (await storing).status == 0
    assert (await busy.reader.readexactly(10))[:1] == b"\x07"
    busy.close()
    await stopping
    knock[1].close()


async def test_draining_has_an_end(make_site: MakeSite) -> None:
    site = make_site()
    await site.start()
    site.storage.go = asyncio.Event()
    wire = await Wire.associate(site.port, CONTEXTS)
    storing = asyncio.create_task(wire.store(CT_IMAGE, "1.2.3", b"abcd"))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(8):
        await site.stop(0.1)
    with pytest.raises(Exception, match="aborted"):
        await storing
    wire.close()
    assert site.storage.running == 0


async def test_a_fault_while_an_instance_is_begun_is_answered_after_it(site: Site) -> None:
    """0110; its data set is read to its end, and the association goes on."""

    def fail() -> Sink:
        raise MemoryError

    site.storage.make_sink = fail
    async with await Wire.associate(site.port, CONTEXTS) as wire:
        answer = await wire.store(CT_IMAGE, "1.2.3", bytes(500_000))
        assert (answer.status, answer.comment) == (0x0110, "internal error: MemoryError")
        assert await wire.echo() == 0


async def test_private_classes_without_end_keep_nobody_out(site: Site) -> None:
    """What a peer invents is not remembered for ever, and does not displace what others have negotiated."""
    private = "1.2.826.0.1.3680043.8.498.5.1"
    text = b"".join(struct.pack(">H", len(uid)) + uid for uid in (private.encode(), b"1.2.840.10008.4.2"))
    context = [Context(1, private), Context(3, VERIFICATION)]
    async with await Wire.associate(site.port, context, user_items=user_item(0x57, text + b"\0\0")) as wire:
        for number in range(10_001):
            assert site.dispatcher.offer(f"1.2.3.{number}", "1.2.840.10008.4.2") is not None
        assert private not in site.dispatcher._service_of
        assert len(site.dispatcher._service_of) < 10_000
        assert (await wire.store(private, "1.2.3", b"abcd")).status == 0
        assert await wire.echo() == 0


async def test_the_same_request_again_has_the_same_answer_and_large_ones_are_not_kept(site: Site) -> None:
    """Devices ask the same each time; a peer that invents requests must not fill our memory with them."""
    for _ in range(3):
        async with await Wire.associate(site.port, CONTEXTS) as wire:
            assert wire.results == {1: 0, 3: 0, 5: 0}
    assert len(site.acceptor._answers) == 1
    for number in range(3):
        syntaxes = [f"1.2.{number}.{at}" for at in range(100)]
        contexts = [Context(2 * at + 1, CT_IMAGE, syntaxes) for at in range(128)]
        async with await Wire.associate(site.port, contexts) as wire:
            assert set(wire.results.values()) == {0}
    assert len(site.acceptor._answers) == 1
    for number in range(70):
        async with await Wire.associate(site.port, CONTEXTS, calling=f"CT{number}") as wire:
            assert wire.results == {1: 0, 3: 0, 5: 0}
    assert len(site.acceptor._answers) <= 64
