"""Fails when the tables that the migrations build differ from `store/tables.py`.

Run by `make check` as a program: `python -m support.schema_drift`.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from picopay_api.store import migrate
from support.postgres import Server


def main() -> None:
    """Migrate an empty database, compare it, print the differences and exit 1 if there are any."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server.start(Path(directory) / "server")
        try:
            with server.database() as url:
                differences = asyncio.run(migrate.drift(url))
        finally:
            server.stop()
    for difference in differences:
        print(difference)
    if differences:
        sys.exit("the migrations and store/tables.py differ")
    print("The migrations build what store/tables.py says.")


if __name__ == "__main__":
    main()
