"""PicoPay of another release, as a program: `python -m support.released VERSION STORE COMMAND…`.

Used by the tests of the whole chain as what is in the image of that release. It is this checkout's code;
STORE is the folder of its migrations and functions, as `support.releases` makes them, or this release's.
"""

import sys
from pathlib import Path

import picopay_api


def main(version: str, store: str, *arguments: str) -> int:
    """Run a command as the release, and return its exit code."""
    picopay_api.__version__ = version
    # Other modules take the version over when they are imported: not before now.
    from picopay_api.cli.main import run
    from picopay_api.store import schema

    schema.FOLDER = Path(store)
    return run(list(arguments))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
