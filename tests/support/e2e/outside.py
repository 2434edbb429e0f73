"""A PostgreSQL of somebody else's in the namespace of an engine: a database outside, as the operator sees it.

Used by the end-to-end tests with `database.secretRef`.
"""

from picopay_operator.manifests.postgres import DATABASE, PORT, USER
from support.e2e.kube import PATIENCE_S, Kube, Manifest

NAME = "outside"
SECRET = "picopay-secrets"
VERSION = 18
_DATA = "/var/lib/postgresql"


class Outside:
    """A server with one database, on a volume."""

    def __init__(self, kube: Kube, image: str) -> None:
        """`image` is that of PostgreSQL, without a tag."""
        self._kube = kube
        self._image = f"{image}:{VERSION}"
        self.user = USER
        self.password = "the first one"

    def start(self) -> None:
        """Start it, and put its address where the guide says."""
        self._kube.apply(self._service(), self._server())
        self.serves()
        self.tell_engine()

    def tell_engine(self) -> None:
        """Put its address into the Secret: to make it and to change it are the same."""
        password = self.password.replace(" ", "%20")
        address = f"postgresql://{self.user}:{password}@{NAME}:{PORT}/{DATABASE}?sslmode=disable"
        metadata = {"name": SECRET}
        text = {"database-url": address}
        self._kube.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": text}
        )

    def crash(self) -> None:
        """Have it end without a word to anybody, so that it has to recover from its log.

        Its pod is not deleted by force: the next one would work on the data beside it.
        """
        self._kube("exec", f"{NAME}-0", "--", "pg_ctl", "stop", "--mode=immediate", "--no-wait")

    def serves(self) -> None:
        """Wait until it serves."""
        self._kube("rollout", "status", f"statefulset/{NAME}", f"--timeout={PATIENCE_S:.0f}s")

    def change_password(self, password: str) -> None:
        """Give its user another password."""
        self.run(f"ALTER ROLE {USER} PASSWORD '{password}'")
        self.password = password

    def take_turns(self, user: str, password: str) -> None:
        """Have another role that is the first one by another name; both passwords are valid."""
        self.run(f"CREATE ROLE {user} LOGIN PASSWORD '{password}' IN ROLE {USER}")
        self.run(f"ALTER ROLE {user} SET role = '{USER}'")
        self.user, self.password = user, password

    def run(self, statement: str) -> str:
        """Run a statement; return what psql prints."""
        psql = ("psql", f"--username={USER}", f"--dbname={DATABASE}", "--host=/var/run/postgresql")
        return self._kube("exec", f"{NAME}-0", "--", *psql, "-Atc", statement)

    def _service(self) -> Manifest:
        spec = {"clusterIP": "None", "selector": {"app": NAME}, "ports": [{"port": PORT}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}, "spec": spec}

    def _server(self) -> Manifest:
        closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        told = {
            "POSTGRES_USER": USER,
            "POSTGRES_DB": DATABASE,
            "POSTGRES_PASSWORD": self.password,
            "PGDATA": f"{_DATA}/data",
        }
        container = {
            "name": "postgres",
            "image": self._image,
            "env": [{"name": name, "value": value} for name, value in told.items()],
            "readinessProbe": {
                "exec": {"command": ["pg_isready", "-h", "127.0.0.1", "-U", USER]},
                "periodSeconds": 1,
            },
            "securityContext": closed,
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
            "volumeMounts": [{"name": "data", "mountPath": _DATA}],
        }
        user = {
            "runAsNonRoot": True,
            "runAsUser": 999,
            "runAsGroup": 999,
            "fsGroup": 999,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        claim = {
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        spec = {
            "serviceName": NAME,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "securityContext": user,
                    "containers": [container],
                },
            },
            "volumeClaimTemplates": [claim],
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": NAME},
            "spec": spec,
        }
