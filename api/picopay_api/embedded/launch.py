"""The last step before a program of PostgreSQL: become its user, bind its life to ours, exec.

Run by `processes.py` as a program of its own (`python -I -S launch.py PARENT UID GID COMMAND…`),
because a process with threads must not run Python code between fork and exec. Imports the standard
library only, and all of it before it gives up the right to read it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent_pid: int, user_id: int, group_id: int, command: list[str]) -> None:
    """Replace this process by `command`; it gets SIGINT (a fast shutdown) when the parent dies."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    os.umask(0o077)
    if os.geteuid() != user_id:
        try:
            os.setgroups([])
            os.setgid(group_id)
            os.setuid(user_id)
        except OSError as error:
            sys.exit(f"cannot become user {user_id}, as PostgreSQL refuses to run as root: {error}")
    # A change of user clears the signal, so it comes after it; and a parent that died before it
    # was set sends none, so look whether it is still there.
    if libc is not None and libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:
        sys.exit("the parent process is gone")
    # Meant for the Python that runs this; PostgreSQL comes with libraries of its own.
    os.unsetenv("LD_LIBRARY_PATH")
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
