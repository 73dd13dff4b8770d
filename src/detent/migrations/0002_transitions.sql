-- What may happen to a run, and the functions that make it happen.
-- Reason: operations that need a second snapshot or a loop inside one round trip. Lock: none. Pre: before the code that needs it.
--
-- Lock order, everywhere: session, runs by falling id (a child before its parent, whom its end wakes), batches and waitpoints
-- by id, runs that wake, waits, and last the gates of 0004. Rows of the ready queue stand outside of it: a lease locks them before its runs, so everybody
-- else passes over the locked ones. A lock that may have to wait stands in a statement of its own, or in one that joins
-- nothing that changes: a statement that waited goes on with the rows it saw before.
-- Every function takes and returns sets; `fence` guards each row, and what did not apply is simply not returned.

-- Derived from TRANSITIONS in detent/protocol/status.py; a test compares the two.
create function detent.is_legal(before detent.run_status, after detent.run_status)
returns boolean language sql immutable parallel safe as $$
  select case before
    when 'DELAYED' then after in ('QUEUED', 'CANCELED')
    when 'QUEUED' then after in ('DEQUEUED', 'WAITING', 'CANCELED', 'EXPIRED')
    when 'DEQUEUED' then after in ('EXECUTING', 'WAITING', 'QUEUED', 'COMPLETED', 'FAILED', 'CRASHED', 'SYSTEM_FAILURE', 'TIMED_OUT', 'CANCELED')
    when 'EXECUTING' then after in ('WAITING', 'QUEUED', 'COMPLETED', 'FAILED', 'CRASHED', 'SYSTEM_FAILURE', 'TIMED_OUT', 'CANCELED')
    when 'WAITING' then after in ('QUEUED', 'CANCELED')
    else false
  end
$$;

create function detent.refuse_transition() returns trigger language plpgsql as $$
begin
  raise exception 'run % cannot go from % to %', old.id, old.status, new.status using errcode = 'check_violation';
end $$;

create trigger illegal_transition before update of status on detent.runs
for each row when (old.status <> new.status and not detent.is_legal(old.status, new.status))
execute function detent.refuse_transition();

-- The moment inside a UUIDv7: no row about the thing it names can be older, but
-- for clocks that differ by up to a day. Prunes the partitions of history.
create function detent.made_at(id uuid) returns timestamptz language sql immutable parallel safe as $$
  select to_timestamp(('x0000' || translate(left(id::text, 13), '-', ''))::bit(64)::bigint / 1000.0) - interval '1 day'
$$;

-- ---- triggering -----------------------------------------------------------------------------------------------------

-- A key is free when it has expired, or its run failed or is gone. Volatile, so that a waiter on the key's row judges anew.
create function detent.key_is_free(holder uuid, expires_at timestamptz) returns boolean language plpgsql volatile as $$
begin
  return expires_at <= detent.now()
    or not exists (select from detent.runs where id = holder)
    and not exists (
      select from detent.history
      where id = holder and finished_at >= detent.made_at(holder) and status in ('COMPLETED', 'CANCELED'));
end $$;

-- Gives each key to the first wanted request that names it, unless a run that still counts has it. Clearing is
-- compare-and-set.
create function detent.claim_keys(environment integer, requests json, wanted integer[])
returns table (i integer, run_id uuid, is_new boolean) language plpgsql as $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
begin
  insert into detent.idempotency_keys (environment_id, task_id, key, run_id, expires_at)
  select distinct on (r.task, r.key) environment, r.task, r.key, r.id, moment + make_interval(secs => r.key_ttl)
  from json_to_recordset(requests) as r (i integer, id uuid, task text, key text, key_ttl double precision)
  where r.key is not null and (wanted is null or r.i = any(wanted))
  order by r.task, r.key, r.i
  on conflict do nothing;

  update detent.idempotency_keys as held
  set run_id = r.id, expires_at = moment + make_interval(secs => r.key_ttl)
  from (
    select distinct on (task, key) *
    from json_to_recordset(requests) as r (i integer, id uuid, task text, key text, key_ttl double precision)
    where key is not null and (wanted is null or i = any(wanted))
    order by task, key, i
  ) as r
  where held.environment_id = environment and held.task_id = r.task and held.key = r.key
    and held.run_id <> r.id and detent.key_is_free(held.run_id, held.expires_at);

  return query
  select r.i, held.run_id, held.run_id = r.id
  from json_to_recordset(requests) as r (i integer, id uuid, task text, key text)
  join detent.idempotency_keys as held on held.environment_id = environment and held.task_id = r.task and held.key = r.key;
end $$;

-- Makes runs. `is_repeat`: an earlier call with the same ids may have been committed, and its runs may even be over.
-- `wanted`: positions of the requests to take (null: all). `joins`: those debounced among them join runs that are there.
create function detent.insert_runs(
  environment integer, requests json, has_keys boolean, is_repeat boolean, wanted integer[] default null, joins boolean default false)
returns table (i integer, run_id uuid, is_cached boolean) language plpgsql as $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
  sleepers uuid[];
  has_debounce boolean;
  later integer[] := '{}';
begin
  select array_agg(distinct r.lane) filter (where r.sleeps), coalesce(bool_or(r.debounce is not null), false)
  into sleepers, has_debounce
  from json_to_recordset(requests) as r (lane uuid, sleeps boolean, debounce text);
  if sleepers is not null then
    perform detent.stir(sleepers, false);
  end if;
  if has_debounce and not joins then
    -- All but the first of each key join its run, once that is there.
    select coalesce(array_agg(r.i) filter (where turn > 1), '{}'), array_agg(r.i) filter (where turn = 1) into later, wanted
    from (
      select r.i, case when r.debounce is null then 1 else row_number() over (partition by r.task, r.debounce order by r.i) end as turn
      from json_to_recordset(requests) as r (i integer, task text, debounce text)
      where wanted is null or r.i = any(wanted)
    ) as r;
  end if;

  return query
  with request as materialized (
    select r.*, coalesce(r.due_at, moment + make_interval(secs => r.delay)) as due
    from json_to_recordset(requests) as r (
      i integer, id uuid, task text, lane uuid, queue text, ckey text, payload text, metadata text, tags text[],
      delay double precision, due_at timestamptz, priority double precision, max_attempts smallint,
      max_duration double precision, key text, user_key text, scope text, parent uuid, batch uuid, batch_index integer,
      awaited boolean, watched boolean, replay_of uuid, schedule uuid, position timestamptz, test boolean, ttl double precision,
      life double precision, limits text[], machine text)
    where wanted is null or r.i = any(wanted)
  ), keyed as materialized (
    select * from detent.claim_keys(environment, requests, wanted) where has_keys
  ), claimed as materialized (
    select * from keyed where not has_debounce
    union all
    select * from detent.join_delayed(environment, requests, array(
      select request.i from request left join keyed using (i) where keyed.i is null or keyed.is_new)) where has_debounce
    union all
    select * from keyed where has_debounce and not is_new
  ), fresh as (
    select request.*, request.due > moment as is_delayed
    from request left join claimed using (i)
    where claimed.i is null or claimed.is_new
  ), run as (
    insert into detent.runs (
      id, environment_id, task_id, lane_id, status, position, due_at, expires_at, queued_at, max_attempts,
      parent_id, batch_id, batch_index, is_awaited, is_watched)
    select
      fresh.id, environment, task, lane,
      case when is_delayed then 'DELAYED' else 'QUEUED' end::detent.run_status,
      coalesce(
        case when is_delayed then due end, case when awaited then parent.position end, fresh.position, moment
      ) - make_interval(secs => coalesce(fresh.priority, 0)),
      case when is_delayed then due end, case when not coalesce(is_delayed, false) then moment + make_interval(secs => life) end,
      case when not coalesce(is_delayed, false) then moment end, fresh.max_attempts,
      fresh.parent, batch, fresh.batch_index, coalesce(awaited, false), coalesce(watched, false)
    from fresh left join detent.runs as parent on parent.id = fresh.parent
    on conflict (id) do nothing
    returning id, lane_id, position, status
  ), input as (
    insert into detent.inputs (
      run_id, environment_id, created_at, payload, metadata, tags, queue, concurrency_key, priority, ttl, limits, max_duration,
      idempotency_key, idempotency_user_key, idempotency_scope, root_id, replay_of, schedule_id, is_test, machine)
    select
      fresh.id, environment, moment, fresh.payload, fresh.metadata, coalesce(fresh.tags, '{}'), fresh.queue, ckey,
      coalesce(fresh.priority, 0), fresh.ttl, fresh.limits, fresh.max_duration, key, user_key, scope,
      coalesce(parent.root_id, fresh.parent), fresh.replay_of, fresh.schedule, coalesce(test, parent.is_test, false), fresh.machine
    from fresh left join detent.inputs as parent on parent.run_id = fresh.parent
    on conflict (run_id) do nothing
  ), queued as (
    insert into detent.ready (lane_id, position, run_id, environment_id)
    select lane_id, position, id, environment from run where status = 'QUEUED'
    on conflict do nothing
  )
  select request.i, coalesce(claimed.run_id, request.id), not coalesce(claimed.is_new, true)
  from request left join claimed using (i)
  order by request.i;

  if later <> '{}' then
    return query select * from detent.insert_runs(environment, requests, has_keys, is_repeat, later, true);
  end if;
  if is_repeat then
    perform detent.forget_doubles(array(select r.id from json_to_recordset(requests) as r (id uuid)));
  end if;
