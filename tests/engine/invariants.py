"""What is true of the tables between any two operations: each rule is a query for the rows that break it."""

from __future__ import annotations

from psycopg import AsyncConnection

RULES = {
    "a run is either live or past": "select id from detent.runs join detent.history using (id)",
    "a run ends once": "select id from detent.history group by id having count(*) > 1",
    "a live run has its input, and a past one none beside it": """
        select coalesce(runs.id, inputs.run_id) from detent.runs full join detent.inputs on inputs.run_id = runs.id
        where runs.id is null or inputs.run_id is null""",
    "a run is in the ready queue just when it is queued and not due later": """
        select coalesce(queued.id, ready.run_id)
        from (select * from detent.runs where status = 'QUEUED' and due_at is null) as queued
        full join detent.ready on ready.run_id = queued.id
          and ready.lane_id = queued.lane_id and ready.position = queued.position and ready.is_solo = queued.is_solo
        where queued.id is null or ready.run_id is null and coalesce(queued.expires_at > detent.now(), true)""",
    "a head start is for the session that has the run in memory": """
        select runs.id from detent.ready join detent.runs on runs.id = ready.run_id
        where ready.resident_session is not null and ready.resident_session is distinct from runs.session_id""",
    "session and fence stand together": """
        select id from detent.runs where (session_id is null) <> (fence is null)""",
    "what a worker executes belongs to an open session": """
        select runs.id from detent.runs left join detent.sessions on sessions.id = runs.session_id
        where runs.session_id is not null and (sessions.id is null or sessions.ended_at is not null)""",
    "a suspended run waits for something, and nothing of it is there": """
        select id from detent.runs
        where status = 'WAITING' and (
          not exists (select from detent.waits where waits.run_id = runs.id)
          or exists (select from detent.waits where waits.run_id = runs.id and is_done))""",
    "an edge is done just when its waitpoint is completed": """
        select run_id from detent.waits left join detent.waitpoints on waitpoints.id = waitpoint_id
        where waitpoints.id is null or is_done <> (completed_at is not null)""",
    "a run that somebody waits for is live and says so": """
        select waitpoints.id from detent.waitpoints left join detent.runs on runs.id = waitpoints.id
        where kind = 'run' and completed_at is null and not coalesce(runs.is_awaited, false)""",
    "a sealed batch is complete just when all its items are": """
        select batches.id from detent.batches join detent.waitpoints on waitpoints.id = batches.id
        where (finished >= total or aborted is not null) <> (completed_at is not null)""",
    "the items counted are the items that are over": """
        select id from detent.batches
        where is_awaited
          and finished <> (select count(*) from detent.batch_items where batch_id = batches.id and run_status is not null)""",
    "items that an awaited batch lacks are live": """
        select run_id from detent.batch_items left join detent.runs on runs.id = batch_items.run_id
        where run_status is null and not coalesce(runs.is_awaited, false)""",
    "a cancelled run has no live children": """
        select runs.id from detent.runs join detent.history on history.id = runs.parent_id and history.status = 'CANCELED'""",
    "what only a run itself reads goes with it": """
        select run_id from (
          select run_id from detent.journal union all select run_id from detent.waits
          union all select parent_id from detent.batches where is_awaited
          union all select parent_id from detent.batch_items left join detent.batches on batches.id = batch_items.batch_id
        ) as owned left join detent.runs on runs.id = owned.run_id
        where runs.id is null""",
    "a waitpoint is in somebody's journal, or was": """
        select id from detent.waitpoints left join detent.journal on journal.ref = waitpoints.id
        where ref is null and not is_shared""",
    "the slots that are counted are the slots that runs hold": """
        select gates.id, taken, n
        from detent.gates left join detent.held_slots(gates.environment_id) as held on held.gate_id = gates.id
        where taken <> coalesce(n, 0)""",
    "a run that is executed holds a slot in all that it had to pass": """
        select runs.id from detent.runs
        join detent.lanes on lanes.id = runs.lane_id join detent.environments on environments.id = runs.environment_id
        where status in ('DEQUEUED', 'EXECUTING') and exists (
          select from unnest(lanes.gates || environments.gates) as gate join detent.gates on gates.id = gate
          where scope <> 'rate' and gate <> all(coalesce(slots, '{}')))""",
    "a lane is parked while its gate is closed, or the gate says that it has a vacancy": """
        select lanes.id from detent.lanes join detent.gates as gate on gate.id = parked_on
        where detent.room_of(gate, detent.now()) > 0 and (gate.scope <> 'rate' or gate.opens_at is null)
          and exists (select from detent.ready where ready.lane_id = lanes.id)
          and not exists (select from detent.vacancies where gate_id = gate.id)""",
    "a lane that is asleep has nothing ready, or somebody has called": """
        select lanes.id from detent.lanes
        where parked_on = detent.asleep()
          and exists (select from detent.ready where ready.lane_id = lanes.id)
          and not exists (select from detent.arrivals where arrivals.lane_id = lanes.id)""",
    "before a lane stand the gates that its limits say": """
        select lanes.id from detent.lanes
        where lanes.gates <> array(
          select detent.gate_id(l.id, bound.scope, case when bound.is_per_key then lanes.concurrency_key end)
          from detent.limits_of(lanes) as l cross join lateral detent.bounds_of(l) as bound order by 1)""",
    "an ending belongs to an open session": """
        select run_id from detent.endings left join detent.sessions on sessions.id = endings.session_id
        where sessions.id is null or sessions.ended_at is not null""",
}


async def broken_rules(connection: AsyncConnection) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows that break a rule, by the rule."""
    found = {rule: await (await connection.execute(query.encode())).fetchall() for rule, query in RULES.items()}
    return {rule: rows for rule, rows in found.items() if rows}
