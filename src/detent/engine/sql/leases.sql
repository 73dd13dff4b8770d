-- name: lease_runs
-- Locks the session (share), ready rows (skip locked), then their runs.
select * from detent.lease_runs(%(session)s::uuid, %(fence)s::bigint, %(room)s::json, %(most_lanes)s)

-- name: start_attempts
-- Passes over runs that somebody else has locked: showing them as executing is not worth a deadlock with their completion.
with held as materialized (
  select runs.id from detent.runs join json_to_recordset(%(holders)s) as h (id uuid, fence bigint)
    on runs.id = h.id and runs.fence = h.fence
  where runs.status = 'DEQUEUED' for update of runs skip locked
)
update detent.runs set status = 'EXECUTING' from held where runs.id = held.id

-- name: settle_runs
-- Locks the runs, then what waits for them (batches, waitpoints, runs that wake).
select what, run_id, status, session_id, is_watched from detent.settle_runs(%(outcomes)s)

-- name: end_cancelled
delete from detent.endings using json_to_recordset(%(holders)s) as h (id uuid, fence bigint)
where endings.run_id = h.id and endings.fence = h.fence

-- name: hand_back
-- What was cancelled meanwhile is not executed either: its slot is free.
with ended as (
  delete from detent.endings using json_to_recordset(%(holders)s) as h (id uuid, fence bigint)
  where endings.run_id = h.id and endings.fence = h.fence
), held as materialized (
  select runs.id from detent.runs join json_to_recordset(%(holders)s) as h (id uuid, fence bigint)
    on runs.id = h.id and runs.fence = h.fence
  order by runs.id desc for update of runs
)
select given.run_id from detent.give_back(array(select id from held), '{}', 0, false) as given

-- name: wait_for_time
select i, is_suspended from detent.wait_for_time(%(environment)s, %(requests)s)

-- name: check_holder
select attempt from detent.runs where id = %(run)s and fence = %(fence)s

-- name: read_journal
select journal.operation, journal.kind, journal.fingerprint, journal.ref, journal.is_cached, waitpoints.completed_at is not null as is_done,
  waitpoints.task_id, waitpoints.run_status, waitpoints.output, waitpoints.error, batches.total is not null as is_sealed
from detent.journal
left join detent.waitpoints on waitpoints.id = journal.ref and journal.kind in ('time', 'child', 'batch_wait')
left join detent.batches on batches.id = journal.ref and journal.kind in ('batch', 'batch_wait')
where journal.run_id = %(run)s and journal.attempt = %(attempt)s
order by journal.number
offset %(after)s limit %(limit)s

-- name: read_batch_results
select index, run_id, task_id, run_status, output, error from detent.batch_items
where batch_id = %(batch)s and index > %(after)s
order by index
limit %(limit)s

-- name: append_logs
insert into detent.logs (run_id, environment_id, attempt, number, at, level, message, fields)
select l.id, %(environment)s::integer, l.attempt, l.number, l.at, l.level, l.message, l.fields
from json_to_recordset(%(lines)s)
  as l (id uuid, fence bigint, attempt smallint, number integer, at timestamptz, level text, message text, fields text)
join detent.runs on runs.id = l.id and runs.fence = l.fence
on conflict do nothing

-- name: read_logs
select attempt, number, at, level, message, fields from detent.logs
where run_id = %(run)s order by attempt, number offset %(after)s limit %(limit)s
