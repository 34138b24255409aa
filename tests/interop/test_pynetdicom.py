"""pynetdicom as requestor and as destination: role selection, extended negotiation, user identity, sub-operations."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from tests.support.exchange import parse_data_set, send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite, ServerFactory
from tests.support.wire import (
    CT_IMAGE,
    EXPLICIT_LITTLE,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)

PATIENT_STUDY_ONLY_FIND = "1.2.840.10008.5.1.4.1.2.3.1"


@dataclass
class Destination:
    """What pynetdicom's storage SCP was sent."""

    received: list[tuple[str, str, int | None]] = field(default_factory=list)  # instance, originator, its message ID
    status: int = 0


@pytest.fixture(scope="module")
def study(server: Pacslite) -> Sequence[Instance]:
    instances = [make_instance(n, seed=8, size=50_000) for n in range(5)]
    asyncio.run(send_instances(server.port, instances))
    return instances


@pytest.fixture(scope="module")
def destination(destinations: Mapping[str, int]) -> Iterator[Destination]:
    state = Destination()

    def on_store(event: evt.Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)
        state.received.append(
            (
                str(request.AffectedSOPInstanceUID),
                str(request.MoveOriginatorApplicationEntityTitle or "").strip(),
                request.MoveOriginatorMessageID,
            )
        )
        return state.status

    ae = AE(ae_title="PYNETDICOM")
    ae.add_supported_context(CT_IMAGE)
    scp = ae.start_server(
        ("127.0.0.1", destinations["PYNETDICOM"]), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]
    )
    yield state
    assert scp is not None
    scp.shutdown()


def _associate(server: Pacslite, classes: Sequence[str], **more: Any) -> Any:
    ae = AE(ae_title="PYNETDICOM")
    for uid in classes:
        ae.add_requested_context(uid)
    association = ae.associate("127.0.0.1", server.port, ae_title=server.ae_title, **more)
    assert association.is_established
    return association


def _query(**keys: str) -> Dataset:
    data_set = Dataset()
    for keyword, value in keys.items():
        setattr(data_set, keyword, value)
    return data_set


def test_echo(server: Pacslite) -> None:
    association = _associate(server, [VERIFICATION])
    assert association.send_c_echo().Status == 0
    association.release()


def test_find(server: Pacslite, study: Sequence[Instance]) -> None:
    association = _associate(server, [STUDY_ROOT_FIND])
    keys = _query(QueryRetrieveLevel="STUDY", PatientID=study[0].patient_id, StudyInstanceUID="", PatientName="")
    keys.NumberOfStudyRelatedInstances = ""
    answers = list(association.send_c_find(keys, STUDY_ROOT_FIND))
    association.release()
    statuses = [status.Status for status, _ in answers]
    assert statuses == [0xFF00, 0x0000]
    assert answers[0][1].StudyInstanceUID == study[0].study_uid
    assert int(answers[0][1].NumberOfStudyRelatedInstances) == len(study)


@pytest.mark.parametrize(
    ("model", "level", "keys", "number"),
    [
        (PATIENT_ROOT_FIND, "PATIENT", ("PatientName",), 1),
        (PATIENT_ROOT_FIND, "STUDY", ("StudyDate",), 1),
        (PATIENT_ROOT_FIND, "SERIES", ("Modality",), 1),
        (PATIENT_ROOT_FIND, "IMAGE", ("InstanceNumber",), 5),
        (STUDY_ROOT_FIND, "STUDY", ("ModalitiesInStudy",), 1),
        (STUDY_ROOT_FIND, "SERIES", ("NumberOfSeriesRelatedInstances",), 1),
        (STUDY_ROOT_FIND, "IMAGE", ("AvailableTransferSyntaxUID",), 5),
        (PATIENT_STUDY_ONLY_FIND, "PATIENT", ("NumberOfPatientRelatedStudies",), 1),
        (PATIENT_STUDY_ONLY_FIND, "STUDY", ("InstanceAvailability",), 1),
    ],
)
def test_find_at_every_level(
    server: Pacslite, study: Sequence[Instance], model: str, level: str, keys: Sequence[str], number: int
) -> None:
    """Each model has its levels; the unique keys of those above are given, that of the level is asked for."""
    first = study[0]
    unique = {
        "PATIENT": ("PatientID", first.patient_id),
        "STUDY": ("StudyInstanceUID", first.study_uid),
        "SERIES": ("SeriesInstanceUID", first.series_uid),
        "IMAGE": ("SOPInstanceUID", ""),
    }
    asked = dict(list(unique.values())[: list(unique).index(level) + 1])
    association = _associate(server, [model])
    query = _query(QueryRetrieveLevel=level, **asked, **dict.fromkeys(keys, ""))
    answers = list(association.send_c_find(query, model))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF00] * number + [0x0000]
    for _, answer in answers[:-1]:
        assert answer.QueryRetrieveLevel == level
        assert answer.RetrieveAETitle == server.ae_title
        assert all(str(answer[keyword].value) for keyword in (*asked, *keys))


