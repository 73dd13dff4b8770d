-- name: lease_runs
-- Takes the first ready runs of the lanes whose tasks this session's version has, as much as there is room of each kind.
-- Few lanes are merged strictly by position; of many, a random share each. Locks the session (share), ready rows (skip
-- locked), then their runs, which nobody else can want: a ready run is held by no one.
with session as (
  select id, environment_id, version_id from detent.sessions
  where id = %(session)s::uuid and ended_at is null
  for share
), lane as materialized (
  select lanes.id, tasks.isolation, tasks.max_attempts, tasks.max_duration,
    (%(room)s::json ->> tasks.isolation)::integer as room
  from session
  join detent.version_tasks as tasks on tasks.version_id = session.version_id
  join detent.lanes on lanes.environment_id = session.environment_id and lanes.task_id = tasks.task_id and lanes.parked_on is null
  where exists (select from detent.ready where ready.lane_id = lanes.id)
  order by random()
  limit %(most_lanes)s
), share as (
  select count(*) as lanes from lane
), head as (
  select ready.row, ready.run_id, ready.position, ready.resident_session,
    case when ready.is_solo then 'process' else lane.isolation end as isolation, lane.max_attempts, lane.max_duration
  from share, lane cross join lateral (
    select ready.ctid as row, ready.* from detent.ready
    where ready.lane_id = lane.id
      and case when is_solo then (%(room)s::json ->> 'process')::integer else lane.room end > 0
      and (resident_session is null or resident_session = %(session)s::uuid or resident_until < clock_timestamp())
    order by position, run_id
    limit case when share.lanes <= 8 then lane.room + (%(room)s::json ->> 'process')::integer
      else 1 + 2 * lane.room / share.lanes end
    for update skip locked
  ) as ready
), chosen as materialized (
  select * from (
    select *, row_number() over (partition by isolation order by position, run_id) as place from head
  ) as ranked
  where place <= (%(room)s::json ->> isolation)::integer
), taken as (
  delete from detent.ready where ctid = any(array(select chosen.row from chosen))
), leased as (
  update detent.runs
  set status = 'DEQUEUED', session_id = %(session)s::uuid, fence = %(fence)s,
      leased_at = clock_timestamp(), started_at = coalesce(runs.started_at, detent.now()),
      attempt_started_at = coalesce(runs.attempt_started_at, detent.now()),
      version_id = session.version_id,
      max_attempts = coalesce(runs.max_attempts, chosen.max_attempts)
  from chosen, session
  where runs.id = chosen.run_id and runs.status = 'QUEUED'
  returning runs.id, runs.attempt, runs.task_id, runs.started_at, runs.has_journal, runs.max_attempts, runs.parent_id,
    runs.batch_id, runs.waits, runs.version_id, chosen.isolation, chosen.max_duration as task_max_duration, chosen.position,
    chosen.resident_session is not null and chosen.resident_session = %(session)s::uuid as is_resumed
), delivered as (
  delete from detent.waits using leased where leased.waits > 0 and waits.run_id = leased.id
  returning waits.run_id, waits.operation, waits.waitpoint_id
), result as (
  select delivered.run_id, json_agg(json_build_array(
    delivered.operation, waitpoints.kind, waitpoints.id, waitpoints.task_id, waitpoints.run_status,
    waitpoints.output, waitpoints.error)) as results
  from delivered join detent.waitpoints on waitpoints.id = delivered.waitpoint_id
  group by delivered.run_id
)
select
  leased.id, leased.attempt, leased.task_id, leased.isolation, leased.is_resumed, leased.has_journal, result.results,
  inputs.created_at, leased.started_at, inputs.queue, inputs.concurrency_key, inputs.priority, inputs.tags,
  case when not leased.is_resumed then inputs.payload end as payload,
  case when not leased.is_resumed then inputs.metadata end as metadata,
  leased.max_attempts, coalesce(inputs.max_duration, leased.task_max_duration) as max_duration, inputs.idempotency_user_key,
  versions.name as version, leased.parent_id, inputs.root_id, leased.batch_id, inputs.replay_of, inputs.is_test
from leased
join detent.inputs on inputs.run_id = leased.id
join detent.versions on versions.id = leased.version_id
left join result on result.run_id = leased.id
order by leased.position, leased.id

-- name: start_attempts
update detent.runs set status = 'EXECUTING'
from json_to_recordset(%(holders)s) as h (id uuid, fence bigint)
where runs.id = h.id and runs.fence = h.fence and runs.status = 'DEQUEUED'

-- name: settle_runs
-- Locks the runs, then what waits for them (batches, waitpoints, runs that wake).
select what, run_id, status, session_id, is_watched from detent.settle_runs(%(outcomes)s)

-- name: end_cancelled
delete from detent.endings using json_to_recordset(%(holders)s) as h (id uuid, fence bigint)
where endings.run_id = h.id and endings.fence = h.fence

-- name: hand_back
with held as materialized (
  select runs.id from detent.runs join json_to_recordset(%(holders)s) as h (id uuid, fence bigint)
    on runs.id = h.id and runs.fence = h.fence
  order by runs.id for update of runs
)
select given.run_id from detent.give_back(array(select id from held), '{}', 0, false) as given

-- name: wait_for_time
select i, is_suspended from detent.wait_for_time(%(environment)s, %(requests)s)

-- name: check_holder
select attempt from detent.runs where id = %(run)s and fence = %(fence)s

-- name: read_journal
-- A waitpoint that another waiter's end has swept away is made good from history.
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
