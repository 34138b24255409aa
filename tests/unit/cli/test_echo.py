"""Which rejections ``echo --self`` takes for a sign of life."""

from pathlib import Path

import pytest

from pacslite.cli.echo import _itself

NOT_RECOGNIZED, NO_IDENTITY = (1, 1, 3), (1, 2, 1)


@pytest.mark.parametrize(
    ("host", "access", "codes"),
    [
        ("", "", set()),
        ("::", "", set()),
        ("127.0.0.1", "", set()),
        ("192.0.2.1", "", {NOT_RECOGNIZED}),  # from there we come, too: not from loopback
        ("pacs.example", "", {NOT_RECOGNIZED}),
        ("192.0.2.1", 'unknown_peers = "anybody"', set()),
        ("", 'unknown_peers = "nobody"', {NOT_RECOGNIZED}),
        ("", 'user_identity = "required"', {NO_IDENTITY}),
        ("", 'user_identity = "required"\nunknown_peers = "nobody"', {NOT_RECOGNIZED, NO_IDENTITY}),
    ],
)
def test_rejections_that_the_configuration_wants(
    tmp_path: Path, host: str, access: str, codes: set[tuple[int, int, int]]
) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f'[server]\nhost = "{host}"\n[access]\n{access}\n')
    assert set(_itself(file)[1]) == codes
