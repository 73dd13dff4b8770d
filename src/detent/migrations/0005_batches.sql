-- Batches: given piece by piece, sealed when every item is there, aborted when the rest does not come.
-- Reason: one mechanism for batches made in one call, streamed, and announced with their number of items first. Lock: none.
-- Pre: before the code that needs it.
--
-- An item is known by its index: `batches.received` holds the indexes that were given, so that a chunk may come twice, in any
-- order, from several processes at once; each holds the row of the batch meanwhile. The id of an item's run follows from the
-- batch's id and the index, but for an item that an idempotency key answered with an older run (`batch_cached`).

create table detent.batch_cached (
  batch_id uuid not null,
  index integer not null,
  run_id uuid not null,
  primary key (batch_id, index)
);

create table detent.batch_keys (
  environment_id integer not null,
  key text not null,
  batch_id uuid not null,
  expires_at timestamptz not null,
  primary key (environment_id, key)
);
create index batch_keys_expiring on detent.batch_keys (expires_at);

-- How long a batch waits for its next items.
create function detent.seal_patience() returns interval language sql immutable parallel safe as $$ select interval '30 minutes' $$;

create function detent.count_indexes(indexes int4multirange) returns integer language sql immutable parallel safe as $$
  select coalesce(sum(upper(part) - lower(part)), 0)::integer from unnest(indexes) as part
$$;

-- Volatile, so that a waiter on the key's row judges anew.
create function detent.batch_key_is_free(holder uuid, expires_at timestamptz) returns boolean language plpgsql volatile as $$
begin
  return expires_at <= detent.now()
    or not exists (select from detent.batches where id = holder and aborted is null);
end $$;

-- Returns the batch that a key stands for: this one, unless another that still counts has it.
create function detent.claim_batch_key(environment integer, batch uuid, wanted text, ttl double precision)
returns uuid language plpgsql as $$
declare
  moment timestamptz := detent.now();
  holder uuid;
begin
  insert into detent.batch_keys (environment_id, key, batch_id, expires_at)
  values (environment, wanted, batch, moment + make_interval(secs => ttl))
  on conflict do nothing;
  update detent.batch_keys as held
  set batch_id = batch, expires_at = moment + make_interval(secs => ttl)
  where held.environment_id = environment and held.key = wanted and held.batch_id <> batch
    and detent.batch_key_is_free(held.batch_id, held.expires_at);
  select held.batch_id into holder from detent.batch_keys as held where held.environment_id = environment and held.key = wanted;
  return holder;
end $$;

-- Locks the run that asks for a batch; false when it is held under another fence.
create function detent.hold_giver(giver uuid, by_fence bigint) returns boolean language plpgsql as $$
begin
  perform from detent.runs where id = giver and fence = by_fence for update;
  return found;
end $$;

-- Records a batch in the journal of the run that asks for it, which the caller has locked.
create function detent.journal_batch(
  environment integer, batch uuid, cached boolean, giver uuid, operation text, fingerprint text, waits boolean, answers integer,
  seen text[])
returns void language plpgsql as $$
#variable_conflict use_variable
begin
  insert into detent.journal (run_id, attempt, operation, environment_id, kind, fingerprint, ref, is_cached, answers, seen)
  select giver, runs.attempt, operation, environment, case when waits then 'batch_wait' else 'batch' end, fingerprint, batch,
    cached, answers, seen
  from detent.runs where runs.id = giver
  on conflict do nothing;
  update detent.runs set has_journal = true, losses_in_row = 0
  where runs.id = giver and not (has_journal and losses_in_row = 0);
end $$;

-- Has a run wait for a batch; a batch that is complete makes no edge. Says how the wait stands, and whether something else may
-- start now.
create function detent.await_batch(
  giver uuid, operation text, batch uuid, suspends boolean, out standing text, out opens boolean) language plpgsql as $$
