import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from service.embedded import processes
from service.embedded.processes import Child, Children

if TYPE_CHECKING:
    from tests.embedded.conftest import Serving

SLEEP = ["/bin/sleep", "1000"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children of the killed")


def child_of(python: str) -> Child:
    return Child.start([sys.executable, "-c", python], dict(os.environ))


def wait_for(condition: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 10
    while not condition() and time.monotonic() < ends:
        time.sleep(0.02)
    return condition()


def test_a_child_that_dies_is_started_again() -> None:
    started: list[Child] = []

    def start() -> Child:
        started.append(Child.start(SLEEP, {}))
        return started[-1]

    with Children() as children:
        first = children.add("sleeper", start)
        first.process.kill()
        again = wait_for(lambda: len(started) == 2)

    assert again
    assert started[0].poll() == -signal.SIGKILL
    assert started[1].poll() == -signal.SIGTERM


def test_a_child_that_does_not_start_again_is_tried_after_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.01)
    calls: list[float] = []

    def start() -> Child:
        calls.append(time.monotonic())
        if len(calls) in {2, 3}:
            raise OSError("no room")
        return Child.start(["/bin/false"] if len(calls) == 1 else SLEEP, {})

    with Children() as children:
        children.add("failing", start)
        wait_for(lambda: len(calls) == 4)

    pauses = [later - earlier for earlier, later in itertools.pairwise(calls)]
    assert len(calls) == 4
    assert pauses[2] > pauses[1] > 0.1


def test_parts_end_in_the_reverse_of_their_order() -> None:
    ended: list[str] = []

    class Recorded(Child):
        def stop(self) -> None:
            super().stop()
            ended.append("worker" if self is worker else "database")

    with Children() as children:
        children.add("database", lambda: Recorded.start(SLEEP, {}))
        worker = children.add("worker", lambda: Recorded.start(SLEEP, {}))

    assert ended == ["worker", "database"]


def test_a_child_deaf_to_asking_is_ended_with_what_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gone: Callable[[list[int]], bool]
) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.2)
    note = tmp_path / "grandchild"
    child = child_of(
        "import signal, subprocess, time; from pathlib import Path\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen(['/bin/sleep', '1000'])\n"
        f"Path({str(note)!r}).write_text(f'{{grandchild.pid}}.')\n"
        "time.sleep(1000)"
    )
    wait_for(lambda: note.exists() and note.read_text().endswith("."))

    child.stop()

    assert child.poll() == -signal.SIGKILL
    assert gone([int(note.read_text().rstrip("."))])


def test_a_child_reads_nothing_and_leads_a_session_of_its_own(tmp_path: Path) -> None:
    said = tmp_path / "said"
    child = child_of(
        "import os, signal, sys; from pathlib import Path\n"
        f"Path({str(said)!r}).write_text(repr([sys.stdin.read(), os.getsid(0) == os.getpid(),"
        " signal.getsignal(signal.SIGINT) is signal.default_int_handler]))"
    )
    child.process.wait()

    assert child.poll() == 0
    assert said.read_text() == "['', True, True]"


def test_a_program_that_cannot_run_ends_and_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    child = Child.start(["/nowhere/program"], {})

    assert child.process.wait() == 1
    assert "cannot run /nowhere/program" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_within_seconds(
    number: signal.Signals,
    filled: Path,
    serve: Callable[..., "Serving"],
    gone: Callable[[list[int]], bool],
) -> None:
    serving = serve(filled)
    began = time.monotonic()

    for _ in range(3):  # a hasty Ctrl-C, to the whole group as a terminal sends it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(serving.process.pid, number)
        time.sleep(0.02)
    status = serving.process.wait(10)

    assert status == 128 + number
    assert time.monotonic() - began < 5
    assert gone(serving.pids)
    assert "shut down" in (filled / "postgres.log").read_text()


@linux
def test_a_kill_of_serve_ends_its_children_and_the_next_one_comes_up(
    filled: Path,
    serve: Callable[..., "Serving"],
    gone: Callable[[list[int]], bool],
) -> None:
    first = serve(filled)
    with psycopg.connect(first.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (number int)")

    first.process.kill()
    first.process.wait()
    second = serve(filled)

    assert gone(first.pids)
    with psycopg.connect(second.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_killed_database_comes_back_under_serve_at_the_same_place(
    filled: Path,
    serve: Callable[..., "Serving"],
) -> None:
    serving = serve(filled)

    psutil.Process(serving.pids[0]).kill()

    def answers() -> bool:
        try:
            with psycopg.connect(serving.url) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    assert wait_for(lambda: not psutil.pid_exists(serving.pids[0]))
    assert wait_for(answers)
