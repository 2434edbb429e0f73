"""The database of an engine: an address from a Secret, a small server in the cluster, or CloudNativePG.

The part `spec.database`, and `spec.migrations`, which says how its schema is changed.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, field

from picopay_operator.spec.kinds import (
    Kind,
    LocalReference,
    Name,
    Quantity,
    Resources,
    Rule,
    Seconds,
    SecretKey,
    SecretReference,
)

_ONE_OF = "[has(self.secretRef), has(self.postgres), has(self.cloudNativePG)].filter(x, x).size()"


class DatabaseSecret(Kind, frozen=True):
    """The key of a Secret that holds the address of a database."""

    name: Annotated[Name, Meta(description="The name of the Secret, in the engine's namespace.")]
    key: Annotated[
        SecretKey,
        Meta(
            description="The key whose value is the address: `postgresql://user:password@host:5432/"
            "database?sslmode=verify-full`, or the JSON that RDS keeps in Secrets Manager."
        ),
    ] = "database-url"


class Storage(Kind, frozen=True):
    """A volume for data."""

    rules = (
        Rule(
            "has(self.className) == has(oldSelf.className)"
            " && (!has(self.className) || self.className == oldSelf.className)",
            "the storage class of a volume cannot be changed: create a new engine and restore a backup",
        ),
        Rule(
            "!has(self.size) || !has(oldSelf.size)"
            " || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
            "a volume cannot shrink: create a new engine and restore a backup",
        ),
    )

    size: Annotated[
        Quantity, Meta(description="How large the volume is. It can grow, if its class allows it.")
    ] = "5Gi"
    class_name: (
        Annotated[
            Name,
            Meta(description="The storage class; the cluster's default one when it is not given."),
        ]
        | None
    ) = None


class Postgres(Kind, frozen=True):
    """One small PostgreSQL server in the cluster, without a standby and without backups.

    For development and staging. Its password is generated; its volume outlives the engine unless
    `deletionPolicy` is `Delete`.
    """

    rules = (
        Rule(
            "self.version == oldSelf.version",
            "PostgreSQL's major version cannot be changed in place: create a new engine and restore a backup",
        ),
    )

    version: Annotated[
        int,
        Meta(ge=15, le=18, description="The major version of PostgreSQL. It cannot be changed."),
    ] = 18
    image: (
        Annotated[
            str,
            Meta(
                max_length=512,
                description="Another image of PostgreSQL, of the same major version: one that is made"
                " from the official one, whose entry point is used.",
            ),
        ]
        | None
    ) = None
    storage: Annotated[Storage, Meta(description="The volume of its data.")] = Storage()
    resources: Annotated[Resources, Meta(description="What its container may use.")] = Resources(
        requests={"cpu": "250m", "memory": "256Mi"}, limits={"memory": "1Gi"}
    )


class CloudNativePG(Kind, frozen=True):
    """A cluster of CloudNativePG, with standbys: an existing one, or one that is created."""

    rules = (
        Rule(
            "!has(self.clusterRef) || (!has(self.instances) && !has(self.storage))",
            "clusterRef names an existing cluster: instances and storage are set there",
        ),
        Rule(
            "has(self.clusterRef) == has(oldSelf.clusterRef)",
            "an engine cannot move from a cluster of its own to another one, or back:"
            " create a new engine and restore a backup",
        ),
    )

    cluster_ref: (
        Annotated[
            LocalReference,
            Meta(description="An existing `Cluster` in the engine's namespace."),
        ]
        | None
    ) = None
    instances: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=9,
                description="Servers of a cluster to be created, 3 when it is not given: the primary and"
                " standbys. A payment is answered when one of the standbys has it, too; with 2, payments"
                " are answered 503 while either of them is away. CloudNativePG 1.28 or newer is needed.",
            ),
        ]
        | None
    ) = None
    storage: (
        Annotated[
            Storage, Meta(description="The volume of each server of a cluster to be created.")
        ]
        | None
    ) = None


class TlsMode(StrEnum):
    """How far the server of the database is trusted, as libpq's sslmode."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class DatabaseTls(Kind, frozen=True):
    """TLS between the engine and its database."""

    rules = (
        Rule(
            "!self.mode.startsWith('verify') || has(self.caSecretRef)",
            "mode verify-ca and verify-full need caSecretRef, the certificate to verify with",
        ),
    )

    mode: Annotated[
        TlsMode,
        Meta(description="As libpq's `sslmode`; it takes the place of the one in the address."),
    ] = TlsMode.REQUIRE
    ca_secret_ref: (
        Annotated[
            SecretReference,
            Meta(description="The certificate of the authority that has signed the server's."),
        ]
        | None
    ) = None


class Pool(Kind, frozen=True):
    """Connections of each API process."""

    size: Annotated[
        int,
        Meta(
            ge=3,
            le=100,
            description="Connections that one API process opens and keeps. All processes together must stay"
            " below the server's max_connections, or the condition ConnectionBudget says so.",
        ),
    ] = 8


class Database(Kind, frozen=True):
    """Where the ledger is: exactly one of `secretRef`, `postgres` and `cloudNativePG`."""

    rules = (
        Rule(
            f"{_ONE_OF} == 1",
            "exactly one of database.secretRef, database.postgres and database.cloudNativePG is needed",
        ),
        Rule(
            "has(self.secretRef) == has(oldSelf.secretRef) && has(self.postgres) == has(oldSelf.postgres)"
            " && has(self.cloudNativePG) == has(oldSelf.cloudNativePG)",
            "an engine cannot change the kind of its database: create a new engine and restore a backup",
        ),
    )

    secret_ref: (
        Annotated[
            DatabaseSecret,
            Meta(description="A database outside: RDS, Cloud SQL, any PostgreSQL from 15 on."),
        ]
        | None
    ) = None
    postgres: (
        Annotated[
            Postgres,
            Meta(
                description="One small server in the cluster, for development and staging: `{}` will do."
            ),
        ]
        | None
    ) = None
    cloud_native_pg: (
        Annotated[
            CloudNativePG,
            Meta(description="A cluster of CloudNativePG, for high availability."),
        ]
        | None
    ) = field(default=None, name="cloudNativePG")
    migration_secret_ref: (
        Annotated[
            DatabaseSecret,
            Meta(
                description="The address for migrations: as the owner of the tables, and directly, where"
                " the other one goes through a pooler. The same when it is not given.",
            ),
        ]
        | None
    ) = None
    pool: Annotated[Pool, Meta(description="Connections of each API process.")] = Pool()
    tls: (
        Annotated[
            DatabaseTls,
            Meta(description="TLS to the database; what the address says when it is not given."),
        ]
        | None
    ) = None


class MigrationPolicy(StrEnum):
    """Who decides that the schema changes."""

    AUTOMATIC = "Automatic"
    APPROVAL = "Approval"
    MANUAL = "Manual"


class Migrations(Kind, frozen=True):
    """How the schema of the database follows the version."""

    policy: Annotated[
        MigrationPolicy,
        Meta(
            description="Automatic: migrate when a version wants it. Approval: the same, but a plan that"
            " destroys something waits for the annotation picopay.io/approve-plan with its hash. Manual:"
            " every plan waits for it.",
        ),
    ] = MigrationPolicy.APPROVAL
    backoff_limit: Annotated[
        int, Meta(ge=0, le=10, description="How often a failed migration is tried again.")
    ] = 3
    timeout_seconds: Annotated[
        Seconds, Meta(description="How long one migration may take with all its attempts.")
    ] = 1_800
