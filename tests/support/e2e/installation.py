"""The operator on the cluster of the end-to-end tests: installed with helm, as the guide says.

Used by the fixtures in tests/e2e.
"""

from typing import Any

from picopay_operator import names
from support.e2e.kube import PATIENCE_S, Kube, until
from support.e2e.plugin import Options
from support.postgres import CHECKOUT

NAMESPACE = "picopay-system"
RELEASE = "picopay-operator"
DEFINITION = f"{names.PLURAL}.{names.GROUP}"
_CHART = str(CHECKOUT / "charts" / "picopay-operator")


class OccupiedError(Exception):
    """Somebody uses PicoPay on this cluster already."""


class Installation:
    """A release of the operator's chart."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.kube = Kube(options.context, NAMESPACE)

    @property
    def api_image(self) -> str:
        """The repository of the API's image."""
        return f"{self.options.repository}/picopay-api"

    def install(self, *values: str) -> None:
        """Install it, or change it; wait until its pods are ready.

        Raises:
            CommandError: helm has failed.
        """
        images = (
            f"image.repository={self.options.repository}/picopay-operator",
            f"apiImage.repository={self.api_image}",
            f"postgresImage={self.options.postgres_image}",
        )
        told = [word for value in (*images, *values) for word in ("--set", value)]
        # helm 4 calls it so, and helm 3 an upgrade with --install.
        self.kube.helm("upgrade", "--install", RELEASE, _CHART, *told, "--wait", "--timeout=3m")

    def uninstall(self) -> None:
        """Take it away; the definition stays, and so do engines."""
        self.kube.helm("uninstall", RELEASE, "--wait", "--timeout=3m")

    def demand_room(self) -> None:
        """See to it that nobody else uses PicoPay here.

        Raises:
            OccupiedError: somebody does.
        """
        if self.kube.exists("customresourcedefinition", DEFINITION):
            raise OccupiedError(
                f"{self.options.context} has PicoPay already; the tests want a cluster without it"
            )

    def clear(self) -> None:
        """Remove the operator, all engines' definition, and its namespace."""
        if self.kube.find("namespace", NAMESPACE):
            if self.kube.find("deployment", RELEASE):
                self.uninstall()
            self.kube("delete", "namespace", NAMESPACE, "--timeout=2m")
        gone = ("--ignore-not-found", "--timeout=3m")
        self.kube("delete", "customresourcedefinition", DEFINITION, *gone)

    def pods(self) -> list[Any]:
        """Return the operator's pods that are not about to end."""
        found = self.kube.list("pod", "app.kubernetes.io/name=picopay-operator")
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def leader(self) -> str:
        """Return the name of the pod that works."""

        def held() -> str:
            lease = self.kube.find("lease", RELEASE) or {"spec": {}}
            holder = str(lease["spec"].get("holderIdentity") or "")
            return holder if holder in {pod["metadata"]["name"] for pod in self.pods()} else ""

        return until(held, "a leader", PATIENCE_S)
