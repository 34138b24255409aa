"""PDUs byte by byte, written from PS3.8 Tables 9-11 to 9-26, and what is refused with which words."""

import pytest

from pacslite.upper_layer.items import (
    AsynchronousOperationsWindow,
    PresentationContext,
    PresentationContextResult,
    RoleSelection,
    UserInformation,
)
from pacslite.upper_layer.pdu import (
    MAXIMUM_ASSOCIATE_LENGTH,
    PDU,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDUError,
    decode_pdu,
    encode_p_data,
)
from pacslite.upper_layer.reasons import abort_text, rejection_text

VERIFICATION, IMPLICIT, EXPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

H = bytes.fromhex

# Field by field from Tables 9-11 to 9-16, D.1-1 and PS3.7 Tables D.3-1, D.3-3, D.3-7, D.3-9. Lengths counted by hand.
REQUEST_BYTES = b"".join(
    (
        H("01 00 000000D9"),  # PDU-type, reserved, PDU-length: 68 + 25 + 73 + 51 = 217
        H("0001 0000"),  # Protocol-version: bit 0; reserved
        b"PACSLITE        ",  # Called-AE-title
        b"CT01            ",  # Calling-AE-title
        bytes(32),  # reserved
        H("10 00 0015") + b"1.2.840.10008.3.1.1.1",  # Application-context-name
        H("20 00 0045  01 00 00 00"),  # Presentation Context of 4 + 21 + 21 + 23 bytes; ID 1, three reserved
        H("30 00 0011") + b"1.2.840.10008.1.1",  # Abstract-syntax-name
        H("40 00 0011") + b"1.2.840.10008.1.2",  # Transfer-syntax-name
        H("40 00 0013") + b"1.2.840.10008.1.2.1",  # Transfer-syntax-name
        H("50 00 002F"),  # User Information of 8 + 11 + 8 + 13 + 7 bytes
        H("51 00 0004 00020000"),  # Maximum-length-received: 131072
        H("52 00 0007") + b"1.2.3.4",  # Implementation-class-uid
        H("53 00 0004 0008 0000"),  # Maximum-number-operations-invoked 8, -performed unlimited
        H("54 00 0009 0005") + b"1.2.3" + H("00 01"),  # UID-length, SOP-class-uid, SCU-role, SCP-role
        H("55 00 0003") + b"P_1",  # Implementation-version-name
    )
)
REQUEST = AAssociateRQ(
    called_ae_title="PACSLITE",
    calling_ae_title="CT01",
    presentation_contexts=(PresentationContext(1, VERIFICATION, (IMPLICIT, EXPLICIT)),),
    user_information=UserInformation(
        maximum_length=131072,
        implementation_class_uid="1.2.3.4",
        window=AsynchronousOperationsWindow(8, 0),
        roles=(RoleSelection("1.2.3", scu=False, scp=True),),
        implementation_version_name="P_1",
    ),
)
# Tables 9-17 to 9-20
ANSWER_BYTES = b"".join(
    (
        H("02 00 000000A8"),  # 68 + 25 + 29 + 27 + 19 = 168
        H("0001 0000"),
        b"PACSLITE        CT01            ",  # as received
        bytes(32),
        H("10 00 0015") + b"1.2.840.10008.3.1.1.1",
        H("21 00 0019  01 00 00 00"),  # Presentation Context of 4 + 21 bytes; ID 1, reserved, result 0, reserved
        H("40 00 0011") + b"1.2.840.10008.1.2",
        H("21 00 0017  03 00 04 00"),  # ID 3: transfer-syntaxes-not-supported, 4 + 19 bytes
        H("40 00 000F") + b"1.2.840.10008.9",
        H("50 00 000F"),  # 8 + 7 bytes
        H("51 00 0004 00004000"),  # 16384
        H("52 00 0003") + b"1.2",
    )
)
ANSWER = AAssociateAC(
    presentation_contexts=(PresentationContextResult(1, 0, IMPLICIT), PresentationContextResult(3, 4, "")),
    user_information=UserInformation(maximum_length=16384, implementation_class_uid="1.2"),
    titles=b"PACSLITE        CT01            " + bytes(32),
)
VECTORS: list[tuple[PDU, bytes]] = [
    (REQUEST, REQUEST_BYTES),
    (AAssociateRJ(result=1, source=1, reason=7), H("03 00 00000004 00 01 01 07")),
    (AReleaseRQ(), H("05 00 00000004 00000000")),
    (AReleaseRP(), H("06 00 00000004 00000000")),
    (AAbort(source=0), H("07 00 00000004 00 00 00 00")),
    (AAbort(source=2, reason=6), H("07 00 00000004 00 00 02 06")),
]