end $$;

-- Takes back runs that a repeated call made although they were over already (seen only in a snapshot after the insert).
create function detent.forget_doubles(ids uuid[]) returns void language plpgsql as $$
declare
  over uuid[] := array(
    select id from detent.history
    where id = any(ids) and finished_at >= (select min(detent.made_at(i)) from unnest(ids) as i));
begin
  if over <> '{}' then
    delete from detent.ready using detent.runs
    where runs.id = any(over) and ready.lane_id = runs.lane_id and ready.position = runs.position and ready.run_id = runs.id;
    delete from detent.inputs where run_id = any(over);
    delete from detent.runs where id = any(over);
  end if;
end $$;

-- ---- waiting --------------------------------------------------------------------------------------------------------

-- Joins runs to the waitpoints their operations need; a wait that is over already makes no edge. The rows of the runs are
-- locked by the caller. Edges that `suspend` say that the run has nothing else to do meanwhile. Says, as `suspend_runs` does, whether
-- something else may start now.
create function detent.join_waitpoints(edges json) returns boolean language plpgsql as $$
declare
  idle uuid[];
begin
  perform from detent.waitpoints
  where id in (select e.waitpoint from json_to_recordset(edges) as e (waitpoint uuid))
  order by id for share;

  insert into detent.waits (run_id, operation, waitpoint_id, environment_id)
  select e.run, e.operation, waitpoints.id, waitpoints.environment_id
  from json_to_recordset(edges) as e (run uuid, operation text, waitpoint uuid)
  join detent.waitpoints on waitpoints.id = e.waitpoint
  where waitpoints.completed_at is null
  on conflict do nothing;

  select array_agg(distinct e.run) into idle
  from json_to_recordset(edges) as e (run uuid, operation text, suspends boolean)
  join detent.waits on waits.run_id = e.run and waits.operation = e.operation
  where e.suspends;
  return idle is not null and detent.suspend_runs(idle);
end $$;

-- Takes the slot from runs that wait, unless something they waited for is there. The rows of the runs are locked by the
-- caller. A run that was woken since its last wait, and that nobody has leased, goes on waiting; whoever is about to lease it has
-- its row of the queue locked, and finds it suspended. Says whether something else may start now.
create function detent.suspend_runs(ids uuid[]) returns boolean language plpgsql as $$
declare
  idle uuid[] := array(
    select id from detent.runs
    where id = any(ids) and status in ('DEQUEUED', 'EXECUTING', 'QUEUED')
      and exists (select from detent.waits where waits.run_id = runs.id)
      and not exists (select from detent.waits where waits.run_id = runs.id and is_done));
  freed uuid[] := detent.slots_of(idle);
begin
  perform detent.make_bound_lanes(idle);
  with unqueued as (
    delete from detent.ready where ctid = any(array(
      select ready.ctid
      from detent.runs
      join detent.ready on ready.lane_id = runs.lane_id and ready.position = runs.position and ready.run_id = runs.id
      where runs.id = any(idle) and runs.status = 'QUEUED'
      for update of ready skip locked))
  )
  update detent.runs
  set status = 'WAITING', waits = waits + 1, losses_in_row = 0, lane_id = detent.bound_lane(lane_id, version_id),
      active = active + detent.seconds_leased(status, leased_at),
      attempt_active = attempt_active + detent.seconds_leased(status, leased_at)
  where id = any(idle);
  return detent.release_slots(freed);
end $$;

-- The slots of those runs that hold some. They are locked by the caller.
create function detent.slots_of(ids uuid[]) returns uuid[] language plpgsql stable as $$
begin
  return array(
    select slot from detent.runs cross join lateral unnest(slots) as slot
    where id = any(ids) and status in ('DEQUEUED', 'EXECUTING'));
end $$;

-- Suspends runs that stand still, at the latest until `wake` (seconds). `delivered`: operations whose results their code has
-- been given since. Stale ones are not answered.
create function detent.suspend(requests json) returns table (i integer, is_suspended boolean) language plpgsql as $$
#variable_conflict use_column
declare
  held uuid[];
begin
  held := array(
    select id from detent.runs
    where exists (
      select from json_to_recordset(requests) as r (id uuid, fence bigint) where r.id = runs.id and r.fence = runs.fence)
      and id in (select r.id from json_to_recordset(requests) as r (id uuid))
    order by id desc for update);

  delete from detent.waits
  using json_to_recordset(requests) as r (id uuid, delivered text[])
  where waits.run_id = any(held) and waits.run_id = r.id and waits.operation = any(r.delivered);
  if detent.suspend_runs(held) then
    return query select null::integer, null::boolean;
  end if;
  update detent.runs set due_at = detent.now() + make_interval(secs => r.wake)
  from json_to_recordset(requests) as r (id uuid, wake double precision)
  where runs.id = any(held) and runs.id = r.id and r.wake is not null and runs.status = 'WAITING';

  return query
  select r.i, runs.status = 'WAITING'
  from json_to_recordset(requests) as r (i integer, id uuid) join detent.runs on runs.id = r.id
  where runs.id = any(held)
  order by r.i;
end $$;

-- What came for waits of runs that execute. `offset 0` keeps the waits from being read before it is known whose are asked for.
create function detent.collect(holders json) returns table (run_id uuid, fence bigint, results json) language plpgsql as $$
#variable_conflict use_column
begin
  return query
  select runs.id, runs.fence, json_agg(json_build_array(
    came.operation, came.kind, came.id, came.task_id, came.run_status, came.output, came.error)
    order by came.completed_at, came.operation)
  from json_to_recordset(holders) as h (id uuid, fence bigint)
  join detent.runs on runs.id = h.id and runs.fence = h.fence and runs.status in ('DEQUEUED', 'EXECUTING')
  cross join lateral (
    select waits.operation, waitpoints.*
    from detent.waits join detent.waitpoints on waitpoints.id = waits.waitpoint_id
    where waits.run_id = runs.id and is_done
    offset 0
  ) as came
  group by runs.id, runs.fence;
end $$;

-- Called in a new snapshot after waitpoints were completed: the runs that waited for one are ready, at their original
-- position, with a head start for the session that has them in memory. Those that execute meanwhile are answered, too: their
-- session is to collect what came.
create function detent.wake_waiters(completed uuid[])
returns table (run_id uuid, session_id uuid) language plpgsql as $$
#variable_conflict use_column
declare
  waiters uuid[];
