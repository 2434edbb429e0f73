"""Secrets are taken out of texts and objects, by their values and by what they look like; the rest stays."""

import base64
import io
import json
import tarfile
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay_operator.cache import Key
from picopay_operator.plugin import archive, bundle
from picopay_operator.plugin.bundle import Bundle
from picopay_operator.plugin.redaction import REMOVED, Redaction, keys_of, looks_secret, values_of

SECRET = "Tr0ub4dor&3/zebra"
PEM = f"-----BEGIN EC PRIVATE KEY-----\n{'q83v' * 16}\nq83v\n-----END EC PRIVATE KEY-----"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"postgresql://me:{SECRET}@db:5432/pay", f"postgresql://me:{REMOVED}@db:5432/pay"),
        (f"postgresql://me:p@{SECRET}@db,other/pay", f"postgresql://me:{REMOVED}@db,other/pay"),
        (f"https://{quote(SECRET, safe='')}@example.com/", f"https://{REMOVED}@example.com/"),
        (f"host=db password={SECRET} port=1", f"host=db password={REMOVED} port=1"),
        ("PGPASSWORD='a b' psql", f"PGPASSWORD='{REMOVED}' psql"),
        ("{'api_key': 'abc', 'n': 1}", f"{{'api_key': '{REMOVED}', 'n': 1}}"),
        (r'said "{\"token\": \"abc\", \"n\": 1}"', rf'said "{{\"token\": \"{REMOVED}\"'),
        ('{"token": "abc", "n": 1}', f'{{"token": "{REMOVED}", "n": 1}}'),
        ('{"token": "abc', f'{{"token": "{REMOVED}"'),  # its end is cut off
        ("Authorization: Bearer abcdefgh", f"Authorization: {REMOVED}"),
        ("Cookie: a=b; session=c\nnext", f"Cookie: {REMOVED}\nnext"),
        ("-H 'X-API-Key: abc'", f"-H 'X-API-Key: {REMOVED}'"),
        ("run --api-key abc --key-file /run/x", f"run --api-key {REMOVED} --key-file /run/x"),
        ("the key ppk_00ff is", f"the key {REMOVED} is"),
        ("eyJhbGciOiJIUzI1.eyJzdWIi.c2ln-bg end", f"{REMOVED} end"),
        (f"before\n{PEM}\nafter", f"before\n{REMOVED}\nafter"),
        (f"{PEM.partition(chr(10))[2]}\nafter", f"{REMOVED}\nafter"),  # its beginning is cut off
        (PEM.rpartition("\n")[0], REMOVED),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, left: str) -> None:
    found = Redaction().text(text)
    assert found == left
    assert Redaction().text(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "the Secret picopay-secrets has no key database-url",
        "secretName: ledger-admin-key",
        "postgresql://picopay@db:5432/picopay?sslmode=require",
        "http://10.0.0.1:8000/v1/payments by me@example.com",
        '{"idempotency_key": "order-17", "status": 201}',
        'FATAL:  password authentication failed for user "picopay"',
        "image sha256:0123456789abcdef0123456789abcdef",
        "-----BEGIN CERTIFICATE-----",
        "{not JSON",
    ],
)
def test_what_helps_stays(text: str) -> None:
    assert Redaction().text(text) == text


def test_values_that_are_known_go_in_every_form() -> None:
    known = Redaction([SECRET, "shorter", SECRET + "-and-more"])
    forms = [SECRET, encoded(SECRET), quote(SECRET, safe=""), json.dumps(SECRET)[1:-1]]
    for form in forms:
        assert known.text(f"<{form}>") == f"<{REMOVED}>"
    assert known.text(f"{SECRET}-and-more") == REMOVED
    assert known.tree({f"is {SECRET}": [{"a": f"x{SECRET}x"}]}) == {
        f"is {REMOVED}": [{"a": f"x{REMOVED}x"}]
    }


@given(
    st.text(min_size=6, max_size=40).filter(lambda one: one.strip() == one and one not in REMOVED),
    st.text(max_size=30),
)
def test_a_known_value_is_nowhere_left(secret: str, around: str) -> None:
    known = Redaction([secret])
    assert secret not in known.text(f"{around}{secret}{around}").replace(REMOVED, "\0")
    tree = json.dumps(known.tree({"a": [f"{around}{secret}"], secret: 1}), ensure_ascii=False)
    assert secret not in json.loads(tree)["a"][0].replace(REMOVED, "\0")


