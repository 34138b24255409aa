"""The settings: defaults and the sample file, the three layers, and how mistakes are told."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from pacslite.config import ConfigError, Loaded, Settings, changed_keys, load
from pacslite.config.advice import advice, check
from pacslite.config.environment import EnvironmentSource
from pacslite.config.load import Flag
from pacslite.config.places import line_of
from pacslite.config.problems import choices, fields_at
from pacslite.config.render import sample, show, toml_value, values
from pacslite.config.values import split_peer

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "config" / "pacslite.toml"

SECTIONS = {name for name in Settings.model_fields if isinstance(getattr(Settings(), name), BaseModel)}
KEYS = [(section, key) for section in sorted(SECTIONS) for key in fields_at(Settings, (section,))]


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "pacslite.toml"
    file.write_text(text)
    return file


def problems(file: Path | None = None, environ: Mapping[str, str] | None = None, *flags: Flag) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ or {}, flags=flags)
    return list(caught.value.problems)


# the sample file


def test_sample_file_is_what_the_model_says() -> None:
    assert SAMPLE.read_text() == sample(), "run: make config"


def test_sample_file_loads_to_the_defaults() -> None:
    assert load(SAMPLE, environ={}).settings == Settings()


def test_sample_file_holds_every_key_of_every_section() -> None:
    tree = tomllib.loads(SAMPLE.read_text())
    assert {(section, key) for section, table in tree.items() for key in table} == set(KEYS)


def test_sample_file_still_loads_when_its_examples_are_uncommented() -> None:
    text = re.sub(r"^# (\[\[\w+\]\]|\w+ = )", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)
    settings = Settings(**tomllib.loads(text))
    assert [remote.ae_title for remote in settings.remote] == ["WORKSTATION7", "CT01"]
    arrays = {name for name in Settings.model_fields if name not in SECTIONS}
    assert all(getattr(settings, name) for name in arrays)


def test_every_key_is_described_with_a_sentence() -> None:
    models = [model for name in Settings.model_fields for model in [fields_at(Settings, (name,))] if model]
    for fields in models:
        for key, field in fields.items():
            assert field.description, key
            assert field.description.endswith("."), key


def test_sample_file_names_every_choice() -> None:
    """Of each key that takes one of several words, in the comment above it."""
    text = SAMPLE.read_text()
    for section, key in KEYS:
        for choice in choices(fields_at(Settings, (section,))[key]):
            comment = re.search(rf"((?:^#.*\n)+){key} = ", text.partition(f"\n[{section}]\n")[2], re.MULTILINE)
            assert comment is not None
            assert f'"{choice}"' in comment[1], f"{section}.{key}"


@pytest.mark.parametrize("section", ["server", "limits", "timeouts", "storage", "index", "query", "http", "tls"])
def test_sections_that_scripts_depend_on(section: str) -> None:
    assert section in SECTIONS


def test_settings_are_the_defaults_whatever_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACSLITE_SERVER__PORT", "4242")
    assert Settings().server.port == 11112


# layers


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    file = written(tmp_path, '[server]\nport = 1\nhost = "::1"\nae_title = "FILE"\n')
    loaded = load(
        file,
        environ={"PACSLITE_SERVER__PORT": "2", "PACSLITE_SERVER__AE_TITLE": "ENV"},
        flags=[Flag("server.port", "--port", 3)],
    )
    server = loaded.settings.server
    assert (server.host, server.ae_title, server.port) == ("::1", "ENV", 3)
    assert loaded.origin("server", "host") == f"{file}:3"
    assert loaded.origin("server", "ae_title") == "environment PACSLITE_SERVER__AE_TITLE"
    assert loaded.origin("server", "port") == "--port"
    assert loaded.origin("log", "level") == "default"


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_can_be_set_by_the_environment(section: str, key: str) -> None:
    default = getattr(getattr(Settings(), section), key)
    text = "" if default is None else "" if "SecretStr" in type(default).__name__ else default
    text = ",".join(text) if isinstance(text, tuple) else str(text)
    loaded = load(environ={f"PACSLITE_{section}__{key}".upper(): text})
    assert getattr(getattr(loaded.settings, section), key) == default
    assert loaded.origin(section, key).startswith("environment")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("WS7@10.0.0.7:104", ["10.0.0.7"]),
        ("WS7@10.0.0.7:104 CT01@ct.example", ["10.0.0.7", "ct.example"]),
        ("WS7@10.0.0.7:104, CT01@[2001:db8::1]:104", ["10.0.0.7", "2001:db8::1"]),
        ('[{"ae_title": "WS7", "host": "h", "allow": ["echo"]}]', ["h"]),
    ],
)
def test_remotes_in_the_environment(text: str, hosts: list[str]) -> None:
    assert [remote.host for remote in load(environ={"PACSLITE_REMOTE": text}).settings.remote] == hosts


@pytest.mark.parametrize("text", ["KVP  (0008,0070)@STUDY", '["KVP", "(0008,0070)@STUDY"]'])
def test_extra_keys_in_the_environment(text: str) -> None:
    settings = load(environ={"PACSLITE_QUERY__EXTRA_KEYS": text}).settings
    assert settings.query.extra_keys == ("KVP", "(0008,0070)@STUDY")


def test_a_remote_of_a_later_layer_replaces_the_one_of_the_same_title(tmp_path: Path) -> None:
    file = written(tmp_path, '[[remote]]\nae_title = "A"\nhost = "a"\n[[remote]]\nae_title = "B"\nhost = "b"\n')
    loaded = load(file, environ={"PACSLITE_REMOTE": "C@c:3"}, flags=[Flag("remote", "--remote", ["A@elsewhere:5"])])
    assert [(remote.ae_title, remote.host) for remote in loaded.settings.remote] == [
        ("A", "elsewhere"),
        ("B", "b"),
        ("C", "c"),
    ]
    assert loaded.origin("remote", 0, "host") == "--remote"
    assert loaded.origin("remote", 1, "host") == f"{file}:6"
    assert loaded.origin("remote", 2, "host") == "environment PACSLITE_REMOTE"


def test_a_value_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("long and winding\n")
    loaded = load(environ={"PACSLITE_TLS__KEY_PASSWORD_FILE": str(secret)})
    assert loaded.settings.tls.key_password.get_secret_value() == "long and winding"
    assert "long" not in show(loaded) + json.dumps(values(loaded)) + repr(loaded.settings)


def test_the_usual_places_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).file is None
    written(tmp_path, "[server]\nport = 9\n")
    assert load(environ={}).settings.server.port == 9
    other = tmp_path / "other.toml"
    other.write_text("[server]\nport = 10\n")
    assert load(environ={"PACSLITE_CONFIG": str(other)}).settings.server.port == 10
    assert load(other, environ={"PACSLITE_CONFIG": "nowhere"}).settings.server.port == 10


def test_variables_of_others_are_left_alone() -> None:
    kubernetes = {
        "PACSLITE_PORT": "tcp://10.0.0.1:11112",
        "PACSLITE_SERVER_PORT": "tcp://10.0.0.1:11112",
        "PACSLITE_SERVER_PORT_11112_TCP_PORT": "11112",
        "PACSLITE_REMOTE_PORT": "104",
        "PACSLITE_SERVICE_HOST": "10.0.0.1",
        "PACSLITE_PORT_11112_TCP_ADDR": "10.0.0.1",
        "PACSLITE_IMAGE": "pacslite:latest",
    }
    assert load(environ=kubernetes).settings == Settings()


# mistakes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # a wrong name: itself, its line, the nearest right one
        ("[server]\nprot = 1", "pacslite.toml:2: server.prot: no such key; nearest is port; there are ae_title,"),
        ("[servr]\nport = 1", "pacslite.toml:1: servr: no such key; nearest is server; there are server, limits,"),
        ("# x\nlimits.maximum_lenght = 1", "pacslite.toml:2: limits.maximum_lenght: no such key; nearest is maximum_"),
        # a wrong value: the key, the value, what is allowed
        ("[limits]\n\nmaximum_length = 100", "pacslite.toml:3: limits.maximum_length = 100: must be greater than or"),
        ("[limits]\nmaximum_length = 100", "allowed is 4096 to 1048576"),
        ('[query]\nextra_keys = ["KPV"]', "pacslite.toml:2: query.extra_keys = ['KPV']: 'KPV': no such attribute"),
        ('[query]\nextra_keys = ["KVP", "PatientID"]', "'PatientID': is a key of the index already"),
        ('[server]\nport = "a"', "pacslite.toml:2: server.port = 'a': must be a valid integer"),
        ("[server]\nport = 65536", "allowed is 0 to 65535"),
        ('[server]\ndata_dir = ""', "pacslite.toml:2: server.data_dir = '': an empty path names no folder"),
        ('[server]\nhost = "pacs..example"', "pacslite.toml:2: server.host = 'pacs..example': a host name consists of"),
        (f'[[remote]]\nae_title = "A"\nhost = "{"h" * 64}"', "labels of 1 to 63 characters"),
        ("[storage]\ndurability = 'ful'", 'allowed is "full", "commit", "none"; nearest is full'),
        ("[query]\nstrict = 'perhaps'", "allowed is true or false"),
        ("[query]\ntimezone_offset = '+1:00'", "query.timezone_offset = '+1:00': an offset from UTC is hours and"),
        ("[query]\ntimezone_offset = '+1401'", "from -1200 to +1400"),
        ("[timeouts]\nartim_seconds = 0", "allowed is above 0 to 3600"),
        ('[server]\nae_title = "SEVENTEEN LETTERS"', "at most 16 characters, this one has 17"),
        ('[server]\nae_title = "    "', "not empty and not only spaces"),
        ('[server]\nae_title = "A\\\\B"', "printable ASCII characters without the backslash"),
        # no table where one is wanted, and the other way round
        (
            '[remote]\nae_title = "A"\nhost = "a"',
            "pacslite.toml:1: remote = {'ae_title': 'A', 'host': 'a'}: is an array",
        ),
        ('[remote]\nae_title = "A"\nhost = "a"', "write [[remote]] above each"),
        ("server = 5", "pacslite.toml:1: server = 5: is a table: write [server] above its keys"),
        *(
            (
                f'[[remote]]\nae_title = "A"\nhost = "{host}"',
                f"pacslite.toml:3: remote[0].host = '{host}': neither an IP",
            )
            for host in ("10.0.0.0/40", "10.0.0.1:104", "[::1]", "*", "fe80::/10%eth0")
        ),
        # the second entry of an array of tables
        (
            '[[remote]]\nae_title="A"\nhost="a"\n[[remote]]\nae_title="B"',
            "pacslite.toml:4: remote[1].host: is required",
        ),
        ('[[remote]]\nae_title="A"\nhost="a"\nallow=["find","mov"]', "remote[0].allow[1] = 'mov': unknown value"),
        # no TOML at all
        ("[server]\nport = \n", "pacslite.toml:2: no valid TOML"),
    ],
)
def test_a_mistake_in_the_file(tmp_path: Path, text: str, told: str) -> None:
    (problem,) = problems(written(tmp_path, text))
    assert told in problem


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    file = written(tmp_path, "[server]\nport = -1\nprot = 1\n[limits]\noperations = 0\n")
    assert len(problems(file)) == 3


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "PACSLITE_SERVER__PROT",
            "1",
            "environment PACSLITE_SERVER__PROT: no such key; nearest is PACSLITE_SERVER__PORT",
        ),
        ("PACSLITE_SERVER__PORT", "x", "environment PACSLITE_SERVER__PORT: server.port = 'x': must be a valid integer"),
        ("PACSLITE_PORT", "104", "environment PACSLITE_PORT: no such key; nearest is PACSLITE_SERVER__PORT"),
        # one underscore for two
        (
            "PACSLITE_SERVER_PORT",
            "104",
            "environment PACSLITE_SERVER_PORT: no such key; nearest is PACSLITE_SERVER__PORT",
        ),
        ("PACSLITE_LOG_LEVEL", "debug", "nearest is PACSLITE_LOG__LEVEL"),
        ("PACSLITE_TLS_KEY_PASSWORD_FILE", "/run/secrets/key", "nearest is PACSLITE_TLS__KEY_PASSWORD_FILE"),
        (
            "PACSLITE_REMOTE__PORT",
            "104",
            "environment PACSLITE_REMOTE__PORT: no such key; PACSLITE_REMOTE takes whole entries",
        ),
        ("PACSLITE_SERVER__DATA_DIR", "", "environment PACSLITE_SERVER__DATA_DIR: server.data_dir = '': an empty path"),
        ("PACSLITE_TLS__KEY_PASSWORD_FILE", "/nowhere", "/nowhere: No such file or directory"),
        ("PACSLITE_REMOTE", "WS7", "environment PACSLITE_REMOTE: remote[0] = 'WS7': AET@HOST:PORT expected, not 'WS7'"),
        ("PACSLITE_REMOTE", "[{", "environment PACSLITE_REMOTE: no valid JSON"),
        ("PACSLITE_QUERY", '{"strict', "environment PACSLITE_QUERY: no valid JSON"),
        ("PACSLITE_QUERY__EXTRA_KEYS", "[KVP", "environment PACSLITE_QUERY__EXTRA_KEYS: no valid JSON"),
    ],
)
def test_a_mistake_in_the_environment(name: str, value: str, told: str) -> None:
    (problem,) = problems(None, {name: value})
    assert told in problem


def test_a_mistake_in_a_flag() -> None:
    (problem,) = problems(None, {}, Flag("log.level", "--log-level", "dbg"))
    assert problem.startswith("--log-level: log.level = 'dbg': unknown value")
    assert problem.endswith("nearest is debug")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Editors of Windows write one, before secrets too."""
    file, secret = written(tmp_path, "[server]\nport = 5\n"), tmp_path / "secret"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    secret.write_bytes(b"\xef\xbb\xbflong\r\n")
    loaded = load(file, environ={"PACSLITE_TLS__KEY_PASSWORD_FILE": str(secret)})
    assert (loaded.settings.server.port, loaded.origin("server", "port")) == (5, f"{file}:2")
    assert loaded.settings.tls.key_password.get_secret_value() == "long"


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    (problem,) = problems(written(tmp_path, "[access]\njwt_key = 12345\n"))
    assert "12345" not in problem


