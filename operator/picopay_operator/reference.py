"""The reference pages of the operator, made from the code: an engine's fields, conditions, metrics, settings.

`python -m picopay_operator.reference` writes them into docs/reference, `--check` (in `make check`) fails when
one is not as it would be written. A further page is one more function in `PAGES`.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import prometheus_client.metrics

from picopay_operator import conditions, crd, metrics, names
from picopay_operator.settings import VARIABLES
from picopay_operator.spec.engine import EngineSpec
from picopay_operator.spec.status import EngineStatus

_NOTICE = "<!-- Made by `python -m picopay_operator.reference`; change the code instead. -->"

_ANNOTATIONS = {
    names.APPROVE_PLAN: "The hash of a plan (`status.schema.planHash`) that may run.",
    names.RETRY: "Any new value tries a failed migration again.",
    names.PROMOTE: "The revision of a blue-green rollout that may take over.",
    names.ROTATE_KEY: "Any new value has the administrator's key replaced, with both valid for a while.",
}


def engine_page() -> str:
    """Every field of a `PicoPayEngine`."""
    return _page(
        "PicoPayEngine",
        f"""
`apiVersion: {names.API_VERSION}`, `kind: {names.KIND}`, short name `{names.SHORT_NAME}`. The same is told by
`kubectl explain {names.SHORT_NAME}.spec --recursive`. What cannot be is refused when it is applied, in a
sentence; fields that are not given have the default that is shown.

## spec
""",
        _fields(crd.schema_of(EngineSpec)),
        "\n## status\n",
        _fields(crd.schema_of(EngineStatus)),
        "\n## Annotations\n\nOn an engine, for what is asked for once.\n",
        _table(
            ("Annotation", "Meaning"), ((f"`{key}`", text) for key, text in _ANNOTATIONS.items())
        ),
    )


def operator_page() -> str:
    """Conditions, reasons, events, metrics and settings."""
    return _page(
        "The operator",
        """
What it tells of each engine, and of itself.

## Conditions

`kubectl wait --for=condition=Ready ppe/NAME` waits for the first. Ready, Reconciling and Stalled are those of
kstatus: Flux and Argo CD understand them. Each has the generation that it is about.
""",
        _table(("Condition", "True when"), ((f"`{one}`", one.meaning) for one in conditions.Type)),
        "\n## Reasons\n",
        _table(("Reason", "Meaning"), ((f"`{one}`", one.meaning) for one in conditions.Reason)),
        "\n## Events\n\nPosted once each, when a condition takes on a reason that is worth it.\n",
        _table(("Reason", "Type"), ((f"`{name}`", kind) for name, kind in conditions.events())),
        "\n## Metrics\n\nUnder `/metrics`; `picopay_operator_leader` tells which process works.\n",
        _table(("Metric", "Type", "Labels", "Meaning"), _metrics()),
        "\n## Settings\n\nThe environment of its process; the chart sets what its values say.\n",
        _table(("Variable", "Default", "Meaning"), _settings()),
    )


PAGES: dict[str, Callable[[], str]] = {
    "engine.md": engine_page,
    "operator.md": operator_page,
}


def _fields(schema: Mapping[str, Any]) -> str:
    return _table(("Field", "Type", "Default", "Meaning"), _rows(schema, ""))


def _rows(schema: Mapping[str, Any], path: str) -> Iterator[Sequence[str]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        place = f"{path}{name}"
        inner = field["items"] if field.get("type") == "array" else field
        whole = inner.get("properties") and field.get("type") != "array"
        default = "**required**" if name in required else _default(field, whole=bool(whole))
        yield f"`{place}`", _type(field), default, _text(field.get("description", ""))
        mark = "[]." if inner is not field else "."
        yield from _rows(inner, f"{place}{mark}")


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("x-kubernetes-int-or-string"):
        return "number or text"
    bounds = [str(field.get(bound, "…")) for bound in ("minimum", "maximum")]
    known = f", {bounds[0]} to {bounds[1]}" if bounds != ["…", "…"] else ""
    return f"{field.get('type', 'object')}{known}"


def _default(field: Mapping[str, Any], *, whole: bool) -> str:
    default = field.get("default")
    if default is None or whole:
        return ""
    shown = str(default).lower() if isinstance(default, bool) else default
    return f"`{shown}`"


def _metrics() -> Iterator[Sequence[str]]:
    for value in vars(metrics).values():
        if isinstance(value, prometheus_client.metrics.MetricWrapperBase):
            (family,) = value.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in value._labelnames)  # noqa: SLF001  # told nowhere else
            yield f"`{name}`", family.type, labels, family.documentation


def _settings() -> Iterator[Sequence[str]]:
    for name, one in VARIABLES.items():
        yield f"`{name}`", f"`{one.default}`" if one.default else "", one.meaning


def _text(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _page(title: str, *parts: str) -> str:
    return f"# {title}\n\n{_NOTICE}\n" + "".join(parts)


def main() -> int:
    """Write or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="only fail if a page is not up to date"
    )
    checks = parser.parse_args().check
    folder = Path(__file__).parents[2] / "docs" / "reference"
    stale = [
        name
        for name, made in PAGES.items()
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != made()
    ]
    if checks:
        for name in stale:
            sys.stderr.write(
                f"docs/reference/{name} is not up to date: python -m picopay_operator.reference\n"
            )
        return 1 if stale else 0
    for name in stale:
        (folder / name).write_text(PAGES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