def test_an_object_loses_what_a_name_says_is_secret() -> None:
    inner = json.dumps({"kind": "Secret", "data": {"a": encoded(SECRET)}})
    tree: Any = {
        "metadata": {
            "managedFields": [{}],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": inner,
                "example.com/inner": inner,
                "example.com/token": "abc",
                "picopay.io/rotate-admin-key": "2026-11",
            },
        },
        "env": [
            {"name": "SMTP_PASS", "value": "abc"},
            {"name": "PLAIN", "value": "abc"},
            {"name": "URL_KEY", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}},
        ],
        "args": ["--secret-file", "/run/key", "--token", "abc", "serve"],
        "automountServiceAccountToken": False,
        "tokens": ["abc"],
        "imagePullSecrets": [{"name": "registry"}],
        "stringData": {"a": "stays, for it is no Secret"},
    }
    cleaned_inner = json.dumps({"kind": "Secret", "data": {"a": REMOVED}})
    assert Redaction().tree(tree) == {
        "metadata": {
            "annotations": {
                "example.com/inner": cleaned_inner,
                "example.com/token": REMOVED,
                "picopay.io/rotate-admin-key": "2026-11",
            },
        },
        "env": [
            {"name": "SMTP_PASS", "value": REMOVED},
            {"name": "PLAIN", "value": "abc"},
            {"name": "URL_KEY", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}},
        ],
        "args": ["--secret-file", "/run/key", "--token", REMOVED, "serve"],
        "automountServiceAccountToken": False,
        "tokens": REMOVED,
        "imagePullSecrets": [{"name": "registry"}],
        "stringData": {"a": "stays, for it is no Secret"},
    }


def test_what_is_nested_without_end_is_no_way_around() -> None:
    deep = '{"a":' * 5_000 + f'{{"password":"{SECRET}"}}' + "}" * 5_000
    assert SECRET not in Redaction().text(deep)
    assert SECRET not in Redaction().text(f"[{deep}]")


@pytest.mark.parametrize(
    "part", ["x", "-", "\\", "token=", "eyJ-", "postgres://", "A=\n", '{"', "'"]
)
def test_a_log_of_one_kind_of_sign_comes_to_an_end(part: str) -> None:
    """An expression that goes back again and again would be at it for hours."""
    assert Redaction().text(part * (300_000 // len(part)))


@pytest.mark.parametrize("name", ["PGPASSWORD", "apiKey", "STRIPE_KEY", "x-auth", "smtpPwd"])
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["key", "secretName", "topologyKey", "planHash", "DB_PASSWORD_FILE", "tokenSeconds", ""]
)
def test_names_of_no_secrets(name: str) -> None:
    assert not looks_secret(name)


def test_of_a_secret_the_keys_are_told_and_the_values_struck_out() -> None:
    held = {
        "url": f"postgresql://picopay:{SECRET}@database/picopay",
        "words": f"host=db password='{SECRET}'",
        "rds": json.dumps({"host": "database", "password": SECRET}),
        "licence": "whatever it is",
        "username": "picopay-owner",
        "pin": "1234",
    }
    secret = {
        "kind": "Secret",
        "metadata": {"name": "db", "annotations": {"a": SECRET}, "labels": {"b": "c"}},
        "data": {key: encoded(value) for key, value in held.items()},
        "type": "Opaque",
    }
    assert values_of(secret) == [SECRET, SECRET, SECRET, "whatever it is"]
    assert keys_of(secret) == {
        "metadata": {"name": "db", "annotations": ["a"], "labels": {"b": "c"}},
        "type": "Opaque",
        "keys": sorted(held),
    }


def test_the_same_content_makes_the_same_archive() -> None:
    def made(*paths: str) -> bytes:
        content, out = Bundle(), io.BytesIO()
        for path in paths:
            content.add(path, path)
        archive.write(out, content, Key("shop", "demo"), datetime(2026, 1, 2, tzinfo=UTC))
        return out.getvalue()

    assert made("b", "a") == made("a", "b")
    with tarfile.open(fileobj=io.BytesIO(made("b", "a"))) as found:
        names = [f"picopay-support-shop-demo/{name}" for name in ("index.json", "a", "b")]
        assert found.getnames() == names


def test_what_would_be_too_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_BYTES_MAX", 10)
    content = Bundle()
    content.add("a", "123456")
    content.add("b", "123456")
    content.add("c", "1234")
    assert list(content.files) == ["a", "c"]
    assert [one.what for one in content.left_out] == ["b"]
