"""Settings: bounds, files, misspelt names, and every problem at once."""

import re
import socket
from pathlib import Path

import msgspec
import pytest

from picopay_api.environment import accepted, meta, variable
from picopay_api.settings import ClientSettings, LogFormat, LogLevel, Settings, SettingsError

URL = "postgresql://app:s3cr3t@db.example/picopay"
NEEDED = {"DATABASE_URL": URL}
FIELDS = msgspec.structs.fields(Settings)


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment(environ)
    assert all(problem in str(refused.value) for problem in refused.value.problems)
    return refused.value.problems


def test_one_variable_is_enough() -> None:
    settings = Settings.from_environment(NEEDED)
    assert settings.database_url.text == "postgresql://app:s3cr3t@db.example:5432/picopay"
    assert (settings.api_host, settings.api_port) == ("0.0.0.0", 8000)
    assert (settings.log_level, settings.log_format) == (LogLevel.INFO, LogFormat.JSON)
    assert settings.hostname == socket.gethostname()
    assert settings.migration_database_url is None
    assert not settings.migrate_on_start


def test_variables_are_read() -> None:
    settings = Settings.from_environment(
        {
            **NEEDED,
            "PICOPAY_MIGRATION_DATABASE_URL": URL,
            "API_HOST": "::",
            "API_PORT": " 9000\n",
            "LOG_LEVEL": "debug",
            "PICOPAY_LOG_FORMAT": "text",
            "PICOPAY_MIGRATE_ON_START": "True",
            "PICOPAY_DOCS_ENABLED": "0",
            "PICOPAY_QUEUE_BYTES_MAX": "65536",
            "HOSTNAME": "pod-1",
            "PATH": "/bin",
        }
    )
    assert settings.migration_database_url == settings.database_url
    assert (settings.api_host, settings.api_port, settings.hostname) == ("::", 9000, "pod-1")
    assert (settings.log_level, settings.log_format) == (LogLevel.DEBUG, LogFormat.TEXT)
    assert (settings.migrate_on_start, settings.docs_enabled) == (True, False)
    assert settings.queue_bytes_max == 65_536


def test_the_names_in_the_environment() -> None:
    names = {variable(field) for field in FIELDS}
    bare = {name for name in names if not name.startswith("PICOPAY_")}
    assert bare == {"DATABASE_URL", "API_HOST", "API_PORT", "LOG_LEVEL", "HOSTNAME"}
    assert len(names) == len(FIELDS)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_is_described_and_its_default_is_within_its_bounds(
    field: msgspec.structs.FieldInfo,
) -> None:
    description = meta(field).description
    assert description is not None
    assert description.endswith(".")
    assert accepted(field)
    if isinstance(field.default, int | str) and not isinstance(field.default, bool):
        assert msgspec.convert(str(field.default), field.type, strict=False) == field.default


NUMBERS = [field for field in FIELDS if meta(field).ge is not None]


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_every_number_has_two_bounds(field: msgspec.structs.FieldInfo) -> None:
    name, limits = variable(field), meta(field)
    assert limits.ge is not None
    assert limits.le is not None
    for beyond in (limits.ge - 1, limits.le + 1, 10**30):
        (problem,) = problems({**NEEDED, name: str(beyond)})
        assert problem == f"{name}: '{beyond}' is not {accepted(field)}"


def test_every_whole_number_is_among_those() -> None:
    assert {field.name for field in FIELDS if isinstance(field.default, int)} == {
        field.name for field in NUMBERS
    } | {"docs_enabled", "migrate_on_start"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_PORT", "http"),
        ("API_PORT", "80.5"),
        ("API_PORT", "8 0"),
        ("API_PORT", "NaN"),
        ("LOG_LEVEL", "LOUD"),
        ("PICOPAY_LOG_FORMAT", "xml"),
        ("PICOPAY_DOCS_ENABLED", "perhaps"),
        ("PICOPAY_ERROR_TYPE_BASE_URL", "https://example.org/errors"),
        ("PICOPAY_ERROR_TYPE_BASE_URL", "example.org/errors/"),
        ("DATABASE_URL", "mysql://app:s3cr3t@db/picopay"),
        ("DATABASE_URL", "postgresql://app:s3cr3t@db/picopay?sslrootcert=/nowhere/ca.pem"),
        ("PICOPAY_MIGRATION_DATABASE_URL", "picopay"),
    ],
)
def test_a_bad_value_is_refused(name: str, value: str) -> None:
    (problem,) = problems({**NEEDED, name: value})
    assert problem.startswith(f"{name}: ")
    assert "s3cr3t" not in problem