def test_unsupported_key_is_told(server: Pacslite, study: Sequence[Instance]) -> None:
    """FF01 when an optional key is not supported for matching (PS3.4 Table C.4-1)."""
    association = _associate(server, [STUDY_ROOT_FIND])
    keys = _query(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].study_uid)
    keys.add_new(0x00111001, "LO", "whatever")
    answers = list(association.send_c_find(keys, STUDY_ROOT_FIND))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF01, 0x0000]


def test_get_with_role_selection(server: Pacslite, study: Sequence[Instance]) -> None:
    received: list[str] = []

    def on_store(event: evt.Event) -> int:
        assert isinstance(event.request, C_STORE)
        received.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    association = _associate(
        server,
        [STUDY_ROOT_GET, CT_IMAGE],
        ext_neg=[build_role(CT_IMAGE, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, on_store)],
    )
    keys = _query(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].study_uid)
    answers = list(association.send_c_get(keys, STUDY_ROOT_GET))
    association.release()
    assert answers[-1][0].Status == 0
    assert sorted(received) == sorted(item.sop_instance_uid for item in study)


@pytest.mark.parametrize(
    ("status", "final", "completed", "failed", "warning"),
    [(0x0000, 0x0000, 5, 0, 0), (0xB000, 0xB000, 0, 0, 5), (0xA700, 0xA702, 0, 5, 0)],
)
def test_move(
    server: Pacslite,
    study: Sequence[Instance],
    destination: Destination,
    status: int,
    final: int,
    completed: int,
    failed: int,
    warning: int,
) -> None:
    """The final status and counters follow what the destination answered; the originator is told who asked."""
    destination.status = status
    destination.received.clear()
    association = _associate(server, [STUDY_ROOT_MOVE])
    keys = _query(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].study_uid)
    answers = list(association.send_c_move(keys, "PYNETDICOM", STUDY_ROOT_MOVE, msg_id=77))
    association.release()
    last, failures = answers[-1]
    assert last.Status == final
    assert last.NumberOfCompletedSuboperations == completed
    assert last.NumberOfFailedSuboperations == failed
    assert last.NumberOfWarningSuboperations == warning
    assert "NumberOfRemainingSuboperations" not in last
    assert {item.sop_instance_uid for item in study} == {uid for uid, _, _ in destination.received}
    assert {(originator, number) for _, originator, number in destination.received} == {("PYNETDICOM", 77)}
    if failed:
        assert sorted(failures.FailedSOPInstanceUIDList) == sorted(item.sop_instance_uid for item in study)
    for pending, data_set in answers[:-1]:
        assert pending.Status == 0xFF00
        assert data_set is None


def test_asynchronous_window_is_answered(server: Pacslite) -> None:
    """Answered when proposed, with no more than was proposed (PS3.7 D.3.3.3)."""
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 3, 1
    association = _associate(server, [VERIFICATION], ext_neg=[window])
    answer = [item for item in association.acceptor.primitive.user_information if isinstance(item, type(window))]
    association.release()
    assert len(answer) == 1
    assert 1 <= answer[0].maximum_number_operations_invoked <= 3
    assert answer[0].maximum_number_operations_performed == 1


