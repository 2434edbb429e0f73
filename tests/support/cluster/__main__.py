"""The command line of the cluster: what `make cluster-up`, `cluster-load` and `cluster-down` run."""

import argparse
import sys
from pathlib import Path

from support.cluster.addons import ADDONS
from support.cluster.cluster import ClusterError, down, load, prepare, up
from support.cluster.programs import UnsuitedError


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="cluster", description="A Kubernetes cluster of one node."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    made = {name: commands.add_parser(name) for name in ("prepare", "up", "load", "down")}
    for name in ("up", "load"):
        made[name].add_argument("images", nargs="*", type=Path, help="archives of images")
    for name in ("prepare", "up"):
        made[name].add_argument(
            "--with",
            dest="addons",
            action="append",
            default=[],
            choices=sorted(ADDONS),
            help="give it an add-on; may be said for several",
        )
    chosen = parser.parse_args()
    try:
        match chosen.command:
            case "prepare":
                prepare(chosen.addons)
            case "up":
                up(chosen.images, chosen.addons)
            case "load":
                load(chosen.images)
            case _:
                down()
    except (UnsuitedError, ClusterError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted; what had begun is ended.")


if __name__ == "__main__":
    main()
