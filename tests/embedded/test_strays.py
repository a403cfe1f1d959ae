import subprocess
from pathlib import Path

import pytest

from service import errors
from service.embedded import strays


def test_a_record_that_names_a_foreign_process_is_removed(folder: Path) -> None:
    record = folder / "postmaster.pid"
    with subprocess.Popen(["/bin/sleep", "60"]) as foreign:
        record.write_text(f"{foreign.pid}\n{folder}\n")

        strays.end(folder)

        assert foreign.poll() is None
        foreign.kill()
    assert not record.exists()


def test_a_record_that_names_a_zombie_is_removed(folder: Path) -> None:
    record = folder / "postmaster.pid"
    with subprocess.Popen(["/bin/true"], stdout=subprocess.PIPE) as zombie:
        assert zombie.stdout is not None
        zombie.stdout.read()
        record.write_text(f"{zombie.pid}\n{folder}\n")

        strays.end(folder)

    assert not record.exists()


def test_a_record_of_no_process_is_left_to_postgres(folder: Path) -> None:
    record = folder / "postmaster.pid"
    ended = subprocess.run(["/bin/true"], check=True)
    assert ended.returncode == 0
    record.write_text(f"{2**22 + 1}\n{folder}\n")  # above the largest process id of Linux

    strays.end(folder)

    assert record.exists()


@pytest.mark.parametrize("text", ["", "\n", "no number\n"])
def test_a_damaged_record_stops_nothing(folder: Path, text: str) -> None:
    (folder / "postmaster.pid").write_text(text)

    try:
        strays.end(folder)
    except errors.PatchbayError as error:  # pragma: no cover
        pytest.fail(str(error))
