"""Log lines: one JSON object each, complete, without a secret, and never the end of a payment."""

import ast
import io
import json
import logging
import string
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from picopay_api import logs
from picopay_api.logs import COMMON_FIELDS, Event, get_logger
from support.postgres import CHECKOUT

LEVELS = ("debug", "info", "warning", "error")
CALLERS = sorted((CHECKOUT / "api" / "picopay_api").rglob("*.py"))
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = structlog.get_config(), root.handlers, root.level
    yield
    structlog.contextvars.clear_contextvars()
    structlog.configure(**before[0])
    root.handlers, root.level = before[1:]
    logging.captureWarnings(capture=False)


@pytest.fixture
def lines() -> Lines:
    stream = io.StringIO()
    logs.configure("DEBUG", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_grave_what_and_where(lines: Lines) -> None:
    get_logger("some.module").warning(Event.NOT_READY, reason="the database is away")
    (line,) = lines()
    assert list(line) == ["time", "level", "event", "logger", "reason"]
    assert line["time"].endswith("Z")
    assert len(line["time"]) == len("2026-11-24T09:51:04.040Z")
    assert line["level"] == "warning"
    assert line["event"] == "not ready"
    assert line["logger"] == "some.module"


def test_what_is_known_of_the_request_is_on_every_line(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(request_id="req-1", trace_id="ab" * 16):
        get_logger("x").info(Event.READY)
    get_logger("x").info(Event.READY)
    inside, outside = lines()
    assert (inside["request_id"], inside["trace_id"]) == ("req-1", "ab" * 16)
    assert "request_id" not in outside


def test_a_traceback_is_part_of_the_line(lines: Lines) -> None:
    try:
        raise ZeroDivisionError("for the test")  # noqa: TRY301
    except ZeroDivisionError:
        get_logger("x").exception(Event.UNEXPECTED_ERROR)
    (line,) = lines()
    assert line["level"] == "error"
    assert line["exception"].endswith("ZeroDivisionError: for the test")


def test_a_ledger_has_one_form(lines: Lines) -> None:
    get_logger("x").info(Event.IDEMPOTENCY_HIT, ledger=UUID(int=7))
    assert lines()[0]["ledger"] == "ldg_00000000000000000000000000000007"


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    logs.configure("WARNING", "json", stream)
    get_logger("x").info(Event.READY)
    logging.getLogger("some.library").info("hello")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("level", "form"), [("LOUD", "json"), ("INFO", "xml")])
def test_there_are_no_other_levels_and_forms(level: str, form: str) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        logs.configure(level, form)


def test_libraries_log_through_the_same_pipe(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").info("Started %s", "server")
    logging.getLogger("asyncio").error("oh", exc_info=ValueError("why"))
    logging.getLogger("asyncio").log(35, "between two levels")
    logging.getLogger("httpx").info("GET https://example.org")
    with structlog.contextvars.bound_contextvars(request_id="req-1"):
        logging.getLogger("some.library").debug("hello")
    started, oh, between, hello = lines()
    assert started["message"] == "Started server"
    assert (started["event"], started["logger"]) == ("library message", "uvicorn.error")
    assert oh["exception"] == "ValueError: why"
    assert between["level"] == "warning"
    assert (hello["level"], hello["request_id"]) == ("debug", "req-1")


def test_a_message_without_its_arguments_is_logged_as_it_is(lines: Lines) -> None:
    (handler,) = (
        one for one in logging.getLogger().handlers if type(one).__module__ == logs.__name__
    )
    handler.handle(logging.LogRecord("x", logging.INFO, "x.py", 1, "%s and %s", ("one",), None))
    assert lines()[0]["message"] == "%s and %s"


def test_loggers_that_were_set_up_before_are_taken_over() -> None:
    elsewhere, stream = io.StringIO(), io.StringIO()
    library = logging.getLogger("library.with.a.handler")
    library.addHandler(logging.StreamHandler(elsewhere))
    library.propagate = False
    logs.configure("INFO", "json", stream)
    library.warning("hello")
    assert elsewhere.getvalue() == ""
    assert json.loads(stream.getvalue())["message"] == "hello"


def test_warnings_are_logged(lines: Lines) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("look here", stacklevel=1)
    (line,) = lines()
    assert line["logger"] == "py.warnings"
    assert "look here" in line["message"]


KEY = "ppk_Xk2-9_aaBBccDD"
PASSWORD = "s3cr3t"


@pytest.mark.parametrize(
    "fields",
    [
        {"error": f"the key {KEY} is no good"},
        {"detail": {"list": [{"deep": f"Bearer {KEY}"}]}},
        {"address": f"postgresql://app:{PASSWORD}@host:5432/db"},
        {"error": f"cannot reach postgres://app:{PASSWORD}@host/db?sslpassword={PASSWORD}"},
        {"error": f"host=h user=app password={PASSWORD} dbname=db"},
        {"error": f"password = '{PASSWORD} with spaces {PASSWORD}'"},
        {"authorization": f"Basic {PASSWORD}"},
        {
            "headers": {
                "Authorization": f"Basic {PASSWORD}",
                "X-API-Key": f'"{PASSWORD}\\"{PASSWORD}',
            }
        },
        {"headers": [f"authorization: basic {PASSWORD}", f"AUTHORIZATION: BEARER {PASSWORD}"]},
        {"password": PASSWORD, "secret": PASSWORD, "token": PASSWORD, "Cookie": PASSWORD},
        {"exc_info": ValueError(f"{KEY} postgresql://app:{PASSWORD}@host/db")},
    ],
)
@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_hidden(fields: dict[str, Any], form: str) -> None:
    stream = io.StringIO()
    logs.configure("INFO", form, stream)
    get_logger("x").info(Event.READY, **fields)
    assert KEY not in stream.getvalue()
    assert PASSWORD not in stream.getvalue()
    assert "[hidden]" in stream.getvalue()
    if form == "json":
        json.loads(stream.getvalue())


def test_what_is_no_secret_stays(lines: Lines) -> None:
    fields = {"url": "http://127.0.0.1:8000/v1", "to": "a@b", "detail": "the password is wrong"}
    get_logger("x").info(Event.READY, **fields)
    assert fields.items() <= lines()[0].items()


SPECIAL = ["time", "level", "logger", "exception", "exc_info", "stack", "stack_info", "ledger"]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.uuids()
    | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    max_leaves=10,
)


names = st.text(string.ascii_lowercase, min_size=1).filter(
    lambda name: name not in {"event", "self"}
)


@given(st.dictionaries(names | st.sampled_from(SPECIAL), anything))
def test_whatever_the_fields_are_there_is_one_line(fields: dict[str, Any]) -> None:
    for form in ("json", "text"):
        stream = io.StringIO()
        logs.configure("INFO", form, stream)
        get_logger("x").info(Event.READY, **fields)
        assert stream.getvalue().endswith("\n")
        assert "\x1b" not in stream.getvalue()
        if form == "json":  # each line of a traceback is a line of its own for people
            line, rest = stream.getvalue().split("\n")
            assert json.loads(line)["event"] == "ready"
            assert rest == ""


def test_a_line_has_a_bound(lines: Lines) -> None:
    many = {f"field{number}": "x" * 10_000 for number in range(100)}
    get_logger("x").info(Event.READY, reason="x" * 1_000_000)
    get_logger("x").info(Event.READY, **many)
    get_logger("x").info(Event.READY, reason="\x01" * 100_000)
    for line in lines():
        assert line["event"] == "ready"
        assert len(json.dumps(line)) < 250_000


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, _: str) -> int:
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError("disk full"), ValueError("closed")])
def test_a_line_that_cannot_be_written_is_nobodys_failure(error: Exception) -> None:
    logs.configure("INFO", "json", Broken(error))
    get_logger("x").info(Event.READY)
    logging.getLogger("library").warning("hello")