def test_a_file_that_is_not_there() -> None:
    assert problems(Path("/nowhere/pacslite.toml")) == ["/nowhere/pacslite.toml: No such file or directory"]


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\n[s]\nk = 2", ("s", "k"), 3),
        ("[s]\nk = 2", ("s", "other"), 1),  # the section, where the key is not written
        ('[s]\n"quoted key" = 2', ("s", "quoted key"), 2),
        ("s.k = 1", ("s", "k"), 1),
        ("[[r]]\nk=1\n[[r]]\nk=2", ("r", 1, "k"), 4),
        ("[[r]]\n[r.s]\nk=1\n[[r]]\n[r.s]\nk=2", ("r", 1, "s", "k"), 6),  # a table of the last element
        ('t = """\n[s]\nk = 1\n"""\n[s]\nk = 2', ("s", "k"), 6),  # what is in a string is no key
        ("s = {k = 1}", ("s", "k"), 1),
        ("", ("s",), None),
    ],
)
def test_line_of_a_key(text: str, path: tuple[str | int, ...], line: int | None) -> None:
    assert line_of(text, path) == line


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("WS7@10.0.0.7:104", {"ae_title": "WS7", "host": "10.0.0.7", "port": 104}),
        ("WS7@ws7", {"ae_title": "WS7", "host": "ws7"}),
        ("A@B@h:1", {"ae_title": "A@B", "host": "h", "port": 1}),
        ("WS7@[::1]:104", {"ae_title": "WS7", "host": "::1", "port": 104}),
        ("WS7@::1", {"ae_title": "WS7", "host": "::1"}),
        ("WS7@h:", {"ae_title": "WS7", "host": "h"}),
    ],
)
def test_peers_in_short(text: str, keys: dict[str, Any]) -> None:
    assert split_peer(text) == keys


