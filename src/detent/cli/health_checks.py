"""What goes on in an environment, judged: workers, tasks, pauses, runs that wait, counters, retention."""

from __future__ import annotations

from collections.abc import Iterator

from detent.cli import printing
from detent.cli.finding import Finding, ok, warning, wrong
from detent.protocol.flow import LimitKind
from detent.protocol.health import HealthRecord, PausedLimit, UndeclaredLimit

_COMMANDS = {LimitKind.QUEUE: "queues", LimitKind.LIMIT: "limits"}
_MOST_NAMED = 5


def judge(health: HealthRecord, environment: str) -> Iterator[Finding]:
    yield _workers(health, environment)
    yield from _forsaken_tasks(health)
    yield from map(_paused, health.paused)
    yield from map(_undeclared, health.undeclared)
    yield from _late_runs(health)
    yield _slots(health)
    yield _partitions(health)


def _workers(health: HealthRecord, environment: str) -> Finding:
    live = [worker for worker in health.workers if worker.is_live]
    if live:
        count = len({worker.name for worker in live})
        each = ", ".join(f"{worker.name} ({worker.runners} runners, version {worker.version})" for worker in live)
        return ok("workers", f"{count} live: {each}")
    silent = "".join(
        f"; {worker.name} was last heard of {printing.seconds(worker.silence)} ago" for worker in health.workers
    )
    text = (
        f'no worker lives in environment "{environment}"{silent}: start `detent dev`, or `detent worker` in production'
    )
    return wrong("workers", text) if health.forsaken_tasks else warning("workers", text)


def _forsaken_tasks(health: HealthRecord) -> Iterator[Finding]:
    for task in health.forsaken_tasks[:_MOST_NAMED]:
        text = f'{task.runs} runs of task "{task.task_id}" are not over, and no live worker has it: start one, or cancel them'
        yield wrong("tasks without a worker", text)
    if len(health.forsaken_tasks) > _MOST_NAMED:
        text = (
            f"{len(health.forsaken_tasks) - _MOST_NAMED} more have runs, and no live worker: `detent tasks` lists them"
        )
        yield wrong("tasks without a worker", text)


def _paused(limit: PausedLimit) -> Finding:
    since = f"paused since {limit.paused_at.isoformat(timespec='seconds')}"
    if limit.kind is LimitKind.ENVIRONMENT:
        return warning("paused", f"everything is {since}: `detent limits environment --resume` goes on with it")
    command = f"detent {_COMMANDS[limit.kind]} resume {limit.name}"
    return warning("paused", f'{_noun(limit.kind)} "{limit.name}" is {since}: `{command}` goes on with it')


def _undeclared(limit: UndeclaredLimit) -> Finding:
    function = "queue" if limit.kind is LimitKind.QUEUE else "concurrency_limit"
    text = (
        f'{limit.runs} runs wait for {_noun(limit.kind)} "{limit.name}", which no code declares: '
        f'declare it with {function}("{limit.name}"), and start a worker'
    )
    return wrong("undeclared", text)


def _late_runs(health: HealthRecord) -> Iterator[Finding]:
    for run in health.late_runs:
        why = run.reason.text if run.reason is not None else "it has started meanwhile"
        yield warning("late", f'{run.run_id} of task "{run.task_id}" was queued {printing.ago(run.queued_at)}: {why}')
    if health.late_count > len(health.late_runs):
        text = f"{health.late_count:,} runs in all have been ready for more than 10 minutes: start more workers, or see above"
        yield warning("late", text)


def _slots(health: HealthRecord) -> Finding:
    if health.miscounted:
        text = f"the slots of {health.miscounted} limits are counted wrongly: a worker that starts mends it; please report it"
        return wrong("slots", text)
    return ok("slots", "counted right")


def _partitions(health: HealthRecord) -> Finding:
    is_served = any(worker.is_live for worker in health.workers)
    if health.shelves_behind and is_served:
        text = f"{', '.join(health.shelves_behind)} have no partition for today: see the logs of the workers, which make it"
        return warning("retention", text)
    if health.overdue:
        text = (
            f"{len(health.overdue)} partitions should be gone ({', '.join(health.overdue[:_MOST_NAMED])}): "
            "let a worker run, and end transactions that stay open"
        )
        return warning("retention", text)
    return ok("retention", f"{len(health.retention.partitions)} partitions; the rules: `detent retention`")


def _noun(kind: LimitKind) -> str:
    return "queue" if kind is LimitKind.QUEUE else "limit"
