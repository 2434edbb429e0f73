"""The OpenAPI document is valid, is of this application, and its examples are requests that work."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from litestar.routes import HTTPRoute
from openapi_spec_validator import OpenAPIV31SpecValidator

from picopay_api.app import create_app
from picopay_api.database_url import DatabaseUrl
from picopay_api.http import openapi
from picopay_api.http.resources import OPERATIONS
from picopay_api.settings import Settings
from support.api import Api, served
from support.contract import described, hold, request_schema

OPEN = {"/health", "/livez", "/readyz", "/metrics"}
DOCUMENTS = {"/docs", "/openapi.json"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the method, the path and the description of every operation of the document."""
    for path, methods in openapi.document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@pytest.fixture
async def api(database_url: DatabaseUrl) -> AsyncIterator[Api]:
    async with served(database_url) as api:
        hold(api.client)
        yield api


def test_the_document_is_valid() -> None:
    document = openapi.document()
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_route_is_in_the_document_and_the_other_way_round(database_url: DatabaseUrl) -> None:
    app = create_app(Settings(database_url=database_url))
    routed = {
        (method, re.sub(r"\{(\w+):str\}", r"{\1}", route.path))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.methods - {"OPTIONS"}
    }
    documents = {("GET", path) for path in DOCUMENTS}
    assert documents <= routed
    assert routed - documents == {(method, path) for method, path, _ in operations()}


def test_every_operation_is_described_in_full() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    known = {operation.name: operation for operation in OPERATIONS}
    assert set(names) == set(known) | {path[1:] for path in OPEN}
    for _, path, operation in operations():
        name = operation["operationId"]
        assert operation["summary"], name
        in_path = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"]
        assert in_path == re.findall(r"\{(\w+)\}", path), name
        assert all(p["description"] for p in operation.get("parameters", ())), name
        if name not in known:
            assert operation["security"] == [], name
            continue
        assert known[name].scope in operation["description"], name
        refusals = {status for status in operation["responses"] if status >= "400"}
        assert {"400", "401", "403", "429", "500", "503"} <= refusals, name
        for status in refusals:
            assert set(operation["responses"][status]["content"]) == {"application/problem+json"}
        body = operation.get("requestBody")
        assert (body is None) == (known[name].body is None), name
        assert body is None or "example" in body["content"]["application/json"], name


async def test_a_server_shows_the_document(api: Api) -> None:
    shown = await api.client.get("/openapi.json")
    assert shown.json() == openapi.document()
    page = (await api.client.get("/docs")).text
    for _, path, operation in operations():
        if path not in OPEN:
            assert f'id="{operation["operationId"]}"' in page
    # Nothing comes from another host: the page works on a closed network.
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    for path in OPEN:
        assert (await api.client.get(path)).status_code == 200


async def test_every_example_works(api: Api) -> None:
    await api.account("alice", 5_000)
    await api.account("bob", 5_000)
    made = await api.transact(("@alice", "@bob", 1))
    key = await api.client.post("/v1/api_keys", json={"name": "n", "scopes": ["audit:read"]})
    path = {
        "account": "@alice",
        "transaction": made.json()["id"],
        "api_key": key.json()["id"],
    }
    examples = 0
    for method, template, operation in operations():
        body = operation.get("requestBody")
        if body is None:
            continue
        example = body["content"]["application/json"]["example"]
        request_schema(method, template).validate(example)
        headers = {
            parameter["name"]: parameter["schema"].get(
                "const", f"example-{operation['operationId']}"
            )
            for parameter in operation["parameters"]
            if parameter["in"] == "header"
        }
        answer = await api.client.request(
            method, template.format_map(path), json=example, headers=headers
        )
        assert answer.is_success, (operation["operationId"], answer.text)
        examples += 1
    assert examples == len([one for one in OPERATIONS if one.body is not None])


def sample(parameter: dict[str, Any]) -> dict[str, str]:
    """Return a query with a value that the schema of a parameter admits."""
    name, schema = parameter["name"], parameter["schema"]
    if schema["type"] == "object":
        return {f"{name}[tier]": "gold"}
    if "enum" in schema:
        return {name: schema["enum"][-1]}
    if schema["type"] == "integer":
        return {name: str(schema.get("maximum", schema.get("minimum")))}
    return {name: "2026-11-23T10:00:00Z" if schema.get("format") == "date-time" else "x"}


async def test_every_parameter_of_the_document_is_taken(api: Api) -> None:
    await api.account("alice", 10)
    ledger = (await api.client.get("/v1/ledgers")).json()["data"][0]["id"]
    key = (await api.client.get("/v1/api_keys")).json()["data"][0]["id"]
    for _, template, operation in (one for one in operations() if one[0] == "GET"):
        path = template.replace("{account}", "@alice").replace("{api_key}", key)
        for parameter in operation.get("parameters", ()):
            if parameter["in"] != "query":
                continue
            name = parameter["name"]
            query = {"ledger": ledger} if name == "ledger" else sample(parameter)
            answer = await api.client.get(path, params=query)
            shown = (operation["operationId"], query, answer.text[:500])
            if name == "cursor":
                assert answer.json()["code"] == "invalid_cursor", shown
            else:
                assert answer.is_success, shown


def test_a_path_is_found_in_the_document() -> None:
    """What holds the answers of the other tests to the document finds the right operation."""
    for method, path, name in (
        ("GET", "/v1/accounts/@a%2Fb", "get_account"),
        ("POST", "/v1/accounts/@a/freeze", "freeze_account"),
        ("GET", "/v1/accounts/@a/entries", "list_entries"),
        ("GET", "/v1/accounts", "list_accounts"),
        ("PATCH", "/v1/accounts/x", "update_account"),
        ("DELETE", "/v1/accounts/x", None),
        ("GET", "/v1/accounts/x/y/z", None),
    ):
        found = described(method, path)
        assert (found and found["operationId"]) == name