def test_all_problems_are_told_at_once() -> None:
    found = problems(
        {"PICOPAY_WORKERS": "0", "LOG_LEVEL": "LOUD", "PICOPAY_WORKRES": "2", "API_PORT": "x"}
    )
    assert [problem.split()[0].rstrip(":") for problem in found] == [
        "PICOPAY_WORKRES",
        "DATABASE_URL",
        "API_PORT",
        "PICOPAY_WORKERS",
        "LOG_LEVEL",
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("PICOPAY_WORKER", "PICOPAY_WORKERS"),
        ("PICOPAY_API_PORT", "API_PORT"),
        ("PICOPAY_DATABASE_URL", "DATABASE_URL"),
        ("PICOPAY_DATABASE_URL_FILE", "DATABASE_URL_FILE"),
        ("PICOPAY_POOLSIZE", "PICOPAY_POOL_SIZE"),
        ("PICOPAY_BODY_BYTES", "PICOPAY_BODY_BYTES_MAX"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_that_there_is(name: str, near: str) -> None:
    assert problems({**NEEDED, name: "1"}) == [f"{name} is not a setting; did you mean {near}?"]


def test_an_unknown_name_that_is_near_to_nothing() -> None:
    assert problems({**NEEDED, "PICOPAY_XYZZY": "1"}) == ["PICOPAY_XYZZY is not a setting"]


def test_the_names_of_the_client_are_no_strangers() -> None:
    Settings.from_environment({**NEEDED, "PICOPAY_URL": "http://x", "PICOPAY_API_KEY": "ppk_x"})
    ClientSettings.from_environment({**NEEDED, "PICOPAY_WORKERS": "3"})


def test_what_a_cluster_sets_by_itself_is_no_setting() -> None:
    # A Kubernetes service `picopay` and another one `api` are announced to every pod like this.
    settings = Settings.from_environment(
        {
            **NEEDED,
            "PICOPAY_SERVICE_HOST": "10.0.0.1",
            "PICOPAY_SERVICE_PORT": "8000",
            "PICOPAY_SERVICE_PORT_HTTP": "8000",
            "PICOPAY_PORT": "tcp://10.0.0.1:8000",
            "PICOPAY_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "PICOPAY_PORT_8000_TCP_PROTO": "tcp",
            "PICOPAY_PORT_8000_TCP_PORT": "8000",
            "PICOPAY_PORT_8000_TCP_ADDR": "10.0.0.1",
            "API_PORT": "tcp://10.0.0.2:80",
        }
    )
    assert settings.api_port == 8000
    (problem,) = problems({**NEEDED, "PICOPAY_PORT": "9000"})
    assert problem.startswith("PICOPAY_PORT is not a setting")


def test_a_variable_that_is_set_to_nothing_is_not_set() -> None:
    settings = Settings.from_environment(
        {**NEEDED, "API_PORT": "", "PICOPAY_MIGRATION_DATABASE_URL": "", "LOG_LEVEL_FILE": ""}
    )
    assert settings.api_port == 8000
    assert settings.migration_database_url is None
    assert problems({"DATABASE_URL": ""})[0].startswith("DATABASE_URL is required")


def test_a_setting_from_a_file(tmp_path: Path) -> None:
    address, level = tmp_path / "address", tmp_path / "level"
    address.write_text(f"{URL}\n", encoding="utf-8")
    level.write_text("warning\r\n", encoding="utf-8")
    settings = Settings.from_environment(
        {"DATABASE_URL_FILE": str(address), "LOG_LEVEL_FILE": str(level)}
    )
    assert settings == Settings.from_environment({**NEEDED, "LOG_LEVEL": "WARNING"})


def test_files_that_are_of_no_use(tmp_path: Path) -> None:
    empty, large, binary = tmp_path / "empty", tmp_path / "large", tmp_path / "binary"
    empty.write_bytes(b"\n")
    large.write_bytes(b"x" * 65_537)
    binary.write_bytes(b"\xff")
    for path, says in [
        (empty, "is empty"),
        (large, "larger than"),
        (binary, "not UTF-8"),
        (tmp_path / "away", "cannot be read"),
        (tmp_path, "cannot be read"),
    ]:
        (problem,) = problems({"DATABASE_URL_FILE": str(path)})
        assert re.match(rf"DATABASE_URL: the file {path} .*{says}", problem)


def test_a_variable_and_its_file_together_are_refused(tmp_path: Path) -> None:
    (problem,) = problems({**NEEDED, "DATABASE_URL_FILE": str(tmp_path / "address")})
    assert "both set" in problem


@pytest.mark.parametrize(
    "environ",
    [
        {"PICOPAY_COMMIT_CONNECTIONS": "8"},
        {"PICOPAY_LOCK_TIMEOUT_MS": "10001"},
        {"PICOPAY_QUEUE_COMMANDS_MAX": "511"},
    ],
)
def test_what_contradicts_itself_is_refused(environ: dict[str, str]) -> None:
    (problem,) = problems({**NEEDED, **environ})
    assert next(iter(environ)) in problem


TLS = "PICOPAY_DATABASE_TLS_"


def with_tls(address: str, **variables: str | Path) -> dict[str, str]:
    named = {f"{TLS}{name}": str(value) for name, value in variables.items()}
    return {"DATABASE_URL": f"{URL}{address}", "PICOPAY_MIGRATION_DATABASE_URL": URL, **named}


def test_tls_takes_the_place_of_what_both_addresses_say(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    said = f"?application_name=x&sslmode=require&sslrootcert={ca}"
    for variables, expected in (
        ({}, {"sslmode": "require", "sslrootcert": str(ca)}),
        ({"MODE": "verify-ca"}, {"sslmode": "verify-ca", "sslrootcert": str(ca)}),
        ({"MODE": " disable\n"}, {"sslmode": "disable"}),
        ({"MODE": "prefer"}, {"sslmode": "prefer"}),
    ):
        found = Settings.from_environment(
            {"DATABASE_URL": f"{URL}{said}"}
            | {f"{TLS}{name}": value for name, value in variables.items()}
        )
        assert dict(found.database_url.parameters) == {"application_name": "x", **expected}
    other = tmp_path / "other.pem"
    other.touch()
    both = Settings.from_environment(with_tls(said, MODE="verify-full", CA_FILE=other))
    assert both.migration_database_url is not None
    for url in (both.database_url, both.migration_database_url):
        parameters = dict(url.parameters)
        assert (parameters["sslmode"], parameters["sslrootcert"]) == ("verify-full", str(other))


def test_the_systems_authorities_go_with_names_only() -> None:
    system = "?sslmode=verify-full&sslrootcert=system"
    kept = Settings.from_environment({"DATABASE_URL": URL + system, f"{TLS}MODE": "verify-full"})
    assert dict(kept.database_url.parameters)["sslrootcert"] == "system"
    none = Settings.from_environment({"DATABASE_URL": URL + system, f"{TLS}MODE": "disable"})
    assert "ssl" not in none.database_url.connect_arguments()
    for mode in ("require", "verify-ca"):
        (problem,) = problems({"DATABASE_URL": URL + system, f"{TLS}MODE": mode})
        assert "sslrootcert=system needs sslmode verify-full" in problem


@pytest.mark.parametrize(
    ("address", "mode", "says"),
    [
        ("", None, "no certificate is verified with sslmode prefer"),
        ("", "prefer", "no certificate is verified with sslmode prefer"),
        ("?sslmode=verify-full", "disable", "no certificate is verified with sslmode disable"),
    ],
)
def test_an_authority_without_effect_is_refused(
    tmp_path: Path, address: str, mode: str | None, says: str
) -> None:
    ca = tmp_path / "ca.pem"
    environ = {"DATABASE_URL": URL + address, f"{TLS}CA_FILE": str(ca), f"{TLS}MODE": mode or ""}
    assert problems(environ) == [f"{TLS}CA_FILE: there is no file {ca}"]
    ca.touch()
    (problem,) = problems(environ)
    assert says in problem
    assert "DATABASE_URL" in problem
    assert "s3cr3t" not in problem


def test_what_is_to_be_verified_needs_an_authority() -> None:
    found = problems(with_tls("?sslmode=disable", MODE="verify-full"))
    assert len(found) == 2
    assert all("needs the certificate of an authority" in problem for problem in found)
    (problem,) = problems({**NEEDED, f"{TLS}MODE": "on"})
    assert problem.startswith(f"{TLS}MODE: 'on' is not one of disable, allow, prefer")


def test_no_secret_is_shown() -> None:
    assert "s3cr3t" not in repr(Settings.from_environment(NEEDED))
    client = ClientSettings.from_environment({"PICOPAY_API_KEY": "ppk_s3cr3t"})
    assert client.api_key == "ppk_s3cr3t"
    assert "s3cr3t" not in repr(client)


def test_the_clients_settings() -> None:
    assert ClientSettings.from_environment({}) == ClientSettings(
        url="http://127.0.0.1:8000", api_key=None
    )
    with pytest.raises(SettingsError) as refused:
        ClientSettings.from_environment({"PICOPAY_URL": "x", "PICOPAY_API_KEY": "s3cr3t key"})
    assert len(refused.value.problems) == 2
    assert "s3cr3t" not in str(refused.value)
