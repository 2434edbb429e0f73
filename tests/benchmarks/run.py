"""Starts the benchmark: `make bench`, or `python tests/benchmarks/run.py --help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Found as `benchmarks.…` below tests/, like the helpers of the tests; and not by its bare names,
    # which this file's own folder, where Python looks first, would offer.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from benchmarks.command import main

    sys.exit(main(sys.argv[1:]))
