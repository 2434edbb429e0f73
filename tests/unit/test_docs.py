"""The documentation: its links lead somewhere, and what it names exists.

That the commands of the README and of the guides work is tested where they are run, by
`integration/test_readme.py` and `integration/test_guides.py`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import msgspec
import pytest
import typer

from picopay_api import metrics
from picopay_api.cli.main import app
from picopay_api.cli.reference import walk
from picopay_api.environment import variable
from picopay_api.errors import BY_CODE
from picopay_api.http.resources import OPERATIONS
from picopay_api.settings import ClientSettings, Settings
from picopay_api.worker.checks import KINDS
from support.guides import Block, Names, compare, steps
from support.postgres import CHECKOUT

DOCS = CHECKOUT / "docs"
PAGES = sorted([*CHECKOUT.glob("*.md"), *DOCS.rglob("*.md")])
WRITTEN = [page for page in PAGES if DOCS / "reference" not in page.parents]
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
STARTS = [CHECKOUT / "README.md", DOCS / "index.md"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
TOLD = re.compile(
    r"given|eventually|in a terminal of its own|exits [1-9]\d*|save as [\w.]+"
    r"|not run, because [^>]{10,}"
)
FOREIGN = {"picopay_api", "picopay_app", "picopay_operator", "picopay_owner", "picopay_server"}
OPEN_PATHS = {"/health", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json"}
COMMANDS = dict(walk(typer.main.get_command(app)))
OPTIONS = {
    path: {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    for path, command in COMMANDS.items()
}


def name(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def prose(page: Path) -> str:
    """Return a page without its fenced blocks and its comments."""
    return re.sub(r"<!--.*?-->", "", FENCE.sub("", text(page)), flags=re.DOTALL)


def spans(page: Path) -> list[str]:
    """Return what stands between backticks, without line breaks."""
    return [" ".join(found.split()) for found in SPAN.findall(prose(page))]


def code(page: Path) -> list[str]:
    """Return what a reader may type: spans, and the lines of shell blocks with their continuations."""
    blocks = [
        block for language, block in FENCE.findall(text(page)) if language in {"sh", "console"}
    ]
    return [*spans(page), *"\n".join(blocks).replace("\\\n", " ").splitlines()]


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: Counter[str] = Counter()
    result = set()
    for heading in HEADING.findall(FENCE.sub("", text(page))):
        shown = LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        result.add(f"{anchor}-{found[anchor]}" if found[anchor] else anchor)
        found[anchor] += 1
    return result


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the pages and files of ours that a page leads to, each with an anchor or nothing."""
    for target in LINK.findall(SPAN.sub("", prose(page))):
        if "://" in target:
            assert target.startswith("https://"), target
            continue
        path, _, anchor = target.partition("#")
        yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_what_is_there(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        assert CHECKOUT in target.parents
        assert not anchor or anchor in anchors(target), f"{target}#{anchor}"


def test_every_page_can_be_reached() -> None:
    reached, waiting = set[Path](), list(STARTS)
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            waiting += [target for target, _ in links(page)]
    assert [name(page) for page in PAGES if page not in reached] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_knows_the_machine_that_it_was_written_on(page: Path) -> None:
    assert re.findall(r"/(?:home|root|Users|work|tmp|mnt|private)\b/?\S*", text(page)) == []


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_targets_of_make_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z0-9-]+):.*## ", text(CHECKOUT / "Makefile"), re.MULTILINE)
    for line in code(page):
        for target in re.findall(r"^make ([a-z0-9-]+)\b", line):
            assert target in targets, line


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    for line in code(page):
        for words in re.findall(r"(?<![\w./@:'-])(?<!kubectl )picopay ([a-z][^|;`'>#)]*)", line):
            given = words.split()
            path = max((p for p in COMMANDS if f"picopay {words} ".startswith(f"{p} ")), key=len)
            assert path != "picopay", line
            options = {word.partition("=")[0] for word in given if re.match(r"--?[a-z]", word)}
            assert options <= OPTIONS[path] | {"--help"}, line


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_options_named_by_themselves_exist(page: Path) -> None:
    known = {"--help", *chain(*OPTIONS.values())}
    plugin = CHECKOUT / "operator" / "picopay_operator" / "plugin" / "command_line.py"
    end_to_end = CHECKOUT / "tests" / "support" / "e2e" / "plugin.py"
    for program in (plugin, end_to_end, *(CHECKOUT / "tests" / "benchmarks").glob("*.py")):
        known.update(re.findall(r"\"(--[a-z0-9-]+)\"", text(program)))
    shown = {word for _, block in FENCE.findall(text(page)) for word in block.split()}
    for span in spans(page):
        if re.match(r"--[a-z]", span):
            assert span.split()[0] in known | shown, span


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_variables_exist(page: Path) -> None:
    known = {
        variable(field)
        for struct in (Settings, ClientSettings)
        for field in msgspec.structs.fields(struct)
    }
    for found in re.findall(r"PICOPAY_[A-Z_]+", text(page)):
        assert known & {found, found.removesuffix("_FILE")}, found


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_metrics_exist(page: Path) -> None:
    known = set(re.findall(r"# TYPE (picopay_\w+)", metrics.render()[0].decode())) | FOREIGN
    assert set(re.findall(r"\bpicopay_[a-z_]+", text(page))) <= known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_codes_in_answers_exist(page: Path) -> None:
    for found in re.findall(r'"code": ?"(\w+)"', text(page)):
        assert found in BY_CODE


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_paths_of_the_api_exist(page: Path) -> None:
    known = [re.sub(r"{\w+}", "[^/]+", operation.path) for operation in OPERATIONS]
    for found in re.findall(r"(?<![\w.])/v1/[\w@{}/.-]*\w", text(page)):
        assert any(re.fullmatch(pattern, found) for pattern in known), found
    for span in spans(page):
        if re.fullmatch(r"/[a-z]+(\.json)?", span):
            assert span in OPEN_PATHS, span