begin
  -- The runs before their edges, as a run that ends locks them. No edge is added meanwhile: the waitpoints are locked.
  select array_agg(distinct waits.run_id) into waiters
  from detent.waits where waitpoint_id = any(completed) and not is_done;
  if waiters is null then
    return;
  end if;
  perform from detent.runs where id = any(waiters) order by id desc for update;
  with edge as (
    update detent.waits set is_done = true where waitpoint_id = any(completed) and not is_done returning waits.run_id
  )
  select array_agg(distinct edge.run_id) into waiters from edge;
  perform detent.stir(array(select distinct lane_id from detent.runs where id = any(waiters) and status = 'WAITING'), true);

  return query
  with woken as (
    update detent.runs set status = 'QUEUED', due_at = null
    where id = any(waiters) and status = 'WAITING'
    returning runs.*
  ), queued as (
    insert into detent.ready (lane_id, position, run_id, environment_id, resident_session, resident_until, is_solo)
    select lane_id, position, id, environment_id, woken.session_id, clock_timestamp() + interval '1 second', is_solo
    from woken
    on conflict (lane_id, position, run_id) do update
    set resident_session = excluded.resident_session, resident_until = excluded.resident_until
    returning ready.run_id, ready.resident_session
  )
  select queued.run_id, queued.resident_session from queued
  union all
  select runs.id, runs.session_id from detent.runs
  where id = any(waiters) and status in ('DEQUEUED', 'EXECUTING') and runs.session_id is not null;
end $$;

-- Triggers from inside runs: recorded in the journal of the parent, which with `waits` is told when the child is final.
-- A parent whose fence differs is stale: its requests are not answered. An operation recorded before is answered as then.
create function detent.trigger_children(environment integer, requests json, has_keys boolean, is_repeat boolean)
returns table (i integer, run_id uuid, is_cached boolean, is_pending boolean, is_suspended boolean,
  run_status text, task_id text, output text, error text) language plpgsql as $$
#variable_conflict use_column
declare
  recorded integer[];
  fresh integer[];
  edges json;
  is_open boolean := false;
begin
  perform from detent.runs
  where id in (select r.parent from json_to_recordset(requests) as r (parent uuid)) order by id desc for update;

  with entry as (
    insert into detent.journal (run_id, attempt, operation, environment_id, kind, fingerprint, ref, answers, seen)
    select r.parent, parent.attempt, r.operation, environment, r.kind, r.fingerprint, r.id, r.answers, r.seen
    from json_to_recordset(requests) as r (
      i integer, id uuid, parent uuid, fence bigint, operation text, kind text, fingerprint text, answers integer, seen text[])
    join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
    order by r.i
    on conflict do nothing
    returning run_id, operation
  ), marked as (
    update detent.runs set has_journal = true, losses_in_row = 0
    where id in (select entry.run_id from entry) and not (has_journal and losses_in_row = 0)
  )
  select coalesce(array_agg(r.i), '{}') into recorded
  from entry join json_to_recordset(requests) as r (i integer, parent uuid, operation text)
    on r.parent = entry.run_id and r.operation = entry.operation;

  fresh := array(
    select r.i
    from json_to_recordset(requests) as r (i integer, id uuid, parent uuid, fence bigint, operation text)
    join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
    join detent.journal on journal.run_id = r.parent and journal.attempt = parent.attempt
      and journal.operation = r.operation and journal.ref = r.id);

  with made as (
    -- An operation that was recorded before may have made its child before, and the child may be over.
    select * from detent.insert_runs(
      environment, requests, has_keys, is_repeat or cardinality(recorded) < json_array_length(requests), fresh)
  )
  update detent.journal set ref = made.run_id, is_cached = true
  from made join json_to_recordset(requests) as r (i integer, id uuid, parent uuid, operation text) using (i)
  join detent.runs as parent on parent.id = r.parent
  where made.is_cached and journal.run_id = r.parent and journal.attempt = parent.attempt and journal.operation = r.operation;

  edges := (
    select json_agg(json_build_object(
      'run', r.parent, 'operation', r.operation, 'waitpoint', journal.ref, 'suspends', r.suspends))
    from json_to_recordset(requests) as r (i integer, parent uuid, operation text, waits boolean, suspends boolean)
    join detent.runs as parent on parent.id = r.parent
    join detent.journal on journal.run_id = r.parent and journal.attempt = parent.attempt and journal.operation = r.operation
    where r.waits and r.i = any(recorded));
  if edges is not null then
    perform detent.make_run_waitpoints(edges);
    is_open := detent.join_waitpoints(edges);
  end if;
  if cardinality(recorded) < json_array_length(requests) then
    -- Asked for again, as after a lost reply: what is still waited for is waited for in the same way.
    is_open := detent.suspend_runs(array(
      select distinct parent.id
      from json_to_recordset(requests) as r (i integer, parent uuid, fence bigint, operation text, suspends boolean)
      join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
      join detent.waits on waits.run_id = r.parent and waits.operation = r.operation
      where r.suspends and r.i <> all(recorded))) or is_open;
  end if;
  if is_open then
    return query select null::integer, null::uuid, false, false, false, null, null, null, null;
  end if;

  -- What has an edge comes later, even if it is done by now.
  return query
  select r.i, journal.ref, journal.is_cached,
    r.waits and exists (select from detent.waits where waits.run_id = r.parent and waits.operation = r.operation),
    parent.status = 'WAITING', waitpoints.run_status::text, waitpoints.task_id, waitpoints.output, waitpoints.error
  from json_to_recordset(requests) as r (i integer, parent uuid, fence bigint, operation text, waits boolean)
  join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
  join detent.journal on journal.run_id = r.parent and journal.attempt = parent.attempt and journal.operation = r.operation
  left join detent.waitpoints on r.waits and waitpoints.id = journal.ref
  order by r.i;
end $$;

create function detent.wanted_waitpoints(edges json) returns table (id uuid, is_shared boolean) stable language sql as $$
  select e.waitpoint, count(distinct e.run) > 1
  from json_to_recordset(edges) as e (run uuid, waitpoint uuid) group by e.waitpoint
$$;

-- A waitpoint for each run that these edges wait for; born completed for one that is over. The runs are locked, so that none
-- ends unseen between two statements; but for those that this very transaction made, which nobody else sees.
create function detent.make_run_waitpoints(edges json) returns void language plpgsql as $$
declare
  targets uuid[] := array(select distinct e.waitpoint from json_to_recordset(edges) as e (waitpoint uuid));
begin
  perform from detent.runs
  where id = any(targets) and (not is_awaited or xmin <> pg_current_xact_id()::xid) order by id desc for update;
  if found then
    update detent.runs set is_awaited = true where id = any(targets) and not is_awaited;
  end if;

  if not exists (select from unnest(targets) as t where not exists (select from detent.runs where id = t)) then
    -- None is over: what is past need not be looked at.
    insert into detent.waitpoints (id, environment_id, kind, task_id, is_shared)
    select id, environment_id, 'run', task_id, is_shared from detent.wanted_waitpoints(edges) join detent.runs using (id)
    order by id
    on conflict (id) do update set is_shared = true;
    return;
  end if;

  insert into detent.waitpoints (id, environment_id, kind, task_id, is_shared)
  select id, environment_id, 'run', task_id, is_shared from detent.wanted_waitpoints(edges) join detent.runs using (id)
  union all
  select id, environment_id, 'run', task_id, is_shared from detent.wanted_waitpoints(edges) join detent.history using (id)
  where finished_at >= (select min(detent.made_at(t)) from unnest(targets) as t)
  order by 1
  on conflict (id) do update set is_shared = true;

  update detent.waitpoints
  set completed_at = history.finished_at, run_status = history.status, output = history.output, error = history.error
  from detent.history
  where waitpoints.id = any(targets) and waitpoints.completed_at is null and history.id = waitpoints.id
    and history.finished_at >= (select min(detent.made_at(t)) from unnest(targets) as t);
end $$;