begin
  opens := detent.join_waitpoints(json_build_array(
    json_build_object('run', giver, 'operation', operation, 'waitpoint', batch, 'suspends', suspends)));
  standing := case
    when not exists (select from detent.waits as edge where edge.run_id = giver and edge.operation = await_batch.operation)
      then 'completed'
    when exists (select from detent.runs where runs.id = giver and runs.status = 'WAITING') then 'suspended'
    else 'pending' end;
end $$;

-- Makes a batch before its items: with how many there will be, where that is known, with a key, or with a run that waits for it.
create function detent.create_batch(
  environment integer, batch uuid, total integer, key text, user_key text, key_ttl double precision,
  parent uuid, fence bigint, operation text, fingerprint text, waits boolean, suspends boolean, answers integer, seen text[])
returns table (what text, batch_id uuid, expected integer, is_sealed boolean, opens boolean) language plpgsql as $$
#variable_conflict use_variable
declare
  holder uuid := batch;
  standing text := 'created';
  is_open boolean := false;
begin
  if parent is not null and not detent.hold_giver(parent, fence) then
    return query select 'stale', null::uuid, null::integer, null::boolean, false;
    return;
  end if;
  if key is not null then
    holder := detent.claim_batch_key(environment, batch, key, key_ttl);
  end if;
  if holder = batch then
    insert into detent.batches (id, environment_id, parent_id, total, is_awaited, idempotency_user_key, seal_by)
    values (batch, environment, parent, total, coalesce(waits, false), user_key, detent.now() + detent.seal_patience())
    on conflict do nothing;
  end if;
  if parent is not null then
    perform detent.journal_batch(environment, holder, holder <> batch, parent, operation, fingerprint, waits, answers, seen);
  end if;
  if waits then
    insert into detent.waitpoints (id, environment_id, kind) values (batch, environment, 'batch') on conflict do nothing;
    select * into standing, is_open from detent.await_batch(parent, operation, batch, suspends);
  end if;
  return query
  select standing, batches.id, batches.total, batches.sealed_at is not null, is_open
  from detent.batches where batches.id = holder;
end $$;

-- Why a batch takes nothing of a chunk: it is another environment's, aborted, or has other items; null: it takes it.
create function detent.refusal_of_chunk(state detent.batches, environment integer, total integer, indexes integer[])
returns text language sql immutable as $$
  select case
    when state.environment_id <> environment then 'foreign'
    when state.aborted is not null then 'aborted'
    when state.sealed_at is null and (
      state.total <> total or upper(state.received) > total
      or (select min(x) < 0 or max(x) >= coalesce(state.total, total) from unnest(indexes) as x)) then 'beyond'
  end
$$;

-- The places in a chunk of the items that a batch does not have yet; of one that comes twice, the first.
create function detent.fresh_places(state detent.batches, indexes integer[]) returns integer[] language sql immutable as $$
  select array(
    select first.place from (
      select distinct on (x) x, ordinality::integer - 1 as place
      from unnest(indexes) with ordinality as given (x) order by x, ordinality
    ) as first
    where state.sealed_at is null and not state.received @> first.x
    order by first.place)
$$;

-- Takes some items of a batch, or refuses them all; the first call makes the batch unless `create_batch` has. It is sealed when
-- `total`, told here or before, is reached. `indexes`: of the requests, in their order; `refused`: places of those that cannot be
-- triggered, with their errors. Answers, as `what`: stale, aborted, foreign, beyond; or a row for each item that an older run
-- stands for (cached), one for each run that woke (woken), one when something else may start now (opened), and at last how the batch
-- stands (taken).
create function detent.trigger_batch(
  environment integer, batch uuid, requests json, has_keys boolean, indexes integer[], refused integer[], errors text[],
  total integer, parent uuid, fence bigint, operation text, fingerprint text, waits boolean, suspends boolean,
  answers integer, seen text[])
returns table (what text, i integer, run_id uuid, session_id uuid, facts json) language plpgsql as $$
#variable_conflict use_variable
declare
  giver uuid := parent;
  state detent.batches;
  expected integer;
  was_sealed boolean;
  refusal text;
  fresh integer[];
  refused_runs uuid[];
  standing text;
  is_open boolean;
