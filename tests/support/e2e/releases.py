"""Images of releases that there are not yet: those of this checkout, with something more or something broken.

Used by the end-to-end tests, which name releases by the constants here. `python -m support.e2e.releases
FOLDER` makes the archives of all of them, for a cluster (docs/how-to/test-on-a-cluster.md).
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from picopay_api import __version__
from support.images import PROGRAMS, Engine
from support.releases import Release

THIS = __version__
SAME = "0.1.100"
"""As this release, but for its name."""
BROKEN = "0.1.101"
"""Its server does not start."""
MORE = "0.2.0"
"""Has a table more, and works beside this release."""
UNSURE = "0.3.0"
"""Its migration fails as long as there is no account with the reference `PERMIT`."""
LAST = "0.4.0"
"""Its migration turns every release before it away."""
OPERATOR = "0.1.100"
"""An operator of another release."""

PERMIT = "permit"

_REPOSITORY = "docker.io/picopay"
_CHECK_PERMIT = f"""
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM picopay.account WHERE reference = '{PERMIT}') THEN
        RAISE EXCEPTION 'there is no account "{PERMIT}"';
    END IF;
END $$"""
_BREAK = 'raise SystemExit("This release does not start.")\n'

# Nothing in the image is compiled when it is used, so what is changed is compiled here.
_DOCKERFILE = """
ARG BASE
FROM ${{BASE}}
USER 0
COPY . /release
RUN cd "$(python -c 'import os, {package}; print(os.path.dirname({package}.__file__))')" \\
 && cp -r /release/changed/. . \\
 && sed -i 's/^__version__ = .*/__version__ = "{version}"/' __init__.py \\
 && sed -i 's/^Version: .*/Version: {version}/' ../picopay-*.dist-info/METADATA \\
 && python -m compileall -q -f --invalidation-mode unchecked-hash .
USER 10001:10001
"""


def releases(folder: Path) -> list[Path]:
    """Make the archives of this checkout's images and of all other releases; return them."""
    with tempfile.TemporaryDirectory() as made:
        Engine(Path(made)).make_own(folder, _REPOSITORY)
    own = [folder / f"picopay-{program}-{THIS}.tar" for program in PROGRAMS]
    changes: dict[str, Callable[[Path], None]] = {
        SAME: lambda _: None,
        BROKEN: _broken,
        MORE: lambda place: _migrating(place, 1),
        UNSURE: lambda place: _migrating(place, 2),
        LAST: lambda place: _migrating(place, 3),
    }
    return [
        *own,
        *(_make(folder, "api", version, change) for version, change in changes.items()),
        _make(folder, "operator", OPERATOR, lambda _: None),
    ]


def _make(folder: Path, program: str, version: str, change: Callable[[Path], None]) -> Path:
    base = f"{_REPOSITORY}/picopay-{program}"
    archive = folder / f"picopay-{program}-{version}.tar"
    with tempfile.TemporaryDirectory() as made:
        context = Path(made)
        (context / "changed").mkdir()
        change(context / "changed")
        text = _DOCKERFILE.format(package=f"picopay_{program}", version=version)
        (context / "Dockerfile").write_text(text, encoding="utf-8")
        Engine(context).make_another(f"{base}:{version}", context, archive, f"{base}:{THIS}")
    return archive


def _broken(place: Path) -> None:
    (place / "app.py").write_text(_BREAK, encoding="utf-8")


def _migrating(place: Path, count: int) -> None:
    """Add the first so many of the revisions to come."""
    with tempfile.TemporaryDirectory() as made:
        release = Release(Path(made) / "release")
        known = release.revisions()
        adding: list[Callable[[], str]] = [
            lambda: release.add("CREATE TABLE picopay.more (id uuid)"),
            lambda: release.add(_CHECK_PERMIT),
            lambda: release.add("DROP TABLE picopay.more", admits_older=False),
        ]
        for add in adding[:count]:
            add()
        versions = place / "store" / "migrations" / "versions"
        versions.mkdir(parents=True)
        for file in (release.folder / "migrations" / "versions").glob("*.py"):
            if file.name.partition("_")[0] not in known:
                shutil.copy(file, versions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="releases", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the archives go")
    place = parser.parse_args().folder
    place.mkdir(parents=True, exist_ok=True)
    for archive in releases(place):
        print(archive)
