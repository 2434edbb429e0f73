"""`kubectl picopay support-bundle` against a real API server and a real operator; only nodes are played.

Secrets are put wherever somebody may put one, and looked for in everything that was written.
"""

import base64
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from picopay_operator.conditions import Type
from picopay_operator.contract import ExitCode
from picopay_operator.plugin import bundle
from support.controlplane.api_proxy import (
    Answers,
    ApiProxy,
    Asked,
    Fault,
    Refuses,
    Swallows,
    proxied_api,
)
from support.controlplane.api_server import ApiServer, Manifest
from support.controlplane.operating import NAME, Case, operating
from support.controlplane.player import Player
from support.controlplane.plays import Crashes, Exits
from support.controlplane.rights import token_of
from support.controlplane.servers import ControlPlane
from support.controlplane.terminal import Terminal, kubeconfig
from support.waiting import eventually
from support.world import report

PASSWORD = "zebra-crossing-77"
LICENCE = "a licence of which no pattern knows"
TOKEN = "tok-5c0ffee5"
HEADER = "bearer-of-good-news"
KEY = f"ppk_{'0f' * 32}"
IN_URL = "p@ss/word"
SECRETS = (PASSWORD, LICENCE, TOKEN, HEADER, KEY, IN_URL)

LOG = f"""\
{{"event": "connected", "url": "postgresql://picopay:{PASSWORD}@db/picopay", "pool": 4}}
{{"event": "called", "headers": {{"Authorization": "Bearer {HEADER}"}}}}
the licence is {LICENCE}, the key {KEY}
PGPASSWORD={TOKEN} psql
""".encode()


@pytest.fixture
async def case(definition: object, api_server: ApiServer, player: Player) -> Case:
    del definition  # it is there
    return Case(api_server, player)


@pytest.fixture
async def proxy(control_plane: ControlPlane) -> AsyncIterator[ApiProxy]:
    """Return the way to the API server on which logs are answered."""
    async with proxied_api(control_plane) as made:
        made.fault = logs(LOG)
        yield made


def logs(content: bytes) -> Any:
    def answer(asked: Asked) -> Fault | None:
        return Answers(content) if asked.path.endswith("/log") else None

    return answer


def unpacked(file: Path) -> dict[str, str]:
    """Return the files of a bundle, without the folder that they are in."""
    with tarfile.open(file) as archive:
        assert {entry.mode for entry in archive} == {0o600}
        found = {}
        for entry in archive:
            content = archive.extractfile(entry)
            assert content
            found[entry.name.partition("/")[2]] = content.read().decode()
    return found


def left_out(files: dict[str, str]) -> dict[str, str]:
    """Return what the index says is not there, and why."""
    return {one["what"]: one["why"] for one in json.loads(files["index.json"])["leftOut"]}


async def disclosing(case: Case) -> None:
    """Make an engine that has secrets in every place, and wait until its migration has failed."""
    await case.secret(database_url=f"postgresql://picopay:{PASSWORD}@db/picopay", licence=LICENCE)
    named = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "addresses"}}
    await case.api.apply({**named, "data": {"errors": f"https://me:{TOKEN}@example.com"}})
    detail = f"could not connect with password={PASSWORD} as {KEY}"
    case.player.plays(Exits(5, report(exit_code=5, detail=detail)), argument="migrate")
    await case.apply(
        {
            "env": [
                {"name": "PAYMENTS_TOKEN", "value": TOKEN},
                {"name": "UPSTREAM", "value": f"amqp://me:{IN_URL}@queue/"},
                {
                    "name": "LICENCE",
                    "valueFrom": {"secretKeyRef": {"name": "picopay-secrets", "key": "licence"}},
                },
                {
                    "name": "ERRORS",
                    "valueFrom": {"configMapKeyRef": {"name": "addresses", "key": "errors"}},
                },
            ],
            "podAnnotations": {"example.com/api-token": TOKEN, "example.com/note": LICENCE},
        }
    )
    await case.until(Type.STALLED, "True", "MigrationFailed")
    applied = json.dumps({"spec": {"env": [{"name": "A_SECRET", "value": HEADER}]}})
    annotations = {
        "kubectl.kubernetes.io/last-applied-configuration": applied,
        "example.com/copied": applied,
    }
    await case.api.merge("PicoPayEngine", NAME, {"metadata": {"annotations": annotations}})
    about = {"kind": "Pod", "name": f"{NAME}-api-gone", "namespace": case.api.namespace}
    await case.api.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "disclosing"},
            "involvedObject": about,
            "reason": "Disclosed",
            "message": f"Authorization: Bearer {HEADER}; {LICENCE}",
            "type": "Warning",
        }
    )


