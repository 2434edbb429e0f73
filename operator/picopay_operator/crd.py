"""Makes the CustomResourceDefinition from the shapes in `spec/`. Pure; run as a program it prints it.

The API server checks what people write by this schema, fills in its defaults, and shows its descriptions in
`kubectl explain`. So all that is known of a field stands beside the field, and nothing is written twice.
"""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import yaml
from msgspec import inspect

from picopay_operator import names
from picopay_operator.spec.engine import ENGINE_RULES, EngineSpec
from picopay_operator.spec.kinds import Kind, Rule
from picopay_operator.spec.status import EngineStatus

type Schema = dict[str, Any]

_COLUMNS = (
    # name, type, priority (1: only with -o wide), path, description
    (
        "Ready",
        "string",
        0,
        '.status.conditions[?(@.type=="Ready")].status',
        "Whether it takes payments.",
    ),
    ("Reason", "string", 0, '.status.conditions[?(@.type=="Ready")].reason', "Why, or why not."),
    ("Version", "string", 0, ".status.version", "The release that serves."),
    ("Schema", "string", 0, ".status.schema.current", "The revision of the database."),
    ("Replicas", "integer", 0, ".status.replicas", "API pods that there are."),
    ("Available", "integer", 0, ".status.readyReplicas", "API pods that take requests."),
    ("Age", "date", 0, ".metadata.creationTimestamp", "Since when it exists."),
    ("Image", "string", 1, ".status.image", "The image that serves."),
    (
        "Message",
        "string",
        1,
        '.status.conditions[?(@.type=="Ready")].message',
        "Why, in a sentence.",
    ),
)


def definition() -> Schema:
    """Return the CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                    "schema": {"openAPIV3Schema": _engine()},
                }
            ],
        },
    }


def to_yaml() -> str:
    """Return the definition as a file for `kubectl apply`."""
    return yaml.safe_dump(definition(), sort_keys=False, width=110, allow_unicode=True)


def schema_of(kind: type[Kind]) -> Schema:
    """Return the structural schema of an object of the API."""
    return _schema(inspect.type_info(kind))


def _engine() -> Schema:
    return {
        "type": "object",
        "description": "A payment engine: an API on a double-entry ledger in PostgreSQL, and what it needs.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {"description": "What is wanted of the engine.", **schema_of(EngineSpec)},
            "status": {
                "description": "What the operator has seen and done.",
                **schema_of(EngineStatus),
            },
        },
        **_validations(ENGINE_RULES),
    }


def _column(name: str, kind: str, priority: int, path: str, description: str) -> Schema:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    # The API server leaves 0 out, and a list that is not kept as it was written would always be a change.
    return column | ({"priority": priority} if priority else {})


def _validations(rules: Sequence[Rule]) -> Schema:
    written = [{"rule": rule.expression, "message": rule.message} for rule in rules]
    return {"x-kubernetes-validations": written} if written else {}


def _schema(shape: inspect.Type, default: Any = None) -> Schema:
    """Return the schema of a type; `default` None is no default."""
    extra: Schema = {}
    if isinstance(shape, inspect.Metadata):
        extra, shape = dict(shape.extra_json_schema or {}), shape.type
    schema = _of(shape) | extra
    if default is not None:
        schema["default"] = msgspec.to_builtins(default)
    return dict(sorted(schema.items(), key=lambda item: _order(item[0])))


def _order(key: str) -> tuple[int, str]:
    """Put what a reader looks for first, as `kubectl explain` does."""
    first = ("description", "type", "enum", "default")
    return (first.index(key) if key in first else len(first), key)


def _of(shape: inspect.Type) -> Schema:
    match shape:
        case inspect.StructType():
            schema = _object(shape)
        case inspect.UnionType():
            schema = _union(shape)
        case inspect.ListType():
            bounds = _bounds(maxItems=shape.max_length, minItems=shape.min_length)
            schema = {"type": "array", "items": _schema(shape.item_type)} | bounds
        case inspect.DictType(value_type=inspect.AnyType()):
            schema = {"type": "object"}
        case inspect.DictType():
            bounds = _bounds(maxProperties=shape.max_length)
            schema = {"type": "object", "additionalProperties": _schema(shape.value_type)} | bounds
        case inspect.EnumType():
            schema = {"type": "string", "enum": [member.value for member in shape.cls]}
        case inspect.BoolType():
            schema = {"type": "boolean"}
        case inspect.IntType():
            schema = {"type": "integer", "format": "int32"} | _numbers(shape)
        case inspect.StrType():
            schema = {"type": "string"} | _texts(shape)
        case _:
            raise TypeError(f"there is no schema for {shape}")
    return schema


def _union(shape: inspect.UnionType) -> Schema:
    """Return the schema of what may be left out (None), or may be a number or a text."""
    parts = [part for part in shape.types if not isinstance(part, inspect.NoneType)]
    match parts:
        case [one]:
            return _schema(one)
        case [inspect.IntType() as number, inspect.StrType() as text]:
            either = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
            return either | _numbers(number) | _texts(text)
    raise TypeError(f"there is no schema for {shape}")


def _object(shape: inspect.StructType) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {field.encode_name: _field(field) for field in shape.fields},
    }
    if required := [field.encode_name for field in shape.fields if field.required]:
        schema["required"] = required
    rules: Sequence[Rule] = getattr(shape.cls, "rules", ())
    return schema | _validations(rules)


def _field(field: inspect.Field) -> Schema:
    # Empty lists and maps are not filled in: nothing is said with them, and they clutter what people see.
    default = None if field.default is msgspec.NODEFAULT else field.default
    return _schema(field.type, default)


def _numbers(shape: inspect.IntType) -> Schema:
    return _bounds(minimum=shape.ge, maximum=shape.le)


def _texts(shape: inspect.StrType) -> Schema:
    return _bounds(minLength=shape.min_length, maxLength=shape.max_length, pattern=shape.pattern)


def _bounds(**bounds: int | str | None) -> Schema:
    return {name: bound for name, bound in bounds.items() if bound is not None}


if __name__ == "__main__":
    sys.stdout.write(to_yaml())
