"""Who may reach what of an engine whose policies are enforced, and how Kubernetes reads policies."""

from typing import Any, NamedTuple

import msgspec
import pytest

from picopay_operator import names
from picopay_operator.manifests import network, postgres
from picopay_operator.manifests.context import Manifest
from picopay_operator.names import Component
from support.engines import ENGINES, context, known, manifests, templates
from support.network_policies import End, Outside, Pod, may_reach

GOLDEN = [path.stem for path in ENGINES]
NAMED: dict[str, Any] = {
    "ingressFrom": [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}
    ],
    "metricsFrom": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
            "podSelector": {"matchLabels": {"app": "prometheus"}},
        }
    ],
}
DNS = 53
OTHER_PORTS = (22, 80, 443, 4444, names.METRICS_PORT)

GATEWAY = Pod("gateways", {"app": "traefik"})
PROMETHEUS = Pod("monitoring", {"app": "prometheus"})
GRAFANA = Pod("monitoring", {"app": "grafana"})
STRANGER = Pod("elsewhere", {"app": "shop"})
NAMESERVER = Pod("kube-system", {"k8s-app": "kube-dns"})
INTERNET = Outside("203.0.113.7")

CLIENTS = (
    Component.API,
    Component.WORKER,
    Component.MIGRATION,
    Component.ADMIN_KEY,
    Component.CHECK,
)
"""Whose pods use the database."""


class Scene(NamedTuple):
    """An engine's pods, by component, and its policies."""

    pods: dict[Component, Pod]
    policies: list[Manifest]

    @property
    def neighbour(self) -> Pod:
        """Somebody else's pod in the same namespace, with the label that all of PicoPay has."""
        return Pod(self.pods[Component.API].namespace, {names.NAME_LABEL: "picopay"})

    def let_in(self, component: Component, port: int, *askers: End) -> list[End]:
        """Return those who may reach a port of a pod."""
        target = self.pods[component]
        return [asker for asker in askers if may_reach(self.policies, asker, target, port)]


def scene(golden: str, name: str | None = None, **policy: Any) -> Scene:
    """Return an engine whose policies are on; under another name, if one is given."""
    made = known(golden, networkPolicy={"enabled": True, **policy})
    metadata = msgspec.structs.replace(made.metadata, name=name or made.metadata.name)
    decided = context(msgspec.structs.replace(made, metadata=metadata))
    pods = [Pod.of(one, metadata.namespace) for one in templates(manifests(decided))]
    by_component = {Component(pod.labels[names.COMPONENT_LABEL]): pod for pod in pods}
    return Scene(by_component, network.policies(decided))


