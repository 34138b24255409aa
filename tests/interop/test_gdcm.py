"""GDCM's gdcmscu: C-ECHO, C-STORE, C-FIND."""

from collections.abc import Mapping

from tests.support.corpus import CorpusFile
from tests.support.exchange import identifier, query
from tests.support.processes import Pacslite, run


async def test_echo(server: Pacslite) -> None:
    await run("gdcmscu", "--echo", "--call", server.ae_title, "127.0.0.1", server.port)


async def test_store_and_find(server: Pacslite, corpus_by_name: Mapping[str, CorpusFile]) -> None:
    for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"):
        file = corpus_by_name[name]
        peer = ("--call", server.ae_title, "127.0.0.1", server.port)
        await run("gdcmscu", "--store", *peer, "-i", file.path)
        uid = str(file.header().StudyInstanceUID)
        assert len(await query(server.port, identifier("STUDY", StudyInstanceUID=uid))) == 1
        keys = ("--key", f"20,d={uid}", "--key", "10,20=", "--key", "8,50=")
        done = await run("gdcmscu", "--find", "--studyroot", "--study", *peer, *keys)
        assert uid in done
        assert str(file.header().PatientID) in done
