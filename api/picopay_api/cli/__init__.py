"""The command line: the `picopay` command and its subcommands.

Parses, delegates to the engine, the worker, the server or a running API, and prints. It decides nothing
about money. Exit codes are in `exits.py`, options that commands share in `options.py`.
"""

from picopay_api.cli.main import main

__all__ = ["main"]
