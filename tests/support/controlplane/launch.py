"""The last step before a program of the control plane: bind its life to ours, exec.

Run by `servers.py` as a program of its own (`python -I -S launch.py PARENT COMMAND…`), as PostgreSQL is
launched; but these are killed when the parent dies, for an API server that has lost its etcd ends slowly.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent_pid: int, command: list[str]) -> None:
    """Replace this process by `command`, which does not outlive the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that died before sends no signal.
    if os.getppid() != parent_pid:
        sys.exit("the parent process is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
