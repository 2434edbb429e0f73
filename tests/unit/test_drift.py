"""What counts as a difference between what is wanted and what is there."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picopay_operator.drift import differences, digest, marked

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=2), inner, max_size=3)
    ),
    max_leaves=12,
)


def pod(**container: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "api", "image": "a", **container}]}}


@given(JSON)
def test_what_is_as_wanted_does_not_differ(value: Any) -> None:
    assert differences({"spec": value}, {"spec": copy.deepcopy(value)}) == []


@given(st.dictionaries(st.text("xyz"), JSON), st.dictionaries(st.text("uvw", min_size=1), JSON))
def test_fields_of_others_are_theirs(wanted: dict[str, Any], others: dict[str, Any]) -> None:
    assert differences(wanted, others | wanted) == []


@given(st.dictionaries(st.text("xyz"), JSON))
def test_the_digest_does_not_depend_on_an_order(value: dict[str, Any]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("500m", "0.5"),
        ("1024Mi", "1Gi"),
        ("1", 1),
        ("1e3", "1k"),
        ("0.5Gi", "512Mi"),
    ],
)
def test_the_same_quantity_may_be_written_otherwise(wanted: str, there: Any) -> None:
    one, other = ({"resources": {"limits": {"memory": value}}} for value in (wanted, there))
    assert differences(pod(**one), pod(**other)) == []


@pytest.mark.parametrize(
    ("live", "path"),
    [
        (pod(image="b"), "spec.containers[api].image"),
        ({"spec": {"containers": []}}, "spec.containers[api]"),
        ({"spec": {}}, "spec.containers"),
        ({}, "spec"),
    ],
)
def test_what_was_changed_is_named(live: dict[str, Any], path: str) -> None:
    assert differences(pod(), live) == [path]


def test_an_injected_container_is_no_difference_and_another_argument_is() -> None:
    live = pod(args=["serve"])
    live["spec"]["containers"].insert(0, {"name": "mesh", "image": "m"})
    assert differences(pod(args=["serve"]), live) == []
    live["spec"]["containers"][1]["args"].append("--debug")
    assert differences(pod(args=["serve"]), live) == ["spec.containers[api].args"]


def test_two_entries_of_the_same_key_are_compared_by_their_order() -> None:
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    wanted = {"egress": [{"ports": ports}]}
    assert differences(wanted, copy.deepcopy(wanted)) == []


def test_what_was_applied_before_and_is_wanted_no_more_is_seen() -> None:
    before = marked({"metadata": {"name": "x"}, "spec": {"paused": True}})
    after = marked({"metadata": {"name": "x"}, "spec": {}})
    assert differences(after, before) == ["metadata.annotations.picopay.io/applied"]


@pytest.mark.parametrize(
    ("wanted", "live"),
    [
        ({"selector": {"a": "b"}}, {"selector": {"a": "b", "c": "d"}}),
        (
            {"podSelector": {"matchLabels": {"a": "b"}}},
            {"podSelector": {"matchLabels": {"a": "b", "c": "d"}}},
        ),
        (
            {"from": [{"namespaceSelector": {}}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"c": "d"}}}]},
        ),
    ],
)
def test_a_label_that_somebody_has_added_to_a_selector_is_seen(
    wanted: dict[str, Any], live: dict[str, Any]
) -> None:
    assert differences(wanted, live)
    assert differences(wanted, copy.deepcopy(wanted)) == []
