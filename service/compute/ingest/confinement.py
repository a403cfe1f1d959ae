"""What a converter takes away from itself before it reads a stranger's bytes. Linux and macOS."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.compute.ingest import landlock

CLONE_NEWUSER: Final = 0x10000000  # linux/sched.h
CLONE_NEWNET: Final = 0x40000000
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h

OPEN_FILES: Final = 64
CPU_SPARE_S: Final = 5

REFUSED: Final = (
    *("socket.", "ssl.", "http.", "urllib.", "ftplib.", "smtplib.", "imaplib.", "poplib."),
    *("subprocess.", "pty.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system"),
    *("os.startfile", "os.kill", "signal.pthread_kill", "ctypes.", "webbrowser.", "syslog."),
    *("os.remove", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate"),
    *("os.chmod", "os.chown", "os.chflags", "os.setxattr", "os.utime", "os.putenv", "shutil."),
    *("sqlite3.", "tempfile.", "pickle.find_class", "resource.setrlimit", "sys.addaudithook"),
)
"""Audit events (docs.python.org/3/library/audit_events.html) that no conversion needs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a converter may use; `private_bytes` beyond what torch takes to load."""

    private_bytes: int
    mapped_bytes: int
    file_bytes: int
    cpu_s: int
    wall_s: int


def leave_network() -> bool:
    """Move into a network namespace without any interface; answers whether that was permitted.

    To be called before any thread is started: the kernel asks for that.
    """
    if sys.platform != "linux":
        return False
    unshare: Callable[[int], int] = ctypes.CDLL(None).unshare
    # With a user namespace no privilege is needed, and what root had is gone with it.
    return unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 or unshare(CLONE_NEWNET) == 0


def end_with_parent(parent: int, lifeline: int) -> None:
    """End as soon as the parent ends: by the kernel on Linux, else when `lifeline` ends.

    To be called after `leave_network`: the kernel forgets the wish when a process changes its user.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()


def _watch(lifeline: int) -> None:
    with contextlib.suppress(OSError):
        os.read(lifeline, 1)
    os._exit(1)


def limit(limits: Limits) -> None:
    """Set the limits, counted from what the process uses now."""
    _at_most(resource.RLIMIT_CORE, 0)
    _at_most(resource.RLIMIT_FSIZE, limits.file_bytes)
    _at_most(resource.RLIMIT_NOFILE, OPEN_FILES)
    used = resource.getrusage(resource.RUSAGE_SELF)
    # SIGXCPU at the limit says what happened; at the hard one the kernel only kills.
    _at_most(
        resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + limits.cpu_s, spare=CPU_SPARE_S
    )
    if sys.platform == "linux":
        address, data = _memory()
        _at_most(resource.RLIMIT_DATA, data + limits.private_bytes)
        _at_most(resource.RLIMIT_AS, address + limits.private_bytes + limits.mapped_bytes)


def _at_most(what: int, value: int, *, spare: int = 0) -> None:
    _, hard = resource.getrlimit(what)
    ceiling = value + spare if hard == resource.RLIM_INFINITY else min(value + spare, hard)
    resource.setrlimit(what, (min(value, ceiling), ceiling))


def _memory() -> tuple[int, int]:
    """Bytes of address space and of private, writable memory."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123 - no such path class
        fields = dict(line.split(":", 1) for line in status)
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmSize", "VmData"))  # type: ignore[return-value]


def leave_files(checkpoint: Path) -> bool:
    """Open no more files but the checkpoint and what Python imports, where the kernel can do that.

    Files that are open stay so: what is made is written into one of them.
    """
    folders = {sys.prefix, sys.base_prefix, *sys.path, "/lib", "/lib64", "/usr/lib"} - {"", "/"}
    return landlock.restrict([checkpoint, *map(Path, sorted(folders))])


def refuse_events() -> None:
    """Refuse every audit event that no conversion needs, for ever: `PermissionError`."""
    refused, writing = REFUSED, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            # Events of builtins.open carry a mode, those of os.open only flags; both carry flags.
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if flags & writing and not isinstance(arguments[0], int):
                raise PermissionError(f"a converter may not open {arguments[0]!r:.100} to write")
        elif event.startswith(refused):
            raise PermissionError(f"a converter may not do {event}")

    sys.addaudithook(hook)
