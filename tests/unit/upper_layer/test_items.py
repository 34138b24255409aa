"""User information sub-items byte by byte: PS3.8 Table D.1-1, PS3.7 Tables D.3-1 to D.3-15."""

import pytest

from pacslite.upper_layer.fields import PDUError
from pacslite.upper_layer.items import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserIdentity,
    UserInformation,
)

H = bytes.fromhex

VECTORS: list[tuple[str, UserInformation, bytes]] = [
    # what is mandatory is always sent, before everything else: 51H and 52H
    ("nothing", UserInformation(), H("51 00 0004 00000000  52 00 0000")),
    ("maximum length", UserInformation(maximum_length=0xFFFFFFFE), H("51 00 0004 FFFFFFFE  52 00 0000")),
    (
        "implementation",
        UserInformation(implementation_class_uid="1.2.3", implementation_version_name="PACSLITE_0_1_000"),
        H("51 00 0004 00000000  52 00 0005") + b"1.2.3" + H("55 00 0010") + b"PACSLITE_0_1_000",
    ),
    (
        "window",
        UserInformation(window=AsynchronousOperationsWindow(operations_invoked=5, operations_performed=0)),
        H("51 00 0004 00000000  52 00 0000  53 00 0004 0005 0000"),
    ),
    (
        "roles",
        UserInformation(roles=(RoleSelection("1.2", scu=True, scp=False), RoleSelection("1.4", scu=False, scp=True))),
        H("51 00 0004 00000000  52 00 0000")
        + (H("54 00 0007 0003") + b"1.2" + H("01 00"))
        + (H("54 00 0007 0003") + b"1.4" + H("00 01")),
    ),
    (
        "extended negotiation",
        UserInformation(extended=(ExtendedNegotiation("1.2", H("01 00 01")), ExtendedNegotiation("1.22", b""))),
        H("51 00 0004 00000000  52 00 0000")
        + (H("56 00 0008 0003") + b"1.2" + H("01 00 01"))
        + (H("56 00 0006 0004") + b"1.22"),
    ),
    (
        "common extended negotiation",
        UserInformation(common_extended=(CommonExtendedNegotiation("1.2", "1.34", ("1.5", "1.67")),)),
        H("51 00 0004 00000000  52 00 0000  57 00 0018")
        + (H("0003") + b"1.2")
        + (H("0004") + b"1.34")
        + (H("000B  0003") + b"1.5" + H("0004") + b"1.67"),
    ),
    (
        "common extended negotiation without related classes",
        UserInformation(common_extended=(CommonExtendedNegotiation("1.2", "1.34"),)),
        H("51 00 0004 00000000  52 00 0000  57 00 000D  0003") + b"1.2" + H("0004") + b"1.34" + H("0000"),
    ),
    (
        "user name",
        UserInformation(user_identity=UserIdentity(1, b"anna")),
        H("51 00 0004 00000000  52 00 0000  58 00 000A  01 00  0004") + b"anna" + H("0000"),
    ),
    (
        "user name and passcode",
        UserInformation(user_identity=UserIdentity(2, b"anna", b"secret", positive_response_requested=True)),
        H("51 00 0004 00000000  52 00 0000  58 00 0010  02 01  0004") + b"anna" + H("0006") + b"secret",
    ),
    (
        "server response",
        UserInformation(user_identity_response=b"ticket"),
        H("51 00 0004 00000000  52 00 0000  59 00 0008  0006") + b"ticket",
    ),
    (
        "empty server response",
        UserInformation(user_identity_response=b""),
        H("51 00 0004 00000000  52 00 0000  59 00 0002  0000"),
    ),
]


def decode(value: bytes) -> UserInformation:
    return UserInformation.decode(memoryview(value), "A-ASSOCIATE-RQ")


@pytest.mark.parametrize(("information", "value"), [row[1:] for row in VECTORS], ids=[row[0] for row in VECTORS])
def test_vector(information: UserInformation, value: bytes) -> None:
    assert information.encode() == H("50 00") + len(value).to_bytes(2, "big") + value
    assert decode(value) == information


def test_items_are_sent_in_ascending_order_of_type() -> None:
    """PS3.8 §9.3.2.3: older applications expect it."""
    information = UserInformation(
        1, "1.2", AsynchronousOperationsWindow(), (RoleSelection("1.2", scu=True, scp=True),), "NAME",
        (ExtendedNegotiation("1.2", b"\x01"),), (CommonExtendedNegotiation("1.2", "1.3"),), UserIdentity(1, b"a"), b"",
    )  # fmt: skip
    encoded, types = information.encode()[4:], []
    while encoded:
        types.append(encoded[0])
        encoded = encoded[4 + int.from_bytes(encoded[2:4], "big") :]
    assert types == [0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59]