@pytest.mark.parametrize("text", ["WS7", "@h:1", "WS7@", "WS7@:1", "WS7@h:0", "WS7@h:65536", "WS7@h:x"])
def test_no_peers(text: str) -> None:
    with pytest.raises(ValueError, match=r"AET@HOST:PORT|port"):
        split_peer(text)


# advice


def loaded_with(tmp_path: Path, text: str, mode: int = 0o600) -> Loaded:
    file = written(tmp_path, text)
    file.chmod(mode)
    return load(file, environ={})


def test_a_file_with_secrets_that_others_read_is_warned_about(tmp_path: Path) -> None:
    text = '[[user]]\nusername = "u"\npassword = "p"\n'
    assert "others can read it" in " ".join(advice(loaded_with(tmp_path, text, 0o644)))
    assert advice(loaded_with(tmp_path, text, 0o640)) == []
    assert advice(loaded_with(tmp_path, "[server]\nport = 1\n", 0o644)) == []


def test_less_than_full_durability_is_warned_about(tmp_path: Path) -> None:
    assert "can lose" in " ".join(advice(loaded_with(tmp_path, '[storage]\ndurability = "none"\n')))


def test_tls_without_a_certificate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tls.certificate: is required by a listener with tls = true"):
        check(loaded_with(tmp_path, "[server]\ntls = true\n"))
    with pytest.raises(ConfigError, match=r"pacslite.toml:2: tls.certificate = '/nowhere.pem'"):
        check(loaded_with(tmp_path, '[tls]\ncertificate = "/nowhere.pem"\n'))
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ConfigError, match=r"no certificate, or no key that tls.key_password opens$"):
        check(loaded_with(tmp_path, f'[tls]\ncertificate = "{tmp_path}/empty.pem"\n'))


