"""Child processes: started so that they end with us, however we end."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from service.embedded import leash
from service.embedded.accounts import Account


def launch(
    command: list[str],
    environment: Mapping[str, str],
    *,
    account: Account | None = None,
    dies_by: signal.Signals = signal.SIGTERM,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` (a full path first) in a session of its own, so that Ctrl-C is ours alone.

    On Linux the kernel sends it `dies_by` when the calling *thread* ends: call from one that stays.
    """
    account = account or Account(os.geteuid(), os.getegid())
    leashed = [sys.executable, "-I", "-S", str(Path(leash.__file__).absolute())]
    leashed += [str(n) for n in (os.getpid(), int(dies_by), account.user, account.group)]
    return subprocess.Popen(  # noqa: S603 - callers hand in fixed programs
        [*leashed, *command],
        env=dict(environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
