"""How each error of each operation comes about: requests that are right but for one thing.

Used by `test_http_errors.py`, which demands a case here for every error that the OpenAPI document lists.
`GENERAL` are errors that come about alike for every operation, `PARTICULAR` those of one; what needs a
fault of the server or a second request at the same moment is left to tests of its own (`ELSEWHERE`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec

from picopay_api.http.operations import Operation
from picopay_api.worker.sealer import Sealer
from support.api import Api, as_key

ELSEWHERE = {
    "rate_limited",
    "idempotency_key_in_flight",
    "overloaded",
    "deadline_exceeded",
    "database_unavailable",
    "schema_out_of_range",
    "shutting_down",
    "internal_error",
}
"""Errors with tests of their own."""

AMOUNT_MAX = 10**18
BODY_BYTES_MAX = 4_096
_NO_ID = "0" * 32
_SILVER = "SILVER/0"


class Ask(msgspec.Struct, kw_only=True):
    """A request that is about to be sent."""

    operation: Operation
    path: dict[str, str]
    headers: dict[str, str]
    query: dict[str, str] = {}
    body: dict[str, Any] | None = None
    content: bytes | None = None

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        """Send it."""
        content = self.content
        if content is None and self.body is not None:
            content = msgspec.json.encode(self.body)
        path = self.operation.path.format_map(self.path)
        return await client.request(
            self.operation.method, path, params=self.query, headers=self.headers, content=content
        )


class Scene(msgspec.Struct):
    """A ledger in which everything can go wrong; `ids` by what they are of."""

    api: Api
    ids: dict[str, str]
    secrets: dict[str, str]

    @classmethod
    async def set_up(cls, api: Api) -> "Scene":
        """Make accounts in every state, things to name, and balances at the edge of their range."""
        for name in ("alice", "bob", "closed", "frozen", "poor"):
            await api.account(name)
        await api.account("rich", 10**6)
        await api.post("/v1/accounts", {"reference": "eve", "asset": "EUR"})
        ids = {}
        for name, source, destination in (
            ("spent", "@rich", "@poor"),
            ("to_closed", "@rich", "@closed"),
            ("to_frozen", "@rich", "@frozen"),
            ("transaction", "@rich", "@alice"),
            ("reversible", "@rich", "@bob"),
        ):
            made = await api.transact((source, destination, 100), reference=name)
            ids[name] = made.json()["id"]
        await api.transact(("@poor", "@rich", 100), ("@closed", "@rich", 100))
        ids["payment"] = (await api.pay("@rich", "@bob", 1)).json()["id"]
        undo = "/v1/transactions/{}/reverse"
        ids["reversal"] = (await api.post(undo.format(ids["transaction"]))).json()["id"]
        await api.client.post("/v1/accounts/@closed/close")
        await api.client.post("/v1/accounts/@frozen/freeze")
        await cls._fill_up(api, ids)
        secrets = {
            "read": await api.secret("payments:read"),
            "other": await api.secret("audit:read"),
        }
        key = await api.client.post("/v1/api_keys", json={"name": "n", "scopes": ["audit:read"]})
        ids["api_key"] = key.json()["id"]
        gone = await api.client.post("/v1/api_keys", json={"name": "n", "scopes": ["audit:read"]})
        ids["revoked"] = gone.json()["id"]
        await api.client.post(f"/v1/api_keys/{ids['revoked']}/revoke")
        ids["ledger"] = gone.json()["ledger"]
        ids["event"] = ids["payment"].replace("pay_", "evt_")
        await Sealer(api.engine.database).step()
        return cls(api, ids, secrets)

    @staticmethod
    async def _fill_up(api: Api, ids: dict[str, str]) -> None:
        """Bring an account of another asset to the largest balance, after a transaction out of it."""
        for name in ("full", "vein-1", "vein-2"):
            account = {"reference": name, "asset": _SILVER, "min_balance": None}
            await api.post("/v1/accounts", account)
        out = await api.transact(("@full", "@vein-1", AMOUNT_MAX, _SILVER))
        ids["from_full"] = out.json()["id"]
        for number in range(5):
            vein = f"@vein-{1 + number % 2}"
            await api.transact((vein, "@full", AMOUNT_MAX, _SILVER))

    def ask(self, operation: Operation) -> Ask:
        """Return a request that is right."""
        body = dict(operation.example) if operation.body and operation.example else None
        if operation.name in {"create_payment", "create_transaction"}:
            body = _moving(operation, "@rich", "@bob", 1)
        path = {**self.ids, "account": "@alice"}
        if operation.name == "reverse_transaction":
            path["transaction"], body = self.ids["reversible"], {}
        headers = {"Idempotency-Key": self.api.fresh_key()}
        if operation.body is not None:
            headers["Content-Type"] = "application/json"
        return Ask(operation=operation, path=path, headers=headers, body=body)


Case = Callable[[Scene, Ask], object]
"""Makes one thing wrong with a request; may ask for something beforehand, which is then awaited."""


def _moving(
    operation: Operation, source: str, destination: str, amount: int, asset: str = "USD"
) -> dict[str, Any]:
    posting = {"source": source, "destination": destination, "amount": amount, "asset": asset}
    return {"postings": [posting]} if operation.name == "create_transaction" else posting


def _move(source: str, destination: str, amount: int = 1, asset: str = "USD") -> Case:
    def case(_: Scene, ask: Ask) -> None:
        ask.body = _moving(ask.operation, source, destination, amount, asset)

    return case


def _header(name: str, value: str) -> Case:
    return lambda _, ask: ask.headers.update({name: value})


def _content(content: bytes) -> Case:
    return lambda _, ask: setattr(ask, "content", content)


def _path(name: str, value: str) -> Case:
    return lambda scene, ask: ask.path.update({name: scene.ids.get(value, value)})


def _query(name: str, value: str) -> Case:
    return lambda _, ask: ask.query.update({name: value})


def _body(**members: Any) -> Case:
    return lambda _, ask: setattr(ask, "body", {**(ask.body or {}), **members})


def _without_scope(scene: Scene, ask: Ask) -> None:
    which = "other" if ask.operation.scope == "payments:read" else "read"
    ask.headers |= as_key(scene.secrets[which])


async def _used(scene: Scene, ask: Ask) -> None:
    """Use the key for something else of the same operation first."""
    first = Ask(
        operation=ask.operation,
        path=ask.path,
        headers=ask.headers,
        body={**(ask.body or {}), "metadata": {"a": "b"}},
    )
    assert (await first.send(scene.api.client)).status_code == 201


async def _done_before(scene: Scene, ask: Ask) -> None:
    assert (await ask.send(scene.api.client)).status_code == 201


def _reversing(name: str) -> Case:
    return _path("transaction", name)


GENERAL: Mapping[str, Case] = {
    "authentication_required": _header("Authorization", ""),
    "api_key_invalid": _header("Authorization", "Bearer ppk_no"),
    "scope_missing": _without_scope,
    "invalid_request": _query("colour", "red"),
    "unsupported_media_type": _header("Content-Type", "text/plain"),
    "body_too_large": _content(b" " * (BODY_BYTES_MAX + 1)),
    "malformed_body": _content(b"{"),
    "idempotency_key_missing": lambda _, ask: ask.headers.pop("Idempotency-Key"),
    "idempotency_key_invalid": _header("Idempotency-Key", "x" * 256),
    "idempotency_key_reused": _used,
    "invalid_cursor": _query("cursor", "nonsense"),
    "account_not_found": _path("account", "@nobody"),
    "payment_not_found": _path("payment", f"pay_{_NO_ID}"),
    "transaction_not_found": _path("transaction", f"tx_{_NO_ID}"),
    "event_not_found": _path("event", f"evt_{_NO_ID}"),
    "api_key_not_found": _path("api_key", f"key_{_NO_ID}"),
    "ledger_not_found": _query("ledger", f"ldg_{_NO_ID}"),
    "account_state_conflict": _path("account", "@closed"),
}

_MOVING: Mapping[str, Case] = {
    "account_not_found": _move("@rich", "@nobody"),
    "same_account": _move("@rich", "@rich"),
    "asset_mismatch": _move("@rich", "@eve"),
    "asset_unknown": _move("@world", "@bob", asset="ZZZ"),
    "account_closed": _move("@rich", "@closed"),
    "account_frozen": _move("@frozen", "@bob"),
    "insufficient_funds": _move("@poor", "@bob"),
    "balance_out_of_range": _move("@vein-2", "@full", AMOUNT_MAX, _SILVER),
    "reference_taken": _body(reference="spent"),
}

PARTICULAR: Mapping[str, Mapping[str, Case]] = {
    "create_payment": _MOVING,
    "create_transaction": {
        **_MOVING,
        "condition_failed": _body(conditions=[{"account": "@rich", "available_lte": 0}]),
    },
    "reverse_transaction": {
        "transaction_not_reversible": _reversing("reversal"),
        "transaction_already_reversed": _reversing("transaction"),
        "account_closed": _reversing("to_closed"),
        "account_frozen": _reversing("to_frozen"),
        "insufficient_funds": _reversing("spent"),
        "balance_out_of_range": _reversing("from_full"),
        "reference_taken": _body(reference="spent"),
    },
    "create_account": {
        "asset_unknown": _body(asset="ZZZ"),
        "reference_taken": _body(reference="alice"),
    },
    "close_account": {
        "account_not_empty": _path("account", "@rich"),
        "account_state_conflict": _path("account", "@world%2FUSD"),
    },
    "create_api_key": {"ledger_not_found": _body(ledger=f"ldg_{_NO_ID}")},
    "roll_api_key": {"api_key_inactive": _path("api_key", "revoked")},
    "create_ledger": {"ledger_name_taken": _done_before},
    "get_ledger": {"ledger_not_found": _path("ledger", f"ldg_{_NO_ID}")},
}


def case_of(operation: Operation, code: str) -> Case | None:
    """Return how an error of an operation comes about; None when nobody has said so."""
    return PARTICULAR.get(operation.name, {}).get(code) or GENERAL.get(code)