def test_nothing_is_answered_that_was_not_proposed(server: Pacslite) -> None:
    association = _associate(server, [VERIFICATION])
    names = {type(item).__name__ for item in association.acceptor.primitive.user_information}
    association.release()
    assert names <= {
        "MaximumLengthNotification",
        "ImplementationClassUIDNotification",
        "ImplementationVersionNameNotification",
    }


def test_user_identity_does_not_disturb(server: Pacslite) -> None:
    """Without configured users an identity may be ignored (PS3.7 D.3.3.7)."""
    for kind, primary, secondary in ((1, b"someone", None), (2, b"someone", b"secret")):
        identity = UserIdentityNegotiation()
        identity.user_identity_type, identity.primary_field = kind, primary
        if secondary:
            identity.secondary_field = secondary
        identity.positive_response_requested = False
        association = _associate(server, [VERIFICATION], ext_neg=[identity])
        assert association.send_c_echo().Status == 0
        association.release()


def test_extended_negotiation_is_answered_in_its_length(server: Pacslite) -> None:
    """PS3.4 C.5.1.1: as many bytes as were offered, each truthful."""
    for offered in (b"\1", b"\1\1\1\1\1"):
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = UID(STUDY_ROOT_FIND)
        item.service_class_application_information = offered
        association = _associate(server, [STUDY_ROOT_FIND], ext_neg=[item])
        answers = [
            answer.service_class_application_information or b""
            for answer in association.acceptor.primitive.user_information
            if isinstance(answer, SOPClassExtendedNegotiation)
        ]
        association.release()
        assert [len(answer) for answer in answers] == [len(offered)]
        assert answers[0][0] == 1  # relational queries


@pytest.mark.parametrize("maximum_length", [0, 4096, 16_382, 131_072])
def test_pdu_sizes(server: Pacslite, study: Sequence[Instance], maximum_length: int) -> None:
    """Both ways; 0 is no limit (PS3.8 §D.1)."""
    received: list[bytes] = []

    def on_store(event: evt.Event) -> int:
        assert isinstance(event.request, C_STORE)
        assert event.request.DataSet is not None
        received.append(event.request.DataSet.getvalue())
        return 0

    association = _associate(
        server,
        [STUDY_ROOT_GET, CT_IMAGE],
        max_pdu=maximum_length,
        ext_neg=[build_role(CT_IMAGE, scp_role=True, scu_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, on_store)],
    )
    keys = _query(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].study_uid)
    answers = list(association.send_c_get(keys, STUDY_ROOT_GET))
    assert answers[-1][0].Status == 0
    assert len(received) == len(study)
    context = next(one for one in association.accepted_contexts if one.abstract_syntax == CT_IMAGE)
    assert context.transfer_syntax
    made = make_instance(maximum_length, seed=76, size=300_000)
    data_set = parse_data_set(EXPLICIT_LITTLE, made.data)
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = context.transfer_syntax[0]
    assert association.send_c_store(data_set).Status == 0
    association.release()


def test_private_class_by_its_service_class(new_server: ServerFactory) -> None:
    """57H with the storage service class (PS3.4 B.4.1.2), where private classes are not accepted otherwise."""
    private = "1.2.826.0.1.3680043.8.498.5.4711"
    item = SOPClassCommonExtendedNegotiation()
    item.sop_class_uid, item.service_class_uid = UID(private), UID("1.2.840.10008.4.2")
    server = new_server(storage={"unknown_sop_classes": False})
    server.start()
    association = _associate(server, [private, VERIFICATION])
    assert [context.abstract_syntax for context in association.accepted_contexts] == [VERIFICATION]
    association.release()
    association = _associate(server, [private], ext_neg=[item])
    assert [context.abstract_syntax for context in association.accepted_contexts] == [private]
    association.release()
    server.stop()
