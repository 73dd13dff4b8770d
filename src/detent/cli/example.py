"""A call that a user can paste: how to trigger a task, with a payload that fits its JSON Schema."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import cast

from detent.protocol.codec import JsonValue
from detent.protocol.registration import RegisteredTask

Schema = Mapping[str, JsonValue]

_BY_TYPE: dict[str, JsonValue] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}
_BY_FORMAT = {"date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z", "uuid": "00000000-0000-4000-8000-000000000000"}
_DEEPEST = 8


def call(task: RegisteredTask) -> str:
    """Return the command line that triggers a task."""
    words = ["detent", "trigger", task.task_id]
    if task.payload_schema is not None and (schema := json.loads(task.payload_schema)):
        words += ["--payload", json.dumps(value(schema, schema), ensure_ascii=False)]
    return shlex.join([*words, "--wait"])


def value(schema: Schema, root: Schema, depth: int = 0) -> JsonValue:
    """Return a value that a schema describes; `root` holds its definitions. It does not know every keyword.

    >>> value({"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}, "required": ["n"]}, {})
    {'n': 1}
    """
    if depth > _DEEPEST:
        return None
    for known in ("default", "const"):
        if known in schema:
            return schema[known]
    for listed in ("examples", "enum"):
        if found := cast("list[JsonValue]", schema.get(listed)):
            return found[0]
    for choices in ("anyOf", "oneOf", "allOf"):
        if found := cast("list[JsonValue]", schema.get(choices)):
            return value(cast("Schema", found[0]), root, depth + 1)
    if reference := schema.get("$ref"):
        return value(_resolve(str(reference), root), root, depth + 1)
    return _of_type(schema, root, depth)


def _of_type(schema: Schema, root: Schema, depth: int) -> JsonValue:
    kind = schema.get("type")
    if kind == "object":
        properties = cast("dict[str, Schema]", schema.get("properties", {}))
        required = cast("list[str]", schema.get("required", []))
        return {name: value(properties.get(name, {}), root, depth + 1) for name in required}
    if kind == "string":
        return _BY_FORMAT.get(str(schema.get("format")), "text")
    return _BY_TYPE.get(str(kind))


def _resolve(reference: str, root: Schema) -> Schema:
    found: JsonValue = cast("JsonValue", root)
    for name in reference.removeprefix("#/").split("/"):
        found = cast("dict[str, JsonValue]", found).get(name, {})
    return cast("Schema", found)
