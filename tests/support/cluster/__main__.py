"""The command line of the cluster: what `make cluster-up`, `cluster-load` and `cluster-down` run."""

import argparse
import sys
from pathlib import Path

from support.cluster.addons import ADDONS
from support.cluster.cluster import ClusterError, down, load, up
from support.cluster.programs import UnsuitedError


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="cluster", description="A Kubernetes cluster of one node."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "load"):
        command = commands.add_parser(name)
        command.add_argument("images", nargs="*", type=Path, help="archives of images")
        if name == "up":
            command.add_argument(
                "--with",
                dest="addons",
                action="append",
                default=[],
                choices=sorted(ADDONS),
                help="give it an add-on; may be said for several",
            )
    commands.add_parser("down")
    chosen = parser.parse_args()
    try:
        match chosen.command:
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
