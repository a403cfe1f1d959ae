"""Workers as real processes: killed, stopped, told to end."""

import hashlib
import signal
import time
from pathlib import Path

import pytest

from service.db import migrate
from service.names import digest_of
from service.registry import operations
from tests.worker.floor import Floor, Server, opened

pytestmark = pytest.mark.xdist_group("workers")


def test_a_killed_workers_job_is_finished_by_another_and_nothing_is_doubled(
    floor: Floor,
) -> None:
    floor.start("a", "b")
    operation = floor.ask(steps=20)
    floor.until_under_way(operation)
    killed, other = floor.holder_of(operation)

    floor.workers[killed].kill()
    done = floor.until_state(operation, "succeeded", 15)

    assert (done.attempt, done.worker) == (2, other)
    assert floor.recordings(operation) == [2]
    floor.until(lambda: floor.open_jobs() == 0)


def test_a_result_is_a_blob_before_it_is_recorded(staffed: Floor) -> None:
    done = staffed.until_state(staffed.ask(), "succeeded")

    digest = str(done.result and done.result["digest"])
    (blob,) = (path for path in (staffed.blobs / "sha256").rglob("*") if path.is_file())
    assert digest == "sha256:" + hashlib.sha256(blob.read_bytes()).hexdigest()
    assert (done.progress, done.attempt) == (1.0, 1)


def test_what_a_batch_made_is_stored_and_gone_while_the_next_is_computed(staffed: Floor) -> None:
    asked = staffed.ask(kind="batches", act="look", steps=10)

    done = staffed.until_state(asked, "succeeded")

    digests = (done.result or {})["digests"]
    assert digests == [digest_of(name) for name in (b"0", b"1", b"2")]
    stored = {path.name for path in (staffed.blobs / "sha256").rglob("*") if path.is_file()}
    assert stored >= {digest.removeprefix("sha256:") for digest in digests}
    assert list((staffed.folder / "scratch").glob("*/job-*")) == []


def test_a_running_operation_is_cancelled_within_two_seconds(staffed: Floor) -> None:
    operation = staffed.ask(steps=600)
    staffed.until_under_way(operation)

    with staffed.sessions.begin() as session:
        operations.cancel(session, operation)
    staffed.until_state(operation, "cancelled", 2)
    after = staffed.ask()

    staffed.until_state(after, "succeeded")
    assert staffed.recordings(operation) == []


def test_both_queues_are_served_at_the_same_time(staffed: Floor) -> None:
    long = staffed.ask(steps=600, on="gpu")
    staffed.until_under_way(long)

    staffed.until_state(staffed.ask(on="cpu"), "succeeded")

    assert staffed.look(long).state == "running"
    with staffed.sessions.begin() as session:
        operations.cancel(session, long)


def test_a_worker_that_was_taken_for_dead_cannot_write_any_more(floor: Floor) -> None:
    floor.start("a", "b")
    operation = floor.ask(steps=15)
    floor.until_under_way(operation)
    stopped, other = floor.holder_of(operation)
    floor.workers[stopped].send_signal(signal.SIGSTOP)  # its device process finishes the job
    floor.until_state(operation, "succeeded", 15)

    floor.workers[stopped].send_signal(signal.SIGCONT)
    floor.until(lambda: '"ending": "superseded"' in floor.log(stopped).read_text())

    assert floor.look(operation).worker == other
    assert floor.recordings(operation) == [2]
    floor.workers[other].terminate()
    floor.workers[other].wait(10)
    assert floor.until_state(floor.ask(), "succeeded").worker == stopped


def test_a_worker_that_is_told_to_end_gives_its_job_back(floor: Floor) -> None:
    floor.start("first")
    operation = floor.ask(steps=20)
    floor.until_under_way(operation)

    floor.workers["first"].terminate()
    status = floor.workers["first"].wait(5)
    given_back = floor.look(operation)
    floor.start("second")
    done = floor.until_state(operation, "succeeded")

    assert status == 0
    assert (given_back.state, given_back.attempt, given_back.worker) == ("queued", 0, None)
    assert (done.attempt, done.worker) == (1, "second")
    with floor.sessions.begin() as session:
        alive = operations.live_workers(session, operations.Limits())
    assert [worker.name for worker in alive] == ["second"]


def test_a_job_that_kills_its_worker_three_times_fails_for_good(floor: Floor) -> None:
    floor.start("a", "b", "c", "d", heartbeat_s=0.3, stalled_after_s=1, rescue_every_s=0.3)

    operation = floor.ask(act="kill the worker")
    failed = floor.until_state(operation, "failed")

    assert failed.problem is not None
    assert failed.problem["type"] == "/problems/worker-died"
    assert failed.problem["attempts"] == 3
    assert [worker.poll() for worker in floor.workers.values()].count(-signal.SIGKILL) == 3


def test_a_job_that_kills_its_device_process_three_times_fails_for_good(staffed: Floor) -> None:
    failed = staffed.until_state(staffed.ask(act="die"), "failed")

    assert failed.problem is not None
    assert failed.problem["type"] == "/problems/worker-died"
    assert "SIGSEGV" in failed.problem["detail"]
    assert staffed.workers["worker"].poll() is None


@pytest.mark.parametrize(
    ("act", "problem", "attempts"),
    [
        ("refuse", "nothing-to-extract", 1),
        ("crash", "operation-failed", 1),
        ("be unavailable", "store-unavailable", 3),
    ],
)
def test_what_may_pass_is_tried_again_and_all_else_fails_at_once(
    staffed: Floor, act: str, problem: str, attempts: int
) -> None:
    failed = staffed.until_state(staffed.ask(act=act), "failed")

    assert failed.problem is not None
    assert failed.problem["type"] == f"/problems/{problem}"
    assert failed.attempt == attempts
    assert "secret" not in str(failed.problem)


def test_a_wrong_device_is_told_at_the_start(floor: Floor) -> None:
    with pytest.raises(AssertionError, match=r"device 'cuda:9' cannot be used"):
        floor.start("worker", device="cuda:9")


def test_a_worker_goes_on_when_its_database_was_gone_for_ten_seconds(
    server: Server, tmp_path: Path
) -> None:
    migrate.upgrade(server.url)
    with opened(server.url, tmp_path) as floor:
        floor.start("worker")
        operation = floor.ask(steps=50)
        floor.until_under_way(operation)

        server.stop()
        time.sleep(10)
        server.start()
        done = floor.until_state(operation, "succeeded", 15)

        assert (done.attempt, floor.recordings(operation)) == (1, [1])
        for queue in ("gpu", "cpu"):
            floor.until_state(floor.ask(on=queue), "succeeded", 15)
        floor.until(lambda: floor.open_jobs() == 0)
        assert floor.workers["worker"].poll() is None