def test_text_is_for_people() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "text", stream)
    get_logger("x").warning(Event.NOT_READY, reason="away\x1b[31m")
    assert "not ready" in stream.getvalue()
    assert "reason='away" in stream.getvalue()


UNCONFIGURED = """
from picopay_api.logs import Event, get_logger
get_logger("x").info(Event.READY)
get_logger("x").warning(Event.NOT_READY, reason="ppk_abc")
"""


def test_before_it_is_configured_only_warnings_are_told_and_aside() -> None:
    told = subprocess.run(
        [sys.executable, "-c", UNCONFIGURED],
        env={"PYTHONPATH": str(CHECKOUT / "api")},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert "not ready" in line
    assert "ppk_abc" not in line


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
def test_every_event_is_described(event: Event) -> None:
    assert event.level in LEVELS
    assert event.meaning.endswith(".")
    assert event.name.lower().replace("_", " ") == event
    assert set(event.fields).isdisjoint(COMMON_FIELDS)
    assert Event(str(event)) is event


def calls() -> Iterator[tuple[str, ast.Call, Event]]:
    """Every place that logs an event: where, the call, the event."""
    for module in CALLERS:
        for node in ast.walk(ast.parse(module.read_bytes())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            named = [ast.unparse(argument) for argument in node.args]
            for name in named:
                if name.startswith("Event.") and name.removeprefix("Event.") in Event.__members__:
                    where = f"{Path(module).name}:{node.lineno}"
                    yield where, node, Event[name.removeprefix("Event.")]


def test_events_are_logged_as_the_reference_says() -> None:
    wrong = []
    for where, call, event in calls():
        assert isinstance(call.func, ast.Attribute)
        level = {"exception": "error"}.get(call.func.attr, call.func.attr)
        fields = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        unknown = fields - {*event.fields, *COMMON_FIELDS, "exc_info"}
        if event is not Event.LIBRARY_MESSAGE and (level != event.level or unknown):
            wrong.append(f"{where}: {event} at {level}, unknown fields {sorted(unknown)}")
    assert wrong == []


def test_every_event_of_the_reference_is_logged_somewhere() -> None:
    assert {event for _, _, event in calls()} == set(Event)


def test_standard_output_is_where_lines_go(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "json")
    get_logger("x").info(Event.READY)
    assert json.loads(capsys.readouterr().out)["event"] == "ready"
