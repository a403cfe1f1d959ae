import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from service import errors
from service.embedded import accounts
from service.embedded.home import Home

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts Postgres as another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_open_makes_the_directory_and_private_places_in_it(folder: Path) -> None:
    with Home.open(folder / "deep" / "home") as home:
        assert home.lock.read_text() == f"{os.getpid()}\n"
        assert mode(home.blobs) == 0o700
        assert mode(home.lock) == 0o600
        assert mode(home.path) == (0o711 if os.geteuid() == 0 else 0o700)


def test_a_second_open_is_refused_and_told_by_whom(folder: Path) -> None:
    with Home.open(folder / "home"), pytest.raises(errors.HomeInUse) as caught:
        Home.open(folder / "home")

    assert caught.value.pid == os.getpid()
    assert str(folder / "home") in str(caught.value)


def test_a_closed_home_can_be_opened_again(folder: Path) -> None:
    Home.open(folder / "home").close()

    with Home.open(folder / "home") as again:
        assert again.path == folder / "home"


def test_a_killed_holder_holds_nothing(folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from service.embedded.home import Home\n"
        "home = Home.open(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", script, str(folder / "home")], stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(errors.HomeInUse) as caught:
            Home.open(folder / "home")
        holder.send_signal(signal.SIGKILL)

    with Home.open(folder / "home") as home:
        assert caught.value.pid == holder.pid
        assert home.lock.read_text() == f"{os.getpid()}\n"


def test_a_home_that_is_a_file_is_refused_by_name(folder: Path) -> None:
    (folder / "file").touch()

    with pytest.raises(errors.HomeUnusable, match="file"):
        Home.open(folder / "file")


@as_root
def test_an_empty_private_directory_is_opened_for_passing_a_filled_one_never(folder: Path) -> None:
    empty, filled = folder / "empty", folder / "filled"
    for path in (empty, filled):
        path.mkdir(mode=0o700)
    (filled / "letter").touch()

    Home.open(empty).close()
    Home.open(filled).close()

    assert mode(empty) == 0o711
    assert mode(filled) == 0o700


@as_root
@pytest.mark.parametrize("closed", ["private", "private/inner"])
def test_a_parent_that_may_not_be_passed_is_named_and_left_as_it_is(
    folder: Path, closed: str
) -> None:
    home = folder / "private" / "inner" / "home"
    home.mkdir(parents=True)
    (folder / closed).chmod(0o700)

    with pytest.raises(errors.HomeUnusable) as caught:
        accounts.require_passable(home, accounts.for_database(home))

    assert f"may not pass {folder / closed};" in str(caught.value)
    assert mode(folder / closed) == 0o700


def test_the_account_of_existing_data_is_its_owner(folder: Path) -> None:
    owner = 54321 if os.geteuid() == 0 else os.geteuid()
    shutil.chown(folder, user=owner)

    assert accounts.for_database(folder).user == owner
