"""A private PostgreSQL server for one directory: for `picopay up` and for the tests.

It listens on the loopback interface only, writes durably, belongs to nobody else and stops when the
process that started it dies, however that dies. Production uses a database of its own.

    postgres.py    EmbeddedPostgres: the life of a server, from an empty directory to a clean stop
    software.py    unpacks the programs to where the user of the server can run them
    processes.py   who the server runs as, how it is started, and what an earlier life left running
    launch.py      the small program between our process and PostgreSQL's
"""

from picopay_api.embedded.errors import DataDirectoryInUse, EmbeddedError
from picopay_api.embedded.postgres import EmbeddedPostgres

__all__ = ["DataDirectoryInUse", "EmbeddedError", "EmbeddedPostgres"]
