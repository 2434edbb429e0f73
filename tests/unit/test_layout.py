"""The layout of the checkout: the traps that nothing else would show before they spring."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from support.postgres import CHECKOUT

PRODUCTS = (CHECKOUT / "api" / "picopay_api", CHECKOUT / "operator" / "picopay_operator")
MODULES = sorted(path for product in PRODUCTS for path in product.rglob("*.py"))
TEST_FOLDERS = [
    path for path in (CHECKOUT / "tests").rglob("*") if path.is_dir() and path.name != "__pycache__"
]
READERS_OF_THE_ENVIRONMENT = {
    "api/picopay_api/settings.py",
    "operator/picopay_operator/settings.py",
    "api/picopay_api/metrics.py",  # PROMETHEUS_MULTIPROC_DIR, as prometheus_client itself does
}
LINES_PER_FILE_MAX = 400
LINES_PER_FUNCTION_MAX = 70


def name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


@pytest.mark.parametrize("folder", [".", "api", "operator", "tests", *map(name, TEST_FOLDERS)])
def test_a_folder_that_is_no_package_has_no_init_file(folder: str) -> None:
    # operator/__init__.py would hide the standard library's `operator` from Python itself.
    assert not (CHECKOUT / folder / "__init__.py").exists()


def test_no_test_folder_hides_a_module_of_the_standard_library() -> None:
    assert {folder.name for folder in TEST_FOLDERS}.isdisjoint(sys.stdlib_module_names)


def test_names_of_test_files_are_unique() -> None:
    counted = Counter(path.name for path in (CHECKOUT / "tests").rglob("test_*.py"))
    assert [found for found, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("folder", [".", "api", "operator", "tests"])
def test_python_starts_in_every_folder(folder: str) -> None:
    if not (CHECKOUT / folder).is_dir():
        return
    subprocess.run(
        [sys.executable, "-c", "import operator; operator.add(1, 1)"],
        cwd=CHECKOUT / folder,
        check=True,
        timeout=60,
    )


def test_only_the_settings_read_the_environment() -> None:
    readers = {name(module) for module in MODULES if _reads_environment(module)}
    assert readers <= READERS_OF_THE_ENVIRONMENT


def _reads_environment(module: Path) -> bool:
    """Tell whether a module looks into the environment; to hand on `os.environ` whole is fine."""
    tree = ast.parse(module.read_bytes())
    names = {"environ", "environb", "getenv", "getenvb"}
    imported = any(
        alias.name in names
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
    )
    handed_on = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for argument in (*node.args, *(keyword.value for keyword in node.keywords))
        if ast.unparse(argument) == "os.environ"
    }
    looked_into = any(
        ast.unparse(node) in {f"os.{one}" for one in names} and id(node) not in handed_on
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    )
    return imported or looked_into


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_says_what_it_is_for_and_can_be_read_on_a_walk(module: Path) -> None:
    tree = ast.parse(module.read_bytes())
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines <= LINES_PER_FILE_MAX
    assert lines == 0 or ast.get_docstring(tree)
    long = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= LINES_PER_FUNCTION_MAX
    ]
    assert long == []


def test_clean_goes_through_every_folder_that_has_modules() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    (folders,) = re.findall(r"^\tfind (.+) -name __pycache__", makefile, re.MULTILINE)
    assert folders.split() == ["api", "operator", "tests"]


def test_every_dependency_is_locked_with_its_hashes() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *(one for extra in project["project"]["optional-dependencies"].values() for one in extra),
        *(one for group in project["dependency-groups"].values() for one in group),
    ]
    lock = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
    pinned = {line.split("==")[0] for line in lock.splitlines() if "==" in line}
    assert {_distribution(one) for one in wanted} <= pinned
    assert "://" not in lock  # where packages come from is the business of who installs them


def _distribution(requirement: str) -> str:
    end = next((at for at, sign in enumerate(requirement) if sign in "[<>=;~! "), None)
    return requirement[:end]


def test_the_wheel_carries_everything_that_runs_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        timeout=100,
    )
    (wheel,) = tmp_path.glob("picopay-*.whl")
    carried = {entry for entry in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in entry}
    files = {
        str(path.relative_to(product.parent))
        for product in PRODUCTS
        for path in product.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert carried == files
