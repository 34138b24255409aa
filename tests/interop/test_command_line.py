"""The tools of the command line, against our server and against DCMTK's: what they print and how they end."""

import asyncio
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from pydicom import dcmread
from pydicom.uid import UID

from tests.support.corpus import CorpusFile
from tests.support.peers import Dcmtk, QrScp, StoreScp
from tests.support.processes import ROOT, Pacslite, RunResult, ServerFactory, free_port, run
from tests.support.raw import ScriptedAcceptor, accept_pdu, read_pdu
from tests.support.storage_scp import StorageScp

CT_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
CT_SERIES = "1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322"
CT_INSTANCE = "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"


@pytest.fixture(params=["pacslite", "dcmqrscp"])
def peer(request: pytest.FixtureRequest, server: Pacslite, qrscp: QrScp) -> str:
    """AET@HOST:PORT of a server; the tools are to work with any."""
    if request.param == "pacslite":
        return f"{server.ae_title}@127.0.0.1:{server.port}"
    return f"QRSCP@127.0.0.1:{qrscp.port}"


def objects(result: RunResult) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.output.splitlines()]


async def test_echo(server: Pacslite, peer: str) -> None:
    done = await server.tool("echo", peer, "--repeat", 3)
    assert len(re.findall(r"echo \d answered in \d+\.\d ms", done.output)) == 3


async def test_store_find_get_and_move(
    server: Pacslite, peer: str, storescp: StoreScp, ct_slice: Path, tmp_path: Path
) -> None:
    done = await server.tool("store", peer, ct_slice, "--calling", "WS1")
    assert re.search(r"^1 of 1 files stored, 38\.\d kB in \d+\.\d\d s$", done.output, re.MULTILINE)

    done = await server.tool("find", peer, "PatientName=CompressedSamples^CT1", "StudyInstanceUID")
    assert re.search(rf"^StudyInstanceUID +{re.escape(CT_STUDY)}$", done.output, re.MULTILINE)
    assert done.output.endswith("1 match\n")

    done = await server.tool("find", peer, "0010,0020=1CT1", "PatientName", "StudyInstanceUID", "--json")
    (answer,) = objects(done)
    assert answer["PatientName"] == "CompressedSamples^CT1"
    assert answer["StudyInstanceUID"] == CT_STUDY

    done = await server.tool("find", peer, "--level", "image", "--json", f"StudyInstanceUID={CT_STUDY}",
                             f"SeriesInstanceUID={CT_SERIES}", "SOPInstanceUID")  # fmt: skip
    assert [answer["SOPInstanceUID"] for answer in objects(done)] == [CT_INSTANCE]

    out = tmp_path / "new" / "folder"
    await server.tool("get", peer, "--out", out, f"StudyInstanceUID={CT_STUDY}")
    (got,) = out.iterdir()
    assert got.name == f"{CT_INSTANCE}.dcm"
    assert dcmread(got).PixelData == dcmread(ct_slice).PixelData

    if peer.startswith(server.ae_title):
        done = await server.tool("move", peer, "--to", "STORESCP", f"StudyInstanceUID={CT_STUDY}", "--json")
        (final,) = objects(done)
        assert (final["status"], final["completed"]) == ("0000", 1)


@pytest.mark.parametrize("key", [f"SeriesInstanceUID={CT_SERIES}", f"SOPInstanceUID={CT_INSTANCE}"])
async def test_retrieve_without_the_keys_of_upper_levels(
    server: Pacslite, storescp: StoreScp, ct_slice: Path, tmp_path: Path, key: str
) -> None:
    """Relational retrieval (PS3.4 §C.5.2.1, §C.5.3.1) is proposed for C-GET as for C-MOVE."""
    peer = f"{server.ae_title}@127.0.0.1:{server.port}"
    await server.tool("store", peer, ct_slice)
    await server.tool("move", peer, "--to", "STORESCP", key)
    done = await server.tool("get", peer, "--out", tmp_path, key)
    assert "1 completed" in done
    assert [path.name for path in tmp_path.iterdir()] == [f"{CT_INSTANCE}.dcm"]


