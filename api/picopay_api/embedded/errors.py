"""What can go wrong with the embedded server, in sentences that say what to do.

Raised by this package, shown by the command line. These are no refusals of the API, so they stand
outside the tree of `picopay_api.errors`.
"""


class EmbeddedError(Exception):
    """The server cannot be prepared, started or stopped; the message says why."""


class DataDirectoryInUse(EmbeddedError):
    """Another process runs a server on the same directory."""
