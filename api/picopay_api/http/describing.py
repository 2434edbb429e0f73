"""Operations in words: an example call, the members of bodies and answers, what each may be.

Used by whoever writes for people: the docs page (`documentation.py`, HTML) and the reference
(`reference.py`, Markdown). Code is between backticks.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from picopay_api.http.operations import Keyed, Operation

_Schema = dict[str, Any]


def example(operation: Operation) -> str:
    """Return a curl line that makes an operation's example request."""
    path = operation.path
    for name in operation.path_parameters:
        path = path.replace(f"{{{name}}}", "@alice" if name == "account" else f"${name.upper()}")
    lines = [f'curl "$URL{path}" -H "Authorization: Bearer $KEY"']
    if operation.method != "GET":
        lines[0] = lines[0].replace("curl", f"curl -X {operation.method}", 1)
    if operation.keyed is Keyed.REQUIRED or (
        operation.example and operation.keyed is not Keyed.NEVER
    ):
        lines.append(f"-H 'Idempotency-Key: my-{operation.name.replace('_', '-')}-1'")
    if operation.example:
        lines += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(operation.example)}'"]
    return " \\\n  ".join(lines)


def members(shape_of: type) -> list[tuple[str, str]]:
    """Return each member of a body or an answer, and what it may be."""
    (shape,), components = msgspec.json.schema_components([shape_of], ref_template="{name}")
    component = components[shape["$ref"]]
    required = component.get("required", ())
    return [
        (name, _kind(member, components, is_required=name in required))
        for name, member in component["properties"].items()
    ]


def title(shape_of: type) -> str:
    """Return the name of a body or an answer, such as `Page[Payment]`."""
    arguments = ", ".join(title(argument) for argument in getattr(shape_of, "__args__", ()))
    name = getattr(shape_of, "__origin__", shape_of).__name__
    return f"{name}[{arguments}]" if arguments else str(name)


def _kind(shape: _Schema, components: _Schema, *, is_required: bool) -> str:
    """Say a schema in a few words."""
    options = list(_options(shape))
    said = " or ".join(dict.fromkeys(filter(None, (_word(one, components) for one in options))))
    if not is_required:
        default = shape.get("default")
        said += (
            ", optional" if default in (None, {}, []) else f", `{json.dumps(default)}` by default"
        )
    described = next((one["description"] for one in options if "description" in one), "")
    return f"{said}. {described}" if described else said


def _options(shape: _Schema) -> Iterator[_Schema]:
    """Take a choice of schemas apart; a description of the choice is that of its first part."""
    if "anyOf" not in shape:
        yield shape
        return
    inherited = {name: shape[name] for name in ("description",) if name in shape}
    for option in shape["anyOf"]:
        yield from _options(inherited | option)


def _word(shape: _Schema, components: _Schema) -> str:
    if "$ref" in shape:
        named = components[shape["$ref"]]
        return _word(named, components) if "enum" in named else str(shape["$ref"])
    if "enum" in shape:
        return " or ".join(f"`{json.dumps(word)}`" for word in shape["enum"])
    if "const" in shape:
        return f"`{json.dumps(shape['const'])}`"
    if shape.get("type") == "array":
        return f"array of {_word(shape['items'], components) or 'anything'}"
    return str(shape.get("format") or shape.get("type", ""))
