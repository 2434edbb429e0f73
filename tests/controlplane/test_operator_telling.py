"""What a process of the operator tells of itself and of its engines: lines of JSON, and metrics."""

import json
from base64 import b64decode
from datetime import datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from picopay_operator.conditions import Type
from picopay_operator.logs import Event
from support.controlplane.api_server import ApiServer
from support.controlplane.operating import NAME, Case
from support.controlplane.operator_process import OperatorProcess, operator_process
from support.controlplane.player import Player
from support.controlplane.servers import ControlPlane
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("definition")

_PASSWORD = "nobody-may-read-this"
_OF_AN_ENGINE = {"namespace", "engine"}


async def samples(process: OperatorProcess) -> dict[tuple[str, str], float]:
    """Return the metrics of a process with one engine, by name and by what is left of their labels."""
    found = {}
    for family in text_string_to_metric_families(await process.metrics()):
        for sample in family.samples:
            rest = [value for name, value in sample.labels.items() if name not in _OF_AN_ENGINE]
            found[sample.name, "".join(rest)] = sample.value
    return found


async def test_a_process_tells_what_it_does_and_no_secret(
    control_plane: ControlPlane, api_server: ApiServer, player: Player, tmp_path: Path
) -> None:
    case = Case(api_server, player)
    async with operator_process(
        control_plane, api_server.namespace, "operator-1", tmp_path
    ) as process:
        await eventually(process.leads)
        await case.secret(database_url=f"postgresql://picopay:{_PASSWORD}@db/picopay")
        await case.apply()
        await case.ready()
        told = await samples(process)
        conditions = await case.conditions()
        numbers = {"True": 1, "False": 0, "Unknown": -1}
        for kind in Type:
            shown = told["picopay_operator_engine_condition", kind.value]
            assert shown == numbers[conditions[kind]["status"]], kind
        assert told["picopay_operator_engines", ""] == 1
        assert told["picopay_operator_queue_depth", ""] == 0
        assert told["picopay_operator_reconciles_total", "done"] > 1
        assert told["picopay_operator_reconcile_seconds_count", ""] > 1
        assert told["picopay_operator_applied_total", "Deployment"] >= 2
        assert 0 <= told["picopay_operator_migration_seconds", ""] < 60
        assert 0 <= told["picopay_operator_last_event_age_seconds", ""] < 60

        await api_server.delete("PicoPayEngine", NAME)

        async def is_forgotten() -> bool:
            left = {name for name, _ in await samples(process)}
            return not left & {
                "picopay_operator_engine_condition",
                "picopay_operator_migration_seconds",
            }

        await eventually(is_forgotten)
        assert await process.stop() == 0
    key = await api_server.get("Secret", f"{NAME}-admin-key")
    text = (tmp_path / "operator-1.log").read_text(encoding="utf-8")
    for value in (_PASSWORD, *(b64decode(one).decode() for one in key["data"].values())):
        assert value not in text
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert {"event", "level", "logger", "timestamp"} <= line.keys()
        assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None
        if line["logger"].startswith("picopay_operator"):
            assert line["event"] in set(Event)
    about = [line for line in lines if line.get("engine") == NAME]
    assert {Event.APPLIED, Event.SECRET_MADE} <= {line["event"] for line in about}
    assert {line["namespace"] for line in about} == {api_server.namespace}
