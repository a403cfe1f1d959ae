import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service import errors
from service.worker.device import (
    Crashed,
    DeviceProcess,
    Done,
    Event,
    Failed,
    ProcessDied,
    Progress,
    Ready,
    StoreAddress,
)
from tests.worker.bench import BenchJob


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceProcess]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = DeviceProcess("cpu", StoreAddress(str(tmp_path / "blobs")), carrier="tests.worker.bench")
    yield made
    made.kill()


def last(device: DeviceProcess) -> Event:
    """The event that ends the job."""
    while True:
        event = device.next_event(60)
        assert event is not None
        if not isinstance(event, Ready | Progress):
            return event


def children() -> list[psutil.Process]:
    """The device processes of this one, which may have other children."""
    return [p for p in psutil.Process().children() if "service.worker.child" in p.cmdline()]


def child() -> psutil.Process:
    (found,) = children()
    return found


def until_gone(process: psutil.Process) -> None:
    give_up_at = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_one_process_carries_out_job_after_job(device: DeviceProcess, tmp_path: Path) -> None:
    name = device.start()
    first = child()

    device.give(BenchJob(2, 0.2, ""), tmp_path)
    ready_or_told = device.next_event(60)
    done = last(device)
    device.give(BenchJob(1, 0, ""), tmp_path)

    assert name == "bench cpu"
    assert ready_or_told == Progress(0.0, "step 0 on cpu")
    assert isinstance(done, Done)
    assert done.made.files[0].path.read_bytes()
    assert isinstance(last(device), Done)
    assert child() == first


def test_a_killed_process_is_replaced_when_the_next_job_comes(
    device: DeviceProcess, tmp_path: Path
) -> None:
    device.give(BenchJob(600, 0.1, ""), tmp_path)
    assert isinstance(device.next_event(60), Ready)

    device.kill()
    left = children()
    device.give(BenchJob(1, 0, ""), tmp_path)

    assert left == []
    assert isinstance(last(device), Done)


def test_errors_of_the_tree_arrive_whole(device: DeviceProcess, tmp_path: Path) -> None:
    device.give(BenchJob(1, 0, "be unavailable"), tmp_path)

    failed = last(device)

    assert isinstance(failed, Failed)
    assert isinstance(failed.error, errors.StoreUnavailable)
    assert failed.error.fields == {"reason": "the bench is away"}


def test_a_full_disk_under_the_worker_is_told_as_such(
    device: DeviceProcess, tmp_path: Path
) -> None:
    device.give(BenchJob(1, 0, "fill the disk"), tmp_path)

    failed = last(device)

    assert isinstance(failed, Failed)
    assert "disk is full" in str(failed.error)


def test_after_a_crash_the_next_job_has_a_new_process(
    device: DeviceProcess, tmp_path: Path
) -> None:
    device.start()
    before = child()

    device.give(BenchJob(1, 0, "crash"), tmp_path)
    crashed = last(device)
    device.give(BenchJob(1, 0, ""), tmp_path)

    assert isinstance(crashed, Crashed)
    assert crashed.kind == "ZeroDivisionError"
    assert "a secret" in crashed.traceback
    assert isinstance(last(device), Done)
    assert child() != before


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "when memory runs out"), (signal.SIGSEGV, "killed by SIGSEGV")],
)
def test_the_signal_that_ended_a_process_is_named(
    device: DeviceProcess, tmp_path: Path, number: signal.Signals, words: str
) -> None:
    device.start()
    device.give(BenchJob(600, 0.1, ""), tmp_path)
    child().send_signal(number)

    with pytest.raises(ProcessDied, match=words):
        last(device)


def test_signals_to_the_whole_group_leave_the_decision_to_the_worker(
    device: DeviceProcess, tmp_path: Path
) -> None:
    device.start()

    device.give(BenchJob(3, 0.1, ""), tmp_path)
    for number in (signal.SIGINT, signal.SIGTERM):
        child().send_signal(number)

    assert isinstance(last(device), Done)


def test_a_process_dies_with_the_one_that_started_it(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from service.worker.device import *\n"
        "from tests.worker.bench import BenchJob\n"
        "device = DeviceProcess('cpu', StoreAddress(sys.argv[1]), carrier='tests.worker.bench')\n"
        "device.start(); device.give(BenchJob(600, 0.1, ''), Path(sys.argv[1]))\n"
        "print(device._running[0].pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen(  # noqa: S603 - the program above
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
    )
    assert starter.stdout is not None
    started = psutil.Process(int(starter.stdout.readline()))

    starter.kill()
    starter.wait()
    starter.stdout.close()

    until_gone(started)


def test_a_device_that_is_not_there_is_refused_at_the_start(
    device: DeviceProcess, tmp_path: Path
) -> None:
    absent = DeviceProcess("cuda:9", StoreAddress(str(tmp_path)), carrier="tests.worker.bench")

    with pytest.raises(errors.DeviceUnusable, match="'cuda:9' cannot be used: the bench has none"):
        absent.start()

    assert children() == []
    assert device.start() == "bench cpu"
