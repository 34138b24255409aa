"""Mistakes on the command line: exit 2, and a line that says what is meant instead. Progress and output."""

import io
import json
import sys
from pathlib import Path

import pytest

from pacslite import __version__
from pacslite.cli.main import COMMANDS, main
from pacslite.cli.output import print_line, progress_bar, size
from pacslite.cli.peers import keys_of, level_of, model_of
from pacslite.outbox.database import Database
from pacslite.outbox.queue import Arrival, Queue


def ended(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    output = capsys.readouterr()
    return int(caught.value.code or 0), output.out + output.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eco", "A@h:1"], "Did you mean 'echo'?"),
        (["echo"], "either AET@HOST:PORT or --self"),
        (["echo", "A@h"], "AET@HOST:PORT expected"),
        (["echo", "A@h:0"], "AET@HOST:PORT expected"),
        (["echo", "SEVENTEEN-LETTERS@h:1"], "AE title"),
        (["echo", "A@h:1", "--calling", ""], "AE title"),
        (["echo", "A@h:1", "--calling", "A\\B"], "without the backslash"),
        (["echo", "A@h:1", "--repeat", "0"], "--repeat"),
        (["find", "A@h:1"], "Missing argument"),
        (["find", "A@h:1", "PatientNam=X"], "nearest is PatientName"),
        (["find", "A@h:1", "0010,00"], "neither a keyword nor a tag"),
        (["find", "A@h:1", "PatientName", "--level", "instance"], "image"),
        (["find", "A@h:1", "PatientID=1", "0010,0020=2"], "PatientID is given twice"),
        (["find", "A@h:1", "Rows=abc"], "Rows: 'abc' is no value of VR US"),
        (["find", "A@h:1", "Rows=512\\\\70000"], "is no value of VR US"),
        (["find", "A@h:1", "SelectorFDValue=x"], "is no value of VR FD"),
        (["find", "A@h:1", "SelectorFLValue=1e99"], "is no value of VR FL"),
        (["find", "A@h:1", "FrameIncrementPointer=nothing"], "is no value of VR AT"),
        (["find", "A@h:1", "QueryRetrieveLevel=SERIES"], "--level"),
        (["move", "A@h:1", "--to", "B", "Rows=-1"], "is no value of VR US"),
        (["get", "A@h:1", "--out", "unused", "Rows=-1"], "is no value of VR US"),
        (["move", "A@h:1", "StudyInstanceUID=1"], "Missing option '--to'"),
        (["get", "A@h:1", "StudyInstanceUID=1"], "Missing option '--out'"),
        (["store", "A@h:1", "/nowhere/to/be/found"], "does not exist"),
        (["store", "A@h:1", ""], "an empty path names nothing"),
        (["import", ""], "an empty path names nothing"),
        (["get", "A@h:1", "--out", "", "PatientID=1"], "an empty path names nothing"),
        (["get", "A@h:1", "--out", __file__, "PatientID=1"], "is a file"),
        (["serve", "--data-dir", ""], "an empty path names nothing"),
        (["delete", "--data-dir", "", "--study", "1"], "an empty path names nothing"),
        (["config", "show", "--config", ""], "an empty path names nothing"),
        (["queue", "drop"], "either numbers of entries or --all"),
        (["queue", "retry", "99999999999999999999"], "Invalid value for '[N...]'"),
        (["queue", "drop", "0"], "Invalid value for '[N...]'"),
        (["delete"], "one of --study, --series and --instance"),
        (["delete", "--study", "1", "--series", "2"], "one of --study, --series and --instance"),
        (["serve", "--port", "70000"], "--port: server.port = 70000"),
        (["serve", "--log-level", "loud"], "--log-level: log.level = 'loud': unknown value"),
        (["serve", "--remote", "WS"], "--remote: remote[0] = 'WS': AET@HOST:PORT expected"),
        (["serve", "--config", "/nowhere.toml"], "/nowhere.toml: No such file"),
        (["config", "show", "--config", "/nowhere.toml"], "/nowhere.toml: No such file"),
        (["config", "shwo"], "Did you mean 'show'?"),
    ],
)
def test_a_mistake_ends_with_2(capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    code, output = ended(capsys, *words)
    assert code == 2, output
    assert told in output
    assert "Traceback" not in output


@pytest.mark.parametrize("words", [("list",), ("retry", "1"), ("drop", "--all")])
def test_a_mistyped_data_directory_has_no_empty_queue(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    there, mistyped = str(tmp_path), str(tmp_path / "nowhere")
    assert ended(capsys, "queue", *words, "--data-dir", mistyped) == (1, f"{mistyped} holds no archive\n")
    assert "no entries" in ended(capsys, "queue", *words, "--data-dir", there)[1]


@pytest.mark.parametrize("change", ["retry", "drop"])
def test_an_entry_that_does_not_wait_is_a_failure(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: str
) -> None:
    database = Database(tmp_path / "outbox.sqlite")
    Queue(database).enqueue([Arrival("WS", uid, bytes(16)) for uid in ("1.1", "1.2", "1.3")])
    database.close()
    where = ("--data-dir", str(tmp_path))
    code, output = ended(capsys, "queue", change, "1", "99", *where)
    assert (code, output.partition(" ")[0]) == (1, "1")
    code, output = ended(capsys, "queue", change, "2", "2", "3", *where)
    assert (code, output.partition(" ")[0]) == (0, "2")


@pytest.mark.parametrize(
    "words",
    [("check",), ("check", "--repair"), ("delete", "--study", "1"), ("db", "upgrade"), ("reindex",), ("stats",)],
)
@pytest.mark.parametrize("name", ["", "nowhere", "deep/nowhere", "file"])
def test_a_mistyped_data_directory_holds_no_archive_and_is_not_made_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    (tmp_path / "file").touch()
    mistyped = tmp_path / name
    assert ended(capsys, *words, "--data-dir", str(mistyped)) == (1, f"{mistyped} holds no archive\n")
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, output = ended(capsys, name, "--help")
    assert code == 0
    assert f"Usage: pacslite {name}" in output


def test_the_root_lists_all_commands_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    code, output = ended(capsys, "--help")
    assert code == 0
    lines = {line.split()[0]: line.split() for line in output.splitlines() if line.startswith("  ") and line.split()}
    assert all(len(lines[name]) > 2 for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys, "--version") == (0, f"pacslite {__version__}\n")


def test_config_show_and_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[server]\nport = 1\n")
    assert f"# {file}:2" in ended(capsys, "config", "show", "--config", str(file))[1]
    shown = json.loads(ended(capsys, "config", "show", "--config", str(file), "--json")[1])
    assert shown["server.port"] == {"value": 1, "origin": f"{file}:2"}
    assert ended(capsys, "config", "check", "--config", str(file)) == (0, f"{file}: no error\n")
    file.write_text("[server]\ntls = true\n")
    code, output = ended(capsys, "config", "check", "--config", str(file))
    assert (code, "tls.certificate: is required" in output) == (2, True)


@pytest.mark.parametrize(
    ("keys", "level", "model"),
    [
        ({"StudyInstanceUID": "1"}, "study", "study"),
        ({"SeriesInstanceUID": "1", "StudyInstanceUID": "1"}, "series", "study"),
        ({"SOPInstanceUID": "1"}, "image", "study"),
        ({"PatientID": "1"}, "patient", "patient"),
        ({"SeriesInstanceUID": "", "PatientName": "A"}, "study", "study"),
    ],
)
def test_level_and_model_that_are_meant(keys: dict[str, str], level: str, model: str) -> None:
    found = level_of(keys, None)
    assert (found, model_of(found, None)) == (level, model)
    assert level_of(keys, "series") == "series"


def test_keys() -> None:
    assert keys_of(["0010,0010=A=B", "00100020", "(0008,0050)=", "StudyDate=20240101-"]) == {
        "PatientName": "A=B",
        "PatientID": "",
        "AccessionNumber": "",
        "StudyDate": "20240101-",
    }


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (527430, "527.4 kB"), (5 * 10**12, "5.0 TB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_output_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\x1b[31m\nb")
    assert capsys.readouterr().out == "a\\x1b[31m\\nb\n"


def test_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("work", 2) as bar:
        bar.advance()
        bar.set(1, 2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("[red]work\x07", 2) as bar:
        bar.advance()
        bar.set(2, 2)
    assert "[red]work\\x07" in terminal.getvalue()  # neither markup nor a bell
    assert "2/2" in terminal.getvalue()
