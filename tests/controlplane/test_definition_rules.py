"""The rules across fields of an engine: each refuses with its sentence, and lets the opposite pass."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from picopay_operator import crd
from support.controlplane.api_server import ApiServer, Manifest, RefusedError
from support.controlplane.engine import SMALLEST, created, engine, overlaid, refusal

POSTGRES: Manifest = {"database": {"postgres": {}}}
CLOUD_NATIVE: Manifest = {"database": {"cloudNativePG": {"instances": 3}}}
REFERRED: Manifest = {"database": {"cloudNativePG": {"clusterRef": {"name": "bank"}}}}
CA = {"name": "ca", "key": "ca.crt"}


class Case(NamedTuple):
    """What is refused with a message, and what of the same kind is not."""

    message: str
    wrong: Manifest
    right: Manifest


class Change(NamedTuple):
    """A change of an engine that is refused with a message, and one of the same kind that is not."""

    message: str
    before: Manifest
    wrong: Manifest
    right: Manifest


def variable(**fields: Any) -> Manifest:
    return overlaid(SMALLEST, {"env": [{"name": "PICOPAY_QUEUE_COMMANDS_MAX", **fields}]})


def tls(**fields: Any) -> Manifest:
    return overlaid(SMALLEST, {"database": {"tls": fields}})


def with_autoscaling(**fields: Any) -> Manifest:
    return overlaid(SMALLEST, {"autoscaling": {"maxReplicas": 5}, **fields})


def rollout(**fields: Any) -> Manifest:
    return overlaid(SMALLEST, {"rollout": fields})


SHRUNK = "a volume cannot shrink: create a new engine and restore a backup"
NOTHING_MOVES = (
    "rollout.maxSurge and rollout.maxUnavailable must not both be 0: nothing could be replaced"
)
ONE_DATABASE = (
    "exactly one of database.secretRef, database.postgres and database.cloudNativePG is needed"
)
CASES = {
    "no database": Case(ONE_DATABASE, {"database": {}}, POSTGRES),
    "two databases": Case(ONE_DATABASE, overlaid(SMALLEST, POSTGRES), CLOUD_NATIVE),
    "blue-green with autoscaling": Case(
        "the strategy BlueGreen needs a fixed number of replicas: leave autoscaling out",
        with_autoscaling(rollout={"strategy": "BlueGreen"}),
        overlaid(SMALLEST, {"rollout": {"strategy": "BlueGreen"}, "replicas": 3}),
    ),
    "fewer at most than at least": Case(
        "autoscaling.minReplicas must not be above maxReplicas",
        overlaid(SMALLEST, {"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}),
        overlaid(SMALLEST, {"autoscaling": {"minReplicas": 3, "maxReplicas": 3}}),
    ),
    "fewer at most than at least by default": Case(
        "autoscaling.minReplicas must not be above maxReplicas",
        overlaid(SMALLEST, {"autoscaling": {"maxReplicas": 1}}),
        overlaid(SMALLEST, {"autoscaling": {"maxReplicas": 2}}),
    ),
    "a cluster of its own with servers": Case(
        "clusterRef names an existing cluster: instances and storage are set there",
        overlaid(REFERRED, CLOUD_NATIVE),
        REFERRED,
    ),
    "a cluster of its own with storage": Case(
        "clusterRef names an existing cluster: instances and storage are set there",
        overlaid(REFERRED, {"database": {"cloudNativePG": {"storage": {}}}}),
        overlaid(CLOUD_NATIVE, {"database": {"cloudNativePG": {"storage": {}}}}),
    ),
    "nothing to verify with": Case(
        "mode verify-ca and verify-full need caSecretRef, the certificate to verify with",
        tls(mode="verify-full"),
        tls(mode="verify-full", caSecretRef=CA),
    ),
    "nothing to verify with, and not asked to": Case(
        "mode verify-ca and verify-full need caSecretRef, the certificate to verify with",
        tls(mode="verify-ca"),
        tls(mode="require"),
    ),
    "nothing may be more or less": Case(
        NOTHING_MOVES,
        rollout(maxSurge=0, maxUnavailable=0),
        rollout(maxSurge=0, maxUnavailable=1),
    ),
    "nothing may be more or less by a share": Case(
        NOTHING_MOVES,
        rollout(maxSurge="0%", maxUnavailable=0),
        rollout(maxSurge="25%", maxUnavailable=0),
    ),
    "nothing may be more": Case(NOTHING_MOVES, rollout(maxSurge=0), rollout(maxSurge=2)),
    "a variable without a value": Case(
        "exactly one of value and valueFrom is needed",
        variable(),
        variable(value=""),
    ),
    "a variable with two values": Case(
        "exactly one of value and valueFrom is needed",
        variable(value="1", valueFrom={"secretKeyRef": CA}),
        variable(valueFrom={"secretKeyRef": CA}),
    ),
    "a value from nowhere": Case(
        "exactly one of secretKeyRef and configMapKeyRef is needed",
        variable(valueFrom={}),
        variable(valueFrom={"configMapKeyRef": CA}),
    ),
    "a value from two places": Case(
        "exactly one of secretKeyRef and configMapKeyRef is needed",
        variable(valueFrom={"secretKeyRef": CA, "configMapKeyRef": CA}),
        variable(valueFrom={"secretKeyRef": CA}),
    ),
    "a variable of the operator": Case(
        "this variable is the operator's: it has a field of its own in spec, or cannot be changed",
        overlaid(SMALLEST, {"env": [{"name": "DATABASE_URL", "value": "postgresql://elsewhere"}]}),
        overlaid(SMALLEST, {"env": [{"name": "PICOPAY_DATABASE_URL", "value": "anything"}]}),
    ),
}
LETTERS = (
    "the name of an engine begins with a letter and has letters, digits and hyphens only:"
    " names of Services begin with it"
)
NAMES = {
    "a long name": (
        "the name of an engine has at most 40 characters: names of its objects begin with it",
        "a" * 41,
        "a" * 40,
    ),
    "a dot in a name": (
        LETTERS,
        "bank.eu",
        "bank-eu",
    ),
    "a digit before a name": (
        LETTERS,
        "1bank",
        "bank1",
    ),
}
ANOTHER_DATABASE = (
    "an engine cannot change the kind of its database: create a new engine and restore a backup"
)
CHANGES = {
    "another kind of database": Change(
        ANOTHER_DATABASE,
        SMALLEST,
        POSTGRES,
        overlaid(SMALLEST, {"database": {"secretRef": {"name": "other"}}}),
    ),
    "an engine for high availability": Change(
        ANOTHER_DATABASE,
        POSTGRES,
        CLOUD_NATIVE,
        overlaid(POSTGRES, {"database": {"postgres": {"storage": {"size": "9Gi"}}}}),
    ),
    "another PostgreSQL": Change(
        "PostgreSQL's major version cannot be changed in place: create a new engine and restore a backup",
        {"database": {"postgres": {"version": 17}}},
        {"database": {"postgres": {"version": 18}}},
        {"database": {"postgres": {"version": 17, "image": "registry.example/postgres:17.9"}}},
    ),
    "another storage class": Change(
        "the storage class of a volume cannot be changed: create a new engine and restore a backup",
        {"database": {"postgres": {"storage": {"className": "fast"}}}},
        {"database": {"postgres": {"storage": {"className": "slow"}}}},
        {"database": {"postgres": {"storage": {"className": "fast", "size": "9Gi"}}}},
    ),
    "no storage class any more": Change(
        "the storage class of a volume cannot be changed: create a new engine and restore a backup",
        {"database": {"postgres": {"storage": {"className": "fast"}}}},
        {"database": {"postgres": {"storage": {"size": "9Gi"}}}},
        {"database": {"postgres": {"storage": {"className": "fast"}}, "pool": {"size": 4}}},
    ),
    "another storage class of a cluster": Change(
        "the storage class of a volume cannot be changed: create a new engine and restore a backup",
        {"database": {"cloudNativePG": {"storage": {"className": "fast"}}}},
        {"database": {"cloudNativePG": {"storage": {"className": "slow"}}}},
        {"database": {"cloudNativePG": {"storage": {"className": "fast", "size": "9Gi"}}}},
    ),
    "a smaller volume": Change(
        SHRUNK,
        {"database": {"postgres": {"storage": {"size": "2Gi"}}}},
        {"database": {"postgres": {"storage": {"size": "2047Mi"}}}},
        {"database": {"postgres": {"storage": {"size": "3e9"}}}},
    ),
    "a smaller volume by default": Change(
        SHRUNK,
        {"database": {"postgres": {"storage": {"size": 6_000_000_000}}}},
        {"database": {"postgres": {}}},
        {"database": {"postgres": {"storage": {"size": "6G"}}}},
    ),
    "smaller volumes of a cluster": Change(
        SHRUNK,
        {"database": {"cloudNativePG": {"storage": {"size": "10Gi"}}}},
        {"database": {"cloudNativePG": {"storage": {"size": "9Gi"}}}},
        {"database": {"cloudNativePG": {"storage": {"size": "11Gi"}}}},
    ),
    "a cluster of somebody else": Change(
        "an engine cannot move from a cluster of its own to another one, or back:"
        " create a new engine and restore a backup",
        CLOUD_NATIVE,
        REFERRED,
        {"database": {"cloudNativePG": {"instances": 5}}},
    ),
}


@pytest.mark.usefixtures("definition")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_contradicts_itself_is_refused(api_server: ApiServer, case: Case) -> None:
    assert case.message in await refusal(api_server, engine(case.wrong))
    await created(api_server, engine(case.right))


@pytest.mark.usefixtures("definition")
@pytest.mark.parametrize(("message", "wrong", "right"), NAMES.values(), ids=NAMES)
async def test_names_that_objects_could_not_begin_with_are_refused(
    api_server: ApiServer, message: str, wrong: str, right: str
) -> None:
    assert message in await refusal(api_server, engine(name=wrong))
    await created(api_server, engine(name=right))


@pytest.mark.usefixtures("definition")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_would_lose_data_is_refused(api_server: ApiServer, change: Change) -> None:
    before = await api_server.create(engine(change.before))
    with pytest.raises(RefusedError) as refused:
        await api_server.replace({**before, "spec": change.wrong})
    assert change.message in refused.value.message
    await api_server.replace({**before, "spec": change.right})


def test_every_rule_is_tried_where_it_stands() -> None:
    schema = crd.definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    tried = [(case.message, case.wrong) for case in CASES.values()]
    tried += [(change.message, change.wrong) for change in CHANGES.values()]
    named = {message for message, _, _ in NAMES.values()}
    rules = [(place, rule["message"]) for place, rule in _rules(schema)]
    assert {message for _, message in rules} == {message for message, _ in tried} | named
    for place, message in rules:
        assert message in named or any(
            message == told and _is_there({"spec": wrong}, place) for told, wrong in tried
        ), (place, message)


def _rules(schema: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Manifest]]:
    """Yield all rules of a schema, each with the fields that lead to it."""
    for rule in schema.get("x-kubernetes-validations", ()):
        yield place, rule
    for name, part in schema.get("properties", {}).items():
        yield from _rules(part, (*place, name))
    if "items" in schema:
        yield from _rules(schema["items"], place)


def _is_there(given: Any, place: tuple[str, ...]) -> bool:
    """Tell whether an engine has a field, in an element of a list as well."""
    if isinstance(given, list):
        return any(_is_there(one, place) for one in given)
    return not place or (place[0] in given and _is_there(given[place[0]], place[1:]))
