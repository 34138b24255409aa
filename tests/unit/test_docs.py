"""What the documents name exists: keys, variables, commands with their flags, make targets, files."""

import configparser
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from pacslite.cli.main import COMMANDS, root
from pacslite.config import ConfigError, Settings, changed_keys, load
from pacslite.config.advice import check
from pacslite.config.problems import fields_at

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
DEPLOYMENT = [ROOT / "Dockerfile", ROOT / "docker-compose.yml", ROOT / "config" / "pacslite.service"]


def texts(paths: list[Path]) -> list[Any]:
    return [pytest.param(path.read_text(), id=path.name) for path in paths]


@pytest.mark.parametrize("text", texts(PAGES))
def test_keys(text: str) -> None:
    for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)(?: = [^`]*)?`", text):
        if section in Settings.model_fields and key != "sqlite":
            assert key in fields_at(Settings, (section,)), f"{section}.{key}"


@pytest.mark.parametrize("text", texts(PAGES + DEPLOYMENT))
def test_variables(text: str) -> None:
    for variable in set(re.findall(r"\b(PACSLITE_[A-Z_]+)\b", text)) - {"PACSLITE_CONFIG"}:
        path = variable.removeprefix("PACSLITE_").lower().removesuffix("_file").split("__")
        assert path[-1] in fields_at(Settings, tuple(path[:-1])), variable


@pytest.mark.parametrize("text", texts(PAGES + DEPLOYMENT))
def test_commands_and_their_flags(text: str) -> None:
    group: Any = typer.main.get_command(root)
    context: Any = typer.Context(group)
    spoken = re.findall(r"(?:bin/|`|^\$ .*?|\[\"|^)pacslite\b[\", ]+([a-z]+)([^`\n|]*)", text, re.MULTILINE)
    for name, rest in spoken:
        if name not in COMMANDS:
            assert not rest.strip().startswith("--"), f"pacslite {name}"
            continue
        command = group.get_command(context, name)
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        if hasattr(command, "commands"):
            options |= {o for inner in command.commands.values() for parameter in inner.params for o in parameter.opts}
        for flag in re.findall(r"(?<!\S)(--[a-z-]+)", rest):
            assert flag in options | {"--help"}, f"pacslite {name} {flag}"


@pytest.mark.parametrize("text", texts(PAGES))
def test_make_targets(text: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", text)) <= targets


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_the_configuration_in_the_readme_is_one(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    file = tmp_path / "pacslite.toml"
    file.write_text("\n".join(blocks))
    loaded = load(file, environ={})
    check(loaded)
    assert [remote.ae_title for remote in loaded.settings.remote] == ["WORKSTATION7", "CT01"]


def test_the_service_reads_and_keeps_what_the_readme_installs(tmp_path: Path) -> None:
    """Word by word, but below another folder and without owners, which only root may set."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(ROOT / "config" / "pacslite.service")
    service = unit["Service"]
    section = (ROOT / "README.md").read_text().partition("\n## systemd\n")[2]
    commands = section.partition("```sh\n")[2].partition("```")[0].splitlines()

    user = next(shlex.split(line) for line in commands if line.startswith("useradd "))
    assert (user[-1], "--system" in user, "--user-group" in user) == (service["User"], True, True)
    assert service.get("Group", service["User"]) == service["User"]
    assert "DynamicUser" not in service  # it could read nothing that is not everybody's

    named = shlex.split(service["ExecStart"])
    file = named[named.index("--config") + 1]
    owners = f"-o root -g {service['User']}"
    (install,) = [line for line in commands if line.startswith("install ") and line.endswith(file)]
    assert owners in install
    for line in commands:
        if file in line:
            words = line.replace(f"{owners} ", "").replace(file, f"{tmp_path}{file}")
            subprocess.run(["bash", "-euc", words], check=True, cwd=ROOT)
    installed = Path(f"{tmp_path}{file}")
    assert installed.stat().st_mode & 0o777 == 0o640
    # whoever runs "pacslite check" with this file finds the archive of the service, which no variable overrules
    settings = load(installed, environ={}).settings
    assert changed_keys(Settings(), settings) == ["server.data_dir"]
    assert settings.server.data_dir == Path("/var/lib") / service["StateDirectory"]
    assert "PACSLITE_" not in service.get("Environment", "")
    assert service["RestartPreventExitStatus"] == str(ConfigError.exit_code)


def test_every_setting_reaches_a_part() -> None:
    """A key that nothing reads would be a promise that nobody keeps."""
    folders = (ROOT / "pacslite", ROOT / "pacslite" / "cli", ROOT / "pacslite" / "config")
    source = "\n".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    unread = [
        f"{section}.{key}"
        for section in Settings.model_fields
        for key in fields_at(Settings, (section,))
        if not re.search(rf"\b(?:{section}|{section[0]}|server|first|one|remote|rule|user)\.{key}\b", source)
    ]
    assert unread == []


def test_help_names_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(re.search(rf"^pacslite {name}\b|\bpacslite {name}\b", text, re.MULTILINE) for name in COMMANDS)


def test_locks_name_no_registry() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text, lock
        requirements = re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE)
        assert requirements
        assert text.count("--hash=sha256:") >= len(requirements), lock
