"""The cluster's benchmark: what is made of reports and of a kubelet's figures, its options, and its page."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from benchmarks import cluster_results
from benchmarks.client import Report
from benchmarks.cluster_bench import PARTS, read_options
from benchmarks.cluster_ground import is_ready
from benchmarks.cluster_rest import Usage, millicores, usage_in
from benchmarks.cluster_results import MEASURES, Ground, Plan, Result
from benchmarks.cluster_speed import compared, failures
from benchmarks.measures import rows
from benchmarks.servers import BenchmarkError

RESULT = Result(
    began_at=datetime(2030, 1, 2, 3, 4, tzinfo=UTC),
    took_s=1,
    ground=Ground(
        cpus=["2", "4"],
        kubernetes="1.37",
        python="3.12",
        image_python="3.13",
        picopay="1",
        load_before=0,
    ),
    plan=Plan(parts=list(PARTS), rounds=5, seconds=10, rest_s=60),
    values={"ratio": [0.5, 0.75, 1], "update_failed": [1], "leader": []},
)
REPORT = Report(
    statuses={201: 100},
    uncertain=0,
    lost=0,
    count=80,
    refused=0,
    sent=100,
    unsent=0,
    seconds=4,
    average_ms=1,
    p50_ms=1,
    p99_ms=2,
    max_ms=3,
    cpu_s=1,
)
SUMMARY = {
    "pods": [
        {"podRef": {"namespace": "other", "name": "pod-1"}, "containers": []},
        {
            "podRef": {"namespace": "here", "name": "pod-1"},
            "containers": [
                {
                    "cpu": {"time": "2030-01-02T03:04:05Z", "usageCoreNanoSeconds": 7_000_000},
                    "memory": {"rssBytes": 2, "workingSetBytes": 3},
                }
            ],
        },
    ]
}


def test_two_reports_of_a_round_make_a_ratio() -> None:
    outside = msgspec.structs.replace(REPORT, count=160, p99_ms=1)
    assert compared(REPORT, outside) == {
        "inside": 20,
        "outside": 40,
        "ratio": 0.5,
        "inside_p99": 2,
        "outside_p99": 1,
    }


def test_what_failed_is_everything_but_a_payment() -> None:
    assert failures(REPORT) == {}
    bad = msgspec.structs.replace(REPORT, statuses={201: 9, 503: 2, 500: 1}, lost=3)
    assert failures(bad) == {"answers 503": 2, "answers 500": 1, "no answer": 3}


def test_processor_time_is_that_between_two_looks_of_the_kubelet() -> None:
    before = usage_in(SUMMARY, "here", "pod-1")
    assert before == Usage(datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), 7_000_000, 2, 3)
    after = Usage(datetime(2030, 1, 2, 3, 4, 15, tzinfo=UTC), 57_000_000, 2, 3)
    assert millicores(before, after) == 5  # 50 ms in 10 s
    with pytest.raises(BenchmarkError, match="longer"):
        millicores(before, before)


def test_a_pod_is_ready_when_it_says_so() -> None:
    assert not is_ready({"status": {}})
    conditions = [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}]
    assert not is_ready({"status": {"conditions": conditions}})
    assert is_ready({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})


def test_options_have_defaults_and_are_checked() -> None:
    asked = read_options([])
    assert (asked.plan, asked.permitted, asked.output) == (RESULT.plan, None, None)
    some = read_options(["--quick", "--only", "rest", "--only", "speed", "--rounds", "2"])
    assert some.plan == Plan(parts=["speed", "rest"], rounds=2, seconds=3, rest_s=30)
    for wrong in (["--only", "nothing"], ["--rounds", "0"], ["--rest-s", "19"]):
        with pytest.raises(SystemExit):
            read_options(wrong)


def test_a_page_is_made_from_a_file_and_always_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    RESULT.write(file)
    assert Result.read(file) == RESULT
    assert cluster_results.main([str(file), "--into", str(tmp_path)]) == 0
    page = tmp_path / cluster_results.PAGE
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_text(encoding="utf-8") == cluster_results.page(RESULT)
    assert "Nodes: 2, with 2 + 4 CPUs" in cluster_results.text(RESULT)


def test_what_was_measured_stands_beside_its_goal() -> None:
    assert [(row[0], *row[2:]) for row in rows(MEASURES, RESULT)] == [
        (MEASURES["ratio"].what, "", 0.75, 0.5, 1, ""),
        (MEASURES["update_failed"].what, "0", 1, 1, 1, "no"),
    ]
