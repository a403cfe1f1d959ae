"""The engine and the session factory, built once by whoever puts a process together."""

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

POOL_SIZE = 10
POOL_TIMEOUT_S = 5
CONNECT_TIMEOUT_S = 3


def create(url: str, *, application: str) -> Engine:
    """An engine on psycopg 3 for a `postgresql://` URL; connects on first use."""
    return create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=True,  # a restarted database must not cost the next caller an error
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": application},
    )


def sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose rows stay readable after commit: answers are written after it."""
    return sessionmaker(engine, expire_on_commit=False)


def plain_url(engine: Engine) -> str:
    """The engine's URL as libpq reads it, password included; for procrastinate and LISTEN."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def with_database(url: str, name: str) -> str:
    """The same server's URL for another database."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)
