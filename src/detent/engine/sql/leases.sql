-- name: lease_runs
-- Locks the session (share), ready rows (skip locked), their runs by falling id, then gates and lanes by id.
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
select detent.end_cancelled(%(holders)s)

-- name: hand_back
-- Locks the runs, then what waits for those that end.
select what, run_id, status, session_id, is_watched from detent.hand_back(%(runs)s)

-- name: wait_for
-- Locks the runs by falling id, then idempotency keys, then the waitpoints by id.
select i, ref, is_pending, is_suspended, output, error from detent.wait_for(%(environment)s, %(requests)s, %(has_keys)s)

-- name: suspend
-- Locks the runs by falling id.
select i, is_suspended from detent.suspend(%(requests)s)

-- name: collect
select run_id, fence, results from detent.collect(%(holders)s)

-- name: record_steps
-- Locks the runs.
select i from detent.record_steps(%(environment)s, %(requests)s)

-- name: read_journals
-- How long ago something was recorded is told by the clock of waits, which tests move; as a date by the real one, as runners have it.
select r.i, journal.operation, journal.number, journal.attempt, journal.kind, journal.fingerprint, journal.ref, journal.is_cached,
  journal.answers, journal.seen,
  clock_timestamp() - (detent.now() - journal.recorded_at) as recorded_at, journal.output, journal.error,
  waitpoints.completed_at is not null as is_done, waitpoints.task_id, waitpoints.run_status, waitpoints.output, waitpoints.error,
  batches.sealed_at is not null as is_sealed
from json_to_recordset(%(reads)s) as r (i integer, id uuid, fence bigint, after bigint)
join detent.runs on runs.id = r.id and (r.fence is null or runs.fence = r.fence) and runs.environment_id = %(environment)s
left join lateral (
  select * from detent.journal
  where journal.run_id = runs.id and journal.number > r.after
    and (journal.attempt = runs.attempt or journal.attempt < runs.attempt and journal.kind = 'step' and journal.error is null)
  order by journal.number
  limit %(limit)s
) as journal on true
left join detent.waitpoints on waitpoints.id = journal.ref and journal.kind in ('time', 'child', 'batch_wait', 'token')
left join detent.batches on batches.id = journal.ref and journal.kind in ('batch', 'batch_wait')
order by r.i, journal.number

-- name: append_logs
-- How a run will end is not known yet: its lines are kept as those of one that succeeds.
insert into detent.logs (run_id, environment_id, attempt, place, number, at, level, message, fields, keep_days)
select l.id, %(environment)s::integer, l.attempt, l.place, l.number, l.at, l.level, l.message, l.fields, keep_days
from json_to_recordset(%(lines)s) as l (
  id uuid, fence bigint, attempt smallint, place text, number integer, at timestamptz, level text, message text, fields text)
join (
  select id, fence, environment_id, task_id from detent.runs
  union all
  -- Final hooks have lines, too.
  select run_id, fence, environment_id, task_id from detent.final_hooks
) as runs on runs.id = l.id and runs.fence = l.fence
cross join lateral detent.days_kept(runs.environment_id, runs.task_id, 'COMPLETED')
on conflict do nothing

-- name: read_logs
-- A replay may have written a line again.
select attempt, at, level, message, fields
from (
  select distinct on (attempt, place, number) * from detent.logs
  where run_id = %(run)s and environment_id = %(environment)s
  order by attempt, place, number, at
) as line
order by attempt, at, place, number offset %(after)s limit %(limit)s
