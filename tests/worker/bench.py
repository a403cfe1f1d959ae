"""Jobs that do as they are told, without torch: a carrier for device processes, light to import."""

import errno
import hashlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service import errors
from service.compute.jobs import MadeFile
from service.names import Digest

CONTENT = b"what a bench job makes"


@dataclass(frozen=True)
class BenchJob:
    """Take `steps` steps of `step_s` seconds, then do `act`."""

    steps: int
    step_s: float
    act: str


@dataclass(frozen=True)
class BenchMade:
    files: tuple[MadeFile, ...]


def open_device(wanted: str) -> tuple[str, str]:
    if wanted == "cuda:9":
        raise errors.DeviceUnusable(wanted, "the bench has none")
    return wanted, f"bench {wanted}"


def carry_out(
    job: BenchJob,
    open_read: Callable[[Digest], Any],
    scratch: Path,
    device: str,
    progress: Callable[[float, str], None],
) -> BenchMade:
    _ = open_read
    for step in range(job.steps):
        progress(step / job.steps, f"step {step} on {device}")
        time.sleep(job.step_s)
    match job.act:
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill the worker":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        case "refuse":
            raise errors.NothingToExtract("the bench refuses")
        case "be unavailable":
            raise errors.StoreUnavailable("the bench is away")
        case "fill the disk":
            raise OSError(errno.ENOSPC, "no room")
        case "crash":
            raise ZeroDivisionError("a secret")
        case _:
            pass
    content = CONTENT
    if job.act == "look":
        content = " ".join(sorted(path.name for path in scratch.parent.iterdir())).encode()
    path = scratch / "made"
    path.write_bytes(content)
    digest = Digest("sha256:" + hashlib.sha256(content).hexdigest())
    return BenchMade((MadeFile(path, digest, len(content)),))