async def run_operator(case: Case, **labels: str) -> None:
    """Have a pod like those of the operator, which in these tests is none."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await case.api.apply(account)
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "operator", "image": "operator:9.9.9", "securityContext": security}
    labels |= {"app.kubernetes.io/name": "picopay-operator"}
    await case.api.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "operator", "labels": labels},
            "spec": {"containers": [container], "automountServiceAccountToken": False},
        }
    )


async def test_a_bundle_has_what_helps_and_no_secret(
    control_plane: ControlPlane, case: Case, proxy: ApiProxy, tmp_path: Path
) -> None:
    namespace, file = case.api.namespace, tmp_path / "bundle.tar.gz"
    case.player.plays(Crashes(), image="operator")
    await run_operator(case)

    async def crashes() -> bool:
        pod = await case.api.get("Pod", "operator")
        return any(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))

    await eventually(crashes)
    async with operating(control_plane, namespace):
        await disclosing(case)
        terminal = Terminal(kubeconfig(tmp_path, proxy.url), namespace)
        told = await terminal.json("support-bundle", NAME, "--file", str(file))
        text = await terminal.run("support-bundle", NAME, "--file", str(tmp_path / "again.tar.gz"))
    files = unpacked(file)
    everything = "\n".join([text, json.dumps(told), *files, *files.values()])
    for secret in SECRETS:
        for form in (secret, base64.b64encode(secret.encode()).decode()):
            assert form not in everything, form
    generated = (await case.api.get("Secret", f"{NAME}-admin-key"))["data"]["api-key"]
    assert base64.b64decode(generated).decode() not in everything
    assert file.stat().st_mode & 0o777 == 0o600

    assert told["files"] == sorted(files, key=lambda one: (one != "index.json", one))
    assert "MigrationFailed" in files["status.txt"]
    assert "Disclosed" in files["events.json"]
    assert {"objects/jobs.json", "objects/pods.json", "engine.json"} <= files.keys()
    (secrets,) = (
        one
        for one in json.loads(files["secrets.json"])
        if one["metadata"]["name"] == "picopay-secrets"
    )
    assert secrets["keys"] == ["database-url", "licence"]
    assert "addresses" in files["configmaps.json"]
    (log,) = (name for name in files if name.startswith("logs/") and "migrate" in name)
    first = json.loads(files[log].splitlines()[0])
    assert first == {
        "event": "connected",
        "url": "postgresql://picopay:[removed]@db/picopay",
        "pool": 4,
    }
    home = f"operator/{namespace}"
    assert f"{home}/logs/operator/operator.previous.log" in files
    assert json.loads(files[f"{home}/leases.json"])[0]["spec"]["holderIdentity"] == "operator-1"
    versions = json.loads(files["index.json"])["versions"]
    assert versions["operator"] == ["operator:9.9.9"]
    assert versions["server"].startswith("v1.")
    assert left_out(files)["objects/httproutes.json"] == "the cluster has no such kind"
    assert f"{tmp_path / 'again.tar.gz'}: {len(files)} files" in text


async def account(case: Case, *rules: Manifest) -> str:
    """Return the token of an account that has these rights in the namespace, and no others."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "support"}}
    await case.api.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "support"}}
    )
    await case.api.apply({**role, "kind": "Role", "rules": list(rules)})
    await case.api.apply(
        {
            **role,
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "support"},
            "subjects": [{"kind": "ServiceAccount", "name": "support"}],
        }
    )
    return await token_of(case.api, "support")


async def test_who_may_do_little_gets_little_and_is_told_what_is_missing(
    case: Case, proxy: ApiProxy, tmp_path: Path
) -> None:
    await case.apply()
    may_look = {"apiGroups": ["picopay.io"], "resources": ["picopayengines"], "verbs": ["get"]}
    token = await account(case, may_look)
    terminal = Terminal(kubeconfig(tmp_path, proxy.url, token), case.api.namespace)
    file = tmp_path / "bundle.tar.gz"
    text = await terminal.run("support-bundle", NAME, "--file", str(file))
    files = unpacked(file)
    assert files.keys() == {"index.json", "status.txt", "engine.json"}
    missing = left_out(files)
    assert missing.keys() >= {
        "objects/pods.json",
        "events.json",
        "Secret picopay-secrets",
        "operator",
    }
    assert "cannot list resource" in missing["objects/pods.json"]
    assert "events.json" in text


