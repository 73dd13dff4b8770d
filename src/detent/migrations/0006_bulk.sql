-- Bulk actions: cancel or replay all runs that a filter selects, piece by piece.
-- Reason: 100,000 runs in one statement would hold their locks for minutes. Lock: none (everything is new). Pre: before the code
-- that needs it.
--
-- Runs are taken in the order of their ids; `last_id` says how far the action has come, and moves with what was done. Whoever
-- carries out a part holds the row of the action, or, where code is needed for it, has reserved it for some seconds.

-- Which runs: what is null selects nothing out, the rest must all hold.
create type detent.run_selection as (
  statuses detent.run_status[],
  is_known boolean,                                -- of queued runs: whether workers have registered what they need
  tasks text[],
  tags text[],
  queues text[],
  versions text[],
  machines text[],
  parent_id uuid,
  batch_id uuid,
  schedule_id uuid,
  bulk_id uuid,                                    -- runs that the action has cancelled, or made as replays
  is_test boolean,
  created_after timestamptz,
  created_before timestamptz
);

create table detent.bulk_actions (
  id uuid primary key,
  environment_id integer not null,
  kind text not null check (kind in ('CANCEL', 'REPLAY')),
  name text,
  reason text not null,
  run_ids uuid[],                                  -- the runs that were named, instead of a selection
  selection detent.run_selection,
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

-- A run that an action has cancelled, or made as a replay.
create table detent.bulk_runs (
  bulk_id uuid not null references detent.bulk_actions on delete cascade,
  run_id uuid not null,
  primary key (bulk_id, run_id)
);

-- Whether a selection has room for a run of these properties. One expression without queries, so that it is inlined: what the
-- selection leaves open is gone when the statement around it is planned, and the rest may use indexes.
create function detent.selects(
  selection detent.run_selection, status detent.run_status, task_id text, tags text[], queue text, parent_id uuid, batch_id uuid,
  schedule_id uuid, is_test boolean, created_at timestamptz)
returns boolean language sql immutable parallel safe as $$
  select (selection.statuses is null or status = any(selection.statuses))
    and (selection.tasks is null or task_id = any(selection.tasks))
    and (selection.tags is null or tags <> '{}' and tags && selection.tags)
    and (selection.queues is null or queue = any(selection.queues))
    and (selection.parent_id is null or parent_id = selection.parent_id)
    and (selection.batch_id is null or batch_id = selection.batch_id)
    and (selection.schedule_id is null or schedule_id = selection.schedule_id)
    and (selection.is_test is null or is_test = selection.is_test)
    and (selection.created_after is null or created_at > selection.created_after)
    and (selection.created_before is null or created_at < selection.created_before)
$$;

-- The least id that anything made at a moment may have.
create function detent.first_id(moment timestamptz) returns uuid language sql immutable strict parallel safe as $$
  select (lpad(to_hex(greatest(0, floor(extract(epoch from moment) * 1000))::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- The ids of the next selected runs beyond a cursor, falling or rising; with `among`, only of these. The first of the live runs and
-- the first of the past ones, each in the order of an index, and of these the first. Of the two orders the one that is not
-- asked for is a constant when the statement is planned, and nothing is sorted by it.
create function detent.select_runs(
  environment integer, selection detent.run_selection, with_past boolean, is_falling boolean, beyond uuid, among uuid[], most integer)
returns setof uuid language plpgsql stable as $$
#variable_conflict use_column
declare
  -- No run is over before it is made, and none is acted on before the action: these prune the partitions of history.
  since constant timestamptz := greatest(selection.created_after, detent.made_at(selection.bulk_id));
  -- Clocks of callers, who make the ids, differ by up to a day.
  below constant uuid := detent.first_id(selection.created_before + interval '1 day');
  -- Looked up once: joined to a million runs, they would be looked up for each.
  version_ids constant integer[] := array(
    select id from detent.versions where environment_id = environment and name = any(selection.versions));
  tasks_there constant text[] := array(
    select version_id || ' ' || task_id from detent.version_tasks
    where environment_id = environment and machine = any(selection.machines));
begin
  return query
  with live as (
    select runs.id
    from detent.runs
    join detent.inputs on inputs.run_id = runs.id
    left join detent.lanes on lanes.id = runs.lane_id and lanes.is_pinned
    -- A query of its own is asked once for each lane, not for each run, of which a lane may have a hundred thousand.
    left join lateral (select detent.is_known(runs.lane_id) as is_known offset 0) as lane on selection.is_known is not null
    where runs.environment_id = environment
      and (beyond is null or case when is_falling then runs.id < beyond and inputs.run_id < beyond
        else runs.id > beyond and inputs.run_id > beyond end)
      and (below is null or runs.id < below and inputs.run_id < below)
      and (among is null or runs.id = any(among))
      and (selection.bulk_id is null
        or runs.id = any(array(select run_id from detent.bulk_runs where bulk_id = selection.bulk_id)))
      and (selection.is_known is null or runs.status <> 'QUEUED' or selection.is_known = lane.is_known)
      and (selection.versions is null or coalesce(runs.version_id, lanes.version_id) = any(version_ids))
      and (selection.machines is null or inputs.machine = any(selection.machines)
        or inputs.machine is null and runs.version_id || ' ' || runs.task_id = any(tasks_there))
      and detent.selects(
        selection, runs.status, runs.task_id, inputs.tags, inputs.queue, runs.parent_id, runs.batch_id, inputs.schedule_id,
        inputs.is_test, inputs.created_at)
    order by case when is_falling then runs.id end desc, case when not is_falling then runs.id end
    limit most
  ), past as (
    select history.id
    from detent.history
    where with_past and history.environment_id = environment
      and (beyond is null or case when is_falling then history.id < beyond else history.id > beyond end)
      and (below is null or history.id < below)
      and (since is null or history.finished_at >= since)
      and (among is null or history.id = any(among))
      and (selection.bulk_id is null
        or history.id = any(array(select run_id from detent.bulk_runs where bulk_id = selection.bulk_id)))
      and (selection.versions is null or history.version_id = any(version_ids))
      and (selection.machines is null or history.machine = any(selection.machines)
        or history.machine is null and history.version_id || ' ' || history.task_id = any(tasks_there))
      and detent.selects(
        selection, history.status, history.task_id, history.tags, history.queue, history.parent_id, history.batch_id,
        history.schedule_id, history.is_test, history.created_at)
    order by case when is_falling then history.id end desc, case when not is_falling then history.id end
    limit most
  )
  select found.id from (select live.id from live union all select past.id from past) as found
  order by case when is_falling then found.id end desc, case when not is_falling then found.id end
  limit most;
end $$;

-- What a selection leaves open is known only when it is given: each call has a plan of its own, which costs little beside its work.
alter function detent.select_runs set plan_cache_mode = force_custom_plan;

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
  else
    return query
    select * from detent.select_runs(
      action.environment_id, action.selection, with_past => action.kind = 'REPLAY', is_falling => false,
      beyond => case when among is null then action.last_id end, among => among, most => most);
  end if;
end $$;

-- How many runs it will be about is counted once it is there: whoever asks again after a lost reply finds the same action.
create function detent.create_bulk_action(environment integer, action uuid, request json)
returns void language plpgsql as $$
declare
  made detent.bulk_actions;
begin
  insert into detent.bulk_actions (id, environment_id, kind, name, reason, run_ids, selection)
  select action, environment, kind, name, reason, run_ids, selection
  from json_to_record(request) as r (kind text, name text, reason text, run_ids uuid[], selection detent.run_selection)
  on conflict do nothing
  returning * into made;
  if found then
    if made.run_ids is null then
      made.selection.created_before := least((made.selection).created_before, made.created_at);
    end if;
    update detent.bulk_actions
    set selection = made.selection, total = (select count(*) from detent.find_bulk_runs(made, null, null))
    where id = action;
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
    array(select c.id from unnest(whats, cancelled) as c (what, id) where c.what = 'settled' and c.id = any(selected)),
    (select count(*)::integer from unnest(next_ids) as asked (id) where asked.id <> all(array_remove(coalesce(cancelled, '{}'), null))));
  return query select * from unnest(whats, cancelled, statuses, holders, watched);
end $$;

-- Notes that runs up to `to_id` were dealt with, and which were cancelled or made, unless somebody else has; true when it was noted.
create function detent.advance_bulk_action(action_id uuid, from_id uuid, to_id uuid, acted uuid[], failed integer)
returns boolean language plpgsql as $$
begin
  update detent.bulk_actions
  set last_id = to_id, success = success + cardinality(acted), failure = failure + failed, carried_until = null
  where id = action_id and last_id is not distinct from from_id;
  if not found then
    return false;
  end if;
  insert into detent.bulk_runs (bulk_id, run_id) select action_id, unnest(acted) on conflict do nothing;
  return true;
end $$;

-- No run is left. Those that had ended before it was their turn were not acted on.
create function detent.complete_bulk_action(action_id uuid, from_id uuid) returns void language sql as $$
  update detent.bulk_actions
  set status = 'COMPLETED', completed_at = detent.now(), carried_until = null,
      failure = greatest(failure, total - success), total = greatest(total, success + failure)
  where id = action_id and status = 'PENDING' and last_id is not distinct from from_id
$$;
