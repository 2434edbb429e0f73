"""The files of the charts and of k8s/ that are made from something else, so that they cannot be wrong.

`python -m support.chart_files` writes them, `--check` (in `make check`) fails when one is not as it would be
written. The definition of PicoPayEngine and the schema of the engine's chart come from the operator's shapes,
the tables of the charts' READMEs from their values, and k8s/ from the charts, by helm.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from picopay_operator import crd
from picopay_operator.spec.engine import EngineSpec
from support import kube_tools, values_tables
from support.postgres import CHECKOUT

CHARTS = CHECKOUT / "charts"
OPERATOR = CHARTS / "picopay-operator"
ENGINE = CHARTS / "picopay-engine"
PLAIN = CHECKOUT / "k8s"

NAMESPACE = "picopay"
"""Where k8s/ puts the operator and its engine."""

_SETUP = Path(__file__).with_name("chart_files_engine.yaml")
_NOTICE = "# Made by `python -m support.chart_files`; change {source} instead.\n"
_HELM_S = 60
# The values of the engine's chart that are not the engine's spec.
_OWN_VALUES: Mapping[str, Any] = {
    "fullnameOverride": {
        "type": "string",
        "maxLength": 40,
        "pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$",
    },
    "commonLabels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    "global": {
        "type": "object",
        "additionalProperties": True,
        "description": "What a chart above shares with its parts; not used.",
    },
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files, or with --check say which differ and exit 1 when any does."""
    parser = argparse.ArgumentParser(prog="support.chart_files", description=main.__doc__)
    parser.add_argument("--check", action="store_true")
    check: bool = parser.parse_args(arguments).check
    wrong = []
    # One after the other: a README and k8s/ are made from files that are written before them.
    for path, text in made():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        wrong.append(str(path.relative_to(CHECKOUT)))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for name in wrong:
        print(f"{name} {'is out of date' if check else 'written'}")
    if check and wrong:
        sys.exit("run `PYTHONPATH=tests .venv/bin/python -m support.chart_files`")


def made() -> Iterator[tuple[Path, str]]:
    """Yield each file that is made, with what it has to say."""
    yield OPERATOR / "templates" / "crds" / "picopayengines.yaml", definition_template()
    yield ENGINE / "values.schema.json", json.dumps(engine_values_schema(), indent=2) + "\n"
    for chart, table in (
        (OPERATOR, values_tables.of_values(OPERATOR / "values.yaml")),
        (ENGINE, values_tables.of_schema(crd.schema_of(EngineSpec))),
    ):
        yield chart / "README.md", values_tables.inserted(chart / "README.md", table)
    yield from _plain().items()


def definition_template() -> str:
    """Return the definition as a template of the operator's chart."""
    definition = crd.definition()
    spec = yaml.safe_dump(definition["spec"], sort_keys=False, width=110, allow_unicode=True)
    assert "{{" not in spec
    return (
        _NOTICE.format(source="operator/picopay_operator/spec")
        + f"""{{{{- if .Values.crds.enabled }}}}
apiVersion: {definition["apiVersion"]}
kind: {definition["kind"]}
metadata:
  name: {definition["metadata"]["name"]}
  labels:
    {{{{- include "picopay-operator.labels" . | nindent 4 }}}}
  {{{{- if .Values.crds.keep }}}}
  annotations:
    helm.sh/resource-policy: keep
  {{{{- end }}}}
spec:
"""
        + re.sub(r"^(?=.)", "  ", spec, flags=re.MULTILINE)
        + "{{- end }}\n"
    )


def engine_values_schema() -> dict[str, Any]:
    """Return the schema of the values of the engine's chart: the engine's spec, and a few of the chart's."""
    schema = strict(crd.schema_of(EngineSpec))
    schema["properties"] = {**_OWN_VALUES, **schema["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of an engine's chart",
        **schema,
    }


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of JSON that says the same as one of Kubernetes, but that knows all fields."""
    told = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    told.pop("format", None)
    if "properties" in schema:
        told["properties"] = {name: strict(one) for name, one in schema["properties"].items()}
        told["additionalProperties"] = False
    elif schema.get("x-kubernetes-preserve-unknown-fields"):
        told["additionalProperties"] = True
    elif "additionalProperties" in schema:
        told["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        told["items"] = strict(schema["items"])
    return told


class HelmRefusedError(Exception):
    """What helm says when it does not do what it is asked."""


@cache
def helm(*arguments: str | Path) -> str:
    """Run helm and return what it prints; the files of a chart are taken to stay as they are.

    Raises:
        HelmRefusedError: it ended with an error, which is told.
    """
    command = [kube_tools.program("helm"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_HELM_S)
    if done.returncode:
        raise HelmRefusedError(done.stderr or done.stdout)
    return done.stdout


def rendered(chart: Path, release: str, *arguments: str | Path) -> str:
    """Return the manifests of a chart as helm renders them, without its tests."""
    return helm("template", release, chart, "--namespace", NAMESPACE, "--skip-tests", *arguments)


def _plain() -> dict[Path, str]:
    """Return the files of k8s/; names put them into order."""
    charts = _NOTICE.format(source="charts/")
    operator = rendered(OPERATOR, "picopay-operator", "--set", "crds.keep=false")
    parts = [part.strip() for part in re.split(r"^---$", operator, flags=re.MULTILINE)]
    definition = [part for part in parts if "kind: CustomResourceDefinition" in part]
    rest = [part for part in parts if part and part not in definition]
    engine = rendered(ENGINE, "picopay", "--values", ENGINE / "ci" / "minimal-values.yaml")
    image = re.search(r"^ +image: (.+)$", operator, re.MULTILINE)
    assert image is not None
    setup = (
        _SETUP.read_text(encoding="utf-8")
        .replace("@NAMESPACE@", NAMESPACE)
        .replace("@IMAGE@", image[1])
        .replace(
            "@ENGINE@", re.sub(r"^(?=.)", "    ", _without_helm(engine), flags=re.MULTILINE).strip()
        )
    )
    return {
        PLAIN / "10-definition.yaml": charts + _joined(definition),
        PLAIN / "20-operator.yaml": charts + _joined(rest),
        PLAIN / "30-engine.yaml": _NOTICE.format(source=f"tests/support/{_SETUP.name}") + setup,
    }


def _joined(parts: Sequence[str]) -> str:
    return "---\n".join(_without_helm(part) for part in parts)


def _without_helm(manifest: str) -> str:
    """Return a manifest without the lines that are about helm, which does not look after it."""
    about = r"^(---|# Source: .*|# Made by .*| *helm\.sh/chart: .*| *app\.kubernetes\.io/managed-by: Helm)\n"
    return re.sub(about, "", manifest.strip() + "\n", flags=re.MULTILINE)


if __name__ == "__main__":
    main()
