-- Bulk actions: cancel or replay all runs that a filter selects, piece by piece.
-- Reason: 100,000 runs in one statement would hold their locks for minutes. Lock: none (everything is new). Pre: before the code
-- that needs it.
--
-- Runs are taken in the order of their ids; `last_id` says how far the action has come, and moves with what was done. Whoever
-- carries out a part holds the row of the action, or, where code is needed for it, has reserved it for some seconds.

create table detent.bulk_actions (
  id uuid primary key,
  environment_id integer not null,
  kind text not null check (kind in ('CANCEL', 'REPLAY')),
  name text,
  reason text not null,
  run_ids uuid[],                                  -- the runs that were named, instead of a filter
  statuses text[],
  is_registered boolean,                           -- of queued runs: whether a worker has registered their task
  tasks text[],
  tags text[],                                     -- all of them
  queues text[],
  versions text[],
  batch_id uuid,
  created_after timestamptz,
  created_before timestamptz,
  status text not null default 'PENDING' check (status in ('PENDING', 'COMPLETED', 'ABORTED')),
  total integer not null default 0,
  success integer not null default 0,
  failure integer not null default 0,
  last_id uuid,
  carried_until timestamptz,
  created_at timestamptz not null default detent.now(),
  completed_at timestamptz,
  constraint over_has_completed_at check ((status = 'PENDING') = (completed_at is null))
);
create index bulk_actions_pending on detent.bulk_actions (id) where status = 'PENDING';
create index bulk_actions_by_environment on detent.bulk_actions (environment_id, id);

-- The next runs of an action in the order of their ids; with `among`, all of these that it selects. None that was made later. A
-- cancel looks only at live runs.
create function detent.find_bulk_runs(action detent.bulk_actions, among uuid[], most integer)
returns table (id uuid) language plpgsql stable as $$
#variable_conflict use_column
begin
  if action.run_ids is not null then
    return query
    select named.id from unnest(action.run_ids) as named (id)
    where case when among is null then action.last_id is null or named.id > action.last_id else named.id = any(among) end
    order by named.id limit most;
    return;
  end if;
  return query
  with live as (
    select runs.id from detent.runs join detent.inputs on inputs.run_id = runs.id
    where runs.environment_id = action.environment_id and created_at <= action.created_at
      and (action.last_id is null or among is not null or runs.id > action.last_id and inputs.run_id > action.last_id)
      and (among is null or runs.id = any(among))
      and (action.statuses is null or status::text = any(action.statuses)
        and (action.is_registered is null or status <> 'QUEUED' or action.is_registered = exists (
          select from detent.version_tasks as t where t.environment_id = runs.environment_id and t.task_id = runs.task_id)))
      and (action.tasks is null or task_id = any(action.tasks))
      and (action.tags is null or tags @> action.tags)
      and (action.queues is null or queue = any(action.queues))
      and (action.versions is null or version_id in (
        select versions.id from detent.versions
        where versions.environment_id = action.environment_id and versions.name = any(action.versions)))
      and (action.batch_id is null or batch_id = action.batch_id)
      and (action.created_after is null or created_at > action.created_after)
      and (action.created_before is null or created_at < action.created_before)
    order by runs.id limit most
  ), past as (
    select history.id from detent.history
    where action.kind = 'REPLAY' and environment_id = action.environment_id and created_at <= action.created_at
      and (action.last_id is null or among is not null or history.id > action.last_id)
      and (among is null or history.id = any(among))
      and (action.statuses is null or status::text = any(action.statuses))
      and (action.tasks is null or task_id = any(action.tasks))
      and (action.tags is null or tags @> action.tags)
      and (action.queues is null or queue = any(action.queues))
      and (action.versions is null or version_id in (
        select versions.id from detent.versions
        where versions.environment_id = action.environment_id and versions.name = any(action.versions)))
      and (action.batch_id is null or batch_id = action.batch_id)
      and (action.created_after is null or created_at > action.created_after)
      and (action.created_before is null or created_at < action.created_before)
    order by history.id limit most
  )
  select found.id from (select live.id from live union all select past.id from past) as found
  order by found.id limit most;
