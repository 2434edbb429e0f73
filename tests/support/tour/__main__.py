"""Writes what the tour's page shows, from its recording (docs/tutorial/kubernetes.cast).

`python -m support.tour` writes the outputs on the page and the pictures, `--check` (in `make check`) fails
when one is not as it would be written. A new recording is made on a cluster, by
`pytest tests/e2e/test_tour.py --e2e --e2e-record`.
"""

import argparse
import sys
from collections.abc import Sequence

from support.postgres import CHECKOUT
from support.tour.page import CAST, PAGE, OutdatedError, made
from support.tour.recording import Scene, from_cast


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page and its pictures, or with --check say which differ and exit 1 when any does."""
    parser = argparse.ArgumentParser(prog="support.tour", description=main.__doc__)
    parser.add_argument("--check", action="store_true")
    check: bool = parser.parse_args(arguments).check
    try:
        wrong = written(from_cast(CAST.read_text(encoding="utf-8")), check=check)
    except OutdatedError as error:
        sys.exit(str(error))
    if check and wrong:
        sys.exit(f"not as they would be written: {', '.join(wrong)}; run python -m support.tour")


def written(scenes: Sequence[Scene], *, check: bool = False) -> list[str]:
    """Write what the page shows of a recording, unless only asked; return what was another before."""
    changed = []
    for path, text in made(PAGE.read_text(encoding="utf-8"), scenes):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            changed.append(str(path.relative_to(CHECKOUT)))
            if not check:
                path.write_text(text, encoding="utf-8")
    return changed


if __name__ == "__main__":
    main()
