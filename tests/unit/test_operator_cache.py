"""What the watches have told of is kept, and an older version never takes the place of a newer one."""

from typing import Any

from picopay_operator import names
from picopay_operator.cache import Cache, Key, is_let_go
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
    one = pod(1)
    one["metadata"]["annotations"] = {names.IMAGE: "picopay:1", "sidecar.example/status": "{}"}
    cache.note_child("Pod", one)
    kept = cache.children(KEY)[REF]
    assert "spec" not in kept
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {names.IMAGE: "picopay:1"}


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


def test_what_nobody_looks_at_is_no_news() -> None:
    cache = Cache()
    scaler: dict[str, Any] = pod(1, currentReplicas=2) | {"spec": {"maxReplicas": 3}}
    assert cache.note_child("HorizontalPodAutoscaler", scaler) == KEY
    later: dict[str, Any] = pod(2, currentReplicas=3) | {"spec": {"maxReplicas": 3}}
    assert cache.note_child("HorizontalPodAutoscaler", later) is None
    changed: dict[str, Any] = pod(3, currentReplicas=3) | {"spec": {"maxReplicas": 4}}
    assert cache.note_child("HorizontalPodAutoscaler", changed) == KEY
    # Of others the status counts; their version alone does not.
    assert cache.note_child("Job", pod(1, failed=1)) == KEY
    assert cache.note_child("Job", pod(2, failed=1)) is None
    assert cache.note_child("Job", pod(3, failed=2)) == KEY


def test_an_engine_is_news_when_it_asks_for_something_else() -> None:
    cache = Cache()

    def engine(version: int, **parts: Any) -> dict[str, Any]:
        return {"metadata": {"resourceVersion": str(version)}, **parts}

    assert cache.note_engine(KEY, engine(1, spec={"replicas": 1}))
    assert not cache.note_engine(KEY, engine(2, spec={"replicas": 1}, status={"replicas": 1}))
    assert cache.engines[KEY]["status"] == {"replicas": 1}
    assert cache.note_engine(KEY, engine(3, spec={"replicas": 2}))


def test_a_child_without_its_label_is_forgotten_and_its_engine_told() -> None:
    cache = Cache()
    cache.note_child("Pod", pod(3))
    bare, late = pod(4), pod(2)
    bare["metadata"]["labels"], late["metadata"]["labels"] = {}, {}
    assert cache.note_child("Pod", late) is None
    assert REF in cache.children(KEY)
    assert cache.note_child("Pod", bare) == KEY
    assert cache.children(KEY) == {}
    # And one that was given to another engine is told to that from which it was taken.
    cache.note_child("Pod", pod(5))
    moved = pod(6)
    moved["metadata"]["labels"] = {names.ENGINE_LABEL: "other"}
    assert cache.note_child("Pod", moved) == KEY
    assert cache.children(KEY) == {}
    assert REF in cache.children(Key("shop", "other"))
    # A watch of a label tells that an object is gone when it has lost that, by what it is then.
    gone = pod(7)
    gone["metadata"]["labels"] = {}
    assert cache.forget_child("Pod", gone) == Key("shop", "other")


def test_namespaces_whose_engines_were_let_go_are_not_followed() -> None:
    cache = Cache()
    metadata = {"finalizers": [names.FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    cache.note_engine(KEY, {"metadata": {"resourceVersion": "1", **metadata}})
    assert cache.referring("Secret") == {"shop"}
    assert list(cache.staying("shop")) == []
    metadata["finalizers"] = ["example.com/other"]
    cache.note_engine(KEY, {"metadata": {"resourceVersion": "2", **metadata}})
    assert cache.referring("Secret") == set()


def test_an_engine_that_was_let_go_is_known_as_such_before_the_watch_tells() -> None:
    cache = Cache()
    metadata = {
        "uid": "u",
        "resourceVersion": "7",
        "finalizers": [names.FINALIZER, "example.com/other"],
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }
    cache.note_let_go(KEY, "u")  # it is gone already
    cache.note_engine(KEY, {"metadata": metadata})
    cache.note_let_go(KEY, "v")  # that was another one of its name
    assert not is_let_go(cache.engines[KEY])
    cache.note_let_go(KEY, "u")
    assert is_let_go(cache.engines[KEY])
    assert not cache.note_engine(KEY, {"metadata": metadata})
    assert is_let_go(cache.engines[KEY])


def test_config_maps_are_followed_where_engines_refer_to_any() -> None:
    cache = Cache()
    plain = [{"name": "A", "value": "1"}]
    cache.note_engine(KEY, {"metadata": {"resourceVersion": "1"}, "spec": {"env": plain}})
    assert cache.referring("ConfigMap") == set()
    referring = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a"}}}]
    cache.note_engine(KEY, {"metadata": {"resourceVersion": "2"}, "spec": {"env": referring}})
    assert cache.referring("ConfigMap") == {"shop"}


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
