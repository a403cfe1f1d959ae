"""Tell whoever waits that something changed: Postgres NOTIFY, sent when the caller commits.

A topic is a short text such as `channel:7` or `operation:9f…`; the waiting side subscribes to it,
reads the state, and reads again when the topic is named.
"""

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

CHANNEL: Final = "patchbay"


def announce(session: Session, topic: str) -> None:
    """Wake everybody who waits on `topic`, once the transaction commits."""
    session.execute(select(func.pg_notify(CHANNEL, topic)))


def of_operation(operation_id: str) -> str:
    """The topic of an operation's progress and state."""
    return f"operation:{operation_id}"


def of_end(operation_id: str) -> str:
    """The topic of an operation's end alone."""
    return f"operation:{operation_id}:end"


def of_channel(key: str) -> str:
    """The topic of a channel's moves."""
    return f"channel:{key}"
