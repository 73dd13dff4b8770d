"""Fault points: each round trip has one, and what is to happen there happens once."""

from __future__ import annotations

import ast
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import detent.engine
from detent.engine import faults
from detent.engine.backend import EngineBackend
from detent.engine.db import Db
from detent.engine.faults import Fault, FaultKind, SharedFault
from detent.engine.sql import STATEMENTS
from detent.errors import ConfigError
from detent.protocol.backend import WorkerBackend
from tests.engine.stage import Stage, request

ENGINE = Path(detent.engine.__file__).parent
PASSES = """
from detent.engine import faults
for point in ("a", "b", "a", "never"):
    print(point, flush=True)
    faults.pass_point(faults.active, point)
"""
NO_ROUND_TRIP = {"listen", "hear", "close"}
"""A stream, which the tests of wake-ups cut, and two local calls."""


class Recorder:
    """Notes which points are passed."""

    def __init__(self) -> None:
        self.points: set[str] = set()

    def passed(self, point: str) -> FaultKind | None:
        self.points.add(point)
        return None


async def test_every_statement_has_a_fault_point(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(faults, "active", recorder)
    monkeypatch.setattr(Db, "_execute", _answer_nothing)
    db = Db("")
    for name in STATEMENTS:
        await db.call(name, {})
    assert recorder.points == set(STATEMENTS)


async def _answer_nothing(*_: object) -> list[object]:
    return []


def test_every_operation_of_a_backend_passes_a_fault_point() -> None:
    public = {name for name, _ in inspect.getmembers(WorkerBackend, inspect.isfunction) if not name.startswith("_")}
    reached = _statements_by_function()
    assert [name for name in sorted(public - NO_ROUND_TRIP) if not reached[name]] == []


def _statements_by_function() -> dict[str, set[str]]:
    """The statements that each function of the engine calls, itself or through others. Functions go by their last name."""
    calls: dict[str, set[str]] = {}
    found: dict[str, set[str]] = {}
    for path in ENGINE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                calls.setdefault(node.name, set()).update(_called(node))
                found.setdefault(node.name, set()).update(_statements(node))
    while True:
        before = sum(map(len, found.values()))
        for name, callees in calls.items():
            found[name].update(*(found[callee] for callee in callees if callee in found))
        if sum(map(len, found.values())) == before:
            return found


def _called(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _statements(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(attr="call"), args=[ast.Constant(value=str(name)), *_]):
                yield name
            case _:
                pass


def test_nothing_reaches_the_database_beside_the_fault_points() -> None:
    """But `listen`, which is a stream: the tests of wake-ups cut it; the question what stands before the database; and what
    `detent doctor` tries on a connection of its own."""
    sources = {path.name: path.read_text() for path in ENGINE.rglob("*.py")}
    speaking = {name for name, text in sources.items() if re.search(r"\bexecute\(|_connection\(|exec_prepared", text)}
    assert speaking <= {"db.py", "events.py", "pooler.py", "reach.py"}
    assert sources["db.py"].count("faults.pass_point(") == 1


async def test_a_connection_that_is_cut_is_made_good_by_a_repeat(
    engine: EngineBackend, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault("trigger_runs", 1, FaultKind.CUT)
    monkeypatch.setattr(faults, "active", fault)
    (made,) = await engine.trigger([request()])
    assert fault.count == -1, "it was not repeated"
    assert await stage.query("select id from detent.runs") != []
    assert made is not None


@pytest.mark.parametrize(("kind", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_a_process_ends_or_stops_the_time_it_is_told(kind: str, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PASSES],
        env=os.environ | {faults.VARIABLE: f"a:2:{kind}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert (os.WSTOPSIG(status) if os.WIFSTOPPED(status) else os.WTERMSIG(status)) == number
    process.kill()
    out, _ = process.communicate()
    assert out.split() == ["a", "b", "a"]


def test_a_shared_fault_befalls_one_process(tmp_path: Path) -> None:
    file = tmp_path / "fault"
    first, second = SharedFault(file), SharedFault(file)
    assert first.passed("a") is None
    file.write_text("a:1:cut")
    assert second.passed("b") is None
    assert first.passed("a") is FaultKind.CUT
    assert second.passed("a") is None
    assert not file.exists()
    file.write_text("a:1:cut")
    assert second.passed("a") is FaultKind.CUT


@pytest.mark.parametrize("text", ["settle_runs", "settle_runs:kill", "settle_runs:two:kill", "settle_runs:2:sulk"])
def test_a_fault_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="statement:2:kill"):
        faults.parse(text)


def test_faults_are_off_by_default() -> None:
    assert faults.switched_on(None) is None
    assert faults.active is None
