"""A Patchbay of one's own for an example: a free port, a home that is removed afterwards."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.client.client import Client
from service.client.problem import ServiceProblem

READY_WITHIN_S: Final = 180
STOP_WITHIN_S: Final = 30
SHOWN_LINES: Final = 30


@dataclass(frozen=True)
class LocalService:
    """A running service, its home and its log."""

    url: str
    home: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def token(self) -> str:
        """The owner's token."""
        return (self.home / "owner-token").read_text(encoding="ascii").strip()

    @property
    def environment(self) -> dict[str, str]:
        """Ours, so that the `patchbay` command finds this service and no other."""
        return _environment(self.home) | {"PATCHBAY_URL": self.url, "PATCHBAY_TOKEN": self.token}

    def log_tail(self) -> str:
        """The last lines that the service wrote."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-SHOWN_LINES:])


@contextlib.contextmanager
def local_service(port: int = 0) -> Iterator[LocalService]:
    """Start `patchbay serve` on the embedded default, and end it afterwards.

    Neither the user's home nor their service is touched. Raises `RuntimeError` with the end of the
    log where it does not come up.
    """
    # The directory itself is the home, handed over empty: as root, Postgres' user must be able to
    # pass to it, so no directory of mode 0700 may stand above it.
    home = Path(tempfile.mkdtemp(prefix="patchbay-demo-"))
    log = home.with_suffix(".log")
    port = port or _free_port()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "service.manage", "serve", "--port", str(port)],
                env=_environment(home),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is ours; we end the service in order
            )
        service = LocalService(f"http://127.0.0.1:{port}", home, log, process)
        try:
            _wait_until_ready(service)
            yield service
        finally:
            _stop(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)
        log.unlink(missing_ok=True)


def _environment(home: Path) -> dict[str, str]:
    """Ours without any PATCHBAY_ variable: what the user has configured is not for the demo."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PATCHBAY_")}
    return {**kept, "PATCHBAY_HOME": str(home)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(service: LocalService) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    with Client(service.url, timeout_s=5, sleep=lambda _: None) as client:
        while time.monotonic() < deadline:
            if service.process.poll() is not None:
                break
            with contextlib.suppress(ServiceProblem):
                if client.readiness().parts.get("worker") == "ok":
                    return
            time.sleep(0.3)
    raise RuntimeError(f"the service did not come up:\n{service.log_tail()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
