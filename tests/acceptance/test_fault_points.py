"""A worker dies at every point that it passes: after the database has done what it was asked, before the worker knows.

One fault after the other befalls a runner or a supervisor, whoever passes the point first, while runs of every kind execute.
What the runs must come to, and what may be left behind, is judged as in `chaos`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from chaos import rules
from chaos.effects import Effects
from chaos.outsider import Outsider
from chaos.plan import Job, Node
from chaos.troubles import TASKS, Trouble

from detent.engine import faults
from detent.engine.sql import STATEMENTS
from tests.acceptance.stage import Stage, set_fault, until

pytestmark = pytest.mark.acceptance

WORKERS = 2
PASSED = (
    "lease_runs", "start_attempts", "trigger_children", "trigger_batch", "wait_for", "suspend", "collect", "record_steps",
    "create_tokens", "read_batch_results", "append_logs", "settle_runs", "notify", "tick", "count_solo", "renew_session",
    "list_sessions", "abort_late_batches", "reserve_bulk_action", "find_tasks", "find_version_tasks",
    "find_due_schedules", "read_variables",
)  # fmt: skip
PASSED_AFTER_A_DEATH = ("read_journals", "end_session", "find_version", "register_tasks", "set_retention", "open_session")
"""By whoever takes the place of the dead, and goes on with its runs."""
ELSEWHERE = {
    "when a database is new": {"make_environment", "make_version", "find_named_version", "make_lanes"},
    "at every connection's beginning, before it does anything": {"find_environment"},
    "once an hour, as test_retention has it": {
        "make_partition", "find_due_partitions", "clear_history", "clear_logs", "drop_partition", "forget_past", "forget_expired",
        "rest_lanes", "find_miscounted", "recount_slots",
    },
    "while a bulk action goes on, as test_bulk_killed has it": {
        "carry_bulk_cancel", "find_bulk_runs", "advance_bulk_action", "complete_bulk_action",
    },
    "while a run says how it is, as test_lost_replies has it": {"update_metadata", "add_tags"},
    "while tasks run by themselves, as test_schedules_killed has it": {
        "fire_schedules", "find_current_tasks", "sync_schedules", "set_next_tick",
    },
    "at the end of a run that has hooks, as test_hooks_killed has it": {"lease_hooks", "end_hooks"},
    "when a worker ends, or its runs are cancelled": {"hand_back", "end_cancelled"},
    "by `detent doctor`": {
        "examine_server", "find_workers", "find_tasks_without_worker", "find_paused", "find_undeclared", "find_late_runs",
        "find_shelves_behind", "find_overdue_partitions",
    },
    "by callers": {
        "trigger_runs", "abort_batch", "create_batch", "find_batches", "find_refused_items", "create_bulk_action",
        "abort_bulk_action", "find_bulk_actions", "list_version_names", "reschedule_runs", "count_limits", "find_limits",
        "change_limit", "make_environment_limit", "find_obstacles", "find_partitions", "find_retention_rules",
        "cancel_runs", "find_statuses", "watch_runs", "find_outcomes", "reset_idempotency_key", "find_runs", "find_waits",
        "find_attempts", "list_runs", "list_tasks", "find_tokens", "list_tokens", "complete_tokens", "read_logs",
        "count_schedules", "delete_schedule", "find_schedules", "insert_schedules", "list_schedules", "read_clock",
        "update_schedules",
        "set_archived", "list_environments", "find_envvars", "put_envvars", "delete_envvars", "find_sealed_otherwise",
        "seal_anew", "tag_runs", "annotate_runs",
    },
}  # fmt: skip


def test_every_point_is_one_at_which_a_worker_dies_or_has_a_reason_not_to_be() -> None:
    assert {*PASSED, *PASSED_AFTER_A_DEATH}.union(*ELSEWHERE.values()) == set(STATEMENTS)


async def test_every_run_ends_once_and_right_though_workers_die_at_every_point(
    stage: Stage, rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fault"
    monkeypatch.setenv(faults.VARIABLE, f"@{file}")
    effects, troubles, roots = Effects(stage.ledger.path), list[Trouble](), dict[str, Node]()
    outsider = Outsider(stage.client, effects, rng)
    async with _beside(_keep_workers(stage), outsider.serve()), stage.hurrying():
        await until(lambda: len(stage.sessions()) >= 2 * WORKERS, "the workers")
        for point in [*PASSED, *PASSED_AFTER_A_DEATH]:
            set_fault(file, f"{point}:1:kill")
            troubles.append(Trouble(point))
            await _trigger(stage, roots)
            if point in PASSED_AFTER_A_DEATH:
                await stage.kill_a_runner(rng)
            await until(lambda: not file.exists(), lambda point=point: f"anybody to pass {point}: {stage.describe()}")
        await stage.all_over(len(roots))
        await outsider.finished()
    effects.new()
    for trouble in troubles:
        trouble.ended = trouble.began + 30
    findings = rules.check(stage.query, roots, effects.all, troubles, is_over=True)
    assert [*findings.wrong, *outsider.complaints] == []
    assert findings.given_up == 0


async def _trigger(stage: Stage, roots: dict[str, Node]) -> None:
    """A run of each kind."""
    for program in _PROGRAMS:
        origin = f"root {len(roots)}"
        roots[origin] = program
        await stage.client.tasks.trigger(program.kind, Job(program, origin))


async def _keep_workers(stage: Stage) -> None:
    while True:
        while sum(worker.is_alive for worker in stage.workers) < WORKERS:
            stage.spawn(["worker", str(TASKS), "--runners", "2"])
        await asyncio.sleep(0.05)


@asynccontextmanager
async def _beside(*works: object) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(work) for work in works]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _node(kind: str, *parts: Node, **options: int) -> Node:
    return Node(kind, "", 7, parts, **options)  # type: ignore[arg-type]


def _named(node: Node, name: str = "p") -> Node:
    if name != "p" and node.is_program:
        return _named(node)
    return replace(node, name=name, parts=tuple(_named(part, f"{name}-{i}") for i, part in enumerate(node.parts)))


_LEAF = _node("program", _node("step"))
_PROGRAMS = [
    _named(program)
    for program in (
        _node("program", _node("step"), _node("sleep"), _node("step_retried"), failures=1, fails_after=1),
        _node("program", _node("token"), _node("child", _LEAF), _node("batch", _LEAF, _LEAF)),
        _node(
            "program",
            _node("as_completed", _node("sleep"), _node("child", _LEAF), _node("step"), _node("token_before")),
        ),
        _node(
            "program",
            _node("gather", _node("token"), _node("batch", _LEAF, _LEAF)),
            _node("given_up"),
            _node("in_time"),
        ),
        _node("threaded", _node("step"), _node("child", _LEAF), _node("sleep"), failures=1, fails_after=0),
    )
]
