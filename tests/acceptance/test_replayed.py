"""Runs of every shape are started in one process, which is killed while they wait, and go on in another."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

import pytest

from detent import JsonValue
from tests.acceptance.stage import Stage, until

pytestmark = pytest.mark.acceptance

APPROVAL = 7


@dataclass(frozen=True, slots=True)
class Course:
    """What becomes of a run: its output, and the effects of its steps in the first process and in the second, sorted."""

    output: JsonValue
    before: list[str]
    after: list[str]


COURSES = {
    "gathering": Course(["a", 2, "b", 4], ["a"], ["b"]),
    "grouping": Course(["c", "a", 2, "b"], ["a"], ["b", "c"]),
    "in_order_of_completion": Course(["2", "4"], ["2"], ["4"]),
    "first_of_two": Course(["2", "4"], ["2"], ["4"]),
    "beside_a_library": Course(["a", "b"], ["b"], ["a"]),
    "in_time": Course(["a", "b"], ["a"], ["b"]),
    "too_late_before": Course(["b"], ["too late"], ["b"]),
    "too_late_afterwards": Course("too late", ["a"], ["too late"]),
    "threaded": Course(["a", 2, "b", 4], ["a"], ["b"]),
    "looping": Course(["again"] * 5, ["again"] * 3, ["again"] * 2),
    "nesting": Course(["a", "b", "c"], ["a"], ["b", "c"]),
    "approved": Course(["a", APPROVAL, "b"], ["a"], ["b"]),
    "approved_beforehand": Course(["a", "b", APPROVAL], ["a"], ["b"]),
    "with_child": Course(["a", 2, "b"], ["a"], ["b"]),
    "with_batch": Course([0, 2, 4, "b"], ["a"], ["b"]),
    "telling": Course(2, [], ["a"]),
    "surrounded": Course("connected", ["connected", "on_wait"], ["a", "on_resume"]),
}


async def test_runs_of_every_shape_go_on_in_another_process_and_do_nothing_twice(stage: Stage) -> None:
    first = await stage.start_worker("shapes.py", runners=1)
    started = await stage.client.batch.trigger([stage.client.tasks.item(shape) for shape in COURSES])
    names = {run.id: run.task_id for run in started.runs}
    befores = {name: course.before for name, course in COURSES.items()}
    await until(lambda: _all_wait(stage) and _effects(stage, names) == befores, stage.describe)
    count = len(stage.ledger.effects)

    first.kill_all()
    await stage.start_worker("shapes.py", runners=1)
    async for token in stage.client.wait.list_tokens(tags="awaited"):
        await stage.client.wait.complete_token(token.id, APPROVAL)
    async with stage.hurrying():
        await stage.none_live()

    outputs = {
        run_id: json.loads(output) for run_id, output in stage.outcomes("parent_id is null", "coalesce(output, error)")
    }
    afters = _effects(stage, names, since=count)
    found = {name: Course(outputs[run_id], befores[name], afters[name]) for run_id, name in names.items()}
    assert found == COURSES
    assert stage.query("select message from detent.logs order by at") == [("before",), ("after",)]


def _all_wait(stage: Stage) -> bool:
    return not stage.one("select count(*) from detent.runs where status <> 'WAITING'")


def _effects(stage: Stage, names: dict[str, str], *, since: int = 0) -> dict[str, list[str]]:
    """What the steps of each run told the ledger, after so many lines."""
    found = defaultdict[str, list[str]](list)
    for effect in stage.ledger.effects[since:]:
        found[names[effect.run]].append(effect.detail)
    return {name: sorted(found[name]) for name in names.values()}
