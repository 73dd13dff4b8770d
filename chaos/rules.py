"""What must be true when all is over, judged by the tables and by what the programs noted; the engine is not asked."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter
from tests.engine.invariants import RULES

from chaos.effects import Effect
from chaos.plan import Job, Node, attempts, children, children_at, value
from chaos.troubles import Trouble
from detent.protocol import ids
from detent.protocol.run_error import ErrorCode

Query = Callable[[str], list[tuple[Any, ...]]]

JOBS = TypeAdapter(Job)
MOST_TOLD = 20
MOST_LOSSES = 5
"""Workers of one run that are lost in a row, before it has crashed for good."""
SLACK = 1.0
"""Seconds that a signal may take to work."""
LEFT = {
    table: f"select count(*) from detent.{table}"
    for table in ("runs", "inputs", "ready", "waits", "journal", "endings", "batch_items")
} | {
    "waitpoints": "select count(*) from detent.waitpoints where not is_shared",
    "awaited batches": "select count(*) from detent.batches where is_awaited",
}
CRASHES = f"select run_id, number from detent.attempts where error::json ->> 'code' = '{ErrorCode.PROCESS_KILLED}'"
TWICE = """
select run_id, attempt, message, count(*), array_agg(place || ' ' || number)
from (select distinct run_id, attempt, place, number, message from detent.logs) as line
group by run_id, attempt, message having count(*) > 1
"""
"""A message stands once in an attempt. The same line stored again under its own place is read once."""


@dataclass(slots=True)
class Run:
    id: str
    status: str
    attempt: int
    losses: int
    parent: str | None
    job: Job
    output: str | None
    error: str | None
    crashes: frozenset[int]
    """The attempts that ended with a process which the run had alone."""


@dataclass(slots=True)
class Findings:
    wrong: list[str] = field(default_factory=list)
    effects: int = 0
    executed_again: int = 0
    given_up: int = 0

    def add(self, what: str) -> None:
        self.wrong.append(what)


def check(
    query: Query, roots: dict[str, Node], effects: Sequence[Effect], troubles: Sequence[Trouble], *, is_over: bool
) -> Findings:
    """`roots`: the programs that were triggered, by their origins. Without `is_over`, runs that are left are not told of."""
    findings = Findings()
    runs = list(_runs(query))
    given_up = _given_up(runs)
    _check_outcomes(runs, given_up, findings)
    _check_crashes(runs, troubles, findings)
    if is_over:
        _check_children([run for run in runs if run.id not in given_up], runs, roots, findings)
        _check_nothing_left(query, findings)
    for rule, statement in RULES.items():
        if rows := query(statement):
            findings.add(f"broken: {rule}: {rows[:3]}")
    _check_logs(query, findings)
    _check_effects(effects, troubles, findings)
    return findings


def _runs(query: Query) -> Iterator[Run]:
    crashes: defaultdict[object, set[int]] = defaultdict(set)
    for run_id, number in query(CRASHES):
        crashes[run_id].add(number)
    for run_id, status, attempt, losses, parent, payload, output, error in query(
        "select id, status::text, attempt, losses, parent_id, payload, output, error from detent.history"
    ):
        yield Run(
            id=ids.encode("run", run_id),
            status=status,
            attempt=attempt,
            losses=losses,
            parent=None if parent is None else ids.encode("run", parent),
            job=JOBS.validate_json(payload),
            output=output,
            error=error,
            crashes=frozenset(crashes[run_id]),
        )


def _given_up(runs: Sequence[Run]) -> set[str]:
    """The runs whose workers were lost five times in a row, and those that had to do with what became of them."""
    parents = {run.id: run.parent for run in runs}
    found = set[str]()
    for run in runs:
        is_lost = run.status == "CRASHED" and json.loads(run.error or "{}").get("code") == ErrorCode.WORKER_LOST
        if is_lost and run.losses >= MOST_LOSSES:
            each: str | None = run.id
            while each is not None:
                found.add(each)
                each = parents.get(each)
    return found


def _check_outcomes(runs: Sequence[Run], given_up: Collection[str], findings: Findings) -> None:
    """What a parent of one that was given up makes of it is not known here; that each has ended once, is."""
    for run_id, count in Counter(run.id for run in runs).items():
        if count > 1:
            findings.add(f"run {run_id} has ended {count} times")
    for run in runs:
        if run.id in given_up:
            findings.given_up += 1
            continue
        program = run.job.program
        wanted = ("FAILED", None) if program.aborts else ("COMPLETED", value(program))
        found = (run.status, None if run.output is None else json.loads(run.output))
        if found != wanted:
            findings.add(f"run {run.id} came to {found}, not to {wanted}: {(run.error or '')[:600]}\n{program}")
        elif run.attempt != (least := attempts(program, run.crashes)):
            findings.add(f"run {run.id} took {run.attempt} attempts, not {least}; crashed: {sorted(run.crashes)}")


def _check_crashes(runs: Sequence[Run], troubles: Sequence[Trouble], findings: Findings) -> None:
    """A run that was on the CPU when its runner was killed begins alone; killed there once more, it has crashed."""
    crashes = sum(len(run.crashes) for run in runs)
    if crashes > len(troubles):
        findings.add(f"{crashes} attempts crashed, though only {len(troubles)} times something went wrong")


def _check_children(
    judged: Sequence[Run], runs: Sequence[Run], roots: dict[str, Node], findings: Findings
) -> None:
    made: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    for run in runs:
        made[run.parent][run.job.origin] += 1
    triggered = Counter(list(roots))
    if made[None] != triggered:
        missing, doubled = triggered - made[None], made[None] - triggered
        findings.add(f"of the programs triggered {dict(missing)} are missing, and {dict(doubled)} too many")
    for run in judged:
        program = run.job.program
        wanted = Counter(origin for origin, _ in children(program, run.crashes))
        begun = Counter(origin for number in run.crashes for origin, _ in children_at(program, number))
        missing, doubled = wanted - made[run.id], made[run.id] - wanted - begun
        if missing or doubled:
            findings.add(f"run {run.id} lacks the children {dict(missing)}, and has {dict(doubled)} too many")


def _check_nothing_left(query: Query, findings: Findings) -> None:
    for what, statement in LEFT.items():
        ((count,),) = query(statement)
        if count:
            findings.add(f"left behind: {count} {what}")


def _check_logs(query: Query, findings: Findings) -> None:
    for run_id, attempt, message, count, places in query(TWICE):
        name = ids.encode("run", run_id)
        findings.add(f"attempt {attempt} of run {name} has the line {message!r} {count} times: {places}")


def _check_effects(effects: Sequence[Effect], troubles: Sequence[Trouble], findings: Findings) -> None:
    """A result that was recorded is the one of the program for good, and its step is not executed again."""
    by_step: defaultdict[tuple[str, str], list[Effect]] = defaultdict(list)
    for effect in effects:
        if effect.what in {"executed", "recorded"}:
            by_step[effect.run, effect.name].append(effect)
    for (run, name), found in by_step.items():
        _check_step(f"step {name!r} of run {run}", found, troubles, findings)


def _check_step(step: str, found: Sequence[Effect], troubles: Sequence[Trouble], findings: Findings) -> None:
    counted = {effect.detail for effect in found if effect.what == "recorded"}
    findings.effects += bool(counted)
    if len(counted) > 1:
        findings.add(f"{step} was recorded with {len(counted)} results")
    first = next((i for i, effect in enumerate(found) if effect.what == "recorded"), len(found))
    for effect in found[first:]:
        if effect.what == "executed" and not _may_be_stale(effect, troubles):
            findings.add(f"{step} was executed again, by process {effect.pid}, after its result was recorded")
    executed = [effect for effect in found if effect.what == "executed"]
    for one, other in pairwise(executed):
        findings.executed_again += 1
        if not any(_lies_between(trouble, one.at, other.at) for trouble in troubles):
            findings.add(f"{step} was executed again though nothing went wrong in between")


def _may_be_stale(effect: Effect, troubles: Sequence[Trouble]) -> bool:
    """Whether a process was stopped that does not know yet that its runs are no longer its own."""
    return any(effect.pid in trouble.pids and trouble.began <= effect.at for trouble in troubles)


def _lies_between(trouble: Trouble, one: float, other: float) -> bool:
    return trouble.began - SLACK <= other and (trouble.ended is None or trouble.ended + SLACK >= one)
