"""Landlock: a process without privilege takes from itself what it will not need. Linux 5.13 on.

Source: docs.kernel.org/userspace-api/landlock.html and linux/landlock.h.
"""

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444  # the same on every architecture but alpha
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_FILES: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From which version on how many kinds of access to files are known."""
_TCP: Final = (4, 0b11)
_SCOPES: Final = (6, 0b11)


def restrict(readable: Iterable[Path]) -> bool:
    """Open no more files, but for reading under `readable`; no TCP where the kernel knows that.

    What is open stays open. Holds for the calling thread and those that it starts. Answers whether
    the kernel could do it.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return False
    files = (1 << max(count for since, count in _FILES if version >= since)) - 1
    more = [mask if version >= since else 0 for since, mask in (_TCP, _SCOPES)]
    attributes = struct.pack("QQQ", files, *more)
    size = 8 if version < _TCP[0] else 16 if version < _SCOPES[0] else 24
    ruleset = libc.syscall(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return False
    for path in readable:
        _allow(libc, ruleset, path)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done: int = libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return done == 0


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path) -> None:
    with contextlib.suppress(OSError):  # not there: nothing to allow
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access = _READ_FILE | ((_EXECUTE | _READ_FOLDER) if path.is_dir() else 0)
        rule = struct.pack("=Qi", access, opened)
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        os.close(opened)
