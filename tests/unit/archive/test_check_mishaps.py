"""What goes wrong while a check mends costs nothing that is sound, and what it calls mended is."""

import errno
import os
from pathlib import Path

import pytest

from pacslite.archive import check
from pacslite.archive.check import CheckAborted
from pacslite.archive.instances.filesystem import FilesystemStore
from tests.support.instances import make_instance
from tests.support.storing import FailingOperations, archive_in, files_in, read, rows, store

ONE, TWO = make_instance(1), make_instance(2, study=2)


class Unreadable:
    """Operations that cannot open files while ``error`` is set, or so many times."""

    def __init__(self, error: int, times: int = 1_000_000) -> None:
        self.error = 0
        self.operations = FailingOperations(self._fails, ["open_file"])
        self._wanted = error
        self._left = times

    def begin(self) -> None:
        self.error = self._wanted

    def end(self) -> None:
        self.error = 0

    def _fails(self, _name: str, _count: int) -> int:
        if not self.error or not self._left:
            return 0
        self._left -= 1
        return self.error


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
@pytest.mark.parametrize("known", [True, False])
async def test_check_ends_where_files_cannot_be_opened(tmp_path: Path, error: int, known: bool) -> None:
    """Sound files are neither set aside nor forgotten, be they known to the index or not."""
    unreadable = Unreadable(error)
    async with archive_in(tmp_path, operations=unreadable.operations) as archive:
        await store(archive, ONE)
        await archive.settle()
        if not known:
            with archive._index.transaction() as connection:
                connection.execute("DELETE FROM instance")
        unreadable.begin()
        with pytest.raises(CheckAborted, match=f"given up.*{os.strerror(error)}"):
            await archive.check(repair=True)
        unreadable.end()
        assert (await archive.check(repair=True)).clean
        assert read(archive, ONE.sop_instance_uid) == ONE.data
        assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize("known", [True, False])
async def test_check_looks_again_before_it_mends(tmp_path: Path, known: bool) -> None:
    unreadable = Unreadable(errno.EIO, times=1)
    async with archive_in(tmp_path, operations=unreadable.operations) as archive:
        await store(archive, ONE)
        await archive.settle()
        if not known:
            with archive._index.transaction() as connection:
                connection.execute("DELETE FROM instance")
        unreadable.begin()
        assert (await archive.check(repair=True)).clean
        assert (await archive.check(deep=True)).differences == []
        assert read(archive, ONE.sop_instance_uid) == ONE.data
        assert not (tmp_path / "damaged").exists()


async def test_check_looks_again_after_it_has_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it comes from it cannot be read, where it belongs it can."""
    async with archive_in(tmp_path) as archive:
        await store(archive, ONE)

        def fails(*_: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(FilesystemStore, "open_incoming", fails)
        report = await archive.check(repair=True)
        assert [(each.kind, each.mended) for each in report.differences] == [("damaged", True)]
        assert read(archive, ONE.sop_instance_uid) == ONE.data
    assert len(files_in(tmp_path)) == 1


async def test_rows_that_nothing_is_below_are_dropped_with_those_above(tmp_path: Path) -> None:
    """The last instance of a patient is gone, row and file, and all that is above it is still there."""
    other = make_instance(3, study=3, series=3)
    async with archive_in(tmp_path) as archive:
        for instance in (ONE, TWO, other):
            await store(archive, instance)
        await archive.settle()
        with archive._index.transaction() as connection:
            connection.execute("DELETE FROM instance WHERE sop_instance_uid = ?", (TWO.sop_instance_uid,))
            connection.execute("UPDATE study SET modalities = 'XX' WHERE study_instance_uid = ?", (other.study_uid,))
        (path,) = tmp_path.rglob(f"{TWO.sop_instance_uid}.dcm")
        path.unlink()
        mended = await archive.check(deep=True, repair=True)
        assert mended.clean
        assert {each.kind for each in mended.differences} == {"counts"}
        assert (await archive.check(deep=True)).differences == []
        assert (await archive.totals())[:4] == (2, 2, 2, 2)


async def test_what_cannot_be_mended_is_not_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with archive_in(tmp_path) as archive:
        await store(archive, ONE)
        with archive._index.transaction() as connection:
            connection.execute("UPDATE series SET number_of_instances = 7")
        monkeypatch.setattr(check, "correct_counts", lambda _: None)
        report = await archive.check(repair=True)
        assert not report.clean
        assert all(not each.mended for each in report.differences)


@pytest.mark.parametrize("table", ["series", "study", "patient"])
@pytest.mark.parametrize("settled", [True, False])
async def test_rows_without_what_is_above_them_are_made_anew(tmp_path: Path, table: str, settled: bool) -> None:
    """No query finds what they stand for; the files are there."""
    async with archive_in(tmp_path) as archive:
        for instance in (ONE, TWO):
            await store(archive, instance)
        if settled:
            await archive.settle()
        with archive._index.transaction() as connection:
            connection.execute(f"DELETE FROM {table} WHERE id = 1")
        report = await archive.check()
        assert "links" in {each.kind for each in report.differences}
        assert any(f"without its {table}" in each.detail for each in report.differences)
        assert (await archive.check(repair=True)).clean
        assert (await archive.check(deep=True)).differences == []
        for instance in (ONE, TWO):
            assert read(archive, instance.sop_instance_uid) == instance.data
        assert rows(tmp_path, "SELECT count(*) FROM study JOIN patient ON patient_fk = patient.id") == [(2,)]


async def test_a_row_that_nothing_can_be_made_of_anew_is_named(tmp_path: Path) -> None:
    async with archive_in(tmp_path) as archive:
        await store(archive, ONE)
        await archive.settle()
        with archive._index.transaction() as connection:
            connection.execute("DELETE FROM series")
        next(tmp_path.rglob("*.dcm")).unlink()
        report = await archive.check(repair=True)
        assert ("missing", ONE.sop_instance_uid) in {(each.kind, each.name) for each in report.differences}
        assert (await archive.check(deep=True)).differences == []
        assert (await store(archive, ONE)).outcome == "stored"
