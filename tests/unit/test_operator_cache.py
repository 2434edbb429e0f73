"""What the watches have told of is kept, and an older version never takes the place of a newer one."""

from typing import Any

from picopay_operator import names
from picopay_operator.cache import Cache, Key
from picopay_operator.resources import Ref

KEY = Key("shop", "payments")
REF = Ref("Pod", "p-1")


def pod(version: int, uid: str = "u", **fields: Any) -> dict[str, Any]:
    metadata = {
        "name": "p-1",
        "namespace": "shop",
        "uid": uid,
        "resourceVersion": str(version),
        "labels": {names.ENGINE_LABEL: "payments"},
        "managedFields": [{"manager": "kubelet"}],
    }
    return {"metadata": metadata, "spec": {"containers": []}, "status": fields}


def test_an_event_that_is_late_changes_nothing() -> None:
    cache = Cache()
    assert cache.note_child("Pod", pod(5, phase="Running")) == KEY
    assert cache.note_child("Pod", pod(4, phase="Pending")) is None
    assert cache.note_child("Pod", pod(5, phase="Running")) is None
    assert cache.children(KEY)[REF]["status"] == {"phase": "Running"}
    # Another object of the same name is another object, whatever its version.
    assert cache.note_child("Pod", pod(3, uid="v", phase="Pending")) == KEY
    assert cache.children(KEY)[REF]["status"] == {"phase": "Pending"}


def test_what_nobody_looks_at_is_not_kept() -> None:
    cache = Cache()
    cache.note_child("Pod", pod(1))
    kept = cache.children(KEY)[REF]
    assert "spec" not in kept
    assert "managedFields" not in kept["metadata"]


def test_what_is_gone_is_forgotten() -> None:
    cache = Cache()
    cache.note_engine(KEY, {"metadata": {"resourceVersion": "1"}})
    cache.note_child("Pod", pod(1))
    assert cache.forget_child("Pod", pod(2)) == KEY
    assert cache.forget_child("Pod", pod(2)) == KEY
    assert cache.children(KEY) == {}
    assert (list(cache.in_namespace("shop")), cache.referring("Secret")) == ([KEY], {"shop"})
    cache.forget_engine(KEY)
    assert cache.referring("Secret") == set()


def test_objects_of_nobody_are_passed_over() -> None:
    cache = Cache()
    stranger = pod(1)
    stranger["metadata"]["labels"] = {}
    assert cache.note_child("Pod", stranger) is None
    assert cache.forget_child("Pod", stranger) is None


def test_what_is_in_no_list_is_forgotten_unless_it_is_newer() -> None:
    cache = Cache()
    cache.note_child("Pod", pod(5))
    assert cache.without("Pod", "", {("shop", "p-1")}, "9") == set()
    assert cache.without("Job", "", set(), "9") == set()
    assert cache.without("Pod", "elsewhere", set(), "9") == set()
    assert cache.without("Pod", "shop", set(), "4") == set()
    assert REF in cache.children(KEY)
    assert cache.without("Pod", "shop", set(), "5") == {KEY}
    assert REF not in cache.children(KEY)