begin
  if parent is not null then
    if not detent.hold_giver(parent, fence) then
      return query select 'stale', null::integer, null::uuid, null::uuid, null::json;
      return;
    end if;
    perform detent.journal_batch(environment, batch, false, parent, operation, fingerprint, waits, answers, seen);
  else
    -- Before the batch, and against its cancel: a child of a run that is over would never be cancelled.
    select batches.parent_id into giver from detent.batches where batches.id = batch;
    perform from detent.runs where runs.id = giver for key share;
    if not found and giver is not null then
      return query select 'aborted', null::integer, null::uuid, null::uuid, null::json;
      return;
    end if;
  end if;

  insert into detent.batches (id, environment_id, parent_id, is_awaited)
  values (batch, environment, parent, coalesce(waits, false)) on conflict do nothing;
  select * into state from detent.batches where batches.id = batch for update;
  expected := coalesce(state.total, total);
  was_sealed := state.sealed_at is not null;
  refusal := detent.refusal_of_chunk(state, environment, total, indexes);
  if refusal is not null then
    return query select refusal, null::integer, null::uuid, null::uuid, json_build_object('expected', expected);
    return;
  end if;

  fresh := detent.fresh_places(state, indexes);
  if fresh <> '{}' then
    if parent is null and giver is not null then
      requests := detent.with_parent(requests, giver, state.is_awaited);
    end if;
    refused_runs := detent.make_refused_runs(environment, requests, fresh, refused, errors);
    return query select * from detent.make_items(state, requests, has_keys, indexes, fresh, refused);
    if refused_runs <> '{}' and state.is_awaited then
      perform detent.count_items(refused_runs);
    end if;
  end if;

  if not was_sealed then
    state.received := state.received + coalesce((
      select range_agg(int4range(indexes[place + 1], indexes[place + 1] + 1)) from unnest(fresh) as place), '{}');
    update detent.batches
    set total = expected,
        received = state.received,
        refused = batches.refused + coalesce(cardinality(refused_runs), 0),
        sealed_at = case when detent.count_indexes(state.received) = expected then detent.now() end,
        seal_by = detent.now() + detent.seal_patience()
    where batches.id = batch
    returning * into state;
  end if;

  -- What was given before, and answered by an older run then.
  return query
  select 'cached', place.ordinality::integer - 1, known.run_id, null::uuid, null::json
  from unnest(indexes) with ordinality as place (x) join detent.batch_cached as known on known.batch_id = batch and known.index = place.x
  where place.ordinality::integer - 1 <> all(fresh);
  if state.sealed_at is not null and state.is_awaited then
    return query select 'woken', null::integer, woken.run_id, woken.session_id, null::json from detent.seal_waitpoint(state) as woken;
    if waits and total is not null then
      select * into standing, is_open from detent.await_batch(parent, operation, batch, suspends);
      return query select 'opened', null::integer, null::uuid, null::uuid, null::json where is_open;
    end if;
  end if;
  return query select 'taken', null::integer, null::uuid, null::uuid, json_build_object(
    'accepted', cardinality(fresh), 'enqueued', detent.count_indexes(state.received), 'expected', state.total,
    'sealed', state.sealed_at is not null, 'was_sealed', was_sealed, 'wait', standing, 'failure', detent.batch_failure(state));
end $$;

-- Items that are given from outside, for a batch that a run has made: they are its children, too.
create function detent.with_parent(requests json, giver uuid, awaited boolean) returns json language sql immutable as $$
  select json_agg(request::jsonb || jsonb_build_object('parent', giver, 'awaited', awaited)) from json_array_elements(requests) as request
$$;

-- Why a batch fails whoever waits for it, although all its items were given.
create function detent.batch_failure(state detent.batches) returns text language sql immutable as $$
  select case when state.sealed_at is not null and state.total > 0 and state.refused = state.total then
    format('none of its %s items could be triggered; batch.retrieve tells why', state.total) end