@cache
def words_of_the_source() -> set[str]:
    files = [
        *(CHECKOUT / "api").rglob("*.py"),
        *(CHECKOUT / "api").rglob("*.sql"),
        *(CHECKOUT / "tests").rglob("*.py"),
        CHECKOUT / "pyproject.toml",
    ]
    own = Path(__file__)
    return {word for file in files if file != own for word in re.findall(r"\w+", text(file))}


# Names that belong to PostgreSQL.
POSTGRESQL = {
    *("backend_xid", "xact_start", "pg_stat_activity", "max_connections", "commit_delay"),
    "synchronous_standby_names",
}


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_names_between_backticks_are_names_of_the_source(page: Path) -> None:
    for span in spans(page):
        if re.fullmatch(r"(?!picopay_)[a-z]+(_[a-z]+)+", span):
            assert span in words_of_the_source() | POSTGRESQL, span


NOT_HERE = (
    r"\.venv|\.picopay|\.cache|dist/|picopay\.io/"  # what running something makes, and annotations
)


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_files_exist(page: Path) -> None:
    roots = [CHECKOUT, CHECKOUT / "api" / "picopay_api"]
    for span in spans(page):
        path = span.removesuffix("/*.sql").removesuffix("/CODE.md")
        if re.fullmatch(rf"(?!{NOT_HERE})[\w.-]+/[\w./-]*", path):
            assert any((root / path).exists() for root in roots), span


def test_decisions_have_numbers_and_four_parts() -> None:
    numbers = [page.name[:4] for page in DECISIONS]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    index = text(DOCS / "index.md")
    for page in DECISIONS:
        title, *parts = HEADING.findall(text(page))
        assert title.startswith(f"{page.name[:4]}: ")
        assert parts == ["Context", "Decision", "Alternatives", "Consequences"]
        assert f"- [{title}](decisions/{page.name})\n" in index


def test_decisions_that_the_source_refers_to_exist() -> None:
    numbers = {page.name[:4] for page in DECISIONS}
    for file in chain((CHECKOUT / "api").rglob("*.py"), (CHECKOUT / "api").rglob("*.sql")):
        assert set(re.findall(r"decision (\d{4})", text(file))) <= numbers, file


def test_every_kind_of_finding_is_explained() -> None:
    page = text(DOCS / "how-to" / "reconcile-and-audit.md")
    table = dict(re.findall(r"^\| `(\w+)` \| (.+)\. \|$", page, re.MULTILINE))
    assert {kind: meaning.lower() for kind, meaning in table.items()} == {
        kind: meaning.lower() for kind, meaning in KINDS.items()
    }


