import psycopg

from service.db import engine
from service.embedded import postgres


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