def decode(data: bytes) -> PDU | None:
    return decode_pdu(memoryview(data))


@pytest.mark.parametrize(("pdu", "data"), VECTORS, ids=lambda value: getattr(value, "name", ""))
def test_vector(pdu: PDU, data: bytes) -> None:
    assert pdu.encode() == data
    assert decode(data) == pdu


def test_answer_vector() -> None:
    assert decode(ANSWER_BYTES) == ANSWER  # what a rejected context names as transfer syntax is not significant
    encoded = AAssociateAC(
        (PresentationContextResult(1, 0, IMPLICIT), PresentationContextResult(3, 4, "1.2.840.10008.9")),
        ANSWER.user_information,
        titles=REQUEST.titles(),
    ).encode()
    assert encoded == ANSWER_BYTES


@pytest.mark.parametrize("data", [data for _, data in VECTORS] + [ANSWER_BYTES])
def test_every_beginning_is_not_yet_a_pdu(data: bytes) -> None:
    assert all(decode(data[:length]) is None for length in range(len(data)))


def test_reserved_fields_are_not_tested() -> None:
    noisy = bytearray(REQUEST_BYTES)
    noisy[1] = noisy[8] = noisy[9] = 0xFF  # PDU header; after Protocol-version
    noisy[42:74] = b"\xff" * 32
    for item in (
        b"\x10\x00\x00\x15",
        b"\x20\x00\x00\x45",
        b"\x30\x00\x00\x11",
        b"\x50\x00\x00\x2f",
        b"\x51\x00\x00\x04",
    ):
        noisy[noisy.index(item) + 1] = 0xFF
    at = noisy.index(b"\x20\xff\x00\x45") + 4
    noisy[at + 1 : at + 4] = b"\xff\xff\xff"
    assert decode(bytes(noisy)) == REQUEST
    assert decode(H("03 FF 00000004 FF 02 03 01")) == AAssociateRJ(2, 3, 1)
    assert decode(H("05 FF 00000004 FFFFFFFF")) == AReleaseRQ()
    assert decode(H("06 FF 00000004 FFFFFFFF")) == AReleaseRP()
    assert decode(H("07 FF 00000004 FF FF 01 03")) == AAbort(1, 3)  # reserved codes are kept


def test_answer_repeats_bytes_11_to_74_as_received() -> None:
    """PS3.8 §9.3.3: identical, odd padding and reserved bytes included."""
    received = bytearray(REQUEST_BYTES)
    received[10:74] = b"  PACSLITE\0\0\0\0\0\0" + b"CT01 \0          " + bytes(range(32))
    request = decode(bytes(received))
    assert isinstance(request, AAssociateRQ)
    assert (request.called_ae_title, request.calling_ae_title) == ("PACSLITE", "CT01")
    assert AAssociateAC((), titles=request.titles()).encode()[10:74] == received[10:74]


@pytest.mark.parametrize(
    ("field", "title"),
    [
        (b"PACSLITE        ", "PACSLITE"),
        (b"        PACSLITE", "PACSLITE"),  # leading spaces are not significant either
        (b"  PACS LITE     ", "PACS LITE"),
        (b"SIXTEEN_LETTERS_", "SIXTEEN_LETTERS_"),
        (b"PACSLITE\0\0\0\0\0\0\0\0", "PACSLITE"),
        (b"PACSLITE \0      ", "PACSLITE"),
        (b"                ", ""),
        (b"\xdcBUNG           ", "ÜBUNG"),
        (b"A\r\nB\x1b[2J        ", "A\r\nB\x1b[2J"),  # who logs it escapes it
    ],
)
def test_ae_title_is_without_its_padding(field: bytes, title: str) -> None:
    request = decode(REQUEST_BYTES[:26] + field + REQUEST_BYTES[42:])
    assert isinstance(request, AAssociateRQ)
    assert request.calling_ae_title == title