@pytest.fixture(params=GOLDEN)
def golden(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_pod_of_an_engine_is_there_and_held_by_a_policy(golden: str) -> None:
    made = scene(golden)
    own = {Component.DATABASE} if golden == "minimal" else set()
    assert made.pods.keys() == {*CLIENTS, *own}
    for component in made.pods:
        assert made.let_in(component, 4444, STRANGER, GATEWAY, made.neighbour, INTERNET) == []
        outsiders: list[End] = [STRANGER, INTERNET, made.neighbour]
        for target in outsiders:
            assert not may_reach(made.policies, made.pods[component], target, 443)


def test_the_api_is_reached_by_whom_the_engine_names(golden: str) -> None:
    made = scene(golden, **NAMED)
    everybody = (GATEWAY, PROMETHEUS, GRAFANA, STRANGER, made.neighbour, INTERNET)
    # Metrics are on the same port; a policy cannot tell paths apart.
    assert made.let_in(Component.API, names.HTTP_PORT, *everybody) == [GATEWAY, PROMETHEUS]
    for port in OTHER_PORTS:
        assert made.let_in(Component.API, port, *everybody) == []
    assert not may_reach(made.policies, GATEWAY, made.pods[Component.API], names.HTTP_PORT, "UDP")


def test_where_nobody_is_named_the_cluster_is_let_in_and_nobody_else(golden: str) -> None:
    made = scene(golden)
    cluster = [GATEWAY, PROMETHEUS, STRANGER, made.neighbour]
    for component, port in (
        (Component.API, names.HTTP_PORT),
        (Component.WORKER, names.METRICS_PORT),
    ):
        assert made.let_in(component, port, *cluster, INTERNET) == cluster


def test_metrics_of_the_worker_are_read_by_prometheus(golden: str) -> None:
    made = scene(golden, **NAMED)
    everybody = (GATEWAY, PROMETHEUS, GRAFANA, STRANGER, made.neighbour, INTERNET)
    assert made.let_in(Component.WORKER, names.METRICS_PORT, *everybody) == [PROMETHEUS]
    assert made.let_in(Component.WORKER, names.HTTP_PORT, *everybody) == []


@pytest.mark.parametrize("component", CLIENTS)
def test_what_uses_the_database_reaches_it_and_dns_and_nothing_else(
    golden: str, component: Component
) -> None:
    made = scene(golden, **NAMED)
    pod, policies = made.pods[component], made.policies
    for protocol in ("UDP", "TCP"):
        assert may_reach(policies, pod, NAMESERVER, DNS, protocol)
    wanted = {5432, 6432} if golden == "everything" else {postgres.PORT}
    for port in (5432, 6432, *OTHER_PORTS, names.HTTP_PORT):
        assert may_reach(policies, pod, INTERNET, port) is (port in wanted)
        assert may_reach(policies, pod, STRANGER, port) is (port in wanted)
        assert not may_reach(policies, pod, INTERNET, port, "UDP")


def test_a_database_is_reached_by_the_pods_of_its_engine_alone() -> None:
    made = scene("minimal")
    own = [made.pods[component] for component in CLIENTS]
    others = (GATEWAY, PROMETHEUS, STRANGER, made.neighbour, INTERNET)
    elsewhere = [pod._replace(namespace="elsewhere") for pod in own]
    found = made.let_in(Component.DATABASE, postgres.PORT, *own, *others, *elsewhere)
    assert found == own
    for port in OTHER_PORTS:
        assert made.let_in(Component.DATABASE, port, *own, *others) == []
    targets: list[End] = [NAMESERVER, INTERNET, STRANGER, *own]
    for target in targets:
        for port in (DNS, 443, postgres.PORT, names.HTTP_PORT):
            assert not may_reach(made.policies, made.pods[Component.DATABASE], target, port)


@pytest.mark.parametrize("namespace", ["shop", "elsewhere"])
def test_another_engines_pods_do_not_reach_the_database(golden: str, namespace: str) -> None:
    own, other = scene("minimal"), scene(golden, name="other")
    moved = [
        {**one, "metadata": {**one["metadata"], "namespace": namespace}} for one in other.policies
    ]
    for component, pod in other.pods.items():
        asker = pod._replace(namespace=namespace)
        for policies in (own.policies, [*own.policies, *moved]):
            database = own.pods[Component.DATABASE]
            assert not may_reach(policies, asker, database, postgres.PORT), component


def policy(**spec: Any) -> Manifest:
    return {"metadata": {"namespace": "a"}, "spec": {"podSelector": {}, **spec}}


HOME = Pod("a", {"app": "home"}, ip="10.0.0.1", ports={"web": 80})
FRIEND = Pod("a", {"app": "friend"}, ip="10.0.1.1")
AWAY = Pod("b", {"app": "friend"}, ip="10.0.2.1", namespace_labels={"team": "red"})
FRIENDS = {"podSelector": {"matchLabels": {"app": "friend"}}}
RED = {"namespaceSelector": {"matchLabels": {"team": "red"}}}


@pytest.mark.parametrize(
    ("rules", "let_in"),
    [
        ([], []),
        ([{}], [FRIEND, AWAY, INTERNET]),
        ([{"from": [FRIENDS]}], [FRIEND]),
        ([{"from": [RED]}], [AWAY]),
        ([{"from": [RED | FRIENDS]}], [AWAY]),
        ([{"from": [RED, FRIENDS]}], [FRIEND, AWAY]),
        ([{"from": [RED]}, {"from": [FRIENDS]}], [FRIEND, AWAY]),
        ([{"from": [{"namespaceSelector": {}}]}], [FRIEND, AWAY]),
        ([{"from": [{"podSelector": {}}]}], [FRIEND]),
        (
            [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.1.0/24"]}}]}],
            [AWAY, INTERNET],
        ),
        ([{"ports": [{"port": 80}]}], [FRIEND, AWAY, INTERNET]),
        ([{"ports": [{"port": "web"}]}], [FRIEND, AWAY, INTERNET]),
        ([{"ports": [{"port": 70, "endPort": 90}]}], [FRIEND, AWAY, INTERNET]),
        ([{"ports": [{"port": 81}, {"port": "other"}, {"protocol": "UDP"}]}], []),
    ],
)
def test_how_rules_are_read(rules: list[Manifest], let_in: list[End]) -> None:
    found = [policy(ingress=rules)]
    assert [one for one in (FRIEND, AWAY, INTERNET) if may_reach(found, one, HOME, 80)] == let_in


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ({"operator": "In", "values": ["home"]}, True),
        ({"operator": "NotIn", "values": ["home"]}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
    ],
)
def test_how_expressions_are_read(expression: Manifest, *, chosen: bool) -> None:
    selector = {"matchExpressions": [{"key": "app", **expression}]}
    closed = policy(podSelector=selector, policyTypes=["Ingress"])
    assert may_reach([closed], FRIEND, HOME, 80) is not chosen


def test_in_which_directions_a_policy_counts() -> None:
    assert not may_reach([policy()], FRIEND, HOME, 80)
    assert may_reach([policy()], HOME, AWAY, 80)
    assert not may_reach([policy(egress=[])], HOME, AWAY, 80)
    assert may_reach([policy(policyTypes=["Egress"], egress=[{"to": [RED]}])], HOME, AWAY, 80)
    assert may_reach([policy(policyTypes=["Egress"])], AWAY, HOME, 80)
    # Policies add up, and both ends must agree.
    closed, opened = policy(), policy(ingress=[{"from": [RED]}])
    assert may_reach([closed, opened], AWAY, HOME, 80)
    theirs = {
        "metadata": {"namespace": "b"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    }
    assert not may_reach([closed, opened, theirs], AWAY, HOME, 80)
