import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import psycopg
import pytest
from sqlalchemy.orm import Session, sessionmaker

from service.http import waiting
from service.http.waiting import Listener
from service.registry import events

Sessions = sessionmaker[Session]
TOPIC = "thing:1"


@pytest.fixture
def announce(own_sessions: Sessions) -> Callable[[str], None]:
    def announced(topic: str) -> None:
        with own_sessions.begin() as session:
            events.announce(session, topic)

    return announced


def run(wanted: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(wanted, 20))


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[Listener]:
    listener = Listener(url)
    task = asyncio.create_task(listener.run())
    try:
        await listener.listening()
        yield listener
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_who_waits_on_a_topic_is_woken(
    own_database_url: str, announce: Callable[[str], None]
) -> None:
    async def scene() -> None:
        async with (
            listening(own_database_url) as listener,
            listener.subscribe(TOPIC) as mine,
            listener.subscribe("thing:2") as other,
        ):
            await asyncio.to_thread(announce, TOPIC)

            assert await mine.wait(10)
            assert not await other.wait(0.1)

    run(scene())


def test_a_change_between_two_waits_is_not_lost(
    own_database_url: str, announce: Callable[[str], None]
) -> None:
    async def scene() -> None:
        async with (
            listening(own_database_url) as listener,
            listener.subscribe(TOPIC) as mine,
            listener.subscribe(TOPIC) as witness,
        ):
            await asyncio.to_thread(announce, TOPIC)
            assert await witness.wait(10)

            assert await mine.wait(0)
            assert not await mine.wait(0.05)

    run(scene())


def test_a_lost_connection_is_made_again_and_everybody_woken(
    own_database_url: str, announce: Callable[[str], None]
) -> None:
    async def scene() -> None:
        async with (
            listening(own_database_url) as listener,
            listener.subscribe(TOPIC) as mine,
        ):
            await asyncio.to_thread(_end_listeners, own_database_url)

            assert await mine.wait(10)  # nobody knows what was missed
            await asyncio.to_thread(announce, TOPIC)
            assert await mine.wait(10)

    run(scene())


def test_nothing_is_kept_of_who_has_left(own_database_url: str) -> None:
    async def scene() -> None:
        async with listening(own_database_url) as listener:
            async with listener.subscribe(TOPIC):
                pass

            assert listener._waiting == {}

    run(scene())


def test_a_state_is_read_until_it_is_as_wanted(
    own_database_url: str, own_sessions: Sessions, announce: Callable[[str], None]
) -> None:
    seen: list[int] = []

    def look(_: Session) -> int:
        seen.append(len(seen))
        return seen[-1]

    async def scene() -> None:
        async with listening(own_database_url) as listener:
            waited = asyncio.create_task(
                waiting.until(listener, own_sessions, TOPIC, look, done=lambda n: n == 2, wait_s=15)
            )
            while not waited.done():
                await asyncio.to_thread(announce, TOPIC)
                await asyncio.sleep(0.05)

            assert await waited == 2

    run(scene())


def test_who_waited_in_vain_gets_the_state_as_it_is(
    own_database_url: str, own_sessions: Sessions
) -> None:
    async def scene() -> None:
        async with listening(own_database_url) as listener:
            state = await waiting.until(
                listener,
                own_sessions,
                TOPIC,
                lambda _: "as it is",
                done=lambda _: False,
                wait_s=0.2,
            )

            assert state == "as it is"

    run(scene())


def _end_listeners(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'patchbay listener' AND datname = current_database()"
        )


def test_who_waits_is_let_go_when_the_process_is_to_end(
    own_database_url: str, own_sessions: Sessions
) -> None:
    async def scene() -> None:
        async with listening(own_database_url) as listener:

            async def waits() -> str:
                return await waiting.until(
                    listener,
                    own_sessions,
                    TOPIC,
                    lambda _: "unchanged",
                    done=lambda _: False,
                    wait_s=60,
                )

            before = asyncio.create_task(waits())
            await asyncio.sleep(0.05)
            assert listener._waiting
            listener.end()

            assert await before == await waits() == "unchanged"

    run(scene())
