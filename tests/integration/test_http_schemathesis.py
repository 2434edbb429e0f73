"""The OpenAPI document is held against a real `picopay serve`, by requests that a machine made of it.

Every operation is asked with data that the document allows and with data that it does not. No answer may
be a defect or one that the document does not know, and the books are right at the end. The requests are
the same in every run.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict

from picopay_api.database_url import DatabaseUrl
from picopay_api.http import openapi
from support.fleet import Member, fleet
from support.invariants import broken_rules

EXAMPLES_MAX = 5  # of each operation and each way
ANSWER_S = 20  # an answer that takes longer is none
KNOWN = {"account": "@bob"}  # chance finds no account that there is

load_all_checks()
HELD: Any = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "missing_required_header",
        "allow_header_conformance",
    ]
)

one_way = settings(
    max_examples=EXAMPLES_MAX,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
async def member(database_url: DatabaseUrl, tmp_path: Path) -> AsyncIterator[Member]:
    async with fleet(database_url, tmp_path, 1) as [member]:
        for reference in ("alice", "bob"):
            account = {"reference": reference, "asset": "USD"}
            assert (await member.post("/v1/accounts", account, reference)).status_code == 201
        funds = {"source": "@world", "destination": "@alice", "amount": 10**9, "asset": "USD"}
        assert (await member.post("/v1/payments", funds, "funds")).status_code == 201
        yield member


def operations() -> "list[APIOperation[Any, Any, Any, Any]]":
    """Return what the document describes; without its ways to authenticate, which have their own tests."""
    document: Any = {**openapi.document(), "security": []}
    found = list(from_dict(document).get_all_operations())
    understood = [one.ok() for one in found if isinstance(one, Ok)]
    assert len(understood) == len(found)
    return understood


def ask(
    operation: "APIOperation[Any, Any, Any, Any]", url: str, headers: dict[str, str]
) -> set[int]:
    """Ask for an operation in each way; return the statuses of its answers."""
    statuses: set[int] = set()
    ways: list[dict[str, Any]] = [{"generation_mode": mode} for mode in GenerationMode]
    takes_nothing = not (operation.path_parameters or operation.query or operation.headers)
    if takes_nothing and not operation.body:
        ways.pop()  # nothing can be wrong with it
    if "{account}" in operation.path:
        ways.append({"path_parameters": KNOWN})
    with requests.Session() as session:
        session.trust_env = False
        for way in ways:

            @one_way
            @given(case=operation.as_strategy(**way))
            def one(case: "Case[Any]") -> None:
                answer = case.call(base_url=url, session=session, headers=headers, timeout=ANSWER_S)
                statuses.add(answer.status_code)
                case.validate_response(answer, checks=HELD)

            one()
    return statuses


async def test_every_operation_answers_as_the_document_says(
    member: Member, database_url: DatabaseUrl
) -> None:
    headers = {"Authorization": member.client.headers["Authorization"]}
    url = str(member.client.base_url)
    found = await asyncio.to_thread(
        lambda: {operation.label: ask(operation, url, headers) for operation in operations()}
    )
    assert len(found) == sum(len(each) for each in openapi.document()["paths"].values())
    assert 200 in found["GET /v1/accounts/{account}"]
    database = await asyncpg.connect(**database_url.connect_arguments())
    try:
        ledgers = await database.fetch("SELECT ledger_id FROM picopay.ledger")
        for ledger in ledgers:
            assert await broken_rules(database, ledger["ledger_id"]) == []
    finally:
        await database.close()