async def test_a_folder_is_walked_and_what_is_no_dicom_is_told(
    server: Pacslite, ct_slice: Path, tmp_path: Path
) -> None:
    peer = f"{server.ae_title}@127.0.0.1:{server.port}"
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "image").write_bytes(ct_slice.read_bytes())
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / ".hidden").write_text("left out")
    done = await server.tool("store", peer, tmp_path / "a", expect=1)
    assert "notes.txt: not sent: no DICM prefix" in done
    assert "1 of 2 files stored" in done
    done = await server.tool("store", peer, tmp_path / "a", "--json", expect=1)
    assert {Path(str(item["path"])).name: item["stored"] for item in objects(done)} == {
        "image": True,
        "notes.txt": False,
    }


async def test_a_folder_that_cannot_be_walked_fails_like_a_file(
    server: Pacslite, ct_slice: Path, tmp_path: Path
) -> None:
    source = tmp_path / "files"
    source.mkdir()
    (source / "image").write_bytes(ct_slice.read_bytes())
    (source / "loop").symlink_to("loop")
    told = f"{source}/loop: not sent: Too many levels of symbolic links"
    done = await server.tool("store", f"{server.ae_title}@127.0.0.1:{server.port}", source, expect=1)
    assert told in done
    assert "1 of 2 files stored" in done
    done = await server.tool("import", source, "--data-dir", tmp_path / "data", expect=1)
    assert told.replace("not sent: ", "") in done
    assert "1 stored, 0 replaced, 0 there already, 0 passed over, 1 failed" in done


async def test_nobody_is_called_if_there_is_nothing_to_send(server: Pacslite, tmp_path: Path) -> None:
    """An association without presentation contexts is none, and DCMTK does not even refuse it."""
    nobody = f"ANY@127.0.0.1:{free_port()}"
    assert (await server.tool("store", nobody, tmp_path, expect=1)).output == "nothing to send\n"
    (tmp_path / "notes.txt").write_text("no image")
    done = await server.tool("store", nobody, tmp_path, expect=1)
    assert done.output.startswith(f"{tmp_path}/notes.txt: not sent: no DICM prefix")
    assert "\n0 of 1 files stored" in done


async def test_what_the_peer_refuses_is_told_with_its_status(server: Pacslite, ct_slice: Path, tmp_path: Path) -> None:
    peer = f"{server.ae_title}@127.0.0.1:{server.port}"
    await server.tool("store", peer, ct_slice)
    done = await server.tool("move", peer, "--to", "UNKNOWN", f"StudyInstanceUID={CT_STUDY}", expect=1)
    assert "status A801" in done
    done = await server.tool("echo", f"WRONG@127.0.0.1:{server.port}", expect=1)
    assert f"127.0.0.1:{server.port}: association rejected permanently" in done
    assert "called AE title not recognized (result 1, source 1, reason 7)" in done
    done = await server.tool("echo", "PACSLITE@127.0.0.1:1", expect=1)
    assert re.fullmatch(r"pacslite: PACSLITE@127\.0\.0\.1:1: .*refused\n", done.output)
    done = await server.tool("get", peer, "--out", tmp_path / "none", "StudyInstanceUID=1.2.3", expect=0)
    assert "0 completed" in done


@pytest.mark.parametrize(("status", "stored"), [(0xB007, True), (0x0111, False), (0xFE00, False), (0xFF00, False)])
async def test_only_success_and_warnings_say_that_a_file_is_stored(ct_slice: Path, status: int, stored: bool) -> None:
    async with StorageScp(free_port(), status=lambda _: status) as scp:
        words = ("store", f"ANY@127.0.0.1:{scp.port}", ct_slice, "--json")
        done = await run(sys.executable, "-m", "pacslite", *words, expect=0 if stored else 1)
    (told,) = objects(done)
    assert (told["status"], told["stored"]) == (f"{status:04X}", stored)


