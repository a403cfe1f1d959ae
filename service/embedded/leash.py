"""A program that becomes another one, after asking the kernel to end it with its parent.

    python -I -S leash.py PARENT SIGNAL USER GROUP PROGRAM ARGUMENT...

It starts with the parent's rights and gives them up on the way: the kernel forgets the wish when a
process changes its user, and the user who is to run PROGRAM may not be able to read this Python.
A program of its own, since Python code between fork and exec can hang in a process with threads.

The wish is a help, not a promise: the signal is sent when the *thread* that started PROGRAM ends,
and only Linux knows it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> None:
    """Become the program; returns only where that fails, with `OSError`."""
    parent, ending, user, group = map(int, arguments[:4])
    program = arguments[4:]
    if user != os.geteuid():
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ending, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the starting process has ended")
    # Python ignores these two from its start, and exec would pass that on.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(program[0], program)  # noqa: S606 - no shell on purpose


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[5]}: {error}")
