"""Waiting for something to change, with no thread and no database connection held meanwhile.

One connection per process listens for Postgres notifications and wakes whoever subscribed to the
topic they name. The pattern: subscribe, read the state, and read it again when woken.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

import psycopg
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

from service import observability
from service.registry import events, operations
from service.schemas.operations import OperationView

log = observability.logger(__name__)

BACKOFF_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0)
CONNECT_TIMEOUT_S: Final = 3
READ_AGAIN_S: Final = 0.2
"""Changes that come faster than this are read together."""

State = TypeVar("State")


class Subscription:
    """Wakes one waiter; a change between two waits is not lost."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """End the present wait, or else the next one at once."""
        self._changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a change; answers whether there was one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class Listener:
    """The process's one listening connection; `run` it as a task for as long as the process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.ended = False
        self._waiting: dict[str, set[Subscription]] = {}
        self._listening = asyncio.Event()

    async def run(self) -> None:
        """Listen, and connect again whenever the connection is lost, until cancelled."""
        failures = 0
        while True:
            try:
                async with await self._connect() as connection:
                    failures = 0
                    await self._dispatch(connection)
            except psycopg.Error as error:
                log.warning("not listening for changes", error=str(error).strip())
            self._listening.clear()
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1

    def end(self) -> None:
        """Let everybody who waits answer with what they have: the process is to end."""
        self.ended = True
        for topic in list(self._waiting):
            self._wake(topic)

    async def listening(self) -> None:
        """Wait until changes are heard of."""
        await self._listening.wait()

    @contextlib.asynccontextmanager
    async def subscribe(self, topic: str) -> AsyncIterator[Subscription]:
        """Hear of changes of `topic` from here on."""
        subscription = Subscription()
        self._waiting.setdefault(topic, set()).add(subscription)
        try:
            yield subscription
        finally:
            others = self._waiting[topic]
            others.discard(subscription)
            if not others:
                del self._waiting[topic]

    async def _connect(self) -> "psycopg.AsyncConnection[tuple[object, ...]]":
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="patchbay listener",
            # A listener sends nothing of its own accord: only these find a peer that vanished.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )

    async def _dispatch(self, connection: "psycopg.AsyncConnection[tuple[object, ...]]") -> None:
        await connection.execute(f'LISTEN "{events.CHANNEL}"')
        self._listening.set()
        for topic in list(self._waiting):  # what changed while nobody listened is not known
            self._wake(topic)
        async for notice in connection.notifies():
            self._wake(notice.payload)

    def _wake(self, topic: str) -> None:
        for subscription in self._waiting.get(topic, ()):
            subscription.wake()


async def read(sessions: sessionmaker[Session], look: Callable[[Session], State]) -> State:
    """Read a state in a thread and a transaction as short as the look."""

    def looked() -> State:
        with sessions.begin() as session:
            return look(session)

    return await run_in_threadpool(looked)


async def until(
    listener: Listener,
    sessions: sessionmaker[Session],
    topic: str,
    look: Callable[[Session], State],
    *,
    done: Callable[[State], bool],
    wait_s: float,
    again_s: float = READ_AGAIN_S,
) -> State:
    """Read a state until it is as wanted, at most for `wait_s`; answers the last one read.

    No longer than the process is to live. It is read at most once in `again_s`.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_s
    async with listener.subscribe(topic) as changes:
        while True:
            read_at = clock()
            state = await read(sessions, look)
            if done(state) or listener.ended or not await changes.wait(deadline - clock()):
                return state
            await asyncio.sleep(min(read_at + again_s, deadline) - clock())


async def ended(
    listener: Listener, sessions: sessionmaker[Session], operation_id: str, wait_s: float
) -> OperationView:
    """The operation once it has ended, or as it stands after `wait_s`; raises `ThingNotFound`."""
    return await until(
        listener,
        sessions,
        events.of_end(operation_id),
        lambda session: OperationView.model_validate(operations.find(session, operation_id)),
        done=lambda operation: operation.state.ended,
        wait_s=wait_s,
        again_s=0,  # it ends once
    )