@pytest.mark.parametrize(
    ("words", "before"),
    [
        (("echo", "{peer}"), "pacslite: "),
        (("find", "{peer}", "PatientName"), "pacslite: "),
        (("move", "{peer}", "--to", "WS", "PatientID=1"), "pacslite: "),
        (("get", "{peer}", "--out", "{folder}", "SOPInstanceUID=1"), "pacslite: "),
        (("store", "{peer}", "{file}"), "{file}: not sent: "),
    ],
)
async def test_whose_association_was_lost_is_told(
    ct_slice: Path, tmp_path: Path, words: tuple[str, ...], before: str
) -> None:
    async def accept_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accept_pdu((await read_pdu(reader))[1]))
        await read_pdu(reader)

    async with ScriptedAcceptor(accept_and_close) as acceptor:
        values = {"peer": f"ANY@127.0.0.1:{acceptor.port}", "folder": str(tmp_path), "file": str(ct_slice)}
        asked = [word.format_map(values) for word in words]
        done = await run(sys.executable, "-m", "pacslite", *asked, expect=1, cwd=ROOT)
    assert done.output.splitlines()[0].startswith((before + "{peer}: connection ").format_map(values))


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        ("| true", 0, ""),  # of the pipe: its reader's
        ("> /dev/full", 1, "pacslite: No space left on device\n"),
        (">&-", 0, ""),
        ("2>&-", 0, "no matches\n"),
        (">&- 2>&- <&-", 0, ""),
    ],
)
async def test_output_that_cannot_be_written(server: Pacslite, redirection: str, code: int, told: str) -> None:
    """Never a traceback, and no socket in the place of a stream that is closed."""
    command = " ".join(server.command("find", f"{server.ae_title}@127.0.0.1:{server.port}", "StudyInstanceUID=1.2.3"))
    done = await run("sh", "-c", f"{command} {redirection}", expect=code, env={"PYTHONUNBUFFERED": ""}, cwd=ROOT)
    assert done.output == told


async def test_why_an_instance_was_not_taken_is_told(server: Pacslite, ct_slice: Path, tmp_path: Path) -> None:
    peer = f"{server.ae_title}@127.0.0.1:{server.port}"
    await server.tool("store", peer, ct_slice)
    (tmp_path / f".{CT_INSTANCE}.partial").mkdir()  # where the file would be
    done = await server.tool("get", peer, "--out", tmp_path, f"StudyInstanceUID={CT_STUDY}", expect=1)
    assert re.search(r"WARNING .*C-STORE status=A700 .*Is a directory", done.output)
    assert f"failed: {CT_INSTANCE}" in done
    done = await server.tool("get", peer, "--out", "/dev/null/x", f"StudyInstanceUID={CT_STUDY}", expect=1)
    assert done.output == "pacslite: /dev/null/x: Not a directory\n"


async def test_a_name_cannot_command_the_terminal(server: Pacslite, tmp_path: Path, ct_slice: Path) -> None:
    """ESC in a name is printed as text: it neither colours nor clears."""
    dataset = dcmread(ct_slice)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientID = "ESCAPE"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.2.77", "1.2.77.1", "1.2.77.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.77.1.1")
    dataset.add_new("PatientName", "PN", "Evil^\x1b[2J\u202e")
    dataset.save_as(tmp_path / "evil.dcm")
    peer = f"{server.ae_title}@127.0.0.1:{server.port}"
    await server.tool("store", peer, tmp_path / "evil.dcm")
    for extra in ((), ("--json",)):
        done = await server.tool("find", peer, "PatientID=ESCAPE", "PatientName", *extra)
        assert "Evil" in done
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.output)


async def test_import_stats_delete(
    new_server: object, tmp_path: Path, corpus_by_name: Mapping[str, CorpusFile]
) -> None:
    server = Pacslite(tmp_path / "data", tmp_path / "server.log")
    where = ("--data-dir", server.data_dir)
    source = tmp_path / "files"
    source.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        (source / name).write_bytes(corpus_by_name[name].path.read_bytes())
    # without File Meta Information: the bare data set, as ACR-NEMA machines wrote it
    bare = dcmread(corpus_by_name["MR_small_implicit.dcm"].path)
    bare.SOPInstanceUID = "1.2.78"
    bare.preamble = None
    del bare.file_meta
    bare.save_as(source / "bare", implicit_vr=True, little_endian=True)
    assert (source / "bare").read_bytes()[:2] == b"\x08\x00"
    (source / "readme").write_text("no image")

    done = await server.tool("import", source, *where)
    assert re.search(r"^3 stored, 0 replaced, 0 there already, 1 passed over, 0 failed; ", done.output, re.MULTILINE)
    done = await server.tool("import", source, *where, "--json")
    assert json.loads(done.output.splitlines()[-1])["duplicate"] == 3

    done = await server.tool("stats", *where, "--json")
    assert json.loads(done.output) | {"bytes": 0} == {
        "patients": 2,
        "studies": 2,
        "series": 2,
        "instances": 3,
        "bytes": 0,
    }
    async with server.running():
        peer = f"{server.ae_title}@127.0.0.1:{server.port}"
        done = await server.tool("find", peer, "PatientID=1CT1", "NumberOfStudyRelatedInstances", "--json")
        assert [answer["NumberOfStudyRelatedInstances"] for answer in objects(done)] == ["1"]
        assert "instances   3" in await server.tool("stats", *where)  # beside the server
        done = await server.tool("delete", "--study", CT_STUDY, *where, expect=1)
        assert f"in use by process {server.pid}" in done
    done = await server.tool("delete", "--study", CT_STUDY, *where)
    assert "1 instance of 1 series deleted" in done
    await server.tool("delete", "--study", CT_STUDY, *where, expect=1)
    assert "needed" in await server.tool("db", "current", *where)


