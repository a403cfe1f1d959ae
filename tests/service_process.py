"""The real `patchbay serve` in a process of its own, to talk to, kill and start again."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import psutil

START_S: Final = 120.0
END_S: Final = 60.0
_QUICK: Final = {
    "PATCHBAY_HEARTBEAT_S": "1",
    "PATCHBAY_STALLED_AFTER_S": "6",
    "PATCHBAY_DEVICE": "cpu",
    "PATCHBAY_DISK_RESERVE_BYTES": "0",
}


class ServiceProcess:
    """`patchbay serve` on a home of its own and a free port; started by `with`, removed after it.

    `environment` overrides settings, `port` 0 is any that is free; `before` are the words before
    the command (`prlimit …`).
    Never of pytest's `tmp_path`: as root, Postgres' user must be able to pass the home.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        before: Sequence[str] = (),
        worker: bool = True,
        port: int = 0,
    ) -> None:
        self.port = port
        self.home = Path(tempfile.mkdtemp(prefix="patchbay-test-"))
        self._log = self.home.with_name(f"{self.home.name}.log")  # the home must begin empty
        self.environment = {**_QUICK, **(environment or {})}
        self._before = before
        self._has_worker = worker
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx2.Client | None = None

    @classmethod
    def beside(
        cls,
        other: "ServiceProcess",
        environment: Mapping[str, str] | None = None,
        *,
        before: Sequence[str] = (),
    ) -> Self:
        """A second one without a worker, on the database and the blobs of `other`."""
        shared = other.process_of("service.manage worker").environ()
        named = {each: shared[each] for each in ("PATCHBAY_DATABASE_URL", "PATCHBAY_BLOB_URL")}
        return cls({**named, **(environment or {})}, before=before, worker=False)

    @property
    def log(self) -> str:
        """What it has written, all starts together."""
        return self._log.read_text(errors="replace")

    @property
    def url(self) -> str:
        return (self.home / "run" / "url").read_text().strip()

    @property
    def token(self) -> str:
        return (self.home / "owner-token").read_text().strip()

    @property
    def client(self) -> httpx2.Client:
        """A client with the owner's token, of this start."""
        if self._client is None:
            self._client = self.client_with(self.token)
        return self._client

    def client_with(self, token: str | None) -> httpx2.Client:
        """Another client, to be closed by the caller."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=70)

    @property
    def is_running(self) -> bool:
        """Whether the command itself runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def processes(self) -> list[psutil.Process]:
        """It and all that it started."""
        assert self._process is not None
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]

    def process_of(self, words: str) -> psutil.Process:
        """The first process whose command line holds `words`."""
        return next(each for each in self.processes if words in " ".join(each.cmdline()))

    # ── life ─────────────────────────────────────────────────────────────────────────────────

    def spawn(self) -> "subprocess.Popen[bytes]":
        """Start the command on this home and wait for nothing."""
        serve = [sys.executable, "-m", "service.manage", "serve", "--port", str(self.port)]
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [*self._before, *serve, *([] if self._has_worker else ["--no-worker"])],
                env=_without_settings() | self.environment | {"PATCHBAY_HOME": str(self.home)},
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> Self:
        """Start it, and wait until it is ready and its worker, if it has one, lives."""
        (self.home / "run" / "url").unlink(missing_ok=True)
        self._process = self.spawn()
        self.wait_until(self.is_whole, START_S)
        return self

    def is_whole(self) -> bool:
        """Whether all of it answers."""
        parts = self.readiness().get("parts", {"database": "no answer"})
        worker = parts.pop("worker", "none")
        return set(parts.values()) == {"ok"} and (worker == "ok" or not self._has_worker)

    def readiness(self) -> dict[str, Any]:
        """What /readyz says; nothing while it does not answer."""
        try:
            found: dict[str, Any] = httpx2.get(f"{self.url}/readyz", timeout=10).json()
        except (httpx2.HTTPError, FileNotFoundError):
            return {}
        return found

    def wait_until(self, holds: Callable[[], bool], timeout_s: float = END_S) -> None:
        """Wait for `holds()`; fails with the log where the process ends first."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert self._process is not None
            assert self._process.poll() is None, self.log[-5000:]
            assert time.monotonic() < deadline, self.log[-5000:]
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Press Ctrl-C; answers the exit status once all of it has ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Wait for the end of all of it, which was asked for; answers the exit status."""
        assert self._process is not None
        family = self.processes
        status = self._process.wait(END_S)
        _, alive = psutil.wait_procs(family, timeout=2)
        assert not alive, [each.cmdline() for each in alive]
        self._forget()
        return status

    def kill_all(self) -> None:
        """Kill every process of it, as a power cut would."""
        for each in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # its own end follows from another's
                each.kill()
        assert self._process is not None
        self._process.wait(END_S)
        self._forget()

    def restart(self) -> None:
        """End it in good order and start it on the same home."""
        self.interrupt()
        self.start()

    def close(self) -> None:
        """End it, however it stands, and remove its home."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            finally:
                if self._process.poll() is None:
                    self.kill_all()
        self._forget()
        shutil.rmtree(self.home, ignore_errors=True)
        self._log.unlink(missing_ok=True)

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client, self._process = None, None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _without_settings() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith("PATCHBAY_")}