@pytest.mark.parametrize("title", ["", "    ", "SEVENTEEN_LETTERS", "東京"])
def test_ae_title_that_cannot_be_sent(title: str) -> None:
    with pytest.raises(PDUError, match=r"A-ASSOCIATE.*, Called-AE-title: "):
        AAssociateRQ(title, "CT01", ()).encode()


def test_padded_uids_and_names_lose_their_padding() -> None:
    padded = AAssociateRQ(
        "A", "B", (PresentationContext(1, VERIFICATION + "\0", (IMPLICIT + " ", EXPLICIT + "\0")),),
        UserInformation(implementation_class_uid="1.2.3\0", implementation_version_name="NAME  "),
        application_context="1.2.840.10008.3.1.1.1\0",
    )  # fmt: skip
    request = decode(padded.encode())
    assert isinstance(request, AAssociateRQ)
    assert request.presentation_contexts == (PresentationContext(1, VERIFICATION, (IMPLICIT, EXPLICIT)),)
    assert request.user_information.implementation_class_uid == "1.2.3"
    assert request.user_information.implementation_version_name == "NAME"
    assert request.application_context == "1.2.840.10008.3.1.1.1"


def associate(*items: bytes, pdu_type: int = 1) -> bytes:
    body = H("0001 0000") + b"PACSLITE        CT01            " + bytes(32) + b"".join(items)
    return bytes((pdu_type, 0)) + len(body).to_bytes(4, "big") + body


def test_unknown_items_are_skipped_and_order_is_free() -> None:
    """PS3.8 §9.3.1, §D.2; here the user information comes first, unknown items everywhere."""
    data = associate(
        H("99 00 0003 010203"),
        H("50 00 000F  5A 00 0003 AABBCC  51 00 0004 00001000"),
        H("20 00 0008  05 00 00 00  4F 00 0000"),
        H("10 00 0003") + b"1.2",
        H("FF 00 0000"),
    )
    assert decode(data) == AAssociateRQ(
        "PACSLITE", "CT01", (PresentationContext(5, "", ()),), UserInformation(4096), application_context="1.2"
    )
    answer = decode(associate(H("99 00 0000"), H("21 00 0008 01 00 00 00 4F 00 0000"), pdu_type=2))
    assert isinstance(answer, AAssociateAC)
    assert answer.presentation_contexts == (PresentationContextResult(1, 0, ""),)


def test_associate_without_items_decodes() -> None:
    """What is missing is judged by negotiation, not by the codec."""
    request = decode(associate())
    assert request == AAssociateRQ("PACSLITE", "CT01", (), application_context="")


CONTEXT_1 = H("20 00 0004 01 00 00 00")