async def test_the_operator_is_found_by_who_has_rights_in_its_namespace(
    case: Case, proxy: ApiProxy, tmp_path: Path
) -> None:
    await case.apply()
    await run_operator(case)
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    await case.api.create({**lease, "metadata": {"name": "picopay-operator"}})
    token = await account(
        case,
        {"apiGroups": ["picopay.io"], "resources": ["picopayengines"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list"]},
    )
    terminal = Terminal(kubeconfig(tmp_path, proxy.url, token), case.api.namespace)
    command = ("support-bundle", NAME, "--file")
    await terminal.run(*command, str(tmp_path / "1.tar.gz"))
    files = unpacked(tmp_path / "1.tar.gz")
    assert not any(name.startswith("operator/") for name in files)
    assert "at the cluster scope" in files["index.json"]
    where = ("--operator-namespace", case.api.namespace)
    await terminal.run(*command, str(tmp_path / "2.tar.gz"), *where)
    files = unpacked(tmp_path / "2.tar.gz")
    home = f"operator/{case.api.namespace}"
    assert {f"{home}/leases.json", f"{home}/logs/operator/operator.log"} <= files.keys()
    assert "cannot list resource" in left_out(files)[f"{home}/deployments.json"]


async def test_when_time_is_up_what_is_there_is_written(
    case: Case, proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_TIME_S", 3.0)
    await case.apply()
    proxy.fault = lambda asked: Swallows() if asked.path.endswith("/events") else None
    file = tmp_path / "bundle.tar.gz"
    terminal = Terminal(kubeconfig(tmp_path, proxy.url), case.api.namespace)
    await terminal.run("support-bundle", NAME, "--file", str(file))
    files = unpacked(file)
    assert "engine.json" in files
    assert left_out(files)["the rest"] == "it took longer than 3 s"


async def test_nothing_is_written_where_nothing_may_be_read(
    case: Case, proxy: ApiProxy, tmp_path: Path
) -> None:
    await case.apply()
    file = tmp_path / "bundle.tar.gz"
    nobody = Terminal(kubeconfig(tmp_path, proxy.url, await account(case)), case.api.namespace)
    failed = await nobody.failure("support-bundle", NAME, "--file", str(file))
    assert failed.exit_code is ExitCode.REFUSED
    assert "nothing of demo may be read" in failed.message
    assert "cannot get resource" in failed.message
    somebody = Terminal(kubeconfig(tmp_path, proxy.url), case.api.namespace)
    failed = await somebody.failure("support-bundle", "nobody", "--file", str(file))
    assert '"nobody" not found' in failed.message
    away = Terminal(kubeconfig(tmp_path, "http://127.0.0.1:9"), case.api.namespace)
    failed = await away.failure("support-bundle", NAME, "--file", str(file))
    assert failed.exit_code is ExitCode.UNAVAILABLE
    assert not file.exists()


async def test_a_file_that_is_there_is_left_alone(
    case: Case, proxy: ApiProxy, tmp_path: Path
) -> None:
    terminal = Terminal(kubeconfig(tmp_path, proxy.url), case.api.namespace)
    file = tmp_path / "bundle.tar.gz"
    file.write_text("mine", encoding="utf-8")
    for path in (file, tmp_path / "missing" / "bundle.tar.gz"):
        failed = await terminal.failure("support-bundle", NAME, "--file", str(path))
        assert failed.exit_code is ExitCode.REFUSED
        assert f"{path} cannot be written" in failed.message
    assert file.read_text(encoding="utf-8") == "mine"


async def test_an_engine_of_another_release_and_a_node_that_does_not_answer(
    case: Case, proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not understood is in it all the same; what does not answer costs only itself."""
    monkeypatch.setattr(bundle, "_LOG_TIME_S", 0.2)
    await case.apply()
    await run_operator(case, **{"picopay.io/engine": NAME})
    unknown = {"metadata": {"name": NAME}, "spec": {"database": "quantum", "token": TOKEN}}

    def fault(asked: Asked) -> Fault | None:
        if asked.path.endswith(f"/picopayengines/{NAME}"):
            return Answers(json.dumps(unknown).encode(), "application/json")
        if asked.path.endswith("/log"):
            return Swallows()
        return Refuses(503) if asked.path.endswith("/events") else None

    proxy.fault = fault
    file = tmp_path / "bundle.tar.gz"
    terminal = Terminal(kubeconfig(tmp_path, proxy.url), case.api.namespace)
    await terminal.run("support-bundle", NAME, "--file", str(file))
    files = unpacked(file)
    assert "quantum" in files["engine.json"]
    assert TOKEN not in files["engine.json"]
    missing = left_out(files)
    assert "not understood" in missing["status.txt, secrets.json, configmaps.json"]
    assert "was not read within" in missing["logs/operator/operator.log"]
    assert missing["events.json"] == "the test says 503"


async def test_of_long_logs_the_newest_part_is_kept(
    case: Case, proxy: ApiProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_LOG_BYTES_MAX", 1_000)
    monkeypatch.setattr(bundle, "_LOG_READ_MAX", 10_000)
    await case.apply({"database": {"secretRef": None, "cloudNativePG": {"instances": 1}}})
    # A server of CloudNativePG has labels of its own.
    await run_operator(case, **{"cnpg.io/cluster": f"{NAME}-postgres"})
    asked_for: list[int] = []

    def fault(asked: Asked) -> Fault | None:
        if not asked.path.endswith("/log"):
            return None
        asked_for.append(int(asked.query["tailLines"]))
        lines = b"".join(b"line %06d\n" % number for number in range(2_000))
        return Answers(
            b"".join(lines.splitlines(keepends=True)[-asked_for[-1] :])[
                : int(asked.query["limitBytes"])
            ]
        )

    proxy.fault = fault
    file = tmp_path / "bundle.tar.gz"
    terminal = Terminal(kubeconfig(tmp_path, proxy.url), case.api.namespace)
    await terminal.run("support-bundle", NAME, "--file", str(file))
    files = unpacked(file)
    kept = files["logs/operator/operator.log"]
    assert len(kept) <= 1_000
    assert kept.endswith("line 001999\n")
    assert set(asked_for) == {10_000, 1_000, 100}
    assert left_out(files)["logs/operator/operator.log"] == "only its newest part is in it"
