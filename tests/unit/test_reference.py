"""The reference: complete, as the code has it, and noticed when it is not."""

import re
import shutil
from pathlib import Path

import msgspec
import pytest

from picopay_api import errors, logs, metrics, reference
from picopay_api.engine import ledger
from picopay_api.environment import variable
from picopay_api.settings import ClientSettings, Settings
from support.postgres import CHECKOUT

DOCS = CHECKOUT / "docs" / "reference"
DECIDE = CHECKOUT / "api" / "picopay_api" / "store" / "decide.sql"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DOCS, tmp_path / "reference"))


def test_the_reference_is_as_the_code_has_it() -> None:
    assert list(reference.check(DOCS)) == []


def test_every_setting_is_there() -> None:
    page = reference.settings_page()
    for struct in (Settings, ClientSettings):
        for field in msgspec.structs.fields(struct):
            assert f"| `{variable(field)}` |" in page


def test_every_metric_is_there() -> None:
    page = reference.metrics_page()
    exposed = re.findall(r"# TYPE (picopay_\w+)", metrics.render()[0].decode())
    documented = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    assert set(documented) == {name for name in exposed if not name.endswith("_created")}


def test_every_event_and_every_field_is_there() -> None:
    page = reference.logs_page()
    for event in logs.Event:
        assert f"| {event} | {event.level} |" in page
        assert set(event.fields) <= logs.FIELDS.keys()
    assert {field for event in logs.Event for field in event.fields} == logs.FIELDS.keys()


def test_every_error_is_there_and_has_its_place_in_the_order() -> None:
    page = reference.errors_page()
    placed = {code for _, codes in reference.STAGES for code in codes}
    assert placed == errors.BY_CODE.keys()
    for code, error in errors.BY_CODE.items():
        assert f"| {error.status} | [`{code}`](errors/{code}.md) | {error.title} |" in page


def test_the_order_of_decisions_is_that_of_the_function() -> None:
    text = DECIDE.read_text(encoding="utf-8")
    order = text.partition("Order of refusals within a command:")[2].partition("CREATE")[0]
    codes = [word for word in re.findall(r"[a-z_]+", order) if word in errors.BY_CODE]
    assert tuple(codes) == stage("Deciding")


def test_the_order_of_planning_is_that_of_the_rules() -> None:
    order = (ledger.__doc__ or "").partition("Refusals come in a fixed order:")[2]
    codes = [word for word in re.findall(r"[a-z_]+", order) if word in errors.BY_CODE]
    assert codes
    assert tuple(codes) == tuple(code for code in stage("Finding") if code in codes)


def stage(title: str) -> tuple[str, ...]:
    (codes,) = (codes for name, codes in reference.STAGES if name.startswith(title))
    return codes


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_writing_mends_what_checking_finds(docs: Path) -> None:
    (docs / "settings.md").write_text("# Settings\n", encoding="utf-8")
    (docs / "logs.md").unlink()
    assert reference.main([str(docs), "--check"]) == 1
    assert reference.main([str(docs)]) == 0
    assert reference.main([str(docs), "--check"]) == 0


PAGE = "insufficient_funds.md"


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("# Insufficient funds", "# Not enough", "another title"),
        ("HTTP 422", "HTTP 402", "another title"),
        ("`insufficient_funds` ·", "`insufficient_fund` ·", "another title"),
        ("## What to do", "## What now", "three sections"),
        ('"status": 422', '"status": 402', "another title, status or code"),
        ("/errors/insufficient_funds", "/errors/other", "another type"),
        ('"request_id"', '"id"', "without request_id"),
        ('"code":', '"code"', "not JSON"),
    ],
)
def test_a_page_that_differs_from_the_code_is_found(
    docs: Path, before: str, after: str, says: str
) -> None:
    page = docs / "errors" / PAGE
    text = page.read_text(encoding="utf-8")
    assert before in text
    page.write_text(text.replace(before, after), encoding="utf-8")
    (problem,) = reference.check(docs)
    assert str(page) in problem
    assert says in problem


def test_a_missing_page_and_a_stray_one_are_found(docs: Path) -> None:
    (docs / "errors" / PAGE).rename(docs / "errors" / "no_such_code.md")
    missing, stray = reference.check(docs)
    assert PAGE in missing
    assert "no_such_code" in stray
