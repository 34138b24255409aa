"""A query and retrieve SCP made of pynetdicom, for what our client does at the ends of its associations."""

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset
from pynetdicom import AE, evt

from tests.support.processes import free_port
from tests.support.wire import CT_IMAGE, STUDY_ROOT_FIND, STUDY_ROOT_GET, VERIFICATION

__all__ = ["QueryScp"]


class QueryScp:
    """``with QueryScp() as scp``; every C-FIND has the same answers.

    Args:
        answers: How many, of studies 1.2.1 and on.
        pause: Seconds after each.
        status: The last one of a C-FIND.
        deaf: A C-CANCEL changes nothing.
        maximum_associations: One more is rejected.
        classes: SOP Classes in Study, of every answer.
    """

    def __init__(
        self,
        *,
        answers: int = 1,
        pause: float = 0.0,
        status: int = 0x0000,
        deaf: bool = False,
        maximum_associations: int = 20,
        classes: Sequence[str] = (CT_IMAGE,),
    ) -> None:
        self.port = free_port()
        self.address = f"QUERY@127.0.0.1:{self.port}"
        self.events: list[str] = []  # in the order in which they came
        self.asked: list[Dataset] = []  # identifiers of C-FIND
        self.proposed: list[list[tuple[str, tuple[str, ...]]]] = []  # contexts of each association
        self._answers, self._pause, self._status, self._deaf, self._classes = answers, pause, status, deaf, classes
        self._ae = AE(ae_title="QUERY")
        self._ae.maximum_associations = maximum_associations
        for uid in (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_GET):
            self._ae.add_supported_context(uid)
        self._ae.add_supported_context(CT_IMAGE, scu_role=True, scp_role=True)
        self._server: Any = None

    def __enter__(self) -> Self:
        self._server = self._ae.start_server(
            ("127.0.0.1", self.port),
            block=False,
            evt_handlers=[
                (evt.EVT_C_FIND, self._find),
                (evt.EVT_C_GET, self._get),
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_ACCEPTED, lambda _: self.events.append("accepted")),
                (evt.EVT_RELEASED, lambda _: self.events.append("released")),
                (evt.EVT_ABORTED, lambda _: self.events.append("aborted")),
            ],
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()

    def wait_for(self, event: str, times: int = 1, seconds: float = 5) -> None:
        """Until ``event`` came so many times; pynetdicom tells of the ends of associations in threads of its own."""
        ends = time.monotonic() + seconds
        while self.events.count(event) < times:
            assert time.monotonic() < ends, f"{event} expected {times} times: {self.events}"
            time.sleep(0.01)

    def _requested(self, event: Any) -> None:
        contexts = event.assoc.requestor.primitive.presentation_context_definition_list
        self.proposed.append([(str(c.abstract_syntax), tuple(map(str, c.transfer_syntax))) for c in contexts])

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.asked.append(event.identifier)
        self.events.append("C-FIND")
        for number in range(1, self._answers + 1):
            if event.is_cancelled and not self._deaf:
                self.events.append("C-CANCEL")
                yield 0xFE00, None
                return
            answer = Dataset()
            answer.QueryRetrieveLevel = "STUDY"
            answer.StudyInstanceUID = f"1.2.{number}"
            answer.SOPClassesInStudy = list(self._classes)
            yield 0xFF00, answer
            time.sleep(self._pause)
        yield self._status, None

    def _get(self, event: Any) -> Iterator[Any]:
        self.events.append("C-GET")
        yield 0
