"""Recorded associations: what DCMTK's tools said to the server, and how far it had answered before each word.

The recordings stand in ``recordings/``, a line a word: ``C`` and the bytes of the client in hex, or ``S`` and the
number of PDUs the server had sent by then. ``python -m tests.faults.conversations`` makes them anew.
"""

import asyncio
import contextlib
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from pacslite.scu.client import Client
from pacslite.scu.commitment import Reference
from tests.support.exchange import send_instances
from tests.support.instances import Instance, make_instance
from tests.support.processes import Pacslite, free_port, run
from tests.support.wire import CT_IMAGE, EXPLICIT_LITTLE

__all__ = ["AE_TITLE", "KNOWN", "SENT", "Conversation", "Step", "conversations", "split_pdus"]

AE_TITLE = "PACSLITE"
KNOWN = [make_instance(number, seed=90, size=2000) for number in (1, 2)]  # in the archive, to be found, moved, got
SENT = [make_instance(10_000_000 + number, seed=91, size=3000) for number in (1, 2)]  # by the recorded storescu
_FOLDER = Path(__file__).with_name("recordings")


class Step(NamedTuple):
    """The client waits until the server has sent so many PDUs in all, then says this."""

    answers: int
    words: bytes


@dataclass(frozen=True)
class Conversation:
    """One recorded association, as its client saw it."""

    name: str
    steps: Sequence[Step]


def conversations() -> list[Conversation]:
    """All recordings."""
    return [_read(path) for path in sorted(_FOLDER.glob("*.txt"))]


def split_pdus(stream: bytes) -> list[bytes]:
    """Whole PDUs of ``stream``; what is no PDU comes last, as it is."""
    at, pdus = 0, []
    while len(stream) - at >= 6:
        end = at + 6 + struct.unpack_from(">I", stream, at + 2)[0]
        if end > len(stream):
            break
        pdus.append(stream[at:end])
        at = end
    return [*pdus, stream[at:]] if at < len(stream) else pdus


def _read(path: Path) -> Conversation:
    answers, steps = 0, []
    for line in path.read_text().splitlines():
        who, _, rest = line.partition(" ")
        if who == "S":
            answers = int(rest)
        else:
            steps.append(Step(answers, bytes.fromhex(rest)))
    return Conversation(path.stem, steps)


class _Recorder:
    """A proxy that notes who said what."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.said: list[tuple[str, bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._pass("C", reader, ours), self._pass("S", theirs, writer))

    async def _pass(self, who: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(1 << 20):
                self.said.append((who, piece))
                writer.write(piece)
        writer.close()

    def lines(self) -> list[str]:
        lines: list[str] = []
        server = b""
        client = b""
        for who, piece in [*self.said, ("S", b"")]:
            if who == "C":
                client += piece
                continue
            if client:
                lines += [f"S {len(split_pdus(server))}", *(f"C {pdu.hex()}" for pdu in split_pdus(client))]
                client = b""
            server += piece
        return lines


def _write(path: Path, instance: Instance) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(CT_IMAGE), UID(instance.sop_instance_uid)
    meta.TransferSyntaxUID, meta.FileMetaInformationVersion = UID(EXPLICIT_LITTLE), b"\0\1"
    meta.ImplementationClassUID = UID("1.2.826.0.1.3680043.8.498.1")
    raw = DicomBytesIO()
    raw.is_little_endian, raw.is_implicit_VR = True, False
    write_file_meta_info(raw, meta)
    path.write_bytes(bytes(128) + b"DICM" + raw.getvalue() + instance.data)
    return path


async def _record_commitment(port: int) -> None:
    """DCMTK has no tool for it: our own client. The report comes on the association of the request."""
    recorder = _Recorder(port)
    proxy = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
    place = f"{AE_TITLE}@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    async with Client(place, calling_ae_title="FUZZ") as client:
        wanted = [Reference(CT_IMAGE, one.sop_instance_uid) for one in (*KNOWN, *SENT)]
        # a transaction of its own in each case: see mutation.py
        transaction = await client.request_commitment(wanted, transaction_uid=SENT[0].sop_instance_uid)
        await client.reports.get(transaction, 20)
    await asyncio.sleep(0.1)
    proxy.close()
    (_FOLDER / "commitment.txt").write_text("\n".join(recorder.lines()) + "\n")


async def _record() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        port = free_port()
        remotes = [{"ae_title": AE_TITLE, "host": "127.0.0.1", "port": port}]
        server = Pacslite(base / "data", base / "server.log", port=port, remotes=remotes)
        server.settings = {"commitment": {"grace_seconds": 0}}
        files = [_write(base / f"{one.sop_instance_uid}.dcm", one) for one in SENT]
        study = ("-k", f"StudyInstanceUID={KNOWN[0].study_uid}")
        tools: dict[str, tuple[str | Path, ...]] = {
            "echo": ("echoscu", "--repeat", "2"),
            "store": ("storescu", *files),
            "find": ("findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", *study, "-k", "PatientName"),
            "cancel": ("findscu", "-S", "--cancel", "1", "-k", "QueryRetrieveLevel=IMAGE", *study, "-k",
                       f"SeriesInstanceUID={KNOWN[0].series_uid}", "-k", "SOPInstanceUID"),
            "move": ("movescu", "-S", "-aem", AE_TITLE, "-k", "QueryRetrieveLevel=STUDY", *study),
            "get": ("getscu", "-S", "-od", base, "-k", "QueryRetrieveLevel=STUDY", *study),
        }  # fmt: skip
        async with server.running():
            await send_instances(server.port, KNOWN)
            for name, (tool, *words) in tools.items():
                recorder = _Recorder(server.port)
                proxy = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
                place = ("127.0.0.1", str(proxy.sockets[0].getsockname()[1]))
                own = [word for word in words if isinstance(word, Path) and word != base]
                others = [word for word in words if word not in own]
                await run(tool, "-aec", AE_TITLE, *others, *place, *own)
                await asyncio.sleep(0.1)
                proxy.close()
                (_FOLDER / f"{name}.txt").write_text("\n".join(recorder.lines()) + "\n")
            await _record_commitment(server.port)


if __name__ == "__main__":
    _FOLDER.mkdir(exist_ok=True)
    asyncio.run(_record())