$$;

-- Makes the runs of fresh items, but for the refused ones.
create function detent.make_items(
  state detent.batches, requests json, has_keys boolean, indexes integer[], fresh integer[], refused integer[])
returns table (what text, i integer, run_id uuid, session_id uuid, facts json) language plpgsql as $$
declare
  wanted integer[] := case when refused = '{}' then fresh else array(select unnest(fresh) except select unnest(refused)) end;
  places integer[]; made_ids uuid[];
begin
  -- All of them without a list: to look for each item in it would compare each with each.
  if cardinality(wanted) = json_array_length(requests) then
    wanted := null;
  end if;
  select array_agg(made.i) filter (where made.is_cached), array_agg(made.run_id) filter (where made.is_cached)
  into places, made_ids
  from detent.insert_runs(state.environment_id, requests, has_keys, false, wanted) as made;
  if places is null then
    return;
  end if;
  insert into detent.batch_cached (batch_id, index, run_id)
  select state.id, indexes[made.place + 1], made.run from unnest(places, made_ids) as made (place, run)
  on conflict do nothing;
  if state.is_awaited then
    perform detent.await_cached_items(state.environment_id, state.id, indexes, places, made_ids);
  end if;
  return query select 'cached', made.place, made.run, null::uuid, null::json from unnest(places, made_ids) as made (place, run);
end $$;

-- What cannot be triggered stands at its index all the same, as a run that was born failed.
create function detent.make_refused_runs(environment integer, requests json, fresh integer[], refused integer[], errors text[])
returns uuid[] language plpgsql as $$
declare
  made uuid[];
begin
  if cardinality(refused) = 0 then
    return '{}';
  end if;
  with made_runs as (
    insert into detent.history (
      id, environment_id, task_id, status, attempt, finished_at, waits, losses, parent_id, batch_id, batch_index, created_at,
      payload, metadata, tags, queue, concurrency_key, priority, ttl, limits, max_duration, machine, is_test, error, keep_days)
    select r.id, environment, r.task, 'SYSTEM_FAILURE', 1, detent.now(), 0, 0, r.parent, r.batch, r.batch_index, detent.now(),
      r.payload, r.metadata, coalesce(r.tags, '{}'), r.queue, r.ckey, coalesce(r.priority, 0), r.ttl, r.limits,
      r.max_duration, r.machine, coalesce(r.test, false), refusal.error, keep_days
    from json_to_recordset(requests) as r (
      i integer, id uuid, task text, queue text, ckey text, payload text, metadata text, tags text[], priority double precision,
      ttl double precision, limits text[], max_duration double precision, parent uuid, batch uuid, batch_index integer, test boolean, machine text)
    join unnest(refused, errors) as refusal (place, error) on refusal.place = r.i
    cross join lateral detent.days_kept(environment, r.task, 'SYSTEM_FAILURE')
    where r.i = any(fresh)
    returning id
  )
  select array_agg(id) into made from made_runs;
  return coalesce(made, '{}');
end $$;

-- Makes what a run waits for of a batch that is sealed, completed where all its items are over; wakes whoever waited already.
create function detent.seal_waitpoint(state detent.batches)
returns table (run_id uuid, session_id uuid) language plpgsql as $$
declare
  done_at timestamptz := case when state.finished >= state.total then detent.now() end;
begin
  insert into detent.waitpoints (id, environment_id, kind, completed_at, error)
  values (state.id, state.environment_id, 'batch', done_at, case when done_at is not null then detent.batch_failure(state) end)
  on conflict do nothing;
  if found or done_at is null then
    return;
  end if;
  perform from detent.waitpoints where id = state.id for update;
  update detent.waitpoints set completed_at = done_at, error = detent.batch_failure(state)
  where id = state.id and completed_at is null;
  return query select * from detent.wake_waiters(array[state.id]);
end $$;

