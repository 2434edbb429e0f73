"""A process that runs an embedded server until it is killed.

Used by the tests of what happens to the server when its parent dies, as `python -m
support.embedded_child DIR`. Each thing the server reports is a line on stdout; `ready` is the last.
"""

import signal
import sys
from pathlib import Path

from picopay_api.embedded import EmbeddedPostgres


def main(directory: Path) -> None:
    """Start the server, say so and wait for a signal."""
    postgres = EmbeddedPostgres(directory)
    postgres.start(lambda text: print(text, flush=True))
    print("ready", flush=True)
    signal.pause()
    postgres.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
