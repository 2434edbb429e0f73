"""The READMEs of the charts and of k8s/: their links lead somewhere, and their commands are understood."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from picopay_operator import names
from support.chart_files import CHARTS, PLAIN, helm, rendered
from support.postgres import CHECKOUT

PAGES = sorted([*CHARTS.glob("*/README.md"), PLAIN / "README.md"])
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


def commands(page: Path, program: str) -> list[list[str]]:
    """Return the commands of a program in the shell blocks of a page, as lists of words."""
    lines = "".join(SHELL.findall(page.read_text(encoding="utf-8"))).splitlines()
    return [words[1:] for line in lines if (words := shlex.split(line))[0] == program]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_what_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^()\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve()
        assert linked.exists(), target
        assert not anchor or re.search(
            rf"^#+ {anchor.replace('-', ' ')}$", linked.read_text(), re.MULTILINE | re.IGNORECASE
        )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_commands_name_are_there(page: Path) -> None:
    for program in ("helm", "kubectl"):
        for words in commands(page, program):
            for word in words:
                if re.match(r"(charts|k8s)/", word):
                    assert (CHECKOUT / word).exists(), word


@pytest.mark.parametrize("page", PAGES[:2], ids=name)
def test_helm_understands_how_a_chart_is_installed(page: Path) -> None:
    ((install, release, chart, *options),) = commands(page, "helm")
    assert install == "install"
    options = [option for option in options if option != "--create-namespace"]
    assert helm("template", release, CHECKOUT / chart, *options)


def test_what_is_waited_for_is_what_is_made() -> None:
    (made,) = [
        found
        for found in yaml.safe_load_all(
            rendered(CHARTS / "picopay-engine", "picopay", "--set", "database.postgres.version=18")
        )
        if found
    ]
    waited = {words[-2] for words in commands(PLAIN / "README.md", "kubectl") if "wait" in words}
    assert waited == {f"{names.SHORT_NAME}/{made['metadata']['name']}"}