def test_a_rule_names_a_remote_that_can_be_sent_to(tmp_path: Path) -> None:
    remote = '[[remote]]\nae_title = "WS7"\nhost = "h"\n'
    with pytest.raises(ConfigError, match=r"pacslite.toml:6: forward\[0\].to = 'WS8': .*; nearest is WS7"):
        check(loaded_with(tmp_path, f'{remote}port = 1\n[[forward]]\nto = "WS8"\n'))
    with pytest.raises(ConfigError, match=r"no .* with a port"):
        check(loaded_with(tmp_path, f'{remote}[[forward]]\nto = "WS7"\n'))
    network = remote.replace('"h"', '"10.0.0.0/8"')
    with pytest.raises(ConfigError, match="no network"):
        check(loaded_with(tmp_path, f'{network}port = 1\n[[forward]]\nto = "WS7"\n'))
    check(loaded_with(tmp_path, f'{remote}port = 1\n[[forward]]\nto = "WS7"\nwhen = {{ Modality = ["CT", "MR"] }}\n'))


def test_what_is_not_there_yet_is_refused_rather_than_ignored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pacslite.toml:2: http.port = 80: HTTP comes with a later version"):
        check(loaded_with(tmp_path, "[http]\nport = 80\n"))
    with pytest.raises(ConfigError, match=r"pacslite.toml:2: audit.file"):
        check(loaded_with(tmp_path, '[audit]\nfile = "a"\n'))