-- Waits for a moment, which makes a waitpoint or finds that of its key, or for a token, which is one. Stale ones are not answered;
-- one that waits for what is not there, or whose key a token holds, is answered with no `ref`.
create function detent.wait_for(environment integer, requests json, has_keys boolean)
returns table (i integer, ref uuid, is_pending boolean, is_suspended boolean, output text, error text) language plpgsql as $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
begin
  perform from detent.runs
  where id in (select r.parent from json_to_recordset(requests) as r (parent uuid)) order by id desc for update;

  if has_keys then
    -- Those of operations that are recorded already were claimed then.
    requests := detent.claim_waitpoint_keys(environment, requests, array(
      select r.i
      from json_to_recordset(requests) as r (i integer, parent uuid, fence bigint, operation text, key text)
      join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
      where r.key is not null and not exists (
        select from detent.journal
        where journal.run_id = parent.id and journal.attempt = parent.attempt and journal.operation = r.operation)));
  end if;

  with request as materialized (
    select r.*, parent.attempt, coalesce(r.due_at, moment + make_interval(secs => r.delay)) as due
    from json_to_recordset(requests) as r (
      i integer, id uuid, parent uuid, fence bigint, operation text, kind text, delay double precision, due_at timestamptz,
      answers integer, seen text[], key text, ref uuid, holder text)
    join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
    where r.kind = 'time' and coalesce(r.holder, 'time') = 'time'
      or r.kind = 'token' and exists (
        select from detent.waitpoints
        where waitpoints.id = r.id and waitpoints.environment_id = environment and waitpoints.kind = 'token')
  ), recorded as (
    insert into detent.journal (run_id, attempt, operation, environment_id, kind, fingerprint, ref, is_cached, answers, seen)
    select parent, attempt, operation, environment, kind, kind, coalesce(request.ref, id), coalesce(request.ref <> id, false),
      request.answers, request.seen
    from request
    order by request.i
    on conflict do nothing
    returning run_id, ref
  ), waitpoint as (
    insert into detent.waitpoints (id, environment_id, kind, due_at, completed_at, is_shared, created_at, idempotency_key)
    select id, environment, 'time', due, case when due <= moment then moment end, key is not null,
      case when key is not null then moment end, key
    from request
    where kind = 'time' and id in (select recorded.ref from recorded)
    on conflict do nothing
  )
  update detent.runs set has_journal = true, losses_in_row = 0
  where id in (select recorded.run_id from recorded) and not (has_journal and losses_in_row = 0);

  if detent.join_waitpoints((
    select json_agg(json_build_object(
      'run', r.parent, 'operation', r.operation, 'waitpoint', journal.ref, 'suspends', r.suspends))
    from json_to_recordset(requests) as r (parent uuid, fence bigint, operation text, suspends boolean)
    join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
    join detent.journal on journal.run_id = r.parent and journal.attempt = parent.attempt and journal.operation = r.operation))
  then
    return query select null::integer, null::uuid, false, false, null, null;
  end if;

  -- What has an edge comes later, even if it is done by now.
  return query
  select r.i, journal.ref,
    exists (select from detent.waits where waits.run_id = r.parent and waits.operation = r.operation),
    parent.status = 'WAITING', waitpoints.output, waitpoints.error
  from json_to_recordset(requests) as r (i integer, parent uuid, fence bigint, operation text)
  join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
  left join detent.journal on journal.run_id = r.parent and journal.attempt = parent.attempt and journal.operation = r.operation
  left join detent.waitpoints on waitpoints.id = journal.ref
  order by r.i;
end $$;

-- Records what steps came to. A lock keeps the runs with their holder; stale ones are not answered. One statement, for it is
-- asked for more often than all others. No share lock: two that hold one could neither of them mark the run.
create function detent.record_steps(environment integer, requests json) returns table (i integer) language plpgsql as $$
#variable_conflict use_column
begin
  return query
  with held as materialized (
    select r.*, parent.attempt, parent.has_journal and parent.losses_in_row = 0 as is_marked
    from json_to_recordset(requests) as r (
      i integer, parent uuid, fence bigint, operation text, fingerprint text, answers integer, seen text[], output text, error text)
    join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
    order by r.parent desc, r.i
    for no key update of parent
  ), recorded as (
    insert into detent.journal (run_id, attempt, operation, environment_id, kind, fingerprint, answers, seen, output, error)
    select parent, attempt, operation, environment, 'step', fingerprint, answers, seen, output, error from held
    on conflict do nothing
  ), marked as (
    update detent.runs set has_journal = true, losses_in_row = 0 from held where runs.id = held.parent and not held.is_marked
  )
  select held.i from held order by held.i;
end $$;

-- ---- batches -------------------------------------------------------------------------------------------------------

-- Copies the outcomes of finished runs into the awaited batches that hold them; returns the batches that are complete. The
-- batches are locked first: one that goes with its cancelled parent meanwhile gets no more items.
create function detent.count_items(ended uuid[]) returns uuid[] language plpgsql as $$
declare
  earliest timestamptz := (select min(detent.made_at(f)) from unnest(ended) as f);
  concerned uuid[];
  complete uuid[];
begin
  concerned := array(
    select batch_id from detent.history where id = any(ended) and finished_at >= earliest and batch_id is not null
    union
    select batch_id from detent.batch_items where run_id = any(ended) and run_status is null);
  if concerned = '{}' then
    return '{}';
  end if;
  -- In a statement of its own: one that had to wait here would go on with the rows of before, and lose its items.
  perform from detent.batches where id = any(concerned) and is_awaited order by id for update;

  with past as materialized (
    select * from detent.history where id = any(ended) and finished_at >= earliest
  ), own as (
    insert into detent.batch_items (batch_id, index, run_id, environment_id, task_id, run_status, output, error)
    select batches.id, past.batch_index, past.id, past.environment_id, past.task_id, past.status, past.output, past.error
    from past join detent.batches on batches.id = past.batch_id and batches.is_awaited
    on conflict do nothing
    returning batch_id
  ), cached as (
    update detent.batch_items as item
    set task_id = past.task_id, run_status = past.status, output = past.output, error = past.error
    from past
    where item.run_id = past.id and item.run_status is null
    returning item.batch_id
  ), counted as (
    select batch_id, count(*)::integer as n
    from (select batch_id from own union all select batch_id from cached) as item group by batch_id
  ), updated as (
    update detent.batches set finished = finished + n from counted
    where batches.id = counted.batch_id
    returning batches.id, finished >= total as is_complete
  )
  select array_agg(id) into complete from updated where is_complete;
  return coalesce(complete, '{}');
end $$;

-- ---- leasing --------------------------------------------------------------------------------------------------------

-- Takes what has come for runs that are being leased. A function of its own, for it sees what was completed since the lease
-- began: who completes after that waits for the lease, and tells its session.
create function detent.deliver(runs uuid[]) returns table (run_id uuid, results json) language plpgsql as $$
#variable_conflict use_column
begin
  if runs = '{}' then
    return;
  end if;
  return query
  with delivered as (
    delete from detent.waits where waits.run_id = any(runs) and is_done
    returning waits.run_id, waits.operation, waits.waitpoint_id
  )
  select delivered.run_id, json_agg(json_build_array(
    delivered.operation, waitpoints.kind, waitpoints.id, waitpoints.task_id, waitpoints.run_status,
    waitpoints.output, waitpoints.error) order by waitpoints.completed_at, delivered.operation)
  from delivered join detent.waitpoints on waitpoints.id = delivered.waitpoint_id
  group by delivered.run_id;
end $$;

-- ---- ending ---------------------------------------------------------------------------------------------------------

-- The one place where a run ends or goes back for another attempt. An outcome with a fence applies to a run held under it;
-- one without (cancel, crash) to a run in any state, locked by the caller. `retry_in`/`retry_at`: tried again then, if
-- attempts are left. `oom`: it ran out of memory, and is tried again only on the machine that its task names for this. `lingers`: the code is
-- still running, its slots stay taken. `also_freed`: slots that others have held, given
-- back with those of these runs: the locks on gates are taken once and last.
-- `hooks`: the worker calls the final hooks of the run.
-- Returns a row for each run that was settled ('settled') and each that woke ('woken', with the session that has it), one if something
-- else may start now ('opened'), and one an environment in which final hooks are due that nobody holds ('hooks').
create function detent.settle_runs(outcomes json, also_freed uuid[] default '{}')
returns table (what text, run_id uuid, status text, session_id uuid, is_watched boolean) language plpgsql as $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
  settled uuid[]; statuses text[]; holders uuid[]; watched boolean[];
  awaited uuid[]; journalled uuid[]; waiting uuid[]; retried uuid[];
  hooks_due uuid[];
