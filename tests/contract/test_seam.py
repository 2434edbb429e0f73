"""Both sides of the seam are held to one contract: what the operator relies on, as the API's image has it."""

import ast
import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from picopay_api.cli import exits
from picopay_api.cli.report import BYTES_MAX
from picopay_api.database_url import DatabaseUrl
from picopay_api.database_url import TlsMode as ApiTlsMode
from picopay_api.engine.keys import is_secret
from picopay_api.environment import meta, variable
from picopay_api.settings import LogLevel as ApiLogLevel
from picopay_api.settings import Settings
from picopay_api.store import migrate, plan
from picopay_operator import contract, names
from picopay_operator.contract import CheckReport, ExitCode, MigrationReport, Variable
from picopay_operator.spec.database import Pool, TlsMode
from picopay_operator.spec.engine import LogLevel, RateLimit
from support import engines
from support.api import served
from support.console import Console
from support.journal import tamper
from support.postgres import CHECKOUT

OPERATOR = CHECKOUT / "operator" / "picopay_operator"
FIELDS = {variable(field): field for field in msgspec.structs.fields(Settings)}
TERMINATION_MESSAGE_BYTES_MAX = 4_096  # Kubernetes keeps no more


def test_the_operator_never_imports_the_api() -> None:
    for module in OPERATOR.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_bytes())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            assert not any(name.startswith("picopay_api") for name in imported), module


def test_exit_codes() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        code.name: int(code) for code in exits.ExitCode
    }


def test_what_plans_wait_for_and_what_an_old_release_says() -> None:
    assert {one.value for one in contract.Hold} == {one.value for one in plan.Hold}
    assert migrate.SchemaAhead.code == contract.SCHEMA_AHEAD
    assert migrate.SchemaGap.code == contract.SCHEMA_GAP


def test_variables_are_settings() -> None:
    assert {one.value for one in Variable} <= FIELDS.keys()


def test_what_an_engine_may_say_is_understood() -> None:
    assert set(TlsMode) <= set(ApiTlsMode)
    assert set(LogLevel) <= set(ApiLogLevel)


@pytest.mark.parametrize(
    ("struct", "name", "setting"),
    [
        (Pool, "size", Variable.POOL_SIZE),
        (RateLimit, "requests", Variable.RATE_LIMIT_REQUESTS),
        (RateLimit, "window_seconds", Variable.RATE_LIMIT_WINDOW_S),
    ],
)
def test_bounds_of_an_engine_are_within_those_of_the_settings(
    struct: type[msgspec.Struct], name: str, setting: Variable
) -> None:
    (field,) = (field for field in msgspec.structs.fields(struct) if field.name == name)
    wanted, known = meta(field), meta(FIELDS[setting.value])
    assert wanted.ge is not None
    assert known.ge is not None
    assert wanted.le is not None
    assert known.le is not None
    assert known.ge <= wanted.ge <= wanted.le <= known.le


def test_ports() -> None:
    assert FIELDS[Variable.API_PORT.value].default == names.HTTP_PORT
    limits = meta(FIELDS[Variable.WORKER_METRICS_PORT.value])
    assert (limits.ge or 0) < names.METRICS_PORT <= (limits.le or 0)


def containers() -> list[tuple[str, dict[str, Any]]]:
    """Return the containers of the API's image in everything that engines are made of."""
    decided = [engines.context(engines.known(path.stem)) for path in engines.ENGINES]
    return [
        (f"{one.engine.metadata.name} {manifest['metadata']['name']}", container)
        for one in decided
        for manifest in engines.manifests(one)
        if "template" in manifest.get("spec", {})
        for container in manifest["spec"]["template"]["spec"]["containers"]
        if container["image"] == one.image
    ]


