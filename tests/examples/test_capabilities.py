"""The table of the example project tells the truth, and leaves nothing out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import detent
from detent.sdk.config import ConfigKeys
from detent.sdk.definition import TaskOptions
from detent.sdk.hooks import TaskHooks
from detent.sdk.options import TriggerOptions
from tests.examples.page import ROOT

EXAMPLES = ROOT / "examples"
_ROW = re.compile(r"^\| (`.+`) \| \[(\S+)\]\(\2\) \|", re.MULTILINE)

TYPES = {
    "BareTask", "BareTaskRef", "BatchHandle", "BatchItemError", "BatchRecord", "BatchResult", "BatchStatus", "BulkKind",
    "BulkRecord", "BulkStatus", "ChildOptions", "Config", "ConcurrencyLimit", "Duration", "IdempotencyKey", "Item",
    "JsonValue", "Page", "Queue", "RetrievedLimit", "RetrievedQueue", "RetrievedToken", "Run", "RunError", "RunHandle",
    "RunLog", "RunPage", "RunQuery", "RunStatus", "ScheduleRecord", "ScheduleType", "Task", "TaskRef", "Token", "TokenStatus",
    "TriggerOptions", "WaitKind", "EnvVar", "Environment", "EnvironmentType", "Spent", "Usage",
}  # fmt: skip
"""What calls give back, and what names a type: used without being written."""
ELSEWHERE = {
    "Client": "for a second database; see docs/connections.md",
    "version=": "pins a deploy; see docs/flow-control.md",
    "description=": "a docstring says it",
    "extra_ca_certs=": "needs certificates of one's own; see docs/configuration.md",
}
"""What would be out of place in one small project."""


@cache
def table() -> list[tuple[str, Path]]:
    """Each capability, and the file that it is said to be used in."""
    rows = _ROW.findall((EXAMPLES / "README.md").read_text(encoding="utf-8"))
    return [(name.lstrip("@"), EXAMPLES / file) for names, file in rows for name in re.findall("`([^`]+)`", names)]


@cache
def uses(file: Path) -> frozenset[str]:
    """What a file uses, as the table writes it: `Retry`, `delay=`, `wait.for_`, and `.trigger` of whatever task."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(name for node in ast.walk(tree) for name in _written(node))


def _written(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name):
            yield name
        case ast.Attribute(attr=name):
            yield f".{name}"
            yield ast.unparse(node)
        case ast.keyword(arg=str(name)):
            yield f"{name}="


def capabilities() -> set[str]:
    """What the package lets a task file or a caller say."""
    names = {name for name in detent.__all__ if not name.endswith("Error")}
    options = {f"{name}=" for kind in (TaskOptions, TriggerOptions, ConfigKeys) for name in kind.__annotations__}
    hooks = {name for name in vars(TaskHooks) if name.startswith("on_") or name in {"catch_error", "middleware"}}
    return names - TYPES | options - {f"{hook}=" for hook in hooks} | {f".{hook}" for hook in hooks}


@pytest.mark.parametrize(("name", "file"), [pytest.param(*row, id=row[0]) for row in table()])
def test_what_the_table_names_is_used_in_its_file(name: str, file: Path) -> None:
    assert name in uses(file)


def test_what_can_be_said_is_said_somewhere_in_the_project() -> None:
    shown = {name for name, _ in table()}
    namespaces = {name.partition(".")[0] for name in shown}
    assert capabilities() - shown - namespaces <= ELSEWHERE.keys()


def test_every_file_of_tasks_is_in_the_table() -> None:
    assert set(EXAMPLES.glob("tasks/*.py")) <= {file for _, file in table()}
