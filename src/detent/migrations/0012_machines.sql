-- Machines and usage: what a run may take, and what it took.
-- Reason: runs in processes of their own are bounded, and tried once more on another machine when they run out of memory; and time in which
-- a run executed is kept. Lock: access exclusive on runs, inputs, history and versions, for a moment. Pre: before the code that needs it.

alter table detent.version_tasks
  add column machine text,
  add column oom_machine text;                     -- on which a run is tried once more that ran out of memory
alter table detent.versions
  add column machines text[] not null default '{}';  -- those that the code knows beside the presets
alter table detent.inputs
  add column machine text;                         -- as given, or the one after it ran out of memory; null: the task's
alter table detent.runs
  add column active double precision not null default 0,          -- seconds executed, up to its latest lease
  add column attempt_active double precision not null default 0;  -- those of its attempt, up to its latest wait
alter table detent.history
  add column machine text,
  add column active double precision not null default 0;

-- Seconds for which a run has been executed under its present lease.
create function detent.seconds_leased(status detent.run_status, leased_at timestamptz)
returns double precision language sql stable parallel safe as $$
  select case when status in ('DEQUEUED', 'EXECUTING')
    then greatest(0, extract(epoch from statement_timestamp() - leased_at))::double precision else 0 end
$$;

-- The machine on which a run is tried once more that ran out of memory; null: on none, as when it was on that machine already.
create function detent.machine_after_oom(run uuid) returns text language sql stable as $$
  select tasks.oom_machine
  from detent.runs
  join detent.inputs on inputs.run_id = runs.id
  join detent.version_tasks as tasks on tasks.version_id = runs.version_id and tasks.task_id = runs.task_id
  where runs.id = run and tasks.oom_machine <> coalesce(inputs.machine, tasks.machine, '')
$$;

create or replace view detent.all_runs as
select
  runs.id, runs.environment_id, runs.task_id, runs.status, runs.attempt, runs.max_attempts, runs.version_id, runs.queued_at,
  runs.started_at, null::timestamptz as finished_at, runs.due_at, runs.expires_at, runs.waits, runs.losses, runs.parent_id, runs.batch_id,
  inputs.created_at, inputs.payload, inputs.metadata, inputs.tags, inputs.queue, inputs.concurrency_key, inputs.priority, inputs.ttl,
  inputs.limits, inputs.max_duration, inputs.idempotency_user_key, inputs.root_id, inputs.replay_of, inputs.schedule_id, inputs.is_test,
  null::text as output, null::text as error, runs.is_solo, runs.fence is not null as is_held, runs.lane_id,
  inputs.machine, runs.active + detent.seconds_leased(runs.status, runs.leased_at) as active,
  runs.attempt_started_at, inputs.idempotency_scope
from detent.runs join detent.inputs on inputs.run_id = runs.id
union all
select
  id, environment_id, task_id, status, attempt, max_attempts, version_id, queued_at,
  started_at, finished_at, null, null, waits, losses, parent_id, batch_id,
  created_at, payload, metadata, tags, queue, concurrency_key, priority, ttl,
  limits, max_duration, idempotency_user_key, root_id, replay_of, schedule_id, is_test, output, error, false, false, null,
  machine, active, attempt_started_at, idempotency_scope
from detent.history;
