"""What a request knows of its end."""

from pacslite.dimse.command import Value
from pacslite.dimse.messages import CommandField, Message, request_command, response_to
from pacslite.dimse.service import Peer, Request
from pacslite.upper_layer.negotiation import AcceptedContext


class Flow:
    """Counts."""

    paused = 0

    def pause_reading(self) -> None:
        self.paused += 1

    def resume_reading(self) -> None:
        self.paused -= 1


class NoInvoker:
    """On this association we ask nothing."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(name)


CONTEXT = AcceptedContext(1, "1.2", "1.2.840.10008.1.2")
PEER = Peer("7f3a", "CT01", "PACSLITE", "10.0.0.12", frozenset({"store"}))


def request() -> Request:
    message = Message(request_command(CommandField.C_FIND_RQ, 1, sop_class_uid="1.2"), CONTEXT)
    return Request(message, PEER, Flow(), NoInvoker())  # type: ignore[arg-type]


def test_a_cancel_reaches_who_waits_for_it_and_who_comes_late() -> None:
    told: list[str] = []
    one = request()
    one.cancel()  # nobody waits yet
    assert one.cancelled
    one.when_cancelled(lambda: told.append("late"))
    assert told == ["late"]
    two = request()
    two.when_cancelled(lambda: told.append("waiting"))
    assert told == ["late"]
    two.cancel()
    assert told == ["late", "waiting"]
    assert not two.abandoned


def test_a_request_whose_peer_has_gone_is_cancelled_too() -> None:
    one = request()
    one.abandon()
    assert one.cancelled
    assert one.abandoned


def test_a_peer_is_its_title_and_host() -> None:
    assert str(PEER) == "CT01@10.0.0.12"


def test_an_answer_to_a_request_without_class_or_instance_has_none() -> None:
    command: dict[int, Value] = {0x00000100: int(CommandField.C_ECHO_RQ), 0x00000110: 3}
    answer = response_to(Message(command, CONTEXT), 0)
    assert 0x00000002 not in answer
    assert 0x00001000 not in answer