@pytest.mark.parametrize(
    ("data", "reason", "problem"),
    [
        (H("00 00 00000004 00000000"), 1, "PDU, PDU-type: 00H is not known here"),
        (H("08 00 00000004 00000000"), 1, "PDU, PDU-type: 08H is not known here"),
        (H("04 00 00000006 00000002 01 03"), 1, "PDU, PDU-type: 04H is not known here"),  # P-DATA-TF: see framing
        (b"GET / HTTP/1.1\r\n", 1, "PDU, PDU-type: 47H is not known here: this is an HTTP request"),
        (b"POST /studies", 1, "PDU, PDU-type: 50H is not known here: this is an HTTP request"),
        (H("16 03 01 0200 01"), 1, "PDU, PDU-type: 16H is not known here: this is TLS, which is not spoken here"),
        (b"SSH-2.0-OpenSSH", 1, "PDU, PDU-type: 53H is not known here: this is an SSH client"),
        (H("07 00 00000005 0000000000"), 6, "A-ABORT, PDU-length: 4 expected, 5 received"),
        (H("05 00 00000000"), 6, "A-RELEASE-RQ, PDU-length: 4 expected, 0 received"),
        (H("06 00 FFFFFFFF"), 6, "A-RELEASE-RP, PDU-length: 4 expected, 4294967295 received"),
        (H("03 00 00000003 000000"), 6, "A-ASSOCIATE-RJ, PDU-length: 4 expected, 3 received"),
        (H("01 00 FFFFFFFF"), 6, "A-ASSOCIATE-RQ, PDU-length: 68 to 262144 expected, 4294967295 received"),
        (H("02 00 00000043"), 6, "A-ASSOCIATE-AC, PDU-length: 68 to 262144 expected, 67 received"),
        (associate(H("10 00 00")), 6, "A-ASSOCIATE-RQ, Variable items: 3 bytes left at byte 0, no item header"),
        (associate(H("10 00 0001")), 6, "A-ASSOCIATE-RQ, Variable items: item 10H of 1 bytes at byte 0 leaves it"),
        (associate(CONTEXT_1, CONTEXT_1), 6, "A-ASSOCIATE-RQ, Presentation-context-ID: 1 is proposed twice"),
        (
            associate(H("20 00 0004 02 00 00 00")),
            6,
            "A-ASSOCIATE-RQ, Presentation-context-ID: 2 is not odd and 1 to 255",
        ),
        (
            associate(H("20 00 0003 01 00 00")),
            6,
            "A-ASSOCIATE-RQ, Presentation Context: 3 bytes received, no room for its ID",
        ),
        (
            associate(H("20 00 0009 07 00 00 00 30 00 0002 31")),
            6,
            "A-ASSOCIATE-RQ, Presentation Context 7: item 30H of 2 bytes at byte 0 leaves it",
        ),
        (
            associate(H("21 00 0008 07 00 00 00 40 00 FFFF"), pdu_type=2),
            6,
            "A-ASSOCIATE-AC, Presentation Context 7: item 40H of 65535 bytes at byte 0 leaves it",
        ),
        (
            associate(H("21 00 0000"), pdu_type=2),
            6,
            "A-ASSOCIATE-AC, Presentation Context: 0 bytes received, no room for its ID",
        ),
    ],
)
def test_refused(data: bytes, reason: int, problem: str) -> None:
    with pytest.raises(PDUError) as caught:
        decode(data)
    assert str(caught.value) == problem
    assert caught.value.reason == reason


def test_item_after_the_context_id_is_not_needed_for_a_rejection() -> None:
    """PS3.8 §9.3.3.2: not significant, not tested, whatever is there."""
    answer = decode(associate(H("21 00 0006 01 00 03 00 FFFF"), pdu_type=2))
    assert isinstance(answer, AAssociateAC)
    assert answer.presentation_contexts == (PresentationContextResult(1, 3, ""),)


def test_largest_associate_decodes() -> None:
    filler = MAXIMUM_ASSOCIATE_LENGTH - 68
    items = [H("99 00 FFFC") + bytes(0xFFFC)] * (filler // 65536) + [
        H("99 00") + (filler % 65536 - 4).to_bytes(2, "big")
    ]
    data = associate(*items, bytes(filler % 65536 - 4))
    assert len(data) == 6 + MAXIMUM_ASSOCIATE_LENGTH
    assert isinstance(decode(data), AAssociateRQ)


@pytest.mark.parametrize("context_id", [0, 2, 256, 257])
def test_even_or_large_context_id_is_not_sent(context_id: int) -> None:
    with pytest.raises(PDUError, match="Presentation-context-ID"):
        AAssociateRQ("A", "B", (PresentationContext(context_id, VERIFICATION, (IMPLICIT,)),)).encode()


# P-DATA-TF: Tables 9-22 and 9-23, message control header PS3.8 §E.2