def test_any_order_is_understood() -> None:
    value = (
        H("55 00 0001") + b"N" + H("54 00 0005 0001") + b"1" + H("01 01  52 00 0001") + b"2" + H("51 00 0004 00000001")
    )
    assert decode(value) == UserInformation(1, "2", None, (RoleSelection("1", scu=True, scp=True),), "N")


@pytest.mark.parametrize(
    ("value", "understood"),
    [
        # no length of a Secondary-field
        (H("58 00 0006  01 00  0002") + b"me", UserInformation(user_identity=UserIdentity(1, b"me"))),
        (
            H("58 00 0008  05 07  0002") + b"me" + H("0000"),  # 7 is no 0: taken for a request
            UserInformation(user_identity=UserIdentity(5, b"me", positive_response_requested=True)),
        ),
        (H("58 00 0006  FF 00  0000 0000"), UserInformation(user_identity=UserIdentity(255, b""))),
        (
            H("54 00 0007 0002") + b"1\0" + H("02 00 00"),
            UserInformation(roles=(RoleSelection("1", scu=True, scp=False),)),
        ),
        (  # a later version of 57H: fields after those of version 0
            H("57 09 000C  0001") + b"1" + H("0001") + b"2" + H("0000 AABBCCDD"),
            UserInformation(common_extended=(CommonExtendedNegotiation("1", "2"),)),
        ),
        (H("60 00 0002 0000  51 00 0004 00000007"), UserInformation(maximum_length=7)),  # an item of a later edition
    ],
)
def test_deviations_that_are_understood(value: bytes, understood: UserInformation) -> None:
    assert decode(value) == understood


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (H("51 00 0002 0000"), "Maximum Length: 4 bytes expected, 2 received"),
        (H("51 00 0005 0000000000"), "Maximum Length: 4 bytes expected, 5 received"),
        (H("53 00 0002 0001"), "Asynchronous Operations Window: 4 bytes expected, 2 received"),
        (H("54 00 0001 00"), "SCP/SCU Role Selection, SOP-class-uid: its length is missing at byte 0"),
        (H("54 00 0003 0002 31"), "SCP/SCU Role Selection, SOP-class-uid: 2 bytes announced, 1 there"),
        (H("54 00 0004 0001 31 01"), "SCP/SCU Role Selection: SCU-role or SCP-role is missing"),
        (H("56 00 0003 FFFF 31"), "SOP Class Extended Negotiation, SOP-class-uid: 65535 bytes announced, 1 there"),
        (
            H("57 00 0003 0001 31"),
            "SOP Class Common Extended Negotiation, Service-class-uid: its length is missing at byte 3",
        ),
        (
            H("57 00 0006 0001 31 0001 32"),
            "SOP Class Common Extended Negotiation, Related-general-sop-class-identification: "
            "its length is missing at byte 6",
        ),
        (
            H("57 00 0009 0001 31 0001 32 0001 00"),
            "SOP Class Common Extended Negotiation, Related-general-sop-class-uid: its length is missing at byte 0",
        ),
        (H("58 00 0001 01"), "User Identity: 1 bytes received where the type is due"),
        (H("58 00 0002 01 00"), "User Identity, Primary-field: its length is missing at byte 2"),
        (H("58 00 0007 02 00 0002 6D65 00"), "User Identity, Secondary-field: its length is missing at byte 6"),
        (H("59 00 0003 0002 00"), "User Identity, Server-response: 2 bytes announced, 1 there"),
        (H("51 00 0004 00000000 52"), "User Information: 1 bytes left at byte 8, no item header"),
    ],
)
def test_refused(value: bytes, problem: str) -> None:
    with pytest.raises(PDUError) as caught:
        decode(value)
    assert str(caught.value) == f"A-ASSOCIATE-RQ, {problem}"
    assert caught.value.reason == 6


@pytest.mark.parametrize(
    ("information", "problem"),
    [
        (UserInformation(user_identity=UserIdentity(4, bytes(65536))), "sub-item field: 65536 bytes do not fit"),
        (UserInformation(user_identity=UserIdentity(4, bytes(65535))), "item 58H: 65541 bytes do not fit"),
        (
            UserInformation(extended=(ExtendedNegotiation("1.2", bytes(40_000)),) * 2),
            "item 50H: 80030 bytes do not fit",
        ),
        (UserInformation(implementation_class_uid="1.2.€"), "Implementation-class-uid: '1.2.€' is not ISO 646"),
    ],
)
def test_not_sent(information: UserInformation, problem: str) -> None:
    with pytest.raises(PDUError, match=problem):
        information.encode()


def test_identity_is_never_shown() -> None:
    information = UserInformation(user_identity=UserIdentity(2, b"anna", b"secret"))
    assert "secret" not in repr(information)
    assert "anna" not in repr(information)
