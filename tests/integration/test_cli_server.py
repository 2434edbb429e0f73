"""Commands that ask a server: their output for people and programs, and what they say when refused."""

import json
import shlex
import socket
import threading
from collections.abc import Iterator

import pytest

from picopay_api.cli.exits import ExitCode
from support.console import Console
from support.installation import Installation, installed

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("up") / "data") as running:
        yield running


@pytest.fixture
def console(
    installation: Installation,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Console:
    monkeypatch.setenv("PICOPAY_URL", installation.ready.url)
    monkeypatch.setenv("PICOPAY_API_KEY", installation.ready.api_key)
    return Console(capsys)


def test_the_life_of_an_account(console: Console) -> None:
    made = console.json(
        *("accounts", "create", "USD", "--reference", "till/1", "-m", "shop=berlin"),
        *("--min-balance", "-500", "--key", "till-1"),
    )
    assert (made["asset"], made["min_balance"], made["state"]) == ("USD", -500, "open")
    again = ("accounts", "create", "USD", "--reference", "till/1", "-m", "shop=berlin")
    assert console.json(*again, "--min-balance", "-500", "--key", "till-1") == made
    assert console.json("accounts", "get", "@till/1") == made
    assert console.json("accounts", "get", made["id"]) == made
    listed = console.json("accounts", "list", "-m", "shop=berlin", "--asset", "USD")
    assert listed == {"data": [made], "has_more": False, "next_cursor": None}
    assert console.json("accounts", "list", "--reference", "till/1")["data"] == [made]
    assert console.json("accounts", "freeze", "@till/1")["state"] == "frozen"
    assert console.json("accounts", "unfreeze", "@till/1")["state"] == "open"
    assert console.run("accounts", "freeze", "@till/1") == (0, f"{made['id']} is frozen\n")
    console.run("accounts", "unfreeze", "@till/1")
    assert console.json("accounts", "close", "@till/1")["state"] == "closed"
    assert console.refusal("accounts", "freeze", "@till/1")["code"] == "account_state_conflict"
    unbounded = console.json("accounts", "create", "BTC/8", "--min-balance", "none")
    assert (unbounded["asset"], unbounded["min_balance"]) == ("BTC/8", None)


def test_a_payment_is_made_once_and_told(console: Console) -> None:
    before = console.json("accounts", "balance", "@bob")["balance"]["posted"]
    paid = console.json("pay", "@alice", "@bob", "1250", "USD", "-m", "channel=shop")
    assert (paid["status"], paid["amount"], paid["replayed"]) == ("captured", 1_250, False)
    key = paid["idempotency_key"]
    again = ("pay", "@alice", "@bob", "1250", "USD", "-m", "channel=shop", "--key", key)
    repeated = console.json(*again)
    assert (repeated["id"], repeated["replayed"]) == (paid["id"], True)
    exit_code, table = console.run(*again)
    assert exit_code == ExitCode.OK
    assert paid["id"] in table
    assert key in table
    assert "made before" in console.error
    assert console.json("accounts", "balance", "@bob")["balance"]["posted"] == before + 1_250
    assert console.refusal(*again, "--reference", "x")["code"] == "idempotency_key_reused"
    poor = console.refusal("pay", "@alice", "@bob", "99999999999", "USD")
    assert (poor["exit_code"], poor["code"]) == (ExitCode.REFUSED, "insufficient_funds")
    assert console.run("pay", "@alice", "@bob", "99999999999", "USD")[0] == ExitCode.REFUSED
    assert console.error.startswith("error: ")


def test_a_statement_in_every_form(console: Console) -> None:
    console.json("accounts", "create", "USD", "--reference", "reader")
    for number in (1, 2, 3):
        console.json("pay", "@alice", "@reader", str(number), "USD", "--key", f"reader-{number}")
    page = console.json("accounts", "statement", "@reader", "--limit", "2")
    assert [entry["amount"] for entry in page["data"]] == [3, 2]
    rest = console.json("accounts", "statement", "@reader", "--cursor", page["next_cursor"])
    assert [entry["amount"] for entry in rest["data"]] == [1]
    since = console.json("accounts", "statement", "@reader", "--since", "2999-01-01T00:00:00Z")
    assert since["data"] == []
    exit_code, table = console.run("accounts", "statement", "@reader", "--limit", "2")
    assert exit_code == ExitCode.OK
    assert "amount_minor" in table
    assert "--cursor" in console.error
    exit_code, lines = console.run("accounts", "statement", "@reader", "--format", "ndjson")
    assert [json.loads(line)["amount"] for line in lines.splitlines()] == [1, 2, 3]
    exit_code, text = console.run("accounts", "statement", "@reader", "--format", "csv")
    assert len(text.splitlines()) == 4
    assert console.run("accounts", "list")[0] == ExitCode.OK
    past = console.json("accounts", "balance", "@reader", "--at", "2020-01-01T00:00:00Z")
    assert past["balance"]["posted"] == 0
    assert console.run("accounts", "balance", "@world/USD")[0] == ExitCode.OK
    absent = console.refusal("accounts", "statement", "@nobody", "--format", "csv")
    assert absent["code"] == "account_not_found"


def test_ledgers_and_keys(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = console.json("ledgers", "create", "shop", "-m", "country=DE")
    assert console.json("ledgers", "get", "shop") == ledger
    assert console.json("ledgers", "get", ledger["id"]) == ledger
    assert ledger in console.json("ledgers", "list")["data"]
    assert console.refusal("ledgers", "create", "shop")["code"] == "ledger_name_taken"
    assert console.refusal("ledgers", "get", "other")["code"] == "ledger_not_found"
    scopes = ("--scope", "accounts:read", "--scope", "api_keys:write")
    key = console.json("keys", "create", "till", *scopes, "--ledger", "shop")
    assert key["ledger"] == ledger["id"]
    assert key["id"] in {
        one["id"] for one in console.json("keys", "list", "--ledger", "shop")["data"]
    }
    assert key["id"] not in {one["id"] for one in console.json("keys", "list")["data"]}
    assert console.refusal("keys", "create", "x", "--scope", "all")["exit_code"] == ExitCode.USAGE

    monkeypatch.setenv("PICOPAY_API_KEY", key["secret"])
    assert console.json("accounts", "list")["data"] == []
    assert console.refusal("keys", "list")["code"] == "scope_missing"
    rolled = console.json("keys", "roll", key["id"], "--overlap", "600")
    assert rolled["scopes"] == key["scopes"]
    monkeypatch.setenv("PICOPAY_API_KEY", rolled["secret"])
    assert console.json("keys", "revoke", key["id"])["revoked_at"] is not None
    exit_code, told = console.run("keys", "revoke", key["id"])
    assert (exit_code, "ppk_" in told) == (ExitCode.OK, False)


def test_the_server_s_health(console: Console, installation: Installation) -> None:
    healthy = console.json("healthcheck", "--url", installation.ready.url)
    assert healthy == {"ready": True, "url": installation.ready.url}


def test_a_key_that_is_missing_or_wrong(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOPAY_API_KEY", "ppk_wrong")
    refusal = console.refusal("accounts", "list")
    assert (refusal["exit_code"], refusal["code"]) == (ExitCode.REFUSED, "api_key_invalid")
    assert "PICOPAY_API_KEY" in refusal["hint"]
    monkeypatch.delenv("PICOPAY_API_KEY")
    assert console.refusal("accounts", "list")["exit_code"] == ExitCode.CONFIGURATION
    monkeypatch.setenv("PICOPAY_URL", "not a url")
    assert console.refusal("accounts", "list")["code"] == "settings_invalid"


def test_a_server_that_is_away(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOPAY_URL", "http://127.0.0.1:1")
    refusal = console.refusal("pay", "@alice", "@bob", "1", "USD")
    assert (refusal["exit_code"], refusal["code"]) == (ExitCode.UNAVAILABLE, "unreachable")
    assert console.refusal("healthcheck", "--url", "http://127.0.0.1:1")["exit_code"] == 4


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "answer_lost"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno", "not_picopay"),
    ],
)
def test_an_answer_that_is_lost_can_be_asked_for_again(
    console: Console, monkeypatch: pytest.MonkeyPatch, answer: bytes, code: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("PICOPAY_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = threading.Thread(target=_answer_once, args=(listener, answer))
        server.start()
        refusal = console.refusal("pay", "@al ice", "@bob", "1250", "USD", "--reference", "a b")
        server.join(timeout=60)
    assert (refusal["exit_code"], refusal["code"]) == (ExitCode.UNAVAILABLE, code)
    again = shlex.split(refusal["hint"].split(": ", 1)[1])
    assert again[:6] == ["picopay", "pay", "@al ice", "@bob", "1250", "USD"]
    assert again[6] == "--key"
    assert again[8:] == ["--reference", "a b"]


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(answer)