@pytest.mark.parametrize(
    ("is_command", "is_last", "control"), [(True, True, 3), (True, False, 1), (False, True, 2), (False, False, 0)]
)
def test_message_control_header(is_command: bool, is_last: bool, control: int) -> None:
    (frame,) = encode_p_data(5, is_command, b"\x01\x02", 16384, is_last)
    assert frame == H("04 00 00000008 00000004 05") + bytes((control,)) + b"\x01\x02"


def test_empty_fragment_ends_a_data_set() -> None:
    assert encode_p_data(1, False, b"", 16384) == [H("04 00 00000006 00000002 01 02")]


def test_large_data_is_cut_at_the_peers_limit_and_not_copied() -> None:
    data = bytes(range(250)) * 100
    frames = encode_p_data(3, False, data, 10_000)
    headers, pieces = frames[::2], frames[1::2]
    assert headers == [
        H("04 00 00002710 0000270C 03 00"),  # PDU-length 10000, Item-length 9996
        H("04 00 00002710 0000270C 03 00"),
        H("04 00 0000139A 00001396 03 02"),  # 5012 bytes left: 5018, 5014
    ]
    assert [len(piece) for piece in pieces] == [9994, 9994, 5012]
    assert b"".join(pieces) == data
    assert all(isinstance(piece, memoryview) and piece.obj is data for piece in pieces)


@pytest.mark.parametrize("limit", [8, 9, 100, 4096, 16_383, 16_384, 0])
@pytest.mark.parametrize("size", [0, 2, 98, 4096, 4098, 30_000])
def test_no_pdu_is_over_the_limit_and_fragments_are_even(limit: int, size: int) -> None:
    wire = b"".join(encode_p_data(1, False, bytes(size), limit))
    total, controls = 0, []
    while wire:
        pdu_length = int.from_bytes(wire[2:6], "big")
        assert int.from_bytes(wire[6:10], "big") == pdu_length - 4
        assert pdu_length <= (limit or pdu_length)
        assert pdu_length % 2 == 0
        controls.append(wire[11])
        total += pdu_length - 6
        wire = wire[6 + pdu_length :]
    assert total == size
    assert controls == [0] * (len(controls) - 1) + [2]


@pytest.mark.parametrize(("limit", "buffers"), [(8, 1), (1024, 1), (1030, 60), (16_384, 4)])
def test_small_pdus_are_one_buffer(limit: int, buffers: int) -> None:
    assert len(encode_p_data(1, False, bytes(30_000), limit)) == buffers


def test_no_limit_is_cut_in_pieces_of_a_megabyte() -> None:
    frames = encode_p_data(1, False, memoryview(bytes((1 << 20) + 2)), 0, is_last=False)
    assert [len(frame) for frame in frames] == [12, 1 << 20, 12, 2]


def test_largest_limit_is_obeyed() -> None:
    frames = encode_p_data(1, False, bytes(5000), 0xFFFFFFFF)
    assert [len(frame) for frame in frames] == [12, 5000]


def test_limit_without_room_for_data_is_refused() -> None:
    with pytest.raises(PDUError, match="the peer's limit of 7 bytes leaves no room"):
        encode_p_data(1, True, b"\x00\x00", 7)


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        ((1, 1, 7), "rejected-permanent by service-user: called-AE-title-not-recognized"),
        ((2, 3, 2), "rejected-transient by service-provider (presentation): local-limit-exceeded"),
        ((1, 2, 2), "rejected-permanent by service-provider (ACSE): protocol-version-not-supported"),
        ((9, 8, 7), "result 9 by source 8: reason 7"),
    ],
)
def test_rejection_in_words(codes: tuple[int, int, int], text: str) -> None:
    assert rejection_text(*codes) == text


@pytest.mark.parametrize(
    ("codes", "text"),
    [
        ((0, 6), "aborted by the service-user"),  # its reason is not significant
        ((2, 2), "aborted by the service-provider: unexpected-PDU"),
        ((2, 99), "aborted by the service-provider: reason 99"),
        ((1, 0), "aborted by the source 1: reason-not-specified"),
    ],
)
def test_abort_in_words(codes: tuple[int, int], text: str) -> None:
    assert abort_text(*codes) == text
