"""Databases in the cluster, and what becomes of data when an engine goes."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs

from picopay_operator import names
from picopay_operator.conditions import Type
from picopay_operator.plan import plan
from picopay_operator.resources import Ref
from support.world import World, secret

POSTGRES: dict[str, Any] = {"database": {"postgres": {}}}
CLUSTER: dict[str, Any] = {"database": {"cloudNativePG": {"instances": 3}}}


def in_cluster(**spec: Any) -> World:
    world = World(POSTGRES | spec)
    world.secrets = {}
    return world


def test_a_small_database_comes_first() -> None:
    world = in_cluster()
    world.settle()
    assert Ref("StatefulSet", "payments-postgres") in world.children
    assert world.jobs() == []
    assert world.reason(Type.READY) == ("False", "DatabaseStarting")
    world.run()
    assert world.reason(Type.READY) == ("True", "Applied")
    assert world.engine().status.secrets.database == "payments-postgres"


def test_a_password_that_is_lost_is_not_replaced_by_another_one() -> None:
    world = in_cluster()
    world.run()
    world.secrets["payments-postgres"] = None
    world.settle()
    assert world.secrets["payments-postgres"] is None
    assert world.reason(Type.STALLED) == ("True", "SecretLost")
    assert Ref("StatefulSet", "payments-postgres") in world.children


@pytest.mark.parametrize("name", ["payments-postgres", "payments-admin-key"])
def test_a_secret_of_somebody_else_is_left_alone(name: str) -> None:
    world = in_cluster()
    world.secrets[name] = secret(password="theirs")
    before = world.secrets[name]
    world.settle()
    assert world.secrets[name] == before
    assert world.reason(Type.STALLED) == ("True", "AdoptionRefused")


def test_a_cluster_of_cloudnativepg_is_made_and_waited_for() -> None:
    world = World(CLUSTER)
    world.apis = frozenset()
    world.settle()
    assert world.reason(Type.READY) == ("False", "OptionalAPIMissing")
    world.apis = frozenset({"Cluster"})
    world.settle()
    assert Ref("Cluster", "payments-postgres") in world.children
    assert world.reason(Type.READY) == ("False", "DatabaseStarting")
    world.secrets["payments-postgres-app"] = secret(uri="postgresql://cnpg")
    world.secrets["payments-postgres-ca"] = secret(**{"ca.crt": "certificate"})
    world.settle()  # the address is known, and nobody answers there yet
    assert world.reason(Type.READY) == ("False", "DatabaseStarting")
    assert not [ref for ref in world.children if ref.kind == "Job"]
    world.run()
    assert world.reason(Type.READY) == ("True", "Applied")


def test_an_existing_cluster_is_used_and_its_absence_told() -> None:
    world = World({"database": {"cloudNativePG": {"clusterRef": {"name": "shared"}}}})
    world.settle()
    assert world.reason(Type.READY) == ("False", "ClusterNotFound")
    assert "Cluster" not in {ref.kind for ref in world.children}
    world.secrets["shared-app"] = secret(uri="postgresql://cnpg")
    world.run()
    assert world.reason(Type.READY) == ("True", "Applied")


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_data_goes_or_stays_as_the_policy_says(policy: str) -> None:
    world = in_cluster(deletionPolicy=policy)
    world.run()
    assert world.finalizers == [names.FINALIZER]
    owned = [seen.owned for seen in world.secrets.values() if seen]
    assert owned == [policy == "Delete"] * 2
    claims = world.children[Ref("StatefulSet", "payments-postgres")]["spec"][
        "persistentVolumeClaimRetentionPolicy"
    ]
    assert claims["whenDeleted"] == policy
    world.deleted_at = world.now
    world.settle()
    assert world.gone
    assert world.finalizers == []
    assert world.condition(Type.READY).reason == "Deleting"


def test_a_policy_that_was_changed_the_moment_before_counts() -> None:
    world = in_cluster(deletionPolicy="Delete")
    world.run()
    world.change(deletionPolicy="Retain")
    world.deleted_at = world.now
    made = world.step()
    assert made.finalizer is True
    world.settle()
    assert world.gone
    assert not [seen for seen in world.secrets.values() if seen and seen.owned]
    claims = world.children[Ref("StatefulSet", "payments-postgres")]["spec"][
        "persistentVolumeClaimRetentionPolicy"
    ]
    assert claims["whenDeleted"] == "Retain"


def test_an_engine_that_goes_before_it_came_makes_nothing() -> None:
    world = in_cluster()
    world.finalizers = [names.FINALIZER]
    world.deleted_at = world.now
    world.settle()
    assert world.gone
    assert world.children == {}
    assert world.secrets == {}


def test_an_engine_is_held_before_anything_is_made() -> None:
    world = in_cluster()
    made = world.step()
    assert made.finalizer is True
    assert made.generated


def test_data_that_cannot_be_given_up_in_time_does_not_hold_its_engine_for_ever() -> None:
    world = in_cluster()
    world.run()
    world.change(deletionPolicy="Delete")
    world.deleted_at = world.now
    # Nothing of what is asked for is done.
    for minutes, lets_go in ((0, False), (4, False), (6, True)):
        observed = structs.replace(world.observed(), now=world.now + timedelta(minutes=minutes))
        made = plan(observed)
        assert made.finalizer is not lets_go
        assert bool(made.apply or made.generated) is not lets_go
        assert (Ref("PersistentVolumeClaim", "data-payments-postgres-0") in made.delete) is lets_go


@pytest.mark.parametrize(
    ("there", "then"), [("1Gi", "5Gi"), ("20Gi", "20Gi"), ("5120Mi", "5120Mi")]
)
def test_a_volume_only_ever_grows(there: str, then: str) -> None:
    world = World({"database": {"postgres": {"storage": {"size": "5Gi"}}}})
    world.run()
    claim = Ref("PersistentVolumeClaim", "data-payments-postgres-0")
    world.children[claim] = {
        "metadata": {"name": claim.name},
        "spec": {"resources": {"requests": {"storage": there}}},
        "status": {},
    }
    world.run()
    assert world.children[claim]["spec"]["resources"]["requests"]["storage"] == then
    assert world.reason(Type.READY)[0] == "True"
