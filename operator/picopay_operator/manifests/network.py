"""How requests come in, and who may talk to whom: Ingress, HTTPRoute, network policies.

Used by the plan. From outside only the API proper is reached: metrics need no key, so they are left inside.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins

from picopay_operator import names
from picopay_operator.manifests import postgres
from picopay_operator.manifests.context import Context, Manifest
from picopay_operator.manifests.metadata import metadata
from picopay_operator.names import Component

PUBLIC_PATHS = ("/v1", "/health", "/docs", "/openapi.json")
"""Where requests from outside may begin."""

_OUR_JOBS = (Component.MIGRATION, Component.ADMIN_KEY, Component.CHECK)
_IN_THE_CLUSTER: tuple[Manifest, ...] = ({"namespaceSelector": {}},)
_DNS_PORT = 53


def ingress(context: Context) -> Manifest | None:
    """Return the Ingress, where an engine wants one."""
    wanted = context.engine.spec.ingress
    if wanted is None:
        return None
    backend = {"service": {"name": names.api(context.name), "port": {"name": "http"}}}
    paths = [{"path": path, "pathType": "Prefix", "backend": backend} for path in PUBLIC_PATHS]
    spec: Manifest = {"rules": [{"host": wanted.host, "http": {"paths": paths}}]}
    if wanted.class_name:
        spec["ingressClassName"] = wanted.class_name
    if wanted.tls:
        spec["tls"] = [{"hosts": [wanted.host], "secretName": wanted.tls.secret_name}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _metadata(context, annotations=wanted.annotations),
        "spec": spec,
    }


def http_route(context: Context) -> Manifest | None:
    """Return the HTTPRoute, where an engine wants one."""
    wanted = context.engine.spec.http_route
    if wanted is None:
        return None
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}} for path in PUBLIC_PATHS],
        "backendRefs": [{"name": names.api(context.name), "port": names.SERVICE_PORT}],
    }
    spec: Manifest = {
        "parentRefs": [to_builtins(parent) for parent in wanted.parent_refs],
        "rules": [rule],
    }
    if wanted.hostnames:
        spec["hostnames"] = list(wanted.hostnames)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": _metadata(context),
        "spec": spec,
    }


def policies(context: Context) -> list[Manifest]:
    """Return the policies of an engine that wants them: what they do not name is refused.

    Pods may ask DNS, and go to the ports of the database wherever it is: its address is in a Secret, and may
    be a name. They need nobody else. Some networks judge by the port behind a Service, which for a database
    in the cluster must then be the same as that in the address.
    """
    wanted = context.engine.spec.network_policy
    if not wanted.enabled:
        return []
    # The API has one port for requests and metrics: who may read the latter is let in as well.
    callers = [*wanted.ingress_from, *wanted.metrics_from] if wanted.ingress_from else []
    readers = wanted.metrics_from or _IN_THE_CLUSTER
    to_api = [_from(callers or _IN_THE_CLUSTER, names.HTTP_PORT)]
    found = [
        _policy(context, names.api(context.name), [Component.API], to_api, _egress(context)),
        _policy(
            context,
            names.worker(context.name),
            [Component.WORKER, *_OUR_JOBS],
            [_from(readers, names.METRICS_PORT)],
            _egress(context),
        ),
    ]
    if context.engine.spec.database.postgres:
        clients = {"podSelector": _pods(context, [Component.API, Component.WORKER, *_OUR_JOBS])}
        found.append(
            _policy(
                context,
                names.postgres(context.name),
                [Component.DATABASE],
                [_from([clients], postgres.PORT)],
                [],
            )
        )
    return found


def _policy(
    context: Context,
    name: str,
    components: Sequence[Component],
    ingress: list[Manifest],
    egress: list[Manifest],
) -> Manifest:
    # An empty list would be another one than the server keeps, and count as a change whenever it is applied.
    allowed = {"ingress": ingress, "egress": egress}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(context.engine, name, components[0], context.version),
        "spec": {
            "podSelector": _pods(context, components),
            "policyTypes": ["Ingress", "Egress"],
            **{direction: peers for direction, peers in allowed.items() if peers},
        },
    }


def _pods(context: Context, components: Sequence[Component]) -> Manifest:
    labels = {
        names.NAME_LABEL: names.selector(context.name, components[0])[names.NAME_LABEL],
        names.INSTANCE_LABEL: context.name,
    }
    if len(components) == 1:
        return {"matchLabels": names.selector(context.name, components[0])}
    values = [component.value for component in components]
    return {
        "matchLabels": labels,
        "matchExpressions": [{"key": names.COMPONENT_LABEL, "operator": "In", "values": values}],
    }


def _from(peers: Sequence[Any], port: int) -> Manifest:
    return {"from": list(peers), "ports": [_port(port)]}


def _egress(context: Context) -> list[Manifest]:
    # A database whose port is not known must be reached all the same.
    ports = [_port(port) for port in sorted(set(context.access.ports))] or [{"protocol": "TCP"}]
    return [{"ports": [_port(_DNS_PORT, "UDP"), _port(_DNS_PORT)]}, {"ports": ports}]


def _port(number: int, protocol: str = "TCP") -> Manifest:
    return {"port": number, "protocol": protocol}


def _metadata(context: Context, annotations: dict[str, str] | None = None) -> Manifest:
    name = names.api(context.name)
    return metadata(context.engine, name, Component.API, context.version, annotations=annotations)
