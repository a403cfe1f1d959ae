import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from service.embedded import binaries
from service.embedded.home import Home
from service.embedded.postgres import EmbeddedPostgres

SERVING = Path(__file__).with_name("serving.py")


@dataclass(frozen=True)
class Serving:
    """A running `serving.py`, up and ready."""

    process: subprocess.Popen[str]
    url: str
    pids: list[int]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user may pass; those of pytest are for their owner alone."""
    path = Path(tempfile.mkdtemp(prefix="patchbay-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A home with a cluster in it: copying it takes a tenth of the time of making one."""
    path = Path(tempfile.mkdtemp(prefix="patchbay-test-"))
    with Home.open(path) as made:
        EmbeddedPostgres.start(made, fsync=False).stop()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def filled(template: Path, folder: Path) -> Path:
    """The path of a home that has a cluster."""
    path = folder / "home"
    subprocess.run(["/bin/cp", "-a", str(template), str(path)], check=True)  # noqa: S603
    return path


@pytest.fixture
def home(filled: Path) -> Iterator[Home]:
    with Home.open(filled) as opened:
        yield opened


@pytest.fixture
def start_server(home: Home) -> Iterator[Callable[[], EmbeddedPostgres]]:
    """Start a server on `home`, again and again; whatever still runs is stopped at the end."""
    started: list[EmbeddedPostgres] = []

    def start() -> EmbeddedPostgres:
        started.append(EmbeddedPostgres.start(home, fsync=False))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def serve() -> Iterator[Callable[..., Serving]]:
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, *before: str) -> Serving:
        command = [*before, sys.executable, str(SERVING), str(path)]
        process = subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        return Serving(process, **json.loads(process.stdout.readline()))

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def gone() -> Callable[[list[int]], bool]:
    """Whether the processes end within ten seconds."""

    def wait(pids: list[int]) -> bool:
        ends = time.monotonic() + 10
        while any(map(is_running, pids)) and time.monotonic() < ends:
            time.sleep(0.05)
        return not any(map(is_running, pids))

    return wait


@pytest.fixture
def as_ordinary_user() -> tuple[int, list[str]]:
    """A user id that is not root's, and the words before a command that run it as that user."""
    if os.geteuid() != 0:
        return os.geteuid(), []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("as root, becoming an ordinary user takes setpriv")
    if not all(above.stat().st_mode & stat.S_IXOTH for above in binaries.find(None).parents):
        pytest.skip("Postgres is installed in a private directory, which no ordinary user may pass")
    # The right to read everything: this Python may lie in root's own directory.
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    other = next(user for user in pwd.getpwall() if user.pw_uid and user.pw_name != "nobody")
    rights = [f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups", *reading]
    return other.pw_uid, [setpriv, *rights]
