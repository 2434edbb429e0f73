"""How an engine is reached and watched: routes, policies, monitors. Pure.

Kinds that a cluster may lack are left out there, and a finding says so; they appear when the kind does.
"""

from msgspec import structs

from picopay_operator import names
from picopay_operator.conditions import FALSE, TRUE, Finding, Reason, Type
from picopay_operator.manifests import monitoring, network
from picopay_operator.manifests.context import Access, Context
from picopay_operator.plan.outcome import Observed, Step
from picopay_operator.resources import RESOURCES
from picopay_operator.spec.engine import Engine


def step(observed: Observed, context: Context) -> Step:
    """Return what leads to the engine and what watches it."""
    leading = [network.ingress(context), network.http_route(context)]
    watching = [
        monitoring.service_monitor(context),
        monitoring.prometheus_rule(context),
        monitoring.dashboard_map(context),
    ]
    wanted = [one for one in (*leading, *watching) if one and _is_there(observed, one["kind"])]
    monitors = [one["kind"] for one in watching if one]
    return Step(wanted=wanted, findings=[_exposed(observed), _monitored(observed, monitors)])


def policies(engine: Engine, version: str, access: Access | None, serving: Access | None) -> Step:
    """Return the network policies: they let pods and Jobs go to the database of now and of next.

    They come before anything runs: in a namespace that refuses what no policy allows, a migration would not
    reach the database otherwise.
    """
    ways = [way for way in (access, serving) if way is not None]
    if not ways:
        return Step()
    known = all(way.ports for way in ways)
    ports = sorted({port for way in ways for port in way.ports}) if known else ()
    both = structs.replace(ways[0], ports=tuple(ports))
    return Step(wanted=network.policies(Context(engine, "", version, both, "")))


def endpoint(engine: Engine) -> str:
    """Return the URL under which the API is reached from as far away as possible."""
    spec, metadata = engine.spec, engine.metadata
    if spec.ingress:
        return f"{'https' if spec.ingress.tls else 'http'}://{spec.ingress.host}"
    if spec.http_route and spec.http_route.hostnames:
        return f"https://{spec.http_route.hostnames[0]}"
    return f"http://{names.api(metadata.name)}.{metadata.namespace}.svc"


def _is_there(observed: Observed, kind: str) -> bool:
    return not RESOURCES[kind].optional or kind in observed.apis


def _exposed(observed: Observed) -> Finding:
    spec = observed.engine.spec
    if spec.http_route:
        if not _is_there(observed, "HTTPRoute"):
            message = "the Gateway API is not installed: there is no HTTPRoute"
            return Finding(Type.EXPOSED, FALSE, Reason.OPTIONAL_API_MISSING, message)
        if refusal := _refused_by_gateway(observed):
            return Finding(Type.EXPOSED, FALSE, Reason.PROGRESSING, refusal)
    if spec.ingress or spec.http_route:
        message = f"the API is reached at {endpoint(observed.engine)}"
        return Finding(Type.EXPOSED, TRUE, Reason.EXPOSED, message)
    message = f"the API is reached inside the cluster, at {endpoint(observed.engine)}"
    return Finding(Type.EXPOSED, TRUE, Reason.CLUSTER_ONLY, message)


def _refused_by_gateway(observed: Observed) -> str | None:
    """Return what a Gateway says against the route; None when none does."""
    for route in observed.of_kind("HTTPRoute"):
        for parent in route.get("status", {}).get("parents", ()):
            for condition in parent.get("conditions", ()):
                if (
                    condition.get("type") in {"Accepted", "ResolvedRefs"}
                    and condition.get("status") == "False"
                ):
                    gateway = parent.get("parentRef", {}).get("name", "")
                    return f"the Gateway {gateway} does not take the route: {condition.get('message', '')}"
    return None


def _monitored(observed: Observed, kinds: list[str]) -> Finding:
    missing = [kind for kind in kinds if not _is_there(observed, kind)]
    if missing:
        message = f"Prometheus' operator is not installed: there is no {' and no '.join(missing)}"
        return Finding(Type.MONITORED, FALSE, Reason.OPTIONAL_API_MISSING, message)
    if kinds:
        return Finding(Type.MONITORED, TRUE, Reason.APPLIED, "monitors are in place")
    return Finding(Type.MONITORED, TRUE, Reason.NOT_WANTED, "spec.monitoring asks for nothing")
