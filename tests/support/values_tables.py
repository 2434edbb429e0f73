"""Tables of a chart's values for its README: from the comments in values.yaml, or from the engine's schema.

Used by `support.chart_files`. A value is told by a comment above it that begins with `# -- ` and may go on
over further lines.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

_BEGIN, _END = "<!-- values: begin, made by support.chart_files -->", "<!-- values: end -->"
_LINE = re.compile(r"^(?P<indent> *)(?:# ?(?P<comment>.*)|(?P<key>[A-Za-z]\w*):.*)$")


def inserted(page: Path, table: str) -> str:
    """Return a page with its table replaced."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{table}\n{_END}{after}"


def of_values(path: Path) -> str:
    """Return the table of a chart's values.yaml."""
    text = path.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    rows = []
    for name, description in _told(text.splitlines()):
        value = values
        for part in name.split("."):
            value = value[part]
        rows.append((f"`{name}`", f"`{json.dumps(value)}`", description))
    return _table(("Value", "Default", "What it is"), rows)


def _told(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the path and the description of each value that has one."""
    path: list[str] = []
    told: list[str] = []
    for line in lines:
        found = _LINE.match(line)
        if found is None or (
            found["comment"] is not None and not (told or _begins(found["comment"]))
        ):
            told = []
        elif found["comment"] is not None:
            told.append(found["comment"].removeprefix("-- "))
        else:
            path = [*path[: len(found["indent"]) // 2], found["key"]]
            if told:
                yield ".".join(path), " ".join(told)
            told = []


def _begins(comment: str) -> bool:
    return comment.startswith("-- ")


def of_schema(schema: Mapping[str, Any]) -> str:
    """Return the table of the fields of an object of the API, with those of its parts."""
    return _table(("Value", "Takes", "Default", "What it is"), _fields(schema, ""))


def _fields(schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        path = f"{prefix}{name}{'[]' if 'items' in field else ''}"
        parts = "properties" in inner
        default = "" if parts or "default" not in field else f"`{json.dumps(field['default'])}`"
        needed = "**needed**" if name in schema.get("required", ()) else default
        yield f"`{path}`", _takes(field), needed, field.get("description", "")
        if parts:
            yield from _fields(inner, f"{path}.")


def _takes(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(field["enum"])
    if "anyOf" in field:
        return " or ".join(one["type"] for one in field["anyOf"])
    bounds = [str(field[bound]) for bound in ("minimum", "maximum") if bound in field]
    return f"{field['type']}{', ' if bounds else ''}{' to '.join(bounds)}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '\\|') for cell in row)} |\n" for row in lines)