begin
  with outcome as materialized (
    select o.*, coalesce(
      o.retry_at, moment + make_interval(secs => o.retry_in),
      -- Null and something would look at the something.
      case when coalesce(o.oom, false) and detent.machine_after_oom(o.id) is not null then moment end) as retry_due
    from json_to_recordset(outcomes) as o (
      id uuid, fence bigint, status detent.run_status, output text, error text,
      retry_in double precision, retry_at timestamptz, oom boolean, lingers boolean, hooks boolean)
    order by o.id desc
  ), gone as (
    delete from detent.runs using outcome
    where runs.id = outcome.id
      and (outcome.fence is null or runs.fence = outcome.fence and runs.status in ('DEQUEUED', 'EXECUTING'))
      and (outcome.retry_due is null or runs.attempt >= coalesce(runs.max_attempts, 1))
    returning runs.*, outcome.status as final, outcome.output, outcome.error, outcome.lingers, outcome.hooks,
      coalesce(outcome.hooks, false) or coalesce(outcome.lingers, false) and runs.status in ('DEQUEUED', 'EXECUTING') as keeps_hooks
  ), retried as (
    update detent.runs
    set status = 'QUEUED', attempt = runs.attempt + 1, due_at = outcome.retry_due, position = outcome.retry_due,
        session_id = null, fence = null, losses_in_row = 0, attempt_started_at = null, attempt_active = 0,
        active = runs.active + detent.seconds_leased(runs.status, runs.leased_at),
        -- What crashed a process of its own would crash the next shared one.
        is_solo = outcome.status = 'CRASHED'
    from outcome
    where runs.id = outcome.id
      and (outcome.fence is null or runs.fence = outcome.fence and runs.status in ('DEQUEUED', 'EXECUTING'))
      and outcome.retry_due is not null and runs.attempt < coalesce(runs.max_attempts, 1)
    returning runs.id, runs.environment_id, runs.attempt - 1 as number, runs.leased_at, outcome.error, runs.has_journal, runs.slots
  ), attempt as (
    insert into detent.attempts (run_id, environment_id, number, started_at, finished_at, error)
    select id, environment_id, number, leased_at, moment, error from retried
    on conflict do nothing
  ), over as (
    -- Everything of a run in one row: joining the two deletes afterwards would compare each with each.
    delete from detent.inputs using gone where inputs.run_id = gone.id
    returning inputs.*, gone.id, task_id, final, attempt, max_attempts, version_id, queued_at, started_at,
      attempt_started_at, waits, losses, parent_id, batch_id, batch_index, output, error, active + detent.seconds_leased(gone.status, leased_at) as active
  ), past as (
    insert into detent.history (
      id, environment_id, task_id, status, attempt, max_attempts, version_id, queued_at, started_at, attempt_started_at, finished_at, waits,
      losses, parent_id, batch_id, batch_index, created_at, payload, metadata, tags, queue, concurrency_key, priority, ttl, limits,
      max_duration, idempotency_key, idempotency_user_key, idempotency_scope, root_id, replay_of, schedule_id, is_test, output, error,
      machine, active, keep_days)
    select
      id, environment_id, task_id, final, attempt, max_attempts, version_id, queued_at, started_at, attempt_started_at, moment, waits,
      losses, parent_id, batch_id, batch_index, created_at, payload, metadata, tags, queue, concurrency_key, priority, ttl, limits,
      max_duration, idempotency_key, idempotency_user_key, idempotency_scope, root_id, replay_of, schedule_id, is_test, output, error,
      machine, active, keep_days
    from over cross join lateral detent.days_kept(environment_id, task_id, final::text)
  ), unqueued as (
    -- A row that somebody has locked is being leased, and deleted with no run behind it.
    delete from detent.ready where ctid = any(array(
      select ready.ctid
      from gone join detent.ready on ready.lane_id = gone.lane_id and ready.position = gone.position and ready.run_id = gone.id
      where gone.status = 'QUEUED'
      for update of ready skip locked))
  ), ending as (
    insert into detent.endings (run_id, fence, environment_id, session_id, slots)
    select id, fence, environment_id, session_id, slots from gone
    where lingers and gone.status in ('DEQUEUED', 'EXECUTING')
    on conflict do nothing
  ), hooked as (
    insert into detent.final_hooks (run_id, environment_id, task_id, finished_at, session_id, fence)
    select id, gone.environment_id, gone.task_id, moment, case when keeps_hooks then session_id end, case when keeps_hooks then fence end
    from gone
    left join lateral (
      -- The newest version says what has hooks, but for a worker that has just executed its own.
      select case final when 'COMPLETED' then 'success' when 'CANCELED' then 'cancel' else 'failure' end = any(newest.final_hooks) as is_hooked
      from detent.version_tasks as newest
      where gone.hooks is null and newest.environment_id = gone.environment_id and newest.task_id = gone.task_id
      order by newest.version_id desc limit 1
    ) as known on true
    where coalesce(gone.hooks, is_hooked)
    on conflict do nothing
    returning final_hooks.run_id, final_hooks.environment_id, final_hooks.session_id
  ), result as (
    select id, final::text as status, session_id, is_watched, is_awaited, has_journal, true as is_over,
      case when gone.status in ('DEQUEUED', 'EXECUTING') and not coalesce(lingers, false) then slots end as slots
    from gone
    union all
    select id, 'QUEUED', null, false, false, has_journal, false, slots from retried
  )
  select array_agg(id), array_agg(result.status), array_agg(result.session_id), array_agg(result.is_watched),
    array_agg(id) filter (where is_awaited), array_agg(id) filter (where has_journal and is_over),
    array_agg(id) filter (where has_journal and not is_over), array_agg(id) filter (where not is_over),
    also_freed || array(select slot from result as r cross join lateral unnest(r.slots) as slot),
    array(select distinct on (environment_id) hooked.run_id from hooked where hooked.session_id is null)
  into settled, statuses, holders, watched, awaited, journalled, waiting, retried, also_freed, hooks_due
  from result;

  return query select 'settled', * from unnest(settled, statuses, holders, watched);
  if retried is not null then
    update detent.inputs set machine = detent.machine_after_oom(o.id)
    from json_to_recordset(outcomes) as o (id uuid, oom boolean)
    where inputs.run_id = o.id and o.oom and o.id = any(retried);
    -- They go on with the version that has begun them.
    perform detent.make_bound_lanes(retried);
    update detent.runs set lane_id = detent.bound_lane(lane_id, version_id)
    where id = any(retried) and lane_id <> detent.bound_lane(lane_id, version_id);
  end if;
  if waiting is not null then
    -- In a new snapshot: a wait that was asked for just before may have held the run.
    delete from detent.waits where waits.run_id = any(waiting);
  end if;
  if journalled is not null then
    perform detent.forget_journals(journalled);
  end if;
  if awaited is not null then
    return query select * from detent.release_waiters(awaited);
  end if;
  return query select 'hooks', due, null, null::uuid, false from unnest(hooks_due) as due;
  if detent.release_slots(also_freed) then
    return query select 'opened', null::uuid, null, null::uuid, false;
  end if;
end $$;

-- Completes what waits for runs that are over: their waitpoints, the batches they belong to, and the runs behind both.
create function detent.release_waiters(ended uuid[])
returns table (what text, run_id uuid, status text, session_id uuid, is_watched boolean) language plpgsql as $$
declare
  complete uuid[] := detent.count_items(ended);
