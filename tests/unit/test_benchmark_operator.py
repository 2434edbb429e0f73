"""The operator's benchmark: how what was measured is judged and told, and when an engine came to what."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from benchmarks import operator_results
from benchmarks.measures import rows
from benchmarks.operator_bench import read_options
from benchmarks.operator_fleet import Engine, Fleet, Moment, fleet
from benchmarks.operator_results import MEASURES, Ground, Plan, Result
from picopay_operator import names
from support.controlplane.api_server import ApiServer, Manifest

RESULT = Result(
    began_at=datetime(2030, 1, 2, 3, 4, tzinfo=UTC),
    took_s=1,
    ground=Ground(cpus=2, python="3.12", kubernetes="1.37", picopay="1", load_before=0),
    plan=Plan(engines=300, namespaces=10, starts=3, idle_s=60),
    values={"alone_job": [0.5, 3, 0.25], "writes": [1], "fleet_ready": [90], "kubelet": []},
)
ONE = Engine("bench-0", "engine-0")


def test_a_measure_is_judged_by_its_median() -> None:
    assert [(row[0], *row[2:]) for row in rows(MEASURES, RESULT)] == [
        (MEASURES["alone_job"].what, "1", 0.5, 0.25, 3, "yes"),
        (MEASURES["fleet_ready"].what, "", 90, 90, 90, ""),
        (MEASURES["writes"].what, "0", 1, 1, 1, "no"),
    ]


def test_a_page_is_made_from_a_file_and_always_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "result.json"
    RESULT.write(file)
    assert Result.read(file) == RESULT
    assert operator_results.main([str(file), "--into", str(tmp_path)]) == 0
    page = tmp_path / operator_results.PAGE
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_text(encoding="utf-8") == operator_results.page(RESULT)
    assert "300 engines in 10 namespaces" in operator_results.text(RESULT)


def test_engines_are_spread_over_namespaces() -> None:
    assert fleet(3, 2) == [ONE, Engine("bench-1", "engine-1"), Engine("bench-0", "engine-2")]


def test_options_have_defaults_and_are_checked() -> None:
    assert read_options([]) == (RESULT.plan, None)
    plan, output = read_options(["--engines", "30", "--output", "there.json"])
    assert (plan.engines, output) == (30, Path("there.json"))
    with pytest.raises(SystemExit):
        read_options(["--engines", "0"])


async def test_an_engine_is_followed_through_what_is_made_for_it() -> None:
    def made(name: str, condition: str = "", status: str = "True") -> Manifest:
        labels = {names.ENGINE_LABEL: ONE.name}
        conditions = [{"type": condition, "status": status}] if condition else []
        return {
            "metadata": {"name": name, "namespace": ONE.namespace, "labels": labels},
            "status": {"conditions": conditions},
        }

    async with httpx.AsyncClient() as http:
        seen = Fleet(ApiServer(http, "default"))
    job, pair = f"{ONE.name}-migrate-0", (Moment.MIGRATES, Moment.MIGRATED)
    seen.see_job(made(job))
    seen.see_job(made(f"{ONE.name}-key-0", "Complete"))
    seen.see_job(made(job, "Complete", "False"))
    with pytest.raises(KeyError):
        seen.between(*pair, [ONE])
    seen.see_job(made(job, "Complete"))
    seen.see_deployment(made(names.api(ONE.name)))
    seen.see_engine(made(ONE.name, "Ready"))
    moments = [*pair, Moment.DEPLOYED, Moment.READY]
    taken = [seen.between(moments[0], later, [ONE])[0] for later in moments]
    assert taken == sorted(taken)
    seen.see_job(made(job, "Complete"))  # told again, it counts no more
    assert seen.between(*pair, [ONE]) == [taken[1]]


async def test_what_the_played_kubelet_takes_is_seen() -> None:
    async with httpx.AsyncClient() as http:
        seen = Fleet(ApiServer(http, "default"))
    pod: Manifest = {"metadata": {"uid": "1"}, "spec": {}}
    for change in ({}, {"spec": {"nodeName": "node-1"}}, {"status": {"podIP": "10.244.0.1"}}) * 2:
        seen.see_pod(pod := pod | change)
    assert len(seen.shown_s) == 1
