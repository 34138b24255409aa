"""Arrays of tables over layers: a layer's entries of a title, all of them, replace those of the layer below."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacslite.access import Access, Grant, Refusal
from pacslite.access import Remote as Peer
from pacslite.config import ConfigError, load
from pacslite.config.advice import advice, check
from pacslite.config.layers import Layers, Place
from pacslite.config.load import Flag

TWO = """
[[remote]]
ae_title = "CT"
host = "10.0.0.1"
port = 104
[[remote]]
ae_title = "CT"
host = "10.0.0.2"
allow = ["store"]
"""

layers = st.lists(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 9)), max_size=5), max_size=4)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "pacslite.toml"
    file.write_text(text)
    file.chmod(0o600)
    return file


@given(layers)
def test_the_last_layer_that_names_a_title_says_all_of_it(given_layers: list[list[tuple[str, int]]]) -> None:
    gathered = Layers()
    expected: dict[str, list[tuple[int, int]]] = {}
    for number, entries in enumerate(given_layers):
        tree: dict[str, Any] = {"remote": [{"ae_title": title, "port": port} for title, port in entries]}
        places: dict[Place, str] = {("remote", index, "port"): f"{number}/{index}" for index in range(len(entries))}
        gathered.lay(tree, places)
        fresh: dict[str, list[tuple[int, int]]] = {}
        for index, (title, _) in enumerate(entries):
            fresh.setdefault(title, []).append((number, index))
        expected |= fresh

    found: dict[str, list[tuple[int, int]]] = {}
    for at, entry in enumerate(gathered.values.get("remote", [])):
        number, index = map(int, gathered.origins["remote", at, "port"].split("/"))
        assert (entry["ae_title"], entry["port"]) == given_layers[number][index]
        found.setdefault(entry["ae_title"], []).append((number, index))
    assert found == expected
    assert len(gathered.origins) == len(gathered.values.get("remote", []))  # nothing is left of what was replaced


def test_two_entries_of_one_title_in_a_file_are_two_peers(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, TWO), environ={})
    access = Access(
        ("PACSLITE",),
        remotes=[
            Peer(one.ae_title, one.host, one.port, frozenset(one.allow), addresses=(one.host,))
            for one in loaded.settings.remote
        ],
    )

    def admitted(host: str) -> Grant | Refusal:
        return access.admit(calling_ae_title="CT", called_ae_title="PACSLITE", host=host)

    first, second = admitted("10.0.0.1"), admitted("10.0.0.2")
    assert isinstance(first, Grant)
    assert "find" in first.allow
    assert second == Grant(frozenset({"store"}), known=True)
    assert isinstance(admitted("10.0.0.3"), Refusal)


def test_two_entries_of_one_title_in_the_environment_and_in_flags() -> None:
    words = ["WS@10.0.0.1:104", "WS@10.0.0.2"]
    for loaded in (
        load(environ={"PACSLITE_REMOTE": " ".join(words)}),
        load(environ={"PACSLITE_REMOTE": "WS@10.0.0.9"}, flags=[Flag("remote", "--remote", words)]),
    ):
        assert [(one.host, one.port) for one in loaded.settings.remote] == [("10.0.0.1", 104), ("10.0.0.2", 0)]


def test_two_users_of_one_name_are_refused(tmp_path: Path) -> None:
    user = '[[user]]\nusername = "a"\npassword = "{}"\n'
    with pytest.raises(ConfigError) as caught:
        check(load(written(tmp_path, user.format("first") + user.format("second")), environ={}))
    file = tmp_path / "pacslite.toml"
    assert caught.value.problems == (f"{file}:5: user[1].username = 'a': is the username of {file}:2 already",)


def test_a_user_of_a_later_layer_is_no_second_one(tmp_path: Path) -> None:
    file = written(tmp_path, '[[user]]\nusername = "a"\npassword = "1"\n')
    loaded = load(file, environ={"PACSLITE_USER": '[{"username": "a", "password": "2"}]'})
    check(loaded)
    assert [user.password.get_secret_value() for user in loaded.settings.user] == ["2"]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {"PACSLITE_REMOTE": "CT@10.1.3.0/24"},
            ["environment PACSLITE_REMOTE lets CT also echo, find, move, get, which pacslite.toml:1 does not"],
        ),
        ({"PACSLITE_REMOTE": '[{"ae_title": "CT", "host": "h", "allow": ["store"]}]'}, []),
        ({"PACSLITE_REMOTE": "WS@10.1.3.0/24"}, []),
        ({}, []),
    ],
)
def test_a_layer_that_allows_more_than_the_one_below_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], told: list[str]
) -> None:
    written(tmp_path, '[[remote]]\nae_title = "CT"\nhost = "10.1.3.9"\nallow = "store"\n')
    monkeypatch.chdir(tmp_path)
    assert advice(load(Path("pacslite.toml"), environ=environ)) == told
