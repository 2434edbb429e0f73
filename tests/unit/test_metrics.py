"""Metrics: well-formed names, few labels, and one answer for several processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from picopay_api import metrics
from support.postgres import CHECKOUT

LABELS = {
    "at",
    "fault",
    "pool",
    "outcome",
    "reason",
    "route",
    "method",
    "status",
    "state",
    "revision",
}
OURS = {next(iter(metric.describe())).name: metric for metric in metrics.catalogue()}


@pytest.mark.parametrize("name", OURS)
def test_a_metric_is_well_formed(name: str) -> None:
    (family,) = OURS[name].describe()
    assert name.startswith("picopay_")
    assert name == name.lower()
    assert family.documentation.endswith(".")
    assert set(metrics.labels(OURS[name])) <= LABELS
    if family.type == "histogram":
        assert not name.endswith("_total")


def test_the_answer_is_prometheus_text_and_has_every_metric() -> None:
    body, media_type = metrics.render()
    families = {family.name for family in text_string_to_metric_families(body.decode())}
    assert set(OURS) <= families
    assert {"process_resident_memory_bytes", "python_info"} <= families
    assert media_type == "text/plain; version=0.0.4; charset=utf-8"


PROCESS = """
import sys
from picopay_api import metrics
metrics.PAYMENTS.labels(outcome="captured").inc(3)
metrics.COMMIT_SECONDS.observe(0.01)
metrics.QUEUE_COMMANDS.set(5)
metrics.READY.set(int(sys.argv[1]))
print(metrics.os.getpid(), flush=True)
sys.stdin.read()
"""
RENDER = """
import sys
from picopay_api import metrics
for pid in sys.argv[1:]:
    metrics.forget_process(int(pid))
sys.stdout.write(metrics.render()[0].decode())
"""


def samples(directory: Path, *ended: str) -> dict[str, float]:
    answer = subprocess.run(
        [sys.executable, "-c", RENDER, *ended],
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": str(CHECKOUT / "api")},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(answer.stdout)
        for sample in family.samples
        if sample.labels.get("outcome") in {None, "captured"}
    }


def test_several_processes_answer_as_one(tmp_path: Path) -> None:
    environment = {
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PYTHONPATH": str(CHECKOUT / "api"),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, ready],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for ready in ("0", "1")
    ]
    try:
        pids = [process.stdout.readline().strip() for process in processes if process.stdout]
        both = samples(tmp_path)
        processes[1].communicate()
        one = samples(tmp_path, pids[1])
    finally:
        for process in processes:
            process.communicate()
    assert both["picopay_payments_total"] == 6
    assert both["picopay_commit_seconds_count"] == 2
    assert both["picopay_queue_commands"] == 10
    assert both["picopay_ready"] == 1
    # What has ended has counted, but has nothing waiting and serves no more.
    assert one["picopay_payments_total"] == 6
    assert one["picopay_queue_commands"] == 5
    assert one["picopay_ready"] == 0


def test_without_a_shared_directory_nothing_is_forgotten() -> None:
    metrics.forget_process(1)
