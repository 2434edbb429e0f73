"""Options of pytest for the end-to-end tests. They change a cluster, so they are run only when asked for.

A plugin, named in `conftest.py`.
"""

import subprocess
from pathlib import Path

import msgspec
import pytest

from support.e2e.context import objection
from support.kube_tools import program

_TESTS = Path(__file__).parents[2] / "e2e"


class Options(msgspec.Struct, frozen=True):
    """Where the tests are run, and with which images."""

    context: str
    repository: str
    postgres_image: str
    diagnostics: Path
    record: bool = False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what can be said of the cluster."""
    group = parser.getgroup("end-to-end tests")
    group.addoption(
        "--e2e",
        action="store_true",
        help="run tests/e2e, on the cluster of the current kube context: they break things there",
    )
    group.addoption("--e2e-context", metavar="NAME", help="a context that is not known as local")
    group.addoption(
        "--e2e-repository",
        metavar="NAME",
        default="docker.io/picopay",
        help="what the names of PicoPay's images begin with",
    )
    group.addoption(
        "--e2e-postgres",
        metavar="IMAGE",
        default="docker.io/library/postgres",
        help="the image of PostgreSQL, without a tag",
    )
    group.addoption(
        "--e2e-diagnostics",
        metavar="FOLDER",
        type=Path,
        default=Path("dist/e2e"),
        help="where the state of the cluster is put when a test has failed",
    )
    group.addoption(
        "--e2e-record",
        action="store_true",
        help="write the recording of docs/tutorial/kubernetes.md anew, and the page from it",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run them unasked, or on a cluster that is not one for tests.

    Raises:
        pytest.UsageError: they are not run.
    """
    if not any(item.path.is_relative_to(_TESTS) for item in items) or config.option.collectonly:
        return
    if not config.option.e2e:
        raise pytest.UsageError("tests/e2e changes a cluster: it is run with --e2e only")
    if problem := objection(current_context(), config.option.e2e_context):
        raise pytest.UsageError(f"tests/e2e is not run: {problem}")


def options(config: pytest.Config) -> Options:
    """Return what was said on the command line."""
    chosen = config.option
    return Options(
        current_context(),
        chosen.e2e_repository,
        chosen.e2e_postgres,
        chosen.e2e_diagnostics,
        chosen.e2e_record,
    )


def current_context() -> str:
    """Return the name of the current kube context; empty when there is none."""
    ended = subprocess.run(
        [program("kubectl"), "config", "current-context"],
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stdout.strip()