end $$;

-- How many runs it will be about is counted once it is there: whoever asks again after a lost reply finds the same action.
create function detent.create_bulk_action(environment integer, action uuid, request json)
returns void language plpgsql as $$
declare
  made detent.bulk_actions;
begin
  insert into detent.bulk_actions (
    id, environment_id, kind, name, reason, run_ids, statuses, is_registered, tasks, tags, queues, versions, batch_id,
    created_after, created_before)
  select action, environment, kind, name, reason, run_ids, statuses, is_registered, tasks, tags, queues, versions, batch_id,
    created_after, created_before
  from json_to_record(request) as r (
    kind text, name text, reason text, run_ids uuid[], statuses text[], is_registered boolean, tasks text[], tags text[],
    queues text[], versions text[], batch_id uuid, created_after timestamptz, created_before timestamptz)
  on conflict do nothing
  returning * into made;
  if found then
    update detent.bulk_actions set total = (select count(*) from detent.find_bulk_runs(made, null, null)) where id = action;
  end if;
end $$;

-- Cancels the next runs of an action, and notes it in the same transaction. Children go with their parents: those that the action
-- selects count now.
create function detent.carry_bulk_cancel(action_id uuid, most integer, error text)
returns table (what text, run_id uuid, status text, session_id uuid, is_watched boolean) language plpgsql as $$
#variable_conflict use_column
declare
  action detent.bulk_actions;
  next_ids uuid[];
  selected uuid[];
  whats text[]; cancelled uuid[]; statuses text[]; holders uuid[]; watched boolean[];
begin
  select * into action from detent.bulk_actions
  where bulk_actions.id = action_id and bulk_actions.status = 'PENDING' for update skip locked;
  if not found then
    return;
  end if;
  next_ids := array(select found.id from detent.find_bulk_runs(action, null, most) as found);
  if next_ids = '{}' then
    perform detent.complete_bulk_action(action.id, action.last_id);
    return;
  end if;
  selected := array(
    with recursive family as (
      select unnest(next_ids) as id
      union
      select child.id from family join detent.runs as child on child.parent_id = family.id
    )
    select found.id from detent.find_bulk_runs(action, array(select family.id from family), null) as found);

  select array_agg(c.what), array_agg(c.run_id), array_agg(c.status), array_agg(c.session_id), array_agg(c.is_watched)
  into whats, cancelled, statuses, holders, watched
  from detent.cancel_runs(action.environment_id, next_ids, error) as c;

  perform detent.advance_bulk_action(action.id, action.last_id, next_ids[cardinality(next_ids)],
    (select count(*)::integer from unnest(whats, cancelled) as c (what, id) where c.what = 'settled' and c.id = any(selected)),
    (select count(*)::integer from unnest(next_ids) as asked (id) where asked.id <> all(array_remove(coalesce(cancelled, '{}'), null))));
  return query select * from unnest(whats, cancelled, statuses, holders, watched);
end $$;

-- Notes that runs up to `to_id` were dealt with, unless somebody else has; true when it was noted.
create function detent.advance_bulk_action(action_id uuid, from_id uuid, to_id uuid, succeeded integer, failed integer)
returns boolean language plpgsql as $$
begin
  update detent.bulk_actions
  set last_id = to_id, success = success + succeeded, failure = failure + failed, carried_until = null
  where id = action_id and last_id is not distinct from from_id;
  return found;
end $$;

-- No run is left. Those that had ended before it was their turn were not acted on.
create function detent.complete_bulk_action(action_id uuid, from_id uuid) returns void language sql as $$
  update detent.bulk_actions
  set status = 'COMPLETED', completed_at = detent.now(), carried_until = null,
      failure = greatest(failure, total - success), total = greatest(total, success + failure)
  where id = action_id and status = 'PENDING' and last_id is not distinct from from_id
$$;

-- What a filter leaves open is known only when it is given: each call has a plan of its own, which costs little beside its work.
alter function detent.find_bulk_runs set plan_cache_mode = force_custom_plan;