# what is shown


def test_what_differs_between_two_configurations(tmp_path: Path) -> None:
    text = "[storage]\nduplicates='reject'\n[[remote]]\nae_title='A'\nhost='h'\n[access]\nunknown_allow=['echo']\n"
    file = tmp_path / "pacslite.toml"
    file.write_text(text)
    settings = load(file, environ={}).settings
    assert changed_keys(Settings(), settings) == ["storage.duplicates", "access.unknown_allow", "remote"]
    assert changed_keys(settings, load(file, environ={}).settings) == []


def test_show_is_toml_that_loads_to_the_same(tmp_path: Path) -> None:
    file = written(
        tmp_path, '[server]\nport = 3\n[[remote]]\nae_title = "A"\nhost = "a"\n[storage]\npiece_bytes = 65536\n'
    )
    loaded = load(file, environ={})
    again = tmp_path / "again.toml"
    again.write_text(show(loaded))
    assert load(again, environ={}).settings == loaded.settings


@example(1_234_567.0)
@given(st.floats(min_value=0.001, max_value=31_536_000))
def test_numbers_are_shown_as_they_are(seconds: float) -> None:
    shown = toml_value(seconds)
    assert tomllib.loads(f"x = {shown}")["x"] == seconds
    assert not shown.endswith(".0")


def test_show_tells_origins(tmp_path: Path) -> None:
    file = written(tmp_path, "[server]\nport = 3\n")
    shown = show(load(file, environ={"PACSLITE_LOG__LEVEL": "debug"}))
    assert f"port = 3                                         # {file}:2" in shown
    assert "# environment PACSLITE_LOG__LEVEL" in shown
    assert 'ae_title = "PACSLITE"                            # default' in shown
    assert values(load(file, environ={}))["server.port"] == {"value": 3, "origin": f"{file}:2"}
    assert values(load(file, environ={}))["server.host"] == {"value": "", "origin": "default"}


def test_environment_source_is_pydantic_settings_own() -> None:
    source = EnvironmentSource(Settings, {"PACSLITE_LIMITS__OPERATIONS": "3"})
    assert source() == {"limits": {"operations": "3"}}