@pytest.mark.parametrize("container", [pytest.param(one, id=name) for name, one in containers()])
def test_the_environment_of_every_container_is_read(
    container: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").touch()
    addresses = {Variable.DATABASE_URL.value, Variable.MIGRATION_DATABASE_URL.value}
    environ = {
        one["name"]: one.get("value", "postgresql://app:secret@db.example/picopay")
        for one in container["env"]
        if "value" in one or one["name"] in addresses  # others from Secrets are of people's own
    }
    if Variable.DATABASE_TLS_CA_FILE.value in environ:
        environ[Variable.DATABASE_TLS_CA_FILE.value] = str(tmp_path / "ca.crt")
    settings = Settings.from_environment(environ)
    assert settings.database_url.password == "secret"


def test_every_kind_of_container_is_among_them() -> None:
    ran = {tuple(container["args"])[:2] for _, container in containers()}
    assert {arguments[0] for arguments in ran} == {"serve", "worker", "migrate", "keys", "audit"}


@pytest.mark.parametrize("path", [contract.LIVE_PATH, contract.READY_PATH, contract.METRICS_PATH])
async def test_paths_are_answered_without_a_key(database_url: DatabaseUrl, path: str) -> None:
    async with served(database_url) as api:
        answer = await api.client.get(path, headers={"Authorization": ""})
    assert answer.status_code == 200


class Pod:
    """Runs the arguments of a container with the files it has mounted put elsewhere."""

    def __init__(self, console: Console, folder: Path) -> None:
        self._console = console
        self.folder = folder
        self.message = ""

    def run(self, arguments: list[str]) -> int:
        """Run a command; return its exit code. What it reports is the `message` then."""
        report = self.folder / "termination-log"
        report.touch()
        elsewhere = {contract.REPORT_FILE: report, contract.ADMIN_KEY_FOLDER: self.folder}
        for mounted, path in elsewhere.items():
            arguments = [one.replace(mounted, str(path)) for one in arguments]
        exit_code, _ = self._console.run(*arguments)
        self.message = report.read_text(encoding="utf-8")
        report.unlink()
        return exit_code


@pytest.fixture
def pod(
    empty_database_url: DatabaseUrl,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Pod:
    monkeypatch.setenv(Variable.DATABASE_URL.value, empty_database_url.text)
    return Pod(Console(capsys), tmp_path)


def members(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def test_a_migration_and_its_report(pod: Pod) -> None:
    assert pod.run(contract.migrate(contract.Hold.ALWAYS)) == ExitCode.HELD
    document = json.loads(pod.message)
    assert document.keys() == members(MigrationReport)
    assert document["steps"][0].keys() == members(contract.PlanStep)
    held = contract.read_report(MigrationReport, pod.message)
    assert held is not None
    assert (held.ok, held.exit_code, held.applied) == (False, ExitCode.HELD, ())
    assert held.plan_hash is not None
    assert held.steps[0].title
    assert pod.run(contract.migrate(contract.Hold.ALWAYS, held.plan_hash)) == ExitCode.OK
    done = contract.read_report(MigrationReport, pod.message)
    assert done is not None
    assert (done.ok, done.current, done.plan_hash) == (True, done.head, held.plan_hash)
    assert done.applied == tuple(step.revision for step in done.steps)
    assert (done.connections_max or 0) > 0
    assert pod.run(contract.migrate(contract.Hold.DESTRUCTIVE)) == ExitCode.OK
    assert pod.run(contract.migrate(None)) == ExitCode.OK


def test_the_administrators_key(pod: Pod) -> None:
    secret = "ppk_" + 32 * "0f"  # as the operator makes them
    assert is_secret(secret)
    assert pod.run(contract.migrate(None)) == ExitCode.OK
    (pod.folder / contract.ADMIN_KEY).write_text(secret, encoding="ascii")
    assert pod.run(contract.ensure_admin_key()) == ExitCode.OK
    (pod.folder / contract.PREVIOUS_ADMIN_KEY).write_text(secret, encoding="ascii")
    (pod.folder / contract.ADMIN_KEY).write_text("ppk_" + 32 * "1e", encoding="ascii")
    assert pod.run(contract.ensure_admin_key(3_600)) == ExitCode.OK


def test_the_check_and_its_report(pod: Pod, empty_database_url: DatabaseUrl) -> None:
    assert pod.run(contract.migrate(None)) == ExitCode.OK
    assert pod.run(contract.check()) == ExitCode.OK
    assert json.loads(pod.message).keys() == members(CheckReport)
    good = contract.read_report(CheckReport, pod.message)
    assert good is not None
    assert (good.ok, good.findings) == (True, ())
    assert all(isinstance(count, int) for count in good.checked.values())
    one = (
        "INSERT INTO picopay.balance VALUES"
        " (gen_random_uuid(), gen_random_uuid(), 'USD', 0, NULL, 5, 0, 0, now())"
    )
    asyncio.run(tamper(empty_database_url, one))
    assert pod.run(contract.check()) == ExitCode.FAILED
    assert json.loads(pod.message)["findings"][0].keys() == members(contract.CheckFinding)
    bad = contract.read_report(CheckReport, pod.message)
    assert bad is not None
    assert "asset_unbalanced" in {finding.kind for finding in bad.findings}


def test_a_database_that_is_away(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Variable.DATABASE_URL.value, "postgresql://nobody@127.0.0.1:1/nothing")
    kinds: list[tuple[list[str], type[MigrationReport | CheckReport]]] = [
        (contract.migrate(None), MigrationReport),
        (contract.check(), CheckReport),
    ]
    for arguments, kind in kinds:
        assert pod.run(arguments) == ExitCode.UNAVAILABLE
        report = msgspec.json.decode(pod.message, type=kind)
        assert (report.ok, report.exit_code) == (False, ExitCode.UNAVAILABLE)


def test_what_the_schema_says_of_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(Variable.DATABASE_URL.value, raising=False)
    told = Console(capsys).json("schema", "info")
    assert told.keys() == {"current", "head", "min_compatible"}
    assert told.keys() <= members(MigrationReport)


def test_a_report_fits_where_it_is_written() -> None:
    assert BYTES_MAX == contract.REPORT_BYTES_MAX <= TERMINATION_MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    "message", [None, "", "Traceback (most recent call last)", "[]", "{}", "{"]
)
def test_what_is_no_report_is_none(message: str | None) -> None:
    assert contract.read_report(MigrationReport, message) is None
    assert contract.read_report(CheckReport, message) is None


def test_a_report_of_a_later_release_is_read() -> None:
    message = '{"ok": true, "exit_code": 0, "more": [1], "steps": [{"revision": "0009", "x": {}}]}'
    report = contract.read_report(MigrationReport, message)
    assert report is not None
    assert report.steps == (contract.PlanStep(revision="0009"),)
    assert report.connections_max is None
