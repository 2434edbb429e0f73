"""How an engine is reached, protected and watched: ingress, routes, network policy, budget, monitoring.

Parts of `spec` whose objects may need APIs that a cluster does not have.
"""

from typing import Annotated

from msgspec import Meta

from picopay_operator.spec.kinds import (
    Annotations,
    Foreign,
    Hostname,
    IntOrPercent,
    Kind,
    Label,
    Labels,
    Name,
)


class IngressTls(Kind, frozen=True):
    """TLS of an Ingress."""

    secret_name: Annotated[
        Name,
        Meta(description="The Secret of the certificate; cert-manager makes it, or you do."),
    ]


class Ingress(Kind, frozen=True):
    """An Ingress in front of the API."""

    host: Annotated[Hostname, Meta(description="The host name under which the API is reached.")]
    class_name: (
        Annotated[
            Name, Meta(description="The class; the cluster's default one when it is not given.")
        ]
        | None
    ) = None
    annotations: Annotated[
        Annotations, Meta(description="For the controller, or for cert-manager.")
    ] = {}
    tls: Annotated[IngressTls, Meta(description="TLS; plain HTTP when it is not given.")] | None = (
        None
    )


class ParentReference(Kind, frozen=True):
    """A Gateway that a route belongs to."""

    name: Annotated[Name, Meta(description="The name of the Gateway.")]
    namespace: (
        Annotated[Label, Meta(description="Its namespace; the engine's when it is not given.")]
        | None
    ) = None
    section_name: Annotated[Name, Meta(description="One listener of it.")] | None = None


class HttpRoute(Kind, frozen=True):
    """An HTTPRoute of the Gateway API in front of the API."""

    parent_refs: Annotated[
        list[ParentReference],
        Meta(min_length=1, max_length=8, description="The Gateways that it belongs to."),
    ]
    hostnames: Annotated[
        list[Hostname],
        Meta(max_length=16, description="The host names; all of the Gateways' when none is given."),
    ] = []


class NetworkPolicy(Kind, frozen=True):
    """Who may talk to the pods, and whom they may talk to."""

    enabled: Annotated[bool, Meta(description="Whether there is a policy.")] = False
    ingress_from: Annotated[
        list[Foreign],
        Meta(
            max_length=16,
            description="Peers that may reach the API, as in a NetworkPolicy; everybody in the cluster"
            " when none is given.",
        ),
    ] = []
    metrics_from: Annotated[
        list[Foreign],
        Meta(max_length=16, description="Peers that may read metrics; as ingressFrom."),
    ] = []


class DisruptionBudget(Kind, frozen=True):
    """How many pods stay when nodes are drained."""

    enabled: Annotated[bool, Meta(description="Whether there is a budget.")] = True
    max_unavailable: Annotated[
        IntOrPercent,
        Meta(
            description="API pods that may be missing at a time: a number, or a share such as `25%`."
        ),
    ] = 1


class Monitor(Kind, frozen=True):
    """An object for Prometheus' operator, or for Grafana."""

    enabled: Annotated[bool, Meta(description="Whether it is made.")] = False
    labels: Annotated[Labels, Meta(description="Labels by which it is chosen.")] = {}


class ServiceMonitor(Monitor, frozen=True):
    """A ServiceMonitor of Prometheus' operator for the API and the worker."""

    interval_seconds: Annotated[
        int, Meta(ge=5, le=300, description="The time between scrapes.")
    ] = 30


class Monitoring(Kind, frozen=True):
    """What watches the engine. Where an API is missing, a condition says so."""

    service_monitor: Annotated[
        ServiceMonitor, Meta(description="Has Prometheus scrape the pods.")
    ] = ServiceMonitor()
    prometheus_rule: Annotated[Monitor, Meta(description="Alerts, each with its runbook.")] = (
        Monitor()
    )
    dashboard: Annotated[
        Monitor, Meta(description="A ConfigMap with a dashboard for Grafana's sidecar.")
    ] = Monitor()