def test_what_to_do_about_an_answer_is_what_the_page_of_its_error_says() -> None:
    kept = defaultdict(set)
    for page in (DOCS / "reference" / "errors").glob("*.md"):
        kept[text(page).splitlines()[2].partition(" · HTTP ")[2][6:]].add(page.stem)
    rows = [line.split("|") for line in text(DOCS / "how-to" / "retry-safely.md").splitlines()]
    told = {row[2]: set(SPAN.findall(row[1])) for row in rows if len(row) == 5}
    refused = next(codes for says, codes in told.items() if "the refusal is kept" in says)
    assert refused == kept["kept with its `Idempotency-Key`"]
    for says, codes in told.items():
        if "free" in says:
            assert codes <= kept["not kept: the `Idempotency-Key` stays free"]


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_what_the_tests_are_told_is_understood(page: Path) -> None:
    comments = re.findall(r"<!-- test: (.*?) -->", text(page))
    assert [comment for comment in comments if not TOLD.fullmatch(comment)] == []
    assert len(comments) == sum(bool(step.block.told) for step in steps(text(page)))


ID, OTHER_ID = "0198c1f2a3b47c5d8e9f0a1b2c3d4e5f", "01a210ae73c475ddb0e716bcbdaff2a2"


@pytest.mark.parametrize(
    ("language", "shown", "real", "fits"),
    [
        ("json", '{"a": 1}', '{"a": 1, "b": 2}', True),
        ("json", '{"a": 1}', '{"a": 2}', False),
        ("json", '{"a": 1}', '{"a": true}', False),
        ("json", '{"a": 1}', '{"b": 1}', False),
        ("json", '{"a": {"b": [1]}}', '{"a": {"b": [1, 2]}}', False),
        ("json", '[{"a": 1}, "…"]', '[{"a": 1}, {"a": 2}]', True),
        ("json", '[{"a": 1}, {"a": 2}]', '[{"a": 1}]', False),
        ("json", "{}", "Internal Server Error", False),
        ("json", f'{{"id": "pay_{ID}"}}', f'{{"id": "pay_{OTHER_ID}"}}', True),
        ("json", f'{{"id": "pay_{ID}"}}', f'{{"id": "tx_{OTHER_ID}"}}', False),
        ("json", f'["pay_{ID}", "tx_{ID}"]', f'["pay_{OTHER_ID}", "tx_{OTHER_ID}"]', True),
        ("json", f'["pay_{ID}", "tx_{ID}"]', f'["pay_{OTHER_ID}", "tx_{ID}"]', False),
        ("json", '"2026-11-25T10:00:01.085Z"', '"2027-01-01T00:00:00.000Z"', True),
        ("json", '"2026-11-25T10:00:01.085Z"', '"yesterday"', False),
        ("text", "one\ntwo\n", "one  \ntwo\n\n", True),
        ("text", "one\n", "one\ntwo\n", False),
        ("text", "one\ntwo\n", "one\n", False),
        ("text", "one\n…\nfour\n", "one\ntwo\nthree\nfour\n", True),
        ("text", "one\n…\nfour\n", "one\nfour\n", True),
        ("text", "one\n…\nfour\n", "one\ntwo\n", False),
        ("text", "…\n", "anything\n", True),
        ("text", "a … c (d)\n", "a b c (d)\n", True),
        ("text", "a … c (d)\n", "a b c d\n", False),
        ("csv", f"1,tx_{ID},5\n2,tx_{ID},-5\n", f"1,tx_{OTHER_ID},5\n2,tx_{OTHER_ID},-5\n", True),
        ("csv", f"1,tx_{ID},5\n", f"1,tx_{OTHER_ID},6\n", False),
    ],
)
def test_output_that_differs_from_the_page_is_noticed(
    language: str, shown: str, real: str, fits: bool
) -> None:
    problems = compare(Block(language, shown, "", 1), real, Names({}))
    assert (problems == []) == fits, problems


def test_a_name_that_was_shown_stands_for_the_real_one_from_then_on() -> None:
    names = Names({"localhost": "127.0.0.1"})
    assert compare(Block("text", f"id key_{ID}\n", "", 1), f"id key_{OTHER_ID}\n", names) == []
    assert names.real(f"curl localhost/tx_{ID}") == f"curl 127.0.0.1/tx_{OTHER_ID}"