-- Items that an idempotency key answered with an older run: its outcome counts for the batch, now or when it comes. The runs
-- are locked, so that none ends unseen between two statements.
create function detent.await_cached_items(
  environment integer, batch uuid, indexes integer[], places integer[], made uuid[])
returns void language plpgsql as $$
declare
  targets uuid[];
begin
  insert into detent.batch_items (batch_id, index, run_id, environment_id)
  select batch, indexes[item.place + 1], item.run_id, environment from unnest(places, made) as item (place, run_id)
  on conflict do nothing;

  targets := array(select run_id from detent.batch_items where batch_id = batch and run_status is null order by run_id);
  perform from detent.runs where id = any(targets) order by id desc for update;
  update detent.runs set is_awaited = true where id = any(targets) and not is_awaited;
  -- In a new snapshot: those that are over by now.
  perform detent.count_items(array(
    select history.id from detent.history
    where history.id = any(targets) and not exists (select from detent.runs where runs.id = history.id)));
end $$;

-- ---- the rest does not come -----------------------------------------------------------------------------------------

-- Aborts batches that are not sealed; the runs that were made go on, who waits wakes with an error. The batches are locked.
create function detent.close_batches(ids uuid[], reason text) returns table (run_id uuid, session_id uuid) language plpgsql as $$
begin
  update detent.batches set aborted = reason where id = any(ids);
  perform from detent.waitpoints where id = any(ids) order by id for update;
  update detent.waitpoints set completed_at = detent.now(), error = reason where id = any(ids) and completed_at is null;
  return query select * from detent.wake_waiters(ids);
end $$;

-- A sealed batch is left alone. One that is not there yet is made, for its first items may still be under way.
create function detent.abort_batch(environment integer, batch uuid, reason text)
returns table (what text, run_id uuid, status text, session_id uuid, is_watched boolean) language plpgsql as $$
begin
  insert into detent.batches (id, environment_id, is_awaited) values (batch, environment, false) on conflict do nothing;
  perform from detent.batches
  where id = batch and environment_id = environment and sealed_at is null and aborted is null for update;
  if found then
    return query select 'woken', woken.run_id, 'QUEUED', woken.session_id, false
    from detent.close_batches(array[batch], reason) as woken;
  end if;
end $$;

-- Aborts batches whose items stopped coming. One that a live run gives is that run's to seal, however often it is interrupted,
-- unless it waits for others to do so.
create function detent.abort_late_batches(most integer)
returns table (what text, run_id uuid, status text, session_id uuid, is_watched boolean, environment_id integer)
language plpgsql as $$
#variable_conflict use_column
declare
  late uuid[] := array(
    select id from detent.batches
    where seal_by <= detent.now() and sealed_at is null and aborted is null
    order by seal_by limit most for update skip locked);
  given uuid[];
begin
  if late = '{}' then
    return;
  end if;
  given := array(
    select batches.id from detent.batches join detent.runs on runs.id = batches.parent_id
    where batches.id = any(late) and not exists (
      select from detent.waits where waits.run_id = batches.parent_id and waits.waitpoint_id = batches.id));
  update detent.batches set seal_by = detent.now() + detent.seal_patience() where id = any(given);
  return query
  select 'woken', woken.run_id, 'QUEUED', woken.session_id, false, runs.environment_id
  from detent.close_batches(
    array(select unnest(late) except select unnest(given)), 'the rest of its items did not come for 30 minutes') as woken
  join detent.runs on runs.id = woken.run_id;
end $$;

-- As in 0002: looked up by key in tables of any size, whatever a plan of their early days says.
do $$
declare
  name text;
begin
  foreach name in array array['create_batch', 'trigger_batch', 'abort_batch', 'abort_late_batches'] loop
    execute format('alter function detent.%I set enable_hashjoin = off', name);
    execute format('alter function detent.%I set enable_mergejoin = off', name);
    execute format('alter function detent.%I set enable_seqscan = off', name);
    execute format('alter function detent.%I set plan_cache_mode = force_generic_plan', name);
  end loop;
end $$;
