"""Who may reach whom by NetworkPolicies, as Kubernetes defines them: for where no network enforces them.

Used by the tests of an engine's policies. Covers the whole of networking.k8s.io/v1: a pod that no policy
selects for a direction is open in it; one that is selected may do what any of these policies allows.
"""

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

type Manifest = dict[str, Any]

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that every namespace has, with its name."""


class Outside(NamedTuple):
    """An address that is no pod's."""

    ip: str


class Pod(NamedTuple):
    """A pod, as far as policies look at it."""

    namespace: str
    labels: Mapping[str, str]
    ip: str = "10.0.0.1"
    ports: Mapping[str, int] = {}
    """Its containers' ports that have names."""
    namespace_labels: Mapping[str, str] = {}

    @classmethod
    def of(cls, template: Manifest, namespace: str) -> "Pod":
        """Return a pod of a template."""
        ports = {
            port["name"]: port["containerPort"]
            for container in template["spec"]["containers"]
            for port in container.get("ports", ())
            if "name" in port
        }
        return cls(namespace, template["metadata"]["labels"], ports=ports)


type End = Pod | Outside


def may_reach(
    policies: Iterable[Manifest], source: End, target: End, port: int, protocol: str = "TCP"
) -> bool:
    """Tell whether a connection comes about: the source may make it, and the target may take it."""
    found = list(policies)
    return _allows(found, "Egress", source, target, target, port, protocol) and _allows(
        found, "Ingress", target, source, target, port, protocol
    )


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Tell whether a selector of labels chooses what has these; an empty one chooses everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(one, labels) for one in selector.get("matchExpressions", ()))


def _holds(expression: Manifest, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", ())
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case other:
            raise ValueError(other)


def _allows(
    policies: Sequence[Manifest],
    direction: str,
    subject: End,
    peer: End,
    target: End,
    port: int,
    protocol: str,
) -> bool:
    """Tell whether the policies of one end allow what it does with the other one."""
    if isinstance(subject, Outside):
        return True
    isolating = [one for one in policies if _isolates(one, direction, subject)]
    field, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    return not isolating or any(
        _is_among(rule.get(peers), peer, policy["metadata"]["namespace"])
        and _is_port(rule.get("ports"), target, port, protocol)
        for policy in isolating
        for rule in policy["spec"].get(field, ())
    )


def _isolates(policy: Manifest, direction: str, pod: Pod) -> bool:
    spec = policy["spec"]
    default = ["Ingress", "Egress"] if "egress" in spec else ["Ingress"]
    return (
        policy["metadata"]["namespace"] == pod.namespace
        and direction in spec.get("policyTypes", default)
        and selects(spec["podSelector"], pod.labels)
    )


def _is_among(peers: Sequence[Manifest] | None, end: End, home: str) -> bool:
    """Tell whether a rule names one end; without peers it names everybody."""
    return not peers or any(_is_peer(peer, end, home) for peer in peers)


def _is_peer(peer: Manifest, end: End, home: str) -> bool:
    if block := peer.get("ipBlock"):
        address = ip_address(end.ip)
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(one) for one in block.get("except", ())
        )
    if isinstance(end, Outside):
        return False
    if (namespaces := peer.get("namespaceSelector")) is None:
        is_place = end.namespace == home
    else:
        labels = {NAMESPACE_NAME: end.namespace, **end.namespace_labels}
        is_place = selects(namespaces, labels)
    return is_place and selects(peer.get("podSelector", {}), end.labels)


def _is_port(ports: Sequence[Manifest] | None, target: End, port: int, protocol: str) -> bool:
    """Tell whether a rule has a port of the target; without ports it has all of them."""
    return not ports or any(
        one.get("protocol", "TCP") == protocol and _has(one, target, port) for one in ports
    )


def _has(wanted: Manifest, target: End, port: int) -> bool:
    first = wanted.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return isinstance(target, Pod) and target.ports.get(first) == port
    last: int = wanted.get("endPort") or first
    return bool(first <= port <= last)
