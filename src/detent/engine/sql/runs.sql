-- name: trigger_runs
-- Inserts only; locks idempotency keys in (task, key) order where there are any.
select i, run_id, is_cached
from detent.insert_runs(%(environment)s, %(requests)s, %(has_keys)s, %(is_repeat)s)

-- name: trigger_children
-- Locks the parents by id, then what `insert_runs` and `suspend_runs` lock.
select i, run_id, is_cached, is_pending, is_suspended, run_status, task_id, output, error
from detent.trigger_children(%(environment)s, %(requests)s, %(has_keys)s, %(is_repeat)s)

-- name: find_tasks
-- What triggers must know of tasks, as each task's current version has registered it: the newest that has a live worker, else the
-- newest. And the queues that are full, whatever the task.
select 'task', current.task_id, current.version_id, current.queue, current.ttl, current.payload_schema, versions.machines
from (
  select distinct on (t.task_id) t.*
  from detent.version_tasks as t
  left join (
    select distinct version_id from detent.sessions
    where environment_id = %(environment)s and ended_at is null and beat_at > clock_timestamp() - interval '15 seconds'
  ) as live on live.version_id = t.version_id
  where t.environment_id = %(environment)s and t.task_id = any(%(tasks)s)
  order by t.task_id, live.version_id desc nulls last, t.version_id desc
) as current join detent.versions on versions.id = current.version_id
union all
select 'full', limits.name, limits.most_queued, null, null, null, null
from detent.limits
where limits.environment_id = %(environment)s and limits.kind = 'queue' and limits.most_queued is not null
  and limits.most_queued <= (
    select count(*) from (
      select from detent.lanes join detent.ready on ready.lane_id = lanes.id
      where lanes.environment_id = limits.environment_id and lanes.queue = limits.name limit limits.most_queued) as waiting)

-- name: find_version_tasks
select versions.id, array(select task_id from detent.version_tasks where version_id = versions.id)
from detent.versions where environment_id = %(environment)s and name = %(name)s

-- name: list_version_names
select name from detent.versions where environment_id = %(environment)s order by id desc limit 5

-- name: reschedule_runs
update detent.runs
set due_at = moved.due, position = moved.due - make_interval(secs => inputs.priority)
from (
  select r.id, greatest(detent.now(), coalesce(r.due_at, detent.now() + make_interval(secs => r.delay))) as due
  from json_to_recordset(%(requests)s) as r (id uuid, delay double precision, due_at timestamptz)
) as moved
join detent.inputs on inputs.run_id = moved.id
where runs.id = moved.id and runs.environment_id = %(environment)s and runs.status = 'DELAYED'
returning runs.id

-- name: cancel_runs
-- Locks runs by id, level by level.
select what, run_id, status, session_id, is_watched
from detent.cancel_runs(%(environment)s, %(ids)s::uuid[], %(error)s)

-- name: find_statuses
select id, status from detent.runs where id = any(%(ids)s::uuid[]) and environment_id = %(environment)s
union all
select id, status from detent.history where id = any(%(ids)s::uuid[]) and environment_id = %(environment)s
  and finished_at >= (select min(detent.made_at(i)) from unnest(%(ids)s::uuid[]) as i)

-- name: watch_runs
-- Marks live runs; whoever is over by then is read in the second statement.
update detent.runs set is_watched = true
where id = any(%(ids)s::uuid[]) and environment_id = %(environment)s and not is_watched

-- name: find_outcomes
select id, task_id, status, output, error
from detent.history
where id = any(%(ids)s::uuid[]) and environment_id = %(environment)s
  and finished_at >= (select min(detent.made_at(i)) from unnest(%(ids)s::uuid[]) as i)

-- name: reset_idempotency_key
delete from detent.idempotency_keys
where environment_id = %(environment)s and task_id = %(task)s and key = %(key)s
returning run_id

-- name: find_runs
select
  all_runs.id, all_runs.task_id, all_runs.status, all_runs.attempt, all_runs.max_attempts, queued_at, started_at, finished_at, due_at,
  waits, losses, parent_id, batch_id, all_runs.created_at, payload, metadata, tags, all_runs.queue, all_runs.concurrency_key, priority, ttl,
  all_runs.limits, expires_at, max_duration, idempotency_user_key, root_id, replay_of, schedule_id, is_test, output, error, is_solo, versions.name as version,
  pinned.name as pinned_version, all_runs.machine as given_machine,
  coalesce(all_runs.machine, (
    select t.machine from detent.version_tasks as t
    where t.version_id = all_runs.version_id and t.task_id = all_runs.task_id)) as machine,
  active, attempt_started_at, idempotency_scope,
  all_runs.finished_at is not null or detent.is_known(all_runs.lane_id) as is_known,
  exists (
    select from detent.version_tasks as t
    where t.environment_id = all_runs.environment_id and t.task_id = all_runs.task_id
      and (not coalesce(lanes.is_pinned, false) or t.version_id = lanes.version_id)) as has_task,
  all_runs.finished_at is null and exists (
    select from detent.sessions
    join detent.version_tasks as t on t.version_id = sessions.version_id and t.task_id = all_runs.task_id
    where sessions.environment_id = all_runs.environment_id and ended_at is null
      and (not coalesce(lanes.is_pinned, false) or t.version_id = lanes.version_id)
      and beat_at > clock_timestamp() - interval '15 seconds') as has_live_worker
from detent.all_runs
left join detent.versions on versions.id = all_runs.version_id
left join detent.lanes on lanes.id = all_runs.lane_id
left join detent.versions as pinned on lanes.is_pinned and pinned.id = lanes.version_id
where all_runs.id = any(%(ids)s::uuid[]) and all_runs.environment_id = %(environment)s

-- name: find_waits
-- What suspended runs wait for.
select waits.run_id, waitpoints.kind, waitpoints.id, waitpoints.due_at, waitpoints.task_id
from detent.waits join detent.waitpoints on waitpoints.id = waits.waitpoint_id
where waits.run_id = any(%(ids)s::uuid[]) and not waits.is_done

-- name: find_attempts
select run_id, number, started_at, finished_at, error from detent.attempts where run_id = any(%(ids)s::uuid[]) order by run_id, number

-- name: list_runs
-- Newest first by id, which rises with the time of triggering.
select id
from detent.select_runs(
  %(environment)s, json_populate_record(null::detent.run_selection, %(selection)s), with_past => true, is_falling => true,
  beyond => %(before)s::uuid, among => null, most => %(limit)s) as found (id)