begin
  perform from detent.waitpoints where id = any(ended || complete) order by id for update;
  update detent.waitpoints
  set completed_at = history.finished_at, run_status = history.status, output = history.output, error = history.error
  from detent.history
  where waitpoints.id = any(ended) and waitpoints.completed_at is null and history.id = waitpoints.id
    and history.finished_at >= (select min(detent.made_at(f)) from unnest(ended) as f);
  if complete <> '{}' then
    update detent.waitpoints set completed_at = detent.now() where id = any(complete) and completed_at is null;
  end if;
  return query select 'woken', woken.run_id, 'QUEUED', woken.session_id, false
  from detent.wake_waiters(ended || complete) as woken;
end $$;

-- What only the run itself could read: its journal, the waitpoints it made, the results of its batches.
create function detent.forget_journals(ended uuid[]) returns void language plpgsql as $$
declare
  own_batches uuid[];
  own_waitpoints uuid[];
begin
  with entry as (
    delete from detent.journal where run_id = any(ended) returning ref, kind
  )
  select array_agg(ref) filter (where kind = 'batch_wait'),
    array_agg(ref) filter (where kind in ('time', 'child', 'batch_wait'))
  into own_batches, own_waitpoints
  from entry;
  if own_batches is not null then
    -- The batches first: whoever just counts an item of one has its row locked, and the item is only seen after that.
    update detent.batches
    set is_awaited = false,
        aborted = case when sealed_at is null then coalesce(aborted, 'the run that it was given by has ended') end
    where id = any(own_batches);
    delete from detent.batch_items where batch_id = any(own_batches);
  end if;
  if own_waitpoints is not null then
    delete from detent.waitpoints where id = any(own_waitpoints) and not is_shared;
  end if;
  delete from detent.waits where run_id = any(ended);
end $$;

-- Cancels runs with all their live descendants. The family is looked for and then locked, and looked for again: a child
-- triggered meanwhile holds a lock on its parent.
create function detent.cancel_runs(environment integer, ids uuid[], error text)
returns table (what text, run_id uuid, status text, session_id uuid, is_watched boolean) language plpgsql as $$
declare
  family uuid[] := '{}';
  more uuid[] := array(
    with recursive tree as (
      select id from detent.runs where id = any(ids) and environment_id = environment
      union
      select child.id from tree join detent.runs as child on child.parent_id = tree.id
    )
    select id from tree);
begin
  while more <> '{}' loop
    more := array(select id from detent.runs where id = any(more) order by id desc for update);
    family := family || more;
    more := array(
      select id from detent.runs where parent_id = any(more) and id not in (select unnest(family)));
  end loop;
  return query select * from detent.settle_runs((
    select json_agg(json_build_object('id', id, 'status', 'CANCELED', 'error', error, 'lingers', true))
    from unnest(family) as id))
  where family <> '{}';
end $$;

-- ---- sessions -------------------------------------------------------------------------------------------------------

-- Gives up runs that are not finished: executing ones are queued again at their position, waiting ones are only forgotten
-- by their holder. The rows are locked by the caller, who gives their slots back. Returns those that are ready again.
create function detent.give_back(ids uuid[], suspects uuid[], loss integer, is_lost boolean)
returns table (run_id uuid) language plpgsql as $$
#variable_conflict use_column
begin
  -- Not changed in place: a lease that follows a changed row would take the run and leave the row.
  delete from detent.ready where ctid = any(array(
    select ready.ctid
    from detent.runs
    join detent.ready on ready.lane_id = runs.lane_id and ready.position = runs.position and ready.run_id = runs.id
    where runs.id = any(ids) and runs.status = 'QUEUED'
    for update of ready skip locked));

  perform detent.make_bound_lanes(ids);
  perform detent.stir(array(
    select distinct detent.bound_lane(lane_id, version_id) from detent.runs where runs.id = any(ids) and status <> 'WAITING'), true);
  return query
  with given as (
    update detent.runs
    set session_id = null, fence = null, lane_id = detent.bound_lane(lane_id, version_id),
        status = case when status = 'WAITING' then status else 'QUEUED' end,
        losses = losses + case when status in ('DEQUEUED', 'EXECUTING') then loss else 0 end,
        losses_in_row = losses_in_row + case when status in ('DEQUEUED', 'EXECUTING') then is_lost::integer else 0 end,
        -- Not of its attempt: what it did since its latest wait is done again.
        active = active + detent.seconds_leased(status, leased_at),
        is_solo = is_solo or id = any(suspects)
    where id = any(ids)
    returning *
  ), queued as (
    insert into detent.ready (lane_id, position, run_id, environment_id, is_solo)
    select lane_id, position, id, environment_id, is_solo from given where status = 'QUEUED'
    on conflict do nothing
  )
  select given.id from given where given.status = 'QUEUED';
end $$;

-- The runs that have begun, or may have, and must not begin again. A run that waits goes on by replay: it is none of them.
create function detent.find_unrepeatable(held uuid[], not_begun bigint[]) returns uuid[] language sql stable as $$
  select array(
    select runs.id
    from detent.runs join detent.version_tasks as tasks on tasks.version_id = runs.version_id and tasks.task_id = runs.task_id
    where runs.id = any(held) and runs.status in ('DEQUEUED', 'EXECUTING') and runs.fence <> all(not_begun)
      and tasks.on_lost = 'fail')
$$;

-- What such a run ends with. `cause`: the error with which its process ended, where that is known.
create function detent.unrepeatable_error(cause text) returns text language sql stable as $$
  select json_build_object(
    'type', 'INTERNAL_ERROR', 'code', 'TASK_RUN_CRASHED', 'name', 'TASK_RUN_CRASHED',
    'message', 'the worker was lost while it executed the run' || coalesce(' (' || (cause::json ->> 'message') || ')', '')
      || '; on_lost="fail" keeps it from running again', 'stackTrace', '')::text
$$;

-- Takes back what a worker gives up. What was cancelled meanwhile is not executed either: its slots are free.
create function detent.hand_back(given_up json)
returns table (what text, run_id uuid, status text, session_id uuid, is_watched boolean) language plpgsql as $$
#variable_conflict use_column
declare
  held uuid[];
  unrepeatable uuid[];
  freed uuid[] := detent.forget_endings(given_up);
begin
  held := array(
    select runs.id from detent.runs join json_to_recordset(given_up) as g (id uuid, fence bigint)
      on runs.id = g.id and runs.fence = g.fence
    order by runs.id desc for update of runs);
  unrepeatable := detent.find_unrepeatable(
    array(select g.id from json_to_recordset(given_up) as g (id uuid, begun boolean) where g.begun and g.id = any(held)), '{}');
  held := array(select unnest(held) except select unnest(unrepeatable));
  freed := freed || detent.slots_of(held);
  if detent.release_held_hooks(given_up) then
    return query select 'hooks', null::uuid, null, null::uuid, false;
  end if;
  return query select 'returned', given.run_id, 'QUEUED', null::uuid, false from detent.give_back(held, '{}', 0, false) as given;
  return query select * from detent.settle_runs(coalesce((
    select json_agg(json_build_object('id', id, 'status', 'CRASHED', 'error', detent.unrepeatable_error(null)))
    from unnest(unrepeatable) as id), '[]'), freed);
end $$;

-- Says that code has ended whose runs were over before; and whether something may start in the slots that it held, or its hooks are due.
create function detent.end_cancelled(holders json) returns boolean language plpgsql as $$
declare
  has_hooks boolean := detent.release_held_hooks(holders);
begin
  return detent.release_slots(detent.forget_endings(holders)) or has_hooks;
end $$;

-- The same, but returns the slots.
create function detent.forget_endings(holders json) returns uuid[] language plpgsql as $$
declare
  freed uuid[];
begin
  with ended as (
    delete from detent.endings using json_to_recordset(holders) as h (id uuid, fence bigint)
    where endings.run_id = h.id and endings.fence = h.fence
    returning slots
  )
  select coalesce(array_agg(slot), '{}') into freed from ended cross join lateral unnest(slots) as slot;
  return freed;
end $$;

