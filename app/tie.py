"""Run as a program: `python tie.py PID COMMAND...` becomes COMMAND, which Linux kills when its parent, PID, ends.

A program of its own, since what runs between fork and exec of a process with threads may hang.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def become(parent: int, command: list[str]) -> None:
    """Never returns. The bond outlives the exec."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # the parent ended before the bond was made
    os.execvp(command[0], command)  # noqa: S606 - a list of arguments and no shell


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
