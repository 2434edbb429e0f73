"""Addresses of databases: every usual form is understood, and no message tells a password."""

import json
import ssl
from pathlib import Path
from typing import Any

import asyncpg.connect_utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay_api.database_url import DatabaseUrl, DatabaseUrlError

SECRET = "s3cr3t-Passw0rd"

PLAIN = DatabaseUrl("picopay", ("db.example",), (5432,), "app", SECRET)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://app:{SECRET}@db.example:5432/picopay",
        f"postgres://app:{SECRET}@db.example/picopay",
        f"postgresql+asyncpg://app:{SECRET}@db.example/picopay",
        f"postgresql+psycopg2://app:{SECRET}@db.example:5432/picopay?",
        f"postgresql://db.example/picopay?user=app&password={SECRET}",
        f"postgresql:///?host=db.example&port=5432&dbname=picopay&user=app&password={SECRET}",
        f"postgresql://app:{SECRET}@db.example/?database=picopay",
        f"host=db.example dbname=picopay user=app password={SECRET}",
        f" host = db.example  port='5432' dbname='picopay' user=app password='{SECRET}'\n",
        f"postgresql://app:{SECRET}@db.example/picopay?connect_timeout=5&channel_binding=prefer",
        json.dumps(
            {
                "engine": "postgres",
                "host": "db.example",
                "port": 5432,
                "username": "app",
                "password": SECRET,
                "dbname": "picopay",
                "dbInstanceIdentifier": "picopay-db",
            }
        ),
        json.dumps(
            {"host": "db.example", "username": "app", "password": SECRET, "dbname": "picopay"}
        ),
    ],
)
def test_every_form_means_the_same(text: str) -> None:
    assert DatabaseUrl.parse(text) == PLAIN


@pytest.mark.parametrize(
    ("text", "hosts", "ports"),
    [
        ("postgresql:///db", (), ()),
        ("postgresql://[::1]/db", ("::1",), (5432,)),
        ("postgresql://u@[fe80::1]:6000/db", ("fe80::1",), (6000,)),
        ("postgresql://a,b:6000,[::1]:7000/db", ("a", "b", "::1"), (5432, 6000, 7000)),
        ("postgresql://a,b/db?target_session_attrs=read-write", ("a", "b"), (5432, 5432)),
        ("postgresql://a,b/db?port=6000", ("a", "b"), (6000, 6000)),
        ("postgresql:///db?host=/run/postgresql", ("/run/postgresql",), (5432,)),
        ("postgresql://%2Frun%2Fpostgresql:6000/db", ("/run/postgresql",), (6000,)),
        ("host=/run/postgresql dbname=db", ("/run/postgresql",), (5432,)),
    ],
)
def test_hosts_and_ports(text: str, hosts: tuple[str, ...], ports: tuple[int, ...]) -> None:
    url = DatabaseUrl.parse(text)
    assert (url.hosts, url.ports) == (hosts, ports)
    assert DatabaseUrl.parse(url.text) == url


