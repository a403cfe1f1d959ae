import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from service import errors
from service.db import engine
from service.embedded import postgres, strays
from service.embedded.cluster import Cluster
from service.embedded.home import Home
from service.embedded.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from tests.embedded.conftest import Serving

ROWS = 200


def write_rows(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (number int)")
        for number in range(ROWS):
            connection.execute("INSERT INTO kept VALUES (%s)", [number])


def count_rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(DISTINCT number) FROM kept").fetchone()
    assert found is not None
    return int(found[0])


def test_a_temporary_server_takes_connections_from_psycopg_and_sqlalchemy() -> None:
    with postgres.start_temporary() as server:
        direct = psycopg.connect(server.url)
        made = engine.create(server.url, application="test")
        with direct, made.connect() as pooled:
            user = direct.execute("SELECT current_user").fetchone()
            lower = pooled.exec_driver_sql("SELECT lower('ÄÖ')").scalar()
        made.dispose()

    assert user == ("patchbay",)
    assert lower == "äö"
    assert server.poll() == 0


def test_rows_outlive_every_way_in_which_a_server_can_go(
    home: Home, start_server: Callable[[], EmbeddedPostgres]
) -> None:
    first = start_server()
    write_rows(first.url)

    first.process.kill()  # not waited for: a zombie of ours, and perhaps its children
    second = start_server()
    after_postmaster = count_rows(second.url)

    for process in strays.find(Cluster(home.postgres).data):
        process.kill()
    third = start_server()
    after_all = count_rows(third.url)

    fourth = start_server()  # with the third still there, as after a kill of `serve`
    after_adoption = count_rows(fourth.url)
    fourth.stop()

    assert [after_postmaster, after_all, after_adoption] == [ROWS, ROWS, ROWS]
    assert first.url == second.url == third.url == fourth.url
    assert [server.poll() for server in (first, second, third, fourth)] == [-9, -9, 0, 0]
    assert strays.find(Cluster(home.postgres).data) == []


def test_a_busy_server_whose_postmaster_was_killed_is_cleared_away(
    start_server: Callable[[], EmbeddedPostgres],
) -> None:
    first = start_server()
    write_rows(first.url)
    endless = psycopg.connect(first.url, autocommit=True)
    endless.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")

    first.process.kill()
    first.process.wait()
    second = start_server()

    assert count_rows(second.url) == ROWS
    endless.close()


def test_a_durable_server_is_the_default(home: Home) -> None:
    server = EmbeddedPostgres.start(home)
    with psycopg.connect(server.url) as connection:
        settings = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name IN "
            "('fsync', 'full_page_writes', 'synchronous_commit', 'data_checksums')"
        ).fetchall()
    server.stop()

    assert {setting for _, setting in settings} == {"on"}
    assert len(settings) == 4


def test_a_killed_initdb_is_done_again(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from service.embedded.home import Home\n"
        "from service.embedded.postgres import EmbeddedPostgres\n"
        "EmbeddedPostgres.start(Home.open(Path(sys.argv[1])))"
    )
    path = folder / "home"
    with subprocess.Popen([sys.executable, "-c", script, str(path)]) as starter:  # noqa: S603
        while not list(path.glob("postgres.new-*/data/PG_VERSION")):
            assert starter.poll() is None
            time.sleep(0.01)
        starter.kill()

    with Home.open(path) as home:
        half_made = not home.postgres.exists()
        server = EmbeddedPostgres.start(home, fsync=False)
        write_rows(server.url)
        server.stop()

    assert half_made
    assert list(path.glob("postgres.new-*")) == []


def test_a_long_home_with_spaces_gets_a_short_socket_that_a_restart_keeps(folder: Path) -> None:
    path = folder / "a long, long name with spaces" / ("x" * 100) / "home"
    with Home.open(path) as home:
        first = EmbeddedPostgres.start(home, fsync=False)
        write_rows(first.url)
        first.stop()
        second = EmbeddedPostgres.start(home, fsync=False)
        made = engine.create(second.url, application="test")
        kept = count_rows(engine.plain_url(made))
        made.dispose()
        second.stop()
        record = Path((home.run / "postgres-sockets").read_text())

    assert first.url == second.url
    assert kept == ROWS
    assert not record.exists()


def test_data_of_another_major_version_is_refused_by_name(home: Home) -> None:
    (Cluster(home.postgres).data / "PG_VERSION").write_text("12\n")

    with pytest.raises(errors.PartFailed, match="was made by Postgres 12"):
        EmbeddedPostgres.start(home, fsync=False)


def test_a_server_that_ends_at_once_is_quoted(home: Home) -> None:
    with (Cluster(home.postgres).data / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")

    with pytest.raises(errors.PartFailed, match="no_such_setting"):
        EmbeddedPostgres.start(home, fsync=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts Postgres as another user")
def test_a_home_below_a_private_directory_is_refused_before_anything_is_made(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)

    with Home.open(private / "home") as home:
        with pytest.raises(errors.HomeUnusable, match=f"may not pass {private};"):
            EmbeddedPostgres.start(home, fsync=False)
        made = home.postgres.exists()

    assert not made


def test_an_ordinary_user_serves_is_killed_and_serves_again(
    folder: Path,
    as_ordinary_user: tuple[int, list[str]],
    serve: Callable[..., "Serving"],
    gone: Callable[[list[int]], bool],
) -> None:
    user, before = as_ordinary_user
    os.chown(folder, user, -1)
    first = serve(folder / "home", *before)
    write_rows(first.url)

    first.process.kill()
    for pid in first.pids:
        os.kill(pid, signal.SIGKILL)
    first.process.wait()
    second = serve(folder / "home", *before)

    assert count_rows(second.url) == ROWS
    assert (folder / "home" / "postgres" / "data").stat().st_uid == user
    assert gone(first.pids)
