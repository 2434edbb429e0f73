"""An image of PostgreSQL for engines that have their database in the cluster, and its archive.

Run by hand, as `python -m support.cluster.postgres_image FOLDER [BASE]`, and by the tests in tests/cluster.
The operator takes it when it is told to: `postgresImage` of its chart. So does
CloudNativePG: `imageName` of a Cluster.
"""

import argparse
import shutil
import tarfile
import tempfile
from pathlib import Path

from picopay_api.embedded.software import Software
from support.images import Engine

STAND_IN_BASE = "localhost/picopay-base:trixie"
"""The image that `.ci/base-image` makes."""

REPOSITORY = "localhost/picopay-postgres"
"""What the image is called; its tag is the major version, as that of the official one."""

_SOURCES = Path(__file__).parent / "postgres"


def postgres_image(folder: Path, base: str = STAND_IN_BASE) -> Path:
    """Make the image from the wheel that `picopay up` uses, and put its archive into a folder."""
    software = Software.find()
    name = f"{REPOSITORY}:{software.major}"
    archive = folder / f"picopay-postgres-{software.major}.tar"
    with tempfile.TemporaryDirectory() as made:
        context = Path(made)
        shutil.copytree(_SOURCES, context, dirs_exist_ok=True)
        with tarfile.open(software.archive) as files:
            files.extractall(context, filter="data")
        (unpacked,) = context.glob("postgresql-*")
        unpacked.rename(context / "postgresql")
        Engine(context).make_another(name, context, archive, base)
    return archive


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="postgres_image", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the archive goes")
    parser.add_argument("base", nargs="?", default=STAND_IN_BASE, help="a Debian with apt")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    print(postgres_image(chosen.folder, chosen.base))
