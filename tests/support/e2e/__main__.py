"""What `make e2e` runs: makes all images, starts a cluster, and runs the end-to-end tests on it.

Options are pytest's: `make e2e ARGS="-m smoke"` runs what needs no add-on of the cluster and little time.
"""

import os
import subprocess
import sys
from itertools import pairwise

from support.cluster import ground
from support.cluster.addons import ADDONS
from support.cluster.cluster import KUBECONFIG, ClusterError, down, up
from support.cluster.postgres_image import REPOSITORY, postgres_image
from support.cluster.programs import UnsuitedError
from support.e2e.releases import releases
from support.images import default_base
from support.postgres import CHECKOUT

_SMOKE = ("-m", "smoke")
_IMAGES = CHECKOUT / "dist" / "e2e-images"


def main(arguments: list[str]) -> int:
    """Run the tests; return pytest's exit code. The cluster ends with them."""
    if ground.processes():
        raise ClusterError("There is a cluster already: make cluster-down ends it.")
    base = os.environ.get("BASE") or default_base()
    _IMAGES.mkdir(parents=True, exist_ok=True)
    archives = [*releases(_IMAGES), postgres_image(_IMAGES, base)]
    addons = [] if _SMOKE in pairwise(arguments) else list(ADDONS)
    up(archives, addons)
    try:
        return subprocess.run(
            [
                *(sys.executable, "-m", "pytest", CHECKOUT / "tests" / "e2e", "--e2e"),
                *("--e2e-postgres", REPOSITORY, *arguments),
            ],
            cwd=CHECKOUT,
            env=os.environ | {"KUBECONFIG": str(KUBECONFIG)},
            check=False,
        ).returncode
    finally:
        down()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (UnsuitedError, ClusterError) as error:
        sys.exit(str(error))
