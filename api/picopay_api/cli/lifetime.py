"""When a process ends: signals that ask it to, and a parent whose death it must not outlive.

Used by the long-running commands (`up`, `serve`, `worker`). A supervisor holds the write end of each
child's stdin; when it dies, in whatever way, the kernel closes that end and the child reads the end of
the file. That works on every POSIX system and, unlike a parent's pid, cannot be mistaken.
"""

import asyncio
import os
import signal
import sys
import threading
import time

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequests:
    """How often this process was asked to stop: `first` means drain, `second` means hurry."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    @classmethod
    def listen(cls) -> "StopRequests":
        """Handle SIGINT, SIGTERM and SIGHUP in the running event loop from now on."""
        requests = cls()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, requests.note)
        return requests

    def note(self) -> None:
        """Count one more request."""
        (self.second if self.first.is_set() else self.first).set()


def end_with_stdin(grace_s: float) -> None:
    """Send this process a SIGTERM when its stdin ends; force an exit if it then takes too long."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            continue  # a supervisor says nothing; what it might say is of no concern
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-stdin", daemon=True).start()


def interrupt_on_stop() -> None:
    """Let every request to stop do what Ctrl-C does: raise KeyboardInterrupt wherever the process is.

    For work that must not run long in an event loop, such as the start of a database.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Not raised by themselves: an event loop takes SIGINT over and cancels its work, while an
        # exception in the midst of the database driver's C code crashes the process.
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))


def survive_repeated_signals() -> None:
    """Let this process end in its own time and with its own exit code.

    uvicorn raises the signals that it has handled once more when it is done; they mean nothing then.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
