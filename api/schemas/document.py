"""Makes OpenAPI schemas from msgspec structs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import FastAPI
from msgspec import inspect

REFERENCE = "#/components/schemas/"
_OPTIONAL = {("HistoryEvent", "value"), ("Live", "alive")}
"""Fields of answers that are always sent, but that the document has called optional so far."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends: a field with a default may be left out.

    All other structs are answers: they have exactly these fields, of which only `omit_defaults` and
    UNSET leave some out.
    """


class DocumentedApp(FastAPI):
    """FastAPI, with the structs in `answers` as components of its OpenAPI document."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.answers: set[type[msgspec.Struct]] = set()

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made at the first call."""
        if not self.openapi_schema:
            super().openapi()["components"] = {"schemas": schemas(self.answers)}
        assert self.openapi_schema is not None
        return self.openapi_schema


def reference(*answers: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of an answer that is one of these components."""
    references = [{"$ref": REFERENCE + answer.__name__} for answer in answers]
    return references[0] if len(references) == 1 else {"anyOf": references}


def schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of one struct that refers to no other."""
    return schemas([struct])[struct.__name__]


def schemas(structs: Iterable[type[msgspec.Struct]]) -> dict[str, dict[str, Any]]:
    """The schemas of these structs and of all that they refer to, by name in alphabetical order."""
    roots = sorted(structs, key=lambda struct: struct.__name__)
    _, made = msgspec.json.schema_components(roots, ref_template=REFERENCE + "{name}")
    types = {info.cls.__name__: info for info in _struct_types(roots)}
    return {name: _object(types[name], made[name]) for name in sorted(made)}


def _struct_types(roots: list[type[msgspec.Struct]]) -> Iterable[inspect.StructType]:
    reached: dict[type, inspect.StructType] = {}
    pending: list[Any] = list(inspect.multi_type_info(roots))
    while pending:
        info = pending.pop()
        if isinstance(info, inspect.StructType):
            if info.cls not in reached:
                reached[info.cls] = info
                pending += [field.type for field in info.fields]
        elif isinstance(info, inspect.UnionType):
            pending += info.types
        elif isinstance(info, inspect.Metadata):
            pending.append(info.type)
        elif isinstance(info, inspect.ListType):
            pending.append(info.item_type)
        elif isinstance(info, inspect.DictType):
            pending.append(info.value_type)
    return reached.values()


def _object(info: inspect.StructType, made: dict[str, Any]) -> dict[str, Any]:
    """The object schema that msgspec `made`, with titles, and fields required as they are sent."""
    name, is_body = info.cls.__name__, issubclass(info.cls, Body)
    omits_defaults = is_body or info.cls.__struct_config__.omit_defaults
    properties, required = {}, []
    for field in info.fields:
        schema = _property(field.name, made["properties"][field.name])
        default = schema.pop("default", None)
        if not field.required and _has_no_default(field):
            schema = _nullable(schema)
        elif field.required or not (omits_defaults or (name, field.name) in _OPTIONAL):
            required.append(field.name)
        elif default is not None:
            schema["default"] = default
        properties[field.name] = schema
    made = {**made, "properties": properties}
    made.pop("required", None)
    made.pop("additionalProperties", None)
    closed = {} if is_body else {"additionalProperties": False}
    return made | closed | ({"required": required} if required else {})


def _property(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    schema = _explicit(schema)
    if "$ref" in schema or any("$ref" in choice for choice in schema.get("anyOf", ())):
        return schema
    return {**schema, "title": name.replace("_", " ").title()}


def _explicit(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with the open contents of maps and arrays spelled out."""
    schema = dict(schema)
    if "anyOf" in schema:
        schema["anyOf"] = [_explicit(choice) for choice in schema["anyOf"]]
    if schema.get("type") == "array":
        schema["items"] = _explicit(schema.get("items", {}))
    if schema.get("type") == "object":
        values = schema.get("additionalProperties", True)
        schema["additionalProperties"] = _explicit(values) if isinstance(values, dict) else values
    return schema


def _has_no_default(field: inspect.Field) -> bool:
    """Whether a field that may be left out is UNSET then."""
    return field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that may be left out, which a client may read as null."""
    described: dict[str, Any] = {
        key: schema.pop(key) for key in ("title", "description", "examples") if key in schema
    }
    return {**described, "anyOf": [schema, {"type": "null"}]}
