"""What messages say: PS3.7 §9.3, §10.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.dimse.command import Tag, encode_command
from pacslite.dimse.messages import (
    NO_DATA_SET,
    CommandField,
    Message,
    cancel_request,
    plain_response,
    request_command,
    response_to,
)
from pacslite.dimse.status import Status, is_done, is_failure, is_pending, is_warning
from pacslite.upper_layer.negotiation import AcceptedContext

CONTEXT = AcceptedContext(1, "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")


def test_a_store_request_says_what_it_carries() -> None:
    command = request_command(
        CommandField.C_STORE_RQ, 9, sop_class_uid="1.2", sop_instance_uid="1.2.3", has_data_set=True, priority=1,
        extra={Tag.MOVE_DESTINATION: "WS7"},
    )  # fmt: skip
    message = Message(command, CONTEXT)
    assert (message.label, message.message_id, message.priority) == ("C-STORE", 9, 1)
    assert (message.sop_class_uid, message.sop_instance_uid) == ("1.2", "1.2.3")
    assert message.has_data_set
    assert not message.is_response
    assert message.move_destination == "WS7"


def test_n_action_names_a_requested_sop_class() -> None:
    """§10.1.4.1: Requested, not Affected; its response names the Affected one."""
    command = request_command(
        CommandField.N_ACTION_RQ, 1, sop_class_uid="1.2", sop_instance_uid="1.2.3", extra={Tag.ACTION_TYPE_ID: 1}
    )
    assert command[Tag.REQUESTED_SOP_CLASS_UID] == "1.2"
    assert command[Tag.REQUESTED_SOP_INSTANCE_UID] == "1.2.3"
    request = Message(command, CONTEXT)
    assert request.action_type_id == 1
    answer = response_to(request, Status.SUCCESS)
    assert answer[Tag.AFFECTED_SOP_CLASS_UID] == "1.2"
    assert answer[Tag.AFFECTED_SOP_INSTANCE_UID] == "1.2.3"
    assert answer[Tag.ACTION_TYPE_ID] == 1
    assert Tag.REQUESTED_SOP_CLASS_UID not in answer


def test_a_response_answers_its_request() -> None:
    request = Message(request_command(CommandField.C_FIND_RQ, 5, sop_class_uid="1.2"), CONTEXT)
    answer = response_to(
        request, Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, comment="no level", offending=[0x00080052], extra={1: 2}
    )
    response = Message(answer, CONTEXT)
    assert response.is_response
    assert response.command_field == CommandField.C_FIND_RSP
    assert response.message_id_being_responded_to == 5
    assert (response.status, response.error_comment) == (0xA900, "no level")
    assert answer[Tag.OFFENDING_ELEMENT] == (0x00080052,)
    assert answer[1] == 2
    assert not response.has_data_set
    assert Message(response_to(request, Status.PENDING, has_data_set=True), CONTEXT).has_data_set


UIDS = st.text("0123456789.", max_size=64) | st.text(st.characters(max_codepoint=255), max_size=70)


@given(
    field=st.sampled_from([CommandField.C_STORE_RQ, CommandField.C_ECHO_RQ, CommandField.C_FIND_RQ]),
    message_id=st.integers(0, 0xFFFF),
    status=st.integers(0, 0xFFFF),
    sop_class=UIDS,
    sop_instance=UIDS,
)
def test_a_plain_response_is_the_same_in_fewer_steps(
    field: CommandField, message_id: int, status: int, sop_class: str, sop_instance: str
) -> None:
    command = request_command(field, message_id, sop_class_uid=sop_class, sop_instance_uid=sop_instance)
    request = Message(command, CONTEXT)
    assert request.is_composite
    assert plain_response(request, status) == encode_command(response_to(request, status))


def test_a_cancel_has_no_message_id_of_its_own() -> None:
    """§9.3.2.3."""
    command = cancel_request(12)
    assert Tag.MESSAGE_ID not in command
    assert command[Tag.MESSAGE_ID_BEING_RESPONDED_TO] == 12
    assert command[Tag.COMMAND_DATA_SET_TYPE] == NO_DATA_SET


@pytest.mark.parametrize("data_set_type", [0x0000, 0x0001, 0x0102, 0xFEFE])
def test_every_other_data_set_type_says_that_there_is_one(data_set_type: int) -> None:
    assert Message({Tag.COMMAND_DATA_SET_TYPE: data_set_type}, CONTEXT).has_data_set


def test_what_is_absent_has_a_harmless_value() -> None:
    message = Message({}, CONTEXT)
    assert (message.message_id, message.sop_class_uid, message.error_comment, message.event_type_id) == (0, "", "", 0)
    assert message.status == Status.PROCESSING_FAILURE
    assert not message.has_data_set
    assert message.count(Tag.NUMBER_OF_FAILED_SUBOPERATIONS) == 0
    assert Message({Tag.STATUS: "x", Tag.ERROR_COMMENT: 5}, CONTEXT).error_comment == ""
    assert Message({Tag.COMMAND_FIELD: 0x4711}, CONTEXT).label == "DIMSE-4711"


@pytest.mark.parametrize(
    ("status", "pending", "warning", "failure"),
    [
        (0x0000, False, False, False),
        (0xFF00, True, False, False),
        (0xFF01, True, False, False),
        (0xFE00, False, False, False),
        (0xB000, False, True, False),  # PS3.4 B.2.3
        (0xB007, False, True, False),
        (0x0001, False, True, False),  # PS3.7 C.3
        (0x0107, False, True, False),
        (0x0116, False, True, False),
        (0xA700, False, False, True),
        (0xC123, False, False, True),
        (0x0124, False, False, True),
    ],
)
def test_kinds_of_statuses(status: int, pending: bool, warning: bool, failure: bool) -> None:
    assert (is_pending(status), is_warning(status), is_failure(status)) == (pending, warning, failure)
    assert is_done(status) == (warning or status == 0)
