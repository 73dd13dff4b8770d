-- Runs that are over and whose final hooks are due.
-- Reason: final hooks run for every end, also for those that no worker saw. Lock: none (a new table). Pre.
--
-- A row is made in the transaction that ends the run, and goes when a worker says that the hooks were called. It is *held* by the
-- session that executed the run (its hooks are called there), by one whose code for the run still runs (the row is let go with the code),
-- or by one that has leased it for its hooks alone: three times at most, without slots, whatever is paused.

create table detent.final_hooks (
  run_id uuid primary key,
  environment_id integer not null,
  task_id text not null,
  finished_at timestamptz not null,                -- of the run: where it is in history
  session_id uuid,
  fence bigint,
  held_at timestamptz not null default clock_timestamp(),
  tries smallint not null default 0,               -- leases
  constraint held_under_a_fence check ((session_id is null) = (fence is null))
);
create index final_hooks_due on detent.final_hooks (environment_id, finished_at) where session_id is null;
create index final_hooks_by_session on detent.final_hooks (session_id) where session_id is not null;

-- Lets go of hooks that were perhaps not called, and says whether they are due. The rows are locked by the caller.
create function detent.release_hooks(ids uuid[]) returns boolean language plpgsql as $$
begin
  if ids = '{}' then
    return false;
  end if;
  delete from detent.final_hooks where run_id = any(ids) and tries >= 3;
  update detent.final_hooks set session_id = null, fence = null where run_id = any(ids);
  return found;
end $$;

-- The same, of those that are held under these fences.
create function detent.release_held_hooks(holders json) returns boolean language plpgsql as $$
begin
  return detent.release_hooks(array(
    select run_id from detent.final_hooks join json_to_recordset(holders) as h (id uuid, fence bigint)
      on run_id = h.id and final_hooks.fence = h.fence
    order by run_id for update of final_hooks));
end $$;

-- Leases runs that are over for their hooks alone, those that ended first, first.
create function detent.lease_hooks(by_session uuid, by_fence bigint, most integer)
returns table (
  id uuid, attempt smallint, task_id text, isolation text, created_at timestamptz, started_at timestamptz, queue text,
  concurrency_key text, priority double precision, tags text[], payload text, metadata text, max_attempts smallint,
  max_duration double precision, idempotency_user_key text, idempotency_scope text, version text, parent_id uuid, root_id uuid,
  batch_id uuid, replay_of uuid, is_test boolean, machine text, active double precision, status text, output text, error text, tries smallint) language plpgsql as $$
#variable_conflict use_column
declare
  due uuid[];
begin
  due := array(
    select due.run_id
    from detent.sessions as mine
    join detent.final_hooks as due on due.environment_id = mine.environment_id and due.session_id is null
    join detent.version_tasks as tasks on tasks.version_id = mine.version_id and tasks.task_id = due.task_id and tasks.final_hooks <> '{}'
    where mine.id = by_session and mine.ended_at is null
    order by due.finished_at limit most for share of mine for update of due skip locked);
  if due = '{}' then
    return;
  end if;
  return query
  with taken as (
    update detent.final_hooks set session_id = by_session, fence = by_fence, held_at = clock_timestamp(), tries = tries + 1
    where run_id = any(due)
    returning *
  )
  select
    past.id, past.attempt, past.task_id, tasks.isolation, past.created_at, coalesce(past.started_at, past.finished_at), past.queue,
    past.concurrency_key, past.priority, past.tags, past.payload, past.metadata, past.max_attempts, past.max_duration,
    past.idempotency_user_key, past.idempotency_scope, coalesce(versions.name, ''), past.parent_id, past.root_id, past.batch_id,
    past.replay_of, past.is_test, past.machine, past.active, past.status::text, past.output, past.error, taken.tries
  from taken
  join detent.history as past on past.id = taken.run_id and past.finished_at = taken.finished_at
  join detent.sessions as mine on mine.id = by_session
  join detent.version_tasks as tasks on tasks.version_id = mine.version_id and tasks.task_id = past.task_id
  left join detent.versions on versions.id = past.version_id;
end $$;
