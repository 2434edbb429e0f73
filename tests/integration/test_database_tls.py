"""TLS to the database as the settings have it, on a server whose certificate a private authority has signed.

The certificate is for `localhost`; to `127.0.0.1` it is that of somebody else.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from picopay_api.cli.exits import ExitCode
from picopay_api.database_url import DatabaseUrl
from picopay_api.settings import Settings
from support.certificates import authority, signed
from support.console import Console
from support.embedded import poll, query, run, running
from support.postgres import HASTY_SETTINGS

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


class Secured(NamedTuple):
    """A server with TLS; `url` says that it is not used."""

    url: DatabaseUrl
    ca: Path
    other_ca: Path

    def settings(self, **variables: str | Path) -> Settings:
        """Read the settings of an environment."""
        return Settings.from_environment(self.environment(**variables))

    def environment(self, **variables: str | Path) -> dict[str, str]:
        """Return the variables of an environment; those of TLS without what they all begin with."""
        host = str(variables.pop("host", "localhost"))
        address = self.url.replace(hosts=(host,)).text
        return {
            "DATABASE_URL": address,
            "PICOPAY_MIGRATION_DATABASE_URL": address,
            **{f"PICOPAY_DATABASE_TLS_{name}": str(value) for name, value in variables.items()},
        }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = authority(folder, "ours"), authority(folder, "theirs")
    pair = signed(ours, folder, "localhost")
    with running(folder / "server", settings=HASTY_SETTINGS) as postgres:
        data = folder / "server" / "postgres"
        for source, name in ((pair.certificate, "server.crt"), (pair.key, "server.key")):
            target = data / name
            target.write_bytes(source.read_bytes())
            target.chmod(0o600)
            os.chown(target, data.stat().st_uid, data.stat().st_gid)
        run(postgres.superuser_url, "ALTER SYSTEM SET ssl = on")
        run(postgres.superuser_url, "SELECT pg_reload_conf()")
        poll(lambda: query(postgres.owner_url, "SHOW ssl") == "on")
        yield Secured(postgres.owner_url, ours.certificate, theirs.certificate)


@pytest.mark.parametrize(
    ("variables", "encrypted"),
    [
        ({}, False),
        ({"MODE": "disable"}, False),
        ({"MODE": "allow"}, False),
        ({"MODE": "prefer"}, True),
        ({"MODE": "require"}, True),
        ({"MODE": "require", "host": "127.0.0.1"}, True),
        ({"MODE": "require", "CA_FILE": "ours", "host": "127.0.0.1"}, True),
        ({"MODE": "verify-ca", "CA_FILE": "ours", "host": "127.0.0.1"}, True),
        ({"MODE": "verify-full", "CA_FILE": "ours"}, True),
    ],
)
def test_both_addresses_are_used_as_the_settings_say(
    secured: Secured, variables: dict[str, str | Path], encrypted: bool
) -> None:
    if "CA_FILE" in variables:
        variables = {**variables, "CA_FILE": secured.ca}
    settings = secured.settings(**variables)
    for url in (settings.database_url, settings.migration_database_url):
        assert url is not None
        assert query(url, ENCRYPTED) is encrypted


UNTRUSTED: dict[str, dict[str, Any]] = {
    "another name": {"MODE": "verify-full", "CA_FILE": "ca", "host": "127.0.0.1"},
    "another authority": {"MODE": "verify-ca", "CA_FILE": "other_ca"},
    "another authority, with require": {"MODE": "require", "CA_FILE": "other_ca"},
}


@pytest.mark.parametrize("case", UNTRUSTED)
def test_a_server_that_is_not_to_be_trusted_counts_as_away(
    secured: Secured,
    case: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = UNTRUSTED[case] | {"CA_FILE": getattr(secured, UNTRUSTED[case]["CA_FILE"])}
    for name, value in secured.environment(**variables).items():
        monkeypatch.setenv(name, value)
    console = Console(capsys)
    for command in (("migrate",), ("ledgers", "list", "--direct")):
        refusal = console.refusal(*command)
        assert refusal["exit_code"] == ExitCode.UNAVAILABLE
        assert refusal["code"] == "database_unavailable"
    assert "certificate" in console.refusal("migrate")["detail"]


def test_commands_work_with_a_private_authority(
    secured: Secured, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in secured.environment(MODE="verify-full", CA_FILE=secured.ca).items():
        monkeypatch.setenv(name, value)
    console = Console(capsys)
    assert console.json("migrate")["up_to_date"] is True
    assert console.json("ledgers", "create", "main", "--direct")["name"] == "main"
    assert console.json("audit") == {"findings": []}


def test_what_the_address_says_counts_until_the_settings_say_something(
    secured: Secured,
) -> None:
    strict = (
        f"{secured.url.replace(parameters=()).text}?sslmode=verify-full&sslrootcert={secured.ca}"
    )
    local = strict.replace("127.0.0.1", "localhost")
    assert query(Settings.from_environment({"DATABASE_URL": local}).database_url, ENCRYPTED) is True
    weaker = {"DATABASE_URL": strict, "PICOPAY_DATABASE_TLS_MODE": "disable"}
    assert query(Settings.from_environment(weaker).database_url, ENCRYPTED) is False