-- Pause before the next attempt of a run whose process or worker died, by the policy of its task.
create function detent.retry_pause(retry json, attempt integer) returns double precision language sql volatile as $$
  select least(
    (retry ->> 'max_timeout')::double precision,
    (retry ->> 'min_timeout')::double precision
      * power(least((retry ->> 'factor')::double precision, 1000), least(attempt - 1, 100))
      * case when (retry ->> 'randomize')::boolean then 1 + random() else 1 end)
$$;

-- Ends a session. Its runs are handed back; a suspect that was alone already, and a run lost five times in a row, has crashed,
-- and so has, once and for all, one that must not begin again. Those that must start alone are told once more, with their pause.
create function detent.end_session(
  session uuid, suspects uuid[], unanswered bigint[], error text, is_lost boolean, seen bigint)
returns table (
  what text, run_id uuid, status text, session_id uuid, is_watched boolean, pause double precision) language plpgsql as $$
#variable_conflict use_column
declare
  held uuid[];
  unrepeatable uuid[];
  crashed uuid[];
  freed uuid[];
  is_oom boolean := coalesce(error::json ->> 'code' = 'TASK_PROCESS_OOM_KILLED', false);
  cause text := coalesce(error, json_build_object(
    'type', 'INTERNAL_ERROR', 'code', 'TASK_RUN_CRASHED', 'name', 'TASK_RUN_CRASHED',
    'message', 'the worker that executed the run was lost, again and again', 'stackTrace', '')::text);
begin
  update detent.sessions set ended_at = clock_timestamp()
  where id = session and ended_at is null and (seen is null or beat = seen);
  if not found then
    return;
  end if;
  held := array(select id from detent.runs where runs.session_id = session order by id desc for update);
  -- After the lock: a cancel that held it has left an ending.
  with ended as (
    delete from detent.endings where endings.session_id = session returning slots
  )
  select coalesce(array_agg(slot), '{}') into freed from ended cross join lateral unnest(slots) as slot;
  if detent.release_hooks(array(
    select final_hooks.run_id from detent.final_hooks where final_hooks.session_id = session order by final_hooks.run_id for update))
  then
    return query select 'hooks', null::uuid, null, null::uuid, false, null::double precision;
  end if;
  unrepeatable := detent.find_unrepeatable(held, unanswered);
  crashed := unrepeatable || array(
    select runs.id
    from detent.runs left join detent.version_tasks as tasks on tasks.version_id = runs.version_id and tasks.task_id = runs.task_id
    where runs.id = any(held) and runs.id <> all(unrepeatable) and runs.status in ('DEQUEUED', 'EXECUTING')
      and ((is_solo or tasks.isolation = 'process') and runs.id = any(suspects) or is_lost and losses_in_row >= 4));

  held := array(select unnest(held) except select unnest(crashed));
  freed := freed || detent.slots_of(held);
  return query select 'returned', given.run_id, 'QUEUED', null::uuid, false, null::double precision
  from detent.give_back(held, suspects, (error is not null or is_lost)::integer, is_lost) as given;

  return query select *, null::double precision from detent.settle_runs(coalesce((
    select json_agg(json_build_object(
      'id', runs.id, 'status', 'CRASHED',
      'error', case when runs.id = any(unrepeatable) then detent.unrepeatable_error(error) else cause end,
      'oom', is_oom and runs.id <> all(unrepeatable),
      'retry_in', case when not (is_lost or is_oom or runs.id = any(unrepeatable)) then detent.retry_pause(tasks.retry::json, runs.attempt) end))
    from detent.runs left join detent.version_tasks as tasks on tasks.version_id = runs.version_id and tasks.task_id = runs.task_id
    where runs.id = any(crashed)), '[]'), freed);

  return query
  select 'alone', runs.id, 'QUEUED', null::uuid, false,
    greatest(0, extract(epoch from runs.due_at - detent.now()))::double precision
  from detent.runs where runs.id = any(held || crashed) and runs.is_solo and runs.status = 'QUEUED';
end $$;

-- Renews one session and compares what its runner really holds with what is assigned to it. Only runs leased before the
-- previous renewal are judged: `held` and `in_flight` were gathered after it, but before whatever was leased since. A
-- repeat after a lost reply judges nothing, for the renewal before it may be itself.
create function detent.renew_session(environment integer, session uuid, held json, in_flight bigint[], is_repeat boolean)
returns table (what text, run_id uuid) language plpgsql as $$
#variable_conflict use_column
declare
  previous timestamptz;
  unheld uuid[];
  freed uuid[];
begin
  select beat_at into previous from detent.sessions where id = session and ended_at is null for update;
  if not found then
    return query select 'ended', null::uuid;
    return;
  end if;
  update detent.sessions set beat = beat + 1, beat_at = clock_timestamp() where id = session;
  unheld := array(
    select id from detent.runs
    where runs.session_id = session and leased_at < previous and fence <> all(in_flight) and not is_repeat
      and not exists (select from json_to_recordset(held) as h (id uuid, fence bigint) where h.id = runs.id and h.fence = runs.fence)
    order by id desc for update);
  perform detent.release_hooks(array(
    select final_hooks.run_id from detent.final_hooks
    where final_hooks.session_id = session and held_at < previous and fence <> all(in_flight) and not is_repeat
      and not exists (
        select from json_to_recordset(held) as h (id uuid, fence bigint)
        where h.id = final_hooks.run_id and h.fence = final_hooks.fence)
    order by final_hooks.run_id for update));
  if unheld <> '{}' then
    freed := detent.slots_of(unheld);
    return query select 'returned', given.run_id from detent.give_back(unheld, '{}', 0, false) as given;
    perform detent.release_slots(freed);
  end if;
  return query
  select case when endings.run_id is null then 'lost' else 'cancelled' end, h.id
  from json_to_recordset(held) as h (id uuid, fence bigint)
  left join detent.runs on runs.id = h.id and runs.fence = h.fence and runs.session_id = session
  left join detent.endings on endings.run_id = h.id and endings.fence = h.fence
  where runs.id is null and (endings.run_id is not null or not exists (
    select from detent.final_hooks
    where final_hooks.run_id = h.id and final_hooks.fence = h.fence and final_hooks.session_id = session));
end $$;

-- ---- time -----------------------------------------------------------------------------------------------------------

-- Does what is due, at most `most` of each kind, and says when the next is. Any number of processes may tick.
create function detent.tick(most integer)
returns table (
  what text, run_id uuid, status text, session_id uuid, is_watched boolean, environment_id integer, next_due timestamptz)
language plpgsql as $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
  due uuid[];
  completed uuid[];
begin
  due := array(select id from detent.runs where due_at <= moment order by due_at limit most for update skip locked);
  perform detent.stir(array(select distinct lane_id from detent.runs where id = any(due)), true);
  return query
  with moved as (
    update detent.runs
    set status = 'QUEUED', due_at = null, queued_at = coalesce(queued_at, moment),
        -- A delay has ended: its ttl begins.
        expires_at = case when started_at is null then moment + make_interval(secs => detent.life_of(runs)) end
    where id = any(due)
    returning runs.*
  ), queued as (
    -- One that waited with a timer may still be in somebody's memory.
    insert into detent.ready (lane_id, position, run_id, environment_id, resident_session, resident_until, is_solo)
    select lane_id, position, id, environment_id, moved.session_id,
      case when moved.session_id is not null then clock_timestamp() + interval '1 second' end, is_solo
    from moved
    -- A lease that was cut off leaves the row of a run that suspended meanwhile.
    on conflict (lane_id, position, run_id) do update
    set resident_session = excluded.resident_session, resident_until = excluded.resident_until
    returning ready.run_id, resident_session, ready.environment_id
  )
  select case when resident_session is null then 'queued' else 'woken' end,
    queued.run_id, 'QUEUED', resident_session, false, queued.environment_id, null::timestamptz
  from queued;

  return query select * from detent.expire_runs(most);

  with due as materialized (
    select id from detent.waitpoints where completed_at is null and due_at <= moment
    order by due_at limit most for update skip locked
  ), done as (
    update detent.waitpoints
    set completed_at = moment, is_timed_out = kind = 'token',
        error = case when kind = 'token' then detent.token_timeout(due_at) else error end
    from due where waitpoints.id = due.id
    returning waitpoints.id
  )
  select array_agg(id) into completed from done;
  if completed is not null then
    return query
    select 'woken', woken.run_id, 'QUEUED', woken.session_id, false, runs.environment_id, null::timestamptz
    from detent.wake_waiters(completed) as woken join detent.runs on runs.id = woken.run_id;
  end if;

  return query
  select 'opened', null::uuid, null, null::uuid, false, opened.environment_id, null::timestamptz
  from detent.open_gates(most) as opened;

  return query select 'next', null::uuid, null, null::uuid, false, null::integer, least(
    (select min(due_at) from detent.runs where due_at is not null),
    (select min(expires_at) from detent.runs where expires_at is not null),
    (select min(opens_at) from detent.gates where opens_at is not null),
    (select min(due_at) from detent.waitpoints where completed_at is null and due_at is not null));
