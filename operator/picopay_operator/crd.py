"""Makes the CustomResourceDefinition from the shapes in `spec/`. Pure but for `main`.

The API server checks what people write by this schema, fills in its defaults, and shows its descriptions in
`kubectl explain`. So all that is known of a field stands beside the field, and nothing is written twice.
"""

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from picopay_operator import names
from picopay_operator.spec.engine import ENGINE_RULES, EngineSpec
from picopay_operator.spec.kinds import Kind, Rule
from picopay_operator.spec.status import EngineStatus

type Schema = dict[str, Any]

_COLUMNS = (
    # name, type, priority (1: only with -o wide), path, description
    ("Ready", "string", 0, '.status.conditions[?(@.type=="Ready")].status', "Whether it takes payments."),
    ("Reason", "string", 0, '.status.conditions[?(@.type=="Ready")].reason', "Why, or why not."),
    ("Version", "string", 0, ".status.version", "The release that serves."),
    ("Schema", "string", 0, ".status.schema.current", "The revision of the database."),
    ("Replicas", "integer", 0, ".status.replicas", "API pods that there are."),
    ("Available", "integer", 0, ".status.readyReplicas", "API pods that take requests."),
    ("Age", "date", 0, ".metadata.creationTimestamp", "Since when it exists."),
    ("Image", "string", 1, ".status.image", "The image that serves."),
    ("Message", "string", 1, '.status.conditions[?(@.type=="Ready")].message', "Why, in a sentence."),
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
            "spec": schema_of(EngineSpec),
            "status": schema_of(EngineStatus),
        },
        **_validations(ENGINE_RULES),
    }


def _column(name: str, type: str, priority: int, path: str, description: str) -> Schema:
    return {
        "name": name,
        "type": type,
        "priority": priority,
        "jsonPath": path,
        "description": description,
    }


def _validations(rules: Sequence[Rule]) -> Schema:
    written = [{"rule": rule.expression, "message": rule.message} for rule in rules]
    return {"x-kubernetes-validations": written} if written else {}


def _schema(type: inspect.Type, default: Any = None) -> Schema:
    """Return the schema of a type; `default` None is no default."""
    extra: Mapping[str, Any] = {}
    if isinstance(type, inspect.Metadata):
        extra, type = type.extra_json_schema or {}, type.type
    schema = _of(type) | extra
    if default is not None:
        schema["default"] = msgspec.to_builtins(default)
    return dict(sorted(schema.items(), key=lambda item: _order(item[0])))


def _order(key: str) -> tuple[int, str]:
    """Put what a reader looks for first, as `kubectl explain` does."""
    first = ("description", "type", "enum", "default")
    return (first.index(key) if key in first else len(first), key)


def _of(type: inspect.Type) -> Schema:
    match type:
        case inspect.StructType():
            return _object(type)
        case inspect.UnionType():
            return _union(type)
        case inspect.ListType():
            return {"type": "array", "items": _schema(type.item_type)} | _bounds(
                maxItems=type.max_length, minItems=type.min_length
            )
        case inspect.DictType(value_type=inspect.AnyType()):
            return {"type": "object"}
        case inspect.DictType():
            return {"type": "object", "additionalProperties": _schema(type.value_type)} | _bounds(
                maxProperties=type.max_length
            )
        case inspect.EnumType():
            return {"type": "string", "enum": [member.value for member in type.cls]}
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer", "format": "int32"} | _numbers(type)
        case inspect.StrType():
            return {"type": "string"} | _texts(type)
    raise TypeError(f"there is no schema for {type}")


def _union(type: inspect.UnionType) -> Schema:
    """Return the schema of what may be left out (None), or may be a number or a text."""
    parts = [part for part in type.types if not isinstance(part, inspect.NoneType)]
    match parts:
        case [one]:
            return _schema(one)
        case [inspect.IntType() as number, inspect.StrType() as text]:
            either = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
            return either | _numbers(number) | _texts(text)
    raise TypeError(f"there is no schema for {type}")


def _object(type: inspect.StructType) -> Schema:
    kind: builtins.type[Kind] = type.cls
    schema: Schema = {
        "type": "object",
        "properties": {field.encode_name: _field(field) for field in type.fields},
    }
    if required := [field.encode_name for field in type.fields if field.required]:
        schema["required"] = required
    return schema | _validations(kind.rules)


def _field(field: inspect.Field) -> Schema:
    # Empty lists and maps are not filled in: nothing is said with them, and they clutter what people see.
    default = None if field.default is inspect.NODEFAULT else field.default
    return _schema(field.type, default)


def _numbers(type: inspect.IntType) -> Schema:
    return _bounds(minimum=type.ge, maximum=type.le)


def _texts(type: inspect.StrType) -> Schema:
    return _bounds(minLength=type.min_length, maxLength=type.max_length, pattern=type.pattern)


def _bounds(**bounds: int | str | None) -> Schema:
    return {name: bound for name, bound in bounds.items() if bound is not None}