@pytest.mark.parametrize(
    ("text", "password"),
    [
        ("postgresql://u:p%40ss%2Fw%3Ard%25@h/db", "p@ss/w:rd%"),
        ("postgresql://u:a:b@h/db", "a:b"),
        ("postgresql://u:a+b@h/db", "a+b"),
        ("postgresql://u:%F0%9F%92%B6@h/db", "💶"),
        (r"host=h dbname=db user=u password='a \'b\' \\c'", "a 'b' \\c"),
        ("postgresql://u@h/db", None),
        ("postgresql://u:@h/db", None),
    ],
)
def test_passwords(text: str, password: str | None) -> None:
    assert DatabaseUrl.parse(text).password == password


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no database"),
        ("picopay", "neither"),
        (f"mysql://u:{SECRET}@h/db", "scheme"),
        (f"http://u:{SECRET}@h/db", "scheme"),
        (f"postgresql://u:{SECRET}@h", "names no database"),
        (f"postgresql://u:{SECRET}@h/", "names no database"),
        (f"postgresql://u:{SECRET}@x@h/db", "%40"),
        (f"postgresql://u:{SECRET}/x@h/db", "%2F"),
        (f"postgresql://u:{SECRET}?x@h/db", "%3F"),
        (f"postgresql://u:{SECRET}#x@h/db", "%23"),
        (f"postgresql://u:{SECRET}%x@h/db", "%25"),
        (f"postgresql://u:{SECRET} x@h/db", "%20"),
        (f"postgresql://u:{SECRET}@h:port/db", "port is not a number"),
        (f"postgresql://u:{SECRET}@h:70000/db", "65535"),
        (f"postgresql://u:{SECRET}@h:0/db", "65535"),
        (f"postgresql://u:{SECRET}@::1/db", "brackets"),
        (f"postgresql://u:{SECRET}@a,b,c/db?port=1,2", "as many ports"),
        (f"postgresql://u:{SECRET}@h/db?sslmode=on", "verify-full"),
        (f"postgresql://u:{SECRET}@h/db?sslmod=require", "sslmod"),
        (f"postgresql://u:{SECRET}@h/db?flag", "name=value"),
        (f"postgresql://u:{SECRET}@h/db?channel_binding=require", "channel_binding"),
        (f"postgresql://u:{SECRET}@h/db\nx", "line breaks"),
        (f'{{"username": "u", "password": "{SECRET}"}}', "RDS secret"),
        (f'{{"username": "u", "password": "{SECRET}"', "RDS secret"),
        (f"user=u password={SECRET} nonsense", "neither"),
        (f"user=u password='{SECRET}", "neither"),
    ],
)
def test_what_cannot_be_understood_is_refused_without_telling_the_password(
    text: str, says: str
) -> None:
    with pytest.raises(DatabaseUrlError) as refused:
        DatabaseUrl.parse(text)
    assert says in str(refused.value)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_password_is_shown_by_text_alone() -> None:
    url = DatabaseUrl.parse(f"postgresql://u:{SECRET}@h/db?sslpassword={SECRET}")
    assert SECRET in url.text
    for shown in (str(url), repr(url), f"{url}", f"{url!r}", repr([url])):
        assert SECRET not in shown
        assert "postgresql://u:***@h:5432/db" in shown


def test_replace() -> None:
    other = PLAIN.replace(database="other")
    assert other.text == f"postgresql://app:{SECRET}@db.example:5432/other"
    assert PLAIN.database == "picopay"


texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)
urls = st.builds(
    DatabaseUrl,
    database=texts,
    hosts=st.just(("db.example", "::1", "/run/postgresql")),
    ports=st.tuples(*[st.integers(1, 65535)] * 3),
    user=texts,
    password=texts,
    parameters=st.sampled_from([(), (("sslmode", "prefer"), ("application_name", "a b&c"))]),
)


@given(urls)
def test_an_address_survives_being_written_and_read(url: DatabaseUrl) -> None:
    assert DatabaseUrl.parse(url.text) == url


@given(urls)
def test_the_driver_understands_the_same(url: DatabaseUrl) -> None:
    arguments = url.connect_arguments()
    addresses, understood = drivers_view(arguments)
    assert understood.user == url.user
    assert understood.password == url.password
    assert understood.database == url.database
    assert arguments["server_settings"].get("application_name") == dict(url.parameters).get(
        "application_name"
    )
    assert addresses == [
        (url.hosts[0], url.ports[0]),
        (url.hosts[1], url.ports[1]),
        f"/run/postgresql/.s.PGSQL.{url.ports[2]}",
    ]


def test_the_systems_certificates() -> None:
    url = DatabaseUrl.parse("postgresql://h/db?sslmode=verify-full&sslrootcert=system")
    arguments = url.connect_arguments()
    assert "ssl" not in arguments["dsn"]
    assert arguments["ssl"].verify_mode is ssl.CERT_REQUIRED
    assert arguments["ssl"].check_hostname
    assert url.missing_files() == []


def test_certificate_files_that_are_not_there(tmp_path: Path) -> None:
    there, away = tmp_path / "there.pem", tmp_path / "away.pem"
    there.touch()
    url = DatabaseUrl.parse(f"postgresql://h/db?sslrootcert={away}&sslcert={there}")
    assert url.missing_files() == [str(away)]


def drivers_view(arguments: dict[str, Any]) -> tuple[Any, Any]:
    """What asyncpg makes of the arguments of `connect`; it has no public way to ask."""
    others: dict[str, Any] = dict.fromkeys(
        [
            "host", "port", "user", "password", "passfile", "database", "ssl", "service",
            "servicefile", "direct_tls", "target_session_attrs", "krbsrvname", "gsslib",
        ]
    )  # fmt: skip
    parse = vars(asyncpg.connect_utils)["_parse_connect_dsn_and_args"]
    parsed = parse(**{**others, **arguments})
    return parsed[0], parsed[1]