end $$;

-- Seconds in the queue after which a run expires that never started: as given, else by its task's newest version.
create function detent.life_of(run detent.runs) returns double precision language plpgsql stable as $$
declare
  given double precision := (select ttl from detent.inputs where run_id = run.id);
begin
  if given is null then
    return (
      select ttl from detent.version_tasks
      where environment_id = run.environment_id and task_id = run.task_id order by version_id desc limit 1);
  end if;
  return nullif(given, 0);
end $$;

-- Ends runs that were not started in time.
create function detent.expire_runs(most integer)
returns table (
  what text, run_id uuid, status text, session_id uuid, is_watched boolean, environment_id integer, next_due timestamptz)
language plpgsql as $$
#variable_conflict use_column
declare
  expired uuid[] := array(
    select id from detent.runs where expires_at <= detent.now() order by expires_at limit most for update skip locked);
begin
  if expired = '{}' then
    return;
  end if;
  -- For those that wait for their task or queue it has not begun.
  update detent.runs set expires_at = detent.now() + make_interval(secs => detent.life_of(runs))
  where id = any(expired) and not detent.is_known(lane_id);
  expired := array(select id from detent.runs where id = any(expired) and expires_at <= detent.now());

  return query
  with place as materialized (
    select id, environment_id from detent.runs where id = any(expired)
  )
  select settled.*, coalesce(place.environment_id, runs.environment_id), null::timestamptz
  from detent.settle_runs(coalesce((
    select json_agg(json_build_object('id', id, 'status', 'EXPIRED', 'error', detent.expiry_error(queued_at, expires_at)))
    from detent.runs where id = any(expired)), '[]')) as settled
  left join place on place.id = settled.run_id
  left join detent.runs on runs.id = settled.run_id;
end $$;

create function detent.expiry_error(queued timestamptz, expired timestamptz) returns text language sql stable as $$
  select json_build_object(
    'type', 'INTERNAL_ERROR', 'code', 'TASK_RUN_EXPIRED', 'name', 'TASK_RUN_EXPIRED',
    'message', format('the run was not started within its ttl of %s s', extract(epoch from expired - queued)::float8), 'stackTrace', '')::text
$$;

-- Puts off delayed runs that debounced triggers join, in place of making others. Returns the request that made each key's
-- run, and for those that join it the run. `wanted`: positions of the requests to take.
create function detent.join_delayed(environment integer, requests json, wanted integer[])
returns table (i integer, run_id uuid, is_new boolean) language plpgsql as $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
  request record;
  held record;
begin
  for request in
    select * from json_to_recordset(requests) as r (
      i integer, id uuid, task text, debounce text, debounce_delay double precision, most_delay double precision, trails boolean,
      payload text, metadata text, tags text[], max_attempts smallint, max_duration double precision, machine text)
    where r.debounce is not null and r.i = any(wanted)
    order by r.task, r.debounce, r.i
  loop
    insert into detent.debounces (environment_id, task_id, key, run_id)
    values (environment, request.task, request.debounce, request.id) on conflict do nothing;
    perform from detent.debounces as d
    where d.environment_id = environment and d.task_id = request.task and d.key = request.debounce for update;
    select runs.id, runs.due_at, inputs.created_at, inputs.priority into held
    from detent.debounces as d
    join detent.runs on runs.id = d.run_id and runs.status = 'DELAYED'
    join detent.inputs on inputs.run_id = runs.id
    where d.environment_id = environment and d.task_id = request.task and d.key = request.debounce and d.run_id <> request.id
    for update of runs;
    if not found or moment + make_interval(secs => request.debounce_delay) > held.created_at + make_interval(secs => request.most_delay) then
      update detent.debounces as d set run_id = request.id
      where d.environment_id = environment and d.task_id = request.task and d.key = request.debounce;
      return query select request.i, request.id, true;
      continue;
    end if;
    update detent.runs
    set due_at = greatest(due_at, moment + make_interval(secs => request.debounce_delay)),
        position = greatest(due_at, moment + make_interval(secs => request.debounce_delay)) - make_interval(secs => held.priority),
        max_attempts = case when request.trails then coalesce(request.max_attempts, max_attempts) else max_attempts end
    where id = held.id;
    if request.trails then
      update detent.inputs
      set payload = coalesce(request.payload, payload), metadata = coalesce(request.metadata, metadata),
          tags = coalesce(request.tags, tags), max_duration = coalesce(request.max_duration, max_duration),
          machine = coalesce(request.machine, machine)
      where inputs.run_id = held.id;
    end if;
    -- A key that this request has claimed stands for the run that it joins.
    update detent.idempotency_keys set run_id = held.id
    where environment_id = environment and task_id = request.task and idempotency_keys.run_id = request.id;
    return query select request.i, held.id, false;
  end loop;
end $$;

create view detent.all_runs as
select
  runs.id, runs.environment_id, runs.task_id, runs.status, runs.attempt, runs.max_attempts, runs.version_id, runs.queued_at,
  runs.started_at, null::timestamptz as finished_at, runs.due_at, runs.expires_at, runs.waits, runs.losses, runs.parent_id, runs.batch_id,
  inputs.created_at, inputs.payload, inputs.metadata, inputs.tags, inputs.queue, inputs.concurrency_key, inputs.priority, inputs.ttl,
  inputs.limits, inputs.max_duration, inputs.idempotency_user_key, inputs.root_id, inputs.replay_of, inputs.schedule_id, inputs.is_test,
  null::text as output, null::text as error, runs.is_solo, runs.fence is not null as is_held, runs.lane_id
from detent.runs join detent.inputs on inputs.run_id = runs.id
union all
select
  id, environment_id, task_id, status, attempt, max_attempts, version_id, queued_at,
  started_at, finished_at, null, null, waits, losses, parent_id, batch_id,
  created_at, payload, metadata, tags, queue, concurrency_key, priority, ttl,
  limits, max_duration, idempotency_user_key, root_id, replay_of, schedule_id, is_test, output, error, false, false, null
from detent.history;

-- These functions look up some hundred rows by key in tables of any size. A plan made while a table was small would go on
-- reading it whole when it has grown, until it is analyzed again: so they never hash, merge or scan. Planning them at every call would cost more than executing them.
-- Only those that are called from outside: what they call is planned under the same settings, and setting them costs 40 us a call.
do $$
declare
  name text;
begin
  foreach name in array array[
    'insert_runs', 'suspend', 'collect', 'trigger_children', 'wait_for', 'record_steps', 'settle_runs', 'cancel_runs',
    'hand_back', 'end_cancelled', 'end_session', 'renew_session', 'tick'
  ] loop
    execute format('alter function detent.%I set enable_hashjoin = off', name);
    execute format('alter function detent.%I set enable_mergejoin = off', name);
    execute format('alter function detent.%I set enable_seqscan = off', name);
    execute format('alter function detent.%I set plan_cache_mode = force_generic_plan', name);
  end loop;
end $$;