async def test_health_check_of_the_container(server: Pacslite, dcmtk: Dcmtk) -> None:
    """``echo --self`` asks the server that file and environment describe."""
    await dcmtk("echoscu", "-aec", server.ae_title, "127.0.0.1", server.port)
    config = server.log.with_suffix(".self.toml")
    config.write_text(f'[server]\nhost = "127.0.0.1"\nport = {server.port}\nae_title = "{server.ae_title}"\n')
    assert "answered" in await server.tool("echo", "--self", "--config", config)
    config.write_text(f'[server]\nport = {server.port}\nae_title = "OTHER"\n')
    await server.tool("echo", "--self", "--config", config, expect=1)


@pytest.mark.parametrize(
    ("access", "why"),
    [
        ('unknown_peers = "nobody"', 'access.unknown_peers is "nobody"'),
        ('user_identity = "required"', 'access.user_identity is "required"'),
    ],
)
async def test_a_refusal_that_the_configuration_wants_is_healthy(
    new_server: ServerFactory, tmp_path: Path, access: str, why: str
) -> None:
    """Only such a one: what this configuration does not explain says that the server is not as it should be."""
    key, _, value = access.partition(" = ")
    server = new_server(access={key: value.strip('"')})
    config, other = tmp_path / "same.toml", tmp_path / "other.toml"
    place = f'[server]\nhost = "127.0.0.1"\nport = {server.port}\nae_title = "{server.ae_title}"\n'
    config.write_text(f"{place}[access]\n{access}\n")
    other.write_text(place)
    async with server.running():
        assert f"rejected as configured: {why}" in await server.tool("echo", "--self", "--config", config)
        assert "association rejected" in await server.tool("echo", "--self", "--config", other, expect=1)
        peer = f"{server.ae_title}@127.0.0.1:{server.port}"
        assert "association rejected" in await server.tool("echo", peer, "--config", config, expect=1)
    await server.tool("echo", "--self", "--config", config, expect=1)  # nobody is there


async def test_tls_by_the_configuration(tmp_path: Path, ct_slice: Path) -> None:
    """``--tls`` takes certificate, key and authorities from [tls]; a server that wants certificates is content."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "us.pem").write_bytes(
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.bytes()
    )
    files = {"certificate": str(tmp_path / "us.pem"), "ca": str(tmp_path / "ca.pem")}
    server = Pacslite(tmp_path / "data", tmp_path / "server.log", settings={"server": {"tls": True}, "tls": files})
    environment = {f"PACSLITE_TLS__{key.upper()}": value for key, value in files.items()}
    program = [sys.executable, "-m", "pacslite"]
    peer = f"{server.ae_title}@127.0.0.1:{server.port}"
    async with server.running():
        await run(*program, "store", peer, ct_slice, "--tls", env=environment)
        found = await run(*program, "find", peer, "PatientID=1CT1", "--tls", env=environment)
        assert "1 match" in found
        await run(*program, "echo", peer, expect=1)  # plain
        refused = await run(*program, "echo", peer, "--tls", expect=1)  # without authorities of ours
        assert "certificate not accepted" in refused
        itself = {**environment, "PACSLITE_SERVER__PORT": str(server.port), "PACSLITE_SERVER__TLS": "true"}
        await run(*program, "echo", "--self", env=itself)
