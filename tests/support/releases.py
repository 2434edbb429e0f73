"""Releases that do not exist yet: copies of this one's migrations and functions, with something more.

Used by the tests of migrations and of the range of schemas, so that what concerns two releases is
exercised while there is only one. A release is in force in this process within a `with` block; make
databases that this release shall have migrated outside of it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picopay_api.store import schema

_STORE = schema.FOLDER

_REVISION = '''"""{title}."""

from alembic import op

revision = "{revision}"
down_revision = "{before}"
min_compatible = "{min_compatible}"
destructive = {destructive}


def upgrade() -> None:
    for statement in {statements!r}:
        op.execute(statement)
'''


class Release:
    """A copy of this release's migrations and functions below a folder, to be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(
            _STORE / "migrations", folder / "migrations", ignore=lambda *_: {"__pycache__"}
        )
        for script in _STORE.glob("*.sql"):
            shutil.copy(script, folder)
        self._base = self.revisions()[-1]

    def add(self, *statements: str, admits_older: bool = True, destructive: bool = False) -> str:
        """Add a revision on top and return it; it admits this release, or none that is older."""
        before = self.revisions()[-1]
        revision = f"{int(before) + 1:04}"
        text = _REVISION.format(
            title="Something more",
            revision=revision,
            before=before,
            min_compatible=self._base if admits_older else revision,
            destructive=destructive,
            statements=statements,
        )
        self._versions.joinpath(f"{revision}_more.py").write_text(text, encoding="utf-8")
        return revision

    def change_function(self, script: str, old: str, new: str) -> None:
        """Replace a piece of one of the scripts of functions."""
        path = self.folder / script
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")

    def revisions(self) -> list[str]:
        """Return its revisions, in order."""
        return sorted(path.name.partition("_")[0] for path in self._versions.glob("*.py"))

    @contextmanager
    def in_force(self, *, min_compatible: str = schema.MIN_COMPATIBLE_SCHEMA) -> Iterator[None]:
        """Let this process be of this release, which works with schemas from `min_compatible` on."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "FOLDER", self.folder)
            patch.setattr(schema, "MIN_COMPATIBLE_SCHEMA", min_compatible)
            yield

    @property
    def _versions(self) -> Path:
        return self.folder / "migrations" / "versions"
