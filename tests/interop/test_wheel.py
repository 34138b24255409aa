"""The wheel alone in an empty environment: it installs without a compiler, serves, and brings its migrations along."""

import asyncio
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, free_port

LOCK = ROOT / "requirements" / "runtime.txt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the programs of an environment with the locked dependencies and the wheel, nothing else."""
    home = tmp_path_factory.mktemp("environment")
    uv = shutil.which("uv")
    venv.create(home, with_pip=uv is None)
    python = home / "bin" / "python"
    install = (
        [uv, "pip", "install", "-q", "--python", str(python)] if uv else [str(python), "-m", "pip", "install", "-qq"]
    )
    # binary packages only: there is no compiler where this is to run
    subprocess.run([*install, "--only-binary", ":all:", "--require-hashes", "-r", str(LOCK)], check=True)
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    yield home / "bin"
    shutil.rmtree(home)


def test_the_wheel_holds_the_package_and_the_migrations_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"pacslite", f"pacslite-{_version()}.dist-info"}
    assert any(name.startswith("pacslite/migrations/versions/") for name in names)
    assert f"pacslite-{_version()}.dist-info/licenses/LICENSE" in names
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "pacslite").rglob("*.py")}
    assert ours <= set(names)


async def test_it_serves_from_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    port = free_port()
    words = ["serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(tmp_path / "data")]
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen([installed / "pacslite", *words], cwd=tmp_path, stdout=output, stderr=output)
    try:
        await _until_listening(port, server, log)
        peer = f"PACSLITE@127.0.0.1:{port}"
        image = _sample(installed, tmp_path)
        for command in (["echo", peer], ["store", peer, str(image)], ["get", peer, "--out", "got", "PatientID=1CT1"]):
            done = subprocess.run(
                [installed / "pacslite", *command], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{log.read_text()[-3000:]}"
        assert len(list((tmp_path / "got").glob("*.dcm"))) == 1
    finally:
        server.terminate()
        assert server.wait(20) == 0
    current = subprocess.run(
        [installed / "pacslite", "db", "current", "--data-dir", "data"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert current.returncode == 0, current.stderr


def test_nothing_of_the_extras_is_there(installed: Path) -> None:
    """Neither NumPy nor the codecs: they are extras."""
    code = "import importlib.util as u; print([n for n in ('numpy', 'PIL', 'pylibjpeg', 'gdcm') if u.find_spec(n)])"
    assert subprocess.check_output([installed / "python", "-c", code], text=True).strip() == "[]"


def test_no_licence_of_the_default_set_binds_ours(installed: Path) -> None:
    """No GPL package without asking for it; of LGPL and MPL none either, so far."""
    code = """
import importlib.metadata as m
for d in m.distributions():
    words = [d.metadata.get('License-Expression') or '', *d.metadata.get_all('Classifier', [])]
    if any('GPL' in w or 'GNU' in w for w in words):
        print(d.metadata['Name'])
"""
    assert subprocess.check_output([installed / "python", "-c", code], text=True).split() == []


async def _until_listening(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.02)
        else:
            writer.close()
            await writer.wait_closed()
            return


def _sample(installed: Path, folder: Path) -> Path:
    """pydicom, a dependency, brings an image."""
    code = "from pydicom.data import get_testdata_file; print(get_testdata_file('CT_small.dcm', download=False))"
    path = subprocess.check_output([installed / "python", "-c", code], text=True).strip()
    return Path(shutil.copy(path, folder / "image.dcm"))


def _version() -> str:
    from pacslite import __version__

    return __version__
