CREATE SCHEMA detent;

CREATE TYPE detent.head AS (
	lane_id uuid,
	line_id uuid,
	served_at timestamp with time zone,
	gates uuid[],
	isolation text,
	max_attempts smallint,
	max_duration double precision,
	run_id uuid,
	"row" tid,
	"position" timestamp with time zone,
	resident_session uuid,
	place bigint,
	is_cut boolean,
	begun boolean
);

CREATE TYPE detent.run_status AS ENUM (
    'DELAYED',
    'QUEUED',
    'DEQUEUED',
    'EXECUTING',
    'WAITING',
    'COMPLETED',
    'FAILED',
    'CANCELED',
    'CRASHED',
    'SYSTEM_FAILURE',
    'EXPIRED',
    'TIMED_OUT'
);

CREATE TYPE detent.run_selection AS (
	statuses detent.run_status[],
	is_known boolean,
	tasks text[],
	tags text[],
	queues text[],
	versions text[],
	machines text[],
	parent_id uuid,
	batch_id uuid,
	schedule_id uuid,
	bulk_id uuid,
	is_test boolean,
	created_after timestamp with time zone,
	created_before timestamp with time zone
);

CREATE FUNCTION detent.abort_batch(environment integer, batch uuid, reason text) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  insert into detent.batches (id, environment_id, is_awaited) values (batch, environment, false) on conflict do nothing;
  perform from detent.batches
  where id = batch and environment_id = environment and sealed_at is null and aborted is null for update;
  if found then
    return query select 'woken', woken.run_id, 'QUEUED', woken.session_id, false
    from detent.close_batches(array[batch], reason) as woken;
  end if;
end $$;

CREATE FUNCTION detent.abort_late_batches(most integer) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean, environment_id integer)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.add_tags(environment integer, requests json, most integer) RETURNS TABLE(i integer, count integer)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
  request record;
begin
  perform from detent.runs
  where environment_id = environment and id in (select r.id from json_to_recordset(requests) as r (id uuid))
  order by id desc for no key update;

  for request in
    select r.i, runs.id, r.tags
    from json_to_recordset(requests) as r (i integer, id uuid, fence bigint, tags text[])
    join detent.runs on runs.id = r.id and runs.fence = r.fence and runs.environment_id = environment
    order by r.i
  loop
    i := request.i;
    select cardinality(detent.tagged(tags, request.tags)) into count from detent.inputs where run_id = request.id;
    update detent.inputs set tags = detent.tagged(tags, request.tags) where run_id = request.id and count <= most;
    return next;
  end loop;
end $$;

CREATE FUNCTION detent.advance_bulk_action(action_id uuid, from_id uuid, to_id uuid, acted uuid[], failed integer) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.annotate_runs(environment integer, requests json, most integer) RETURNS TABLE(i integer, document text, size integer)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
  request record;
  is_live boolean;
  after text;
begin
  perform from detent.runs
  where environment_id = environment and id in (select r.id from json_to_recordset(requests) as r (id uuid))
  order by id desc for no key update;

  for request in select * from json_to_recordset(requests) as r (i integer, id uuid, operations jsonb) order by r.i loop
    i := request.i;
    size := null;
    select coalesce(metadata, '{}') into document from detent.inputs where run_id = request.id and environment_id = environment;
    is_live := found;
    if not is_live then
      select coalesce(metadata, '{}') into document
      from detent.history where id = request.id and environment_id = environment and finished_at >= detent.made_at(request.id)
      for no key update;
      continue when not found;
    end if;
    after := detent.apply_metadata(document::jsonb, request.operations)::text;
    if octet_length(after) > greatest(most, octet_length(document)) then
      size := octet_length(after);
    elsif is_live then
      update detent.inputs set metadata = after where run_id = request.id returning metadata into document;
    else
      update detent.history set metadata = after
      where id = request.id and finished_at >= detent.made_at(request.id) returning metadata into document;
    end if;
    return next;
  end loop;
end $$;

CREATE FUNCTION detent.apply_limits(environment integer, changed uuid[], tasks text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
  touched uuid[];
  mine uuid[];
begin
  -- Before lanes are looked for: whoever gives a run back makes one that has the gates of that moment.
  perform from detent.runs
  where session_id is not null and runs.environment_id = environment and status in ('DEQUEUED', 'EXECUTING') order by id desc for update;
  touched := array(
    select lanes.id from detent.lanes
    where lanes.environment_id = environment and (
      lanes.task_id = any(tasks)
      or exists (select from detent.limits_of(lanes) as l where l.id = any(changed))
      or exists (select from detent.gates where gates.id = any(lanes.gates) and gates.limit_id = any(changed))));
  update detent.environments set gates = array(
    select detent.gate_id(l.id, bound.scope, null)
    from detent.limits as l cross join lateral detent.bounds_of(l) as bound
    where l.id = detent.limit_id(environment, 'environment', '') and bound.scope = 'total')
  where id = environment and detent.limit_id(environment, 'environment', '') = any(changed);
  insert into detent.gates (id, limit_id, environment_id, scope)
  select gate, detent.limit_id(environment, 'environment', ''), environment, 'total'
  from detent.environments cross join lateral unnest(gates) as gate where environments.id = environment
  on conflict do nothing;
  perform detent.set_gates(touched);

  update detent.runs set slots = array(
    select distinct gate.id
    from unnest(runs.slots || lanes.gates || environments.gates) as held
    join detent.gates as gate on gate.id = held and gate.scope <> 'rate' order by gate.id)
  from detent.lanes, detent.environments
  where runs.session_id is not null and runs.environment_id = environment and status in ('DEQUEUED', 'EXECUTING')
    and lanes.id = runs.lane_id and environments.id = environment
    and not coalesce(runs.slots, '{}') @> (lanes.gates || environments.gates);

  -- Also those that lanes are parked on, and do not have to pass any more.
  mine := array(select gates.id from detent.gates where limit_id = any(changed) or gates.id in (
    select unnest(lanes.gates || parked_on) from detent.lanes where lanes.id = any(touched)) order by 1);
  perform from detent.gates where id = any(mine) order by id for update;
  update detent.gates
  set taken = coalesce(held.n, 0),
      allowed = case when g.scope = 'key' and g.key_until > detent.now() then g.key_allowed else bound.allowed end,
      period = coalesce(bound.period, gates.period),
      starts = case when bound.period <> g.period then detent.gather_starts(g, detent.now()) else gates.starts end,
      latest = case when bound.period <> g.period then detent.sub_window(bound.period, detent.now()) else gates.latest end
  from detent.gates as g
  join detent.limits as l on l.id = g.limit_id
  left join lateral detent.bounds_of(l) as bound on bound.scope = g.scope
  left join detent.held_slots(environment) as held on held.gate_id = g.id
  where gates.id = g.id and g.id = any(mine);
  perform detent.unpark(array(select id from detent.lanes where parked_on = any(mine)));
  delete from detent.vacancies where gate_id = any(mine);
end $$;

CREATE FUNCTION detent.apply_metadata(document jsonb, operations jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
declare
  operation record;
  present jsonb;
begin
  for operation in
    select o ->> 'kind' as kind, o -> 'value' as value, array(select jsonb_array_elements_text(o -> 'path')) as path
    from jsonb_array_elements(operations) with ordinality as listed (o, n)
    order by n
  loop
    present := nullif(document #> operation.path, 'null');
    document := coalesce(
      case operation.kind
        when 'replace' then operation.value
        when 'set' then detent.put_at(document, operation.path, operation.value)
        when 'delete' then
          case when detent.put_at(document, operation.path, 'null') is not null then document #- operation.path end
        when 'increment' then
          detent.put_at(document, operation.path, to_jsonb(
            case when jsonb_typeof(present) = 'number' then present::numeric else 0 end + operation.value::numeric))
        when 'append' then
          detent.put_at(document, operation.path, case
            when present is null then '[]'
            when jsonb_typeof(present) = 'array' then present
            else jsonb_build_array(present)
          end || jsonb_build_array(operation.value))
        when 'remove' then
          case when jsonb_typeof(present) = 'array' then
            detent.put_at(document, operation.path, (
              select coalesce(jsonb_agg(member order by n), '[]')
              from jsonb_array_elements(present) with ordinality as members (member, n)
              where member <> operation.value))
          end
      end, document);
  end loop;
  return document;
end $$;

CREATE FUNCTION detent.asleep() RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select '00000000-0000-0000-0000-000000000000'::uuid
$$;

CREATE FUNCTION detent.await_batch(giver uuid, operation text, batch uuid, suspends boolean, OUT standing text, OUT opens boolean) RETURNS record
    LANGUAGE plpgsql
    AS $$
begin
  opens := detent.join_waitpoints(json_build_array(
    json_build_object('run', giver, 'operation', operation, 'waitpoint', batch, 'suspends', suspends)));
  standing := case
    when not exists (select from detent.waits as edge where edge.run_id = giver and edge.operation = await_batch.operation)
      then 'completed'
    when exists (select from detent.runs where runs.id = giver and runs.status = 'WAITING') then 'suspended'
    else 'pending' end;
end $$;

CREATE FUNCTION detent.await_cached_items(environment integer, batch uuid, indexes integer[], places integer[], made uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.now() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS $$ select clock_timestamp() $$;

CREATE TABLE detent.batches (
    id uuid NOT NULL,
    environment_id integer NOT NULL,
    parent_id uuid,
    total integer,
    received int4multirange DEFAULT '{}'::int4multirange NOT NULL,
    refused integer DEFAULT 0 NOT NULL,
    finished integer DEFAULT 0 NOT NULL,
    is_awaited boolean NOT NULL,
    idempotency_user_key text,
    seal_by timestamp with time zone,
    sealed_at timestamp with time zone,
    aborted text,
    created_at timestamp with time zone DEFAULT detent.now() NOT NULL,
    CONSTRAINT sealed_is_whole CHECK (((sealed_at IS NULL) OR ((total IS NOT NULL) AND (aborted IS NULL))))
);

CREATE FUNCTION detent.batch_failure(state detent.batches) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$
  select case when state.sealed_at is not null and state.total > 0 and state.refused = state.total then
    format('none of its %s items could be triggered; batch.retrieve tells why', state.total) end
$$;

CREATE FUNCTION detent.batch_key_is_free(holder uuid, expires_at timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
  return expires_at <= detent.now()
    or not exists (select from detent.batches where id = holder and aborted is null);
end $$;

CREATE FUNCTION detent.bound_lane(lane uuid, version integer) RETURNS uuid
    LANGUAGE plpgsql STABLE
    AS $$
begin
  return (
    select case when is_pinned or version is null or version_id = version then id
      else md5(coalesce(base_id, id)::text || ':' || version)::uuid end
    from detent.lanes where id = lane);
end $$;

CREATE TABLE detent.limits (
    id uuid NOT NULL,
    environment_id integer NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    is_declared boolean DEFAULT true NOT NULL,
    total integer,
    total_override integer,
    total_overridden_at timestamp with time zone,
    per_key integer,
    per_key_override integer,
    per_key_overridden_at timestamp with time zone,
    rate jsonb,
    rate_override jsonb,
    rate_overridden_at timestamp with time zone,
    most_queued integer,
    paused_at timestamp with time zone,
    CONSTRAINT limits_kind_check CHECK ((kind = ANY (ARRAY['environment'::text, 'queue'::text, 'limit'::text]))),
    CONSTRAINT limits_most_queued_check CHECK ((most_queued >= 0)),
    CONSTRAINT limits_per_key_check CHECK ((per_key >= 0)),
    CONSTRAINT limits_per_key_override_check CHECK ((per_key_override >= 0)),
    CONSTRAINT limits_total_check CHECK ((total >= 0)),
    CONSTRAINT limits_total_override_check CHECK ((total_override >= 0))
);

CREATE FUNCTION detent.bounds_of(l detent.limits) RETURNS TABLE(scope text, is_per_key boolean, allowed integer, period double precision)
    LANGUAGE sql STABLE
    AS $$
  select bound.*
  from (select case when l.rate_overridden_at is null then l.rate else l.rate_override end as rate) as present,
  lateral (values
    ('total', false,
      case when l.paused_at is not null or not l.is_declared then 0
        when l.total_overridden_at is null then l.total else l.total_override end, null::double precision),
    ('key', true, case when l.per_key_overridden_at is null then l.per_key else l.per_key_override end, null),
    ('rate', (rate ->> 'per_key')::boolean, (rate ->> 'starts')::integer, (rate ->> 'period')::double precision)
  ) as bound (scope, is_per_key, allowed, period)
  where bound.allowed is not null
$$;

CREATE FUNCTION detent.cancel_runs(environment integer, ids uuid[], error text) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.carry_bulk_cancel(action_id uuid, most integer, error text) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.change_limit(environment integer, target uuid, change text, new_total text, new_per_key text, new_rate text, key text, until timestamp with time zone) RETURNS text
    LANGUAGE plpgsql
    AS $$
declare
  moment timestamptz := detent.now();
  l detent.limits;
  gate uuid := detent.gate_id(target, 'key', key);
begin
  perform detent.hold_leases(environment);
  select * into l from detent.limits where id = target and environment_id = environment for update;
  if not found then
    return 'unknown';
  end if;

  case change
    when 'pause' then
      update detent.limits set paused_at = coalesce(paused_at, moment) where id = target;
    when 'resume' then
      update detent.limits set paused_at = null where id = target;
    when 'override' then
      update detent.limits
      set total_override = case when new_total is null then total_override else nullif(new_total, 'none')::integer end,
          total_overridden_at = case when new_total is null then total_overridden_at else moment end,
          per_key_override = case when new_per_key is null then per_key_override else nullif(new_per_key, 'none')::integer end,
          per_key_overridden_at = case when new_per_key is null then per_key_overridden_at else moment end,
          rate_override = case when new_rate is null then rate_override else nullif(new_rate, 'none')::jsonb end,
          rate_overridden_at = case when new_rate is null then rate_overridden_at else moment end
      where id = target;
    when 'reset' then
      if coalesce(l.total_overridden_at, l.per_key_overridden_at, l.rate_overridden_at) is null then
        return 'unchanged';
      end if;
      update detent.limits
      set total_override = null, total_overridden_at = null, per_key_override = null, per_key_overridden_at = null,
          rate_override = null, rate_overridden_at = null
      where id = target;
    when 'override_key' then
      if not exists (select from detent.bounds_of(l) where scope = 'key') then
        return 'unbounded';
      end if;
      insert into detent.gates (id, limit_id, environment_id, scope, concurrency_key, key_allowed, key_until, opens_at)
      values (gate, target, environment, 'key', key, new_per_key::integer, until, until)
      on conflict (id) do update
      set key_allowed = excluded.key_allowed, key_until = excluded.key_until, opens_at = excluded.opens_at;
    when 'reset_key' then
      update detent.gates set key_allowed = null, key_until = null, opens_at = null where id = gate and key_until is not null;
      if not found then
        return 'unchanged';
      end if;
  end case;
  perform detent.apply_limits(environment, array[target], '{}');
  return 'done';
end $$;

CREATE FUNCTION detent.change_metadata(changed uuid, operations jsonb, most integer) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
declare
  before text;
  after text;
begin
  select metadata into before from detent.inputs where run_id = changed;
  if found then
    after := detent.apply_metadata(coalesce(before, '{}')::jsonb, operations)::text;
    if octet_length(after) > most and octet_length(after) > octet_length(coalesce(before, '')) then
      return false;
    end if;
    update detent.inputs set metadata = after where run_id = changed;
    return true;
  end if;
  update detent.history set metadata = detent.apply_metadata(coalesce(metadata, '{}')::jsonb, operations)::text
  where id = changed and finished_at > detent.now() - interval '1 hour' and octet_length(coalesce(metadata, '')) < most;
  return true;
end $$;

CREATE FUNCTION detent.check_options(options jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
  unknown text;
begin
  select string_agg(name, ', ') into unknown from jsonb_object_keys(options) as name
  where name <> all(array['environment', 'id', 'queue', 'concurrency_key', 'concurrency', 'priority', 'tags', 'metadata', 'delay', 'starts_at',
    'ttl', 'max_duration', 'max_attempts', 'machine', 'version', 'idempotency', 'idempotency_key', 'idempotency_key_ttl', 'debounce']);
  if unknown is not null then
    raise exception 'detent.trigger has no option %', unknown
      using errcode = 'invalid_parameter_value', hint = 'Its options are listed in docs/transactions.md.';
  end if;
end $$;

CREATE FUNCTION detent.claim_batch_key(environment integer, batch uuid, wanted text, ttl double precision) RETURNS uuid
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.claim_keys(environment integer, requests json, wanted integer[]) RETURNS TABLE(i integer, run_id uuid, is_new boolean)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.claim_waitpoint_keys(environment integer, requests json, wanted integer[]) RETURNS json
    LANGUAGE plpgsql
    AS $$
declare
  moment timestamptz := detent.now();
begin
  insert into detent.waitpoint_keys (environment_id, key, waitpoint_id, expires_at)
  select distinct on (r.key) environment, r.key, r.id, moment + make_interval(secs => r.key_ttl)
  from json_to_recordset(requests) as r (i integer, id uuid, key text, key_ttl double precision)
  where r.i = any(wanted)
  order by r.key, r.i
  on conflict do nothing;

  update detent.waitpoint_keys as held set waitpoint_id = r.id, expires_at = moment + make_interval(secs => r.key_ttl)
  from (
    select distinct on (key) *
    from json_to_recordset(requests) as r (i integer, id uuid, key text, key_ttl double precision)
    where i = any(wanted)
    order by key, i
  ) as r
  where held.environment_id = environment and held.key = r.key and held.waitpoint_id <> r.id and held.expires_at <= moment;

  return (
    select json_agg(
      case when held.key is null then request
        else request || jsonb_build_object('ref', held.waitpoint_id, 'holder', coalesce(waitpoints.kind, request ->> 'kind')) end)
    from jsonb_array_elements(requests::jsonb) as request
    left join detent.waitpoint_keys as held
      on held.environment_id = environment and held.key = request ->> 'key' and (request ->> 'i')::integer = any(wanted)
    left join detent.waitpoints on waitpoints.id = held.waitpoint_id);
end $$;

CREATE FUNCTION detent.close_batches(ids uuid[], reason text) RETURNS TABLE(run_id uuid, session_id uuid)
    LANGUAGE plpgsql
    AS $$
begin
  update detent.batches set aborted = reason where id = any(ids);
  perform from detent.waitpoints where id = any(ids) order by id for update;
  update detent.waitpoints set completed_at = detent.now(), error = reason where id = any(ids) and completed_at is null;
  return query select * from detent.wake_waiters(ids);
end $$;

CREATE FUNCTION detent.collect(holders json) RETURNS TABLE(run_id uuid, fence bigint, results json)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.complete_bulk_action(action_id uuid, from_id uuid) RETURNS void
    LANGUAGE sql
    AS $$
  update detent.bulk_actions
  set status = 'COMPLETED', completed_at = detent.now(), carried_until = null,
      failure = greatest(failure, total - success), total = greatest(total, success + failure)
  where id = action_id and status = 'PENDING' and last_id is not distinct from from_id
$$;

CREATE FUNCTION detent.complete_tokens(environment integer, completions json, is_repeat boolean) RETURNS TABLE(what text, i integer, run_id uuid, session_id uuid)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  completed uuid[];
  firsts integer[];
begin
  perform from detent.waitpoints
  where id in (select c.id from json_to_recordset(completions) as c (id uuid)) order by id for update;

  with done as (
    update detent.waitpoints set completed_at = detent.now(), output = c.output, error = c.error
    from (
      select distinct on (id) *
      from json_to_recordset(completions) as c (i integer, id uuid, output text, error text) order by id, i
    ) as c
    where waitpoints.id = c.id and environment_id = environment and kind = 'token' and completed_at is null
    returning waitpoints.id, c.i
  )
  select array_agg(id), array_agg(done.i) into completed, firsts from done;

  return query
  select
    case when c.i = any(firsts)
      or is_repeat and (waitpoints.output, waitpoints.error) is not distinct from (c.output, c.error) then 'first' else 'late' end,
    c.i, null::uuid, null::uuid
  from json_to_recordset(completions) as c (i integer, id uuid, output text, error text)
  join detent.waitpoints on waitpoints.id = c.id
  where environment_id = environment and kind = 'token';

  if completed is not null then
    return query select 'woken', null::integer, woken.run_id, woken.session_id from detent.wake_waiters(completed) as woken;
  end if;
end $$;

CREATE FUNCTION detent.count_indexes(indexes int4multirange) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select coalesce(sum(upper(part) - lower(part)), 0)::integer from unnest(indexes) as part
$$;

CREATE FUNCTION detent.count_items(ended uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.create_batch(environment integer, batch uuid, total integer, key text, user_key text, key_ttl double precision, parent uuid, fence bigint, operation text, fingerprint text, waits boolean, suspends boolean, answers integer, seen text[]) RETURNS TABLE(what text, batch_id uuid, expected integer, is_sealed boolean, opens boolean)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.create_bulk_action(environment integer, action uuid, request json) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.create_tokens(environment integer, requests json) RETURNS TABLE(i integer, ref uuid, secret text, is_cached boolean)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
  fresh integer[];
  keyed integer[];
begin
  perform from detent.runs
  where id in (select r.parent from json_to_recordset(requests) as r (parent uuid)) order by id desc for update;

  select coalesce(array_agg(r.i), '{}'), coalesce(array_agg(r.i) filter (where r.key is not null), '{}') into fresh, keyed
  from json_to_recordset(requests) as r (i integer, parent uuid, fence bigint, operation text, key text)
  left join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
  left join detent.journal on journal.run_id = parent.id and journal.attempt = parent.attempt and journal.operation = r.operation
  where (r.parent is null or parent.id is not null) and journal.run_id is null;
  if keyed <> '{}' then
    requests := detent.claim_waitpoint_keys(environment, requests, keyed);
  end if;

  insert into detent.waitpoints (
    id, environment_id, kind, due_at, completed_at, is_timed_out, error, is_shared, created_at, tags, secret, idempotency_key)
  select r.id, environment, 'token', r.due, case when r.due <= moment then moment end, coalesce(r.due <= moment, false),
    case when r.due <= moment then detent.token_timeout(r.due) end, true, moment, coalesce(r.tags, '{}'), r.secret, r.key
  from (
    select *, coalesce(due_at, moment + make_interval(secs => delay)) as due
    from json_to_recordset(requests) as r (
      i integer, id uuid, ref uuid, delay double precision, due_at timestamptz, tags text[], secret text, key text)
  ) as r
  where r.i = any(fresh) and coalesce(r.ref, r.id) = r.id
  order by r.id
  on conflict do nothing;

  with entry as (
    insert into detent.journal (run_id, attempt, operation, environment_id, kind, fingerprint, ref, is_cached, answers, seen, output)
    select r.parent, parent.attempt, r.operation, environment, 'new_token', 'new_token', waitpoints.id, waitpoints.id <> r.id,
      r.answers, r.seen, waitpoints.secret
    from json_to_recordset(requests) as r (
      i integer, id uuid, ref uuid, holder text, parent uuid, operation text, answers integer, seen text[])
    join detent.runs as parent on parent.id = r.parent
    join detent.waitpoints on waitpoints.id = coalesce(r.ref, r.id)
    where r.i = any(fresh) and coalesce(r.holder, 'token') = 'token'
    order by r.i
    returning run_id
  )
  update detent.runs set has_journal = true, losses_in_row = 0
  where id in (select entry.run_id from entry) and not (has_journal and losses_in_row = 0);

  return query
  select r.i, waitpoints.id, waitpoints.secret, coalesce(journal.is_cached, waitpoints.id <> r.id)
  from json_to_recordset(requests) as r (
    i integer, id uuid, ref uuid, holder text, parent uuid, fence bigint, operation text)
  left join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
  left join detent.journal on journal.run_id = parent.id and journal.attempt = parent.attempt and journal.operation = r.operation
  left join detent.waitpoints
    on waitpoints.id = coalesce(journal.ref, r.ref, r.id) and coalesce(r.holder, 'token') = 'token'
  where r.parent is null or parent.id is not null
  order by r.i;
end $$;

CREATE FUNCTION detent.current_task(environment integer, task text, OUT queue text, OUT ttl double precision) RETURNS record
    LANGUAGE sql STABLE
    AS $$
  select tasks.queue, tasks.ttl from detent.version_tasks as tasks
  left join (
    select distinct version_id from detent.sessions
    where environment_id = environment and ended_at is null and beat_at > clock_timestamp() - interval '15 seconds'
  ) as live on live.version_id = tasks.version_id
  where tasks.environment_id = environment and tasks.task_id = task
  order by live.version_id desc nulls last, tasks.version_id desc limit 1
$$;

CREATE FUNCTION detent.days_kept(environment integer, task text, final text) RETURNS TABLE(keep_days integer)
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select coalesce((
    select rule.keep_days from detent.retention_rules as rule
    where rule.environment_id = environment and rule.task_id in (task, '') and rule.status in (final, '')
    order by rule.task_id desc, rule.status desc
    limit 1), 30)
$$;

CREATE FUNCTION detent.deliver(runs uuid[]) RETURNS TABLE(run_id uuid, results json)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.drop_partition(name text) RETURNS boolean
    LANGUAGE plpgsql
    SET lock_timeout TO '50ms'
    AS $$
begin
  perform pg_advisory_xact_lock(hashtext('detent.retention'));
  execute format('drop table if exists detent.%I', name);
  return true;
exception when lock_not_available then
  return false;
end $$;

CREATE FUNCTION detent.end_cancelled(holders json) RETURNS boolean
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  has_hooks boolean := detent.release_held_hooks(holders);
begin
  return detent.release_slots(detent.forget_endings(holders)) or has_hooks;
end $$;

CREATE FUNCTION detent.end_session(session uuid, suspects uuid[], unanswered bigint[], error text, is_lost boolean, seen bigint) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean, pause double precision)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE TABLE detent.envvars (
    environment_id integer NOT NULL,
    name text NOT NULL,
    sealed bytea NOT NULL,
    key_id text NOT NULL,
    is_secret boolean NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE FUNCTION detent.envvars_of(environment integer) RETURNS SETOF detent.envvars
    LANGUAGE sql STABLE
    AS $$
  select distinct on (envvars.name) envvars.*
  from detent.environments as here
  join detent.envvars on envvars.environment_id in (here.id, here.parent_id)
  where here.id = environment
  order by envvars.name, envvars.environment_id = here.id desc
$$;

CREATE FUNCTION detent.expire_runs(most integer) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean, environment_id integer, next_due timestamp with time zone)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.expiry_error(queued timestamp with time zone, expired timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE
    AS $$
  select json_build_object(
    'type', 'INTERNAL_ERROR', 'code', 'TASK_RUN_EXPIRED', 'name', 'TASK_RUN_EXPIRED',
    'message', format('the run was not started within its ttl of %s s', extract(epoch from expired - queued)::float8), 'stackTrace', '')::text
$$;

CREATE FUNCTION detent.fill_room(by_session uuid, room json, most_lanes integer, OUT leased detent.head[], OUT is_unfinished boolean) RETURNS record
    LANGUAGE plpgsql
    AS $$
declare
  environment integer; version integer; everywhere uuid[]; live integer[]; woken uuid[] := '{}';
  heads detent.head[]; startable detent.head[]; taken detent.head[];
  is_short boolean := false; is_contended boolean := false; is_again boolean := false;
  stopped uuid[]; stops uuid[]; gate_ids uuid[]; gate_room integer[]; opened uuid[];
  lanes integer; rest json := room; after_served timestamptz := '-infinity'; after_line uuid := detent.asleep();
begin
  leased := '{}'; is_unfinished := false;
  -- Of an archived environment nothing is known, and so nothing found.
  select mine.environment_id, mine.version_id, environments.gates, array(
    select distinct sessions.version_id from detent.sessions
    where sessions.environment_id = mine.environment_id and ended_at is null and sessions.version_id <> mine.version_id
      and beat_at > clock_timestamp() - interval '15 seconds')
  into environment, version, everywhere, live
  from detent.sessions as mine join detent.environments on environments.id = mine.environment_id
  where mine.id = by_session and environments.archived_at is null;
  if exists (select from detent.arrivals where arrivals.environment_id = environment)
    or exists (select from detent.vacancies where vacancies.environment_id = environment)
  then
    woken := detent.find_woken(environment, version, live);
  end if;

  for passes in 1..20 loop
    heads := array(select detent.find_heads(
      environment, version, live, by_session, rest, woken, most_lanes, after_served, after_line));
    if heads = '{}' and woken = '{}' then
      exit when not is_again;
      after_served := '-infinity';
      is_again := false;
      continue;
    end if;
    startable := array(select detent.lock_heads(heads));
    select * into taken, is_short, stopped, stops, gate_ids, gate_room from detent.take_slots(startable, everywhere, rest);
    opened := detent.park_lanes(stopped, stops, gate_ids, gate_room, woken, array(
      select h.lane_id from unnest(heads) as h where h.run_id is null));
    -- What has a place in the queue, but may not start any more, goes with those that do.
    delete from detent.ready where ctid = any(array(
      select h.row from unnest(taken) as h
      union all
      select h.row from unnest(heads) as h where h.run_id not in (select f.run_id from unnest(startable) as f where f.run_id is not null)));
    leased := leased || taken;
    is_contended := is_contended or is_short or stopped <> '{}';
    exit when is_short;
    -- What cannot start any more has uncovered others, too.
    select count(distinct h.lane_id),
      is_again or opened <> '{}' or cardinality(startable) < cardinality(heads)
        or exists (select cut.lane_id from unnest(heads) as cut where cut.is_cut except select unnest(stopped))
    into lanes, is_again
    from unnest(heads) as h;
    rest := detent.room_left(rest, taken);
    if not exists (select from json_each_text(rest) as r (kind, places) where places::integer > 0) then
      is_contended := is_contended or lanes > 1;
      exit;
    end if;
    if gate_ids <> '{}' then
      -- Gates are locked by id, and after runs: another pass might come to some that stand before these.
      is_unfinished := (is_again or lanes >= most_lanes)
        and (taken <> '{}' or stopped <> '{}' or opened <> '{}' or cardinality(startable) < cardinality(heads));
      exit;
    end if;
    if lanes >= most_lanes then
      select h.served_at, h.line_id into after_served, after_line
      from unnest(heads) as h order by h.served_at desc, h.line_id desc limit 1;
    else
      -- The last lanes: what room they leave is for those that may have more.
      exit when not is_again;
      after_served := '-infinity';
      is_again := false;
    end if;
    woken := '{}';
  end loop;
  if is_contended then
    perform detent.note_served(leased);
  end if;
end $$;

CREATE TABLE detent.bulk_actions (
    id uuid NOT NULL,
    environment_id integer NOT NULL,
    kind text NOT NULL,
    name text,
    reason text NOT NULL,
    run_ids uuid[],
    selection detent.run_selection,
    status text DEFAULT 'PENDING'::text NOT NULL,
    total integer DEFAULT 0 NOT NULL,
    success integer DEFAULT 0 NOT NULL,
    failure integer DEFAULT 0 NOT NULL,
    last_id uuid,
    carried_until timestamp with time zone,
    created_at timestamp with time zone DEFAULT detent.now() NOT NULL,
    completed_at timestamp with time zone,
    CONSTRAINT bulk_actions_kind_check CHECK ((kind = ANY (ARRAY['CANCEL'::text, 'REPLAY'::text]))),
    CONSTRAINT bulk_actions_status_check CHECK ((status = ANY (ARRAY['PENDING'::text, 'COMPLETED'::text, 'ABORTED'::text]))),
    CONSTRAINT over_has_completed_at CHECK (((status = 'PENDING'::text) = (completed_at IS NULL)))
);

CREATE FUNCTION detent.find_bulk_runs(action detent.bulk_actions, among uuid[], most integer) RETURNS TABLE(id uuid)
    LANGUAGE plpgsql STABLE
    AS $$
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

CREATE FUNCTION detent.find_heads(environment integer, version integer, live integer[], by_session uuid, room json, woken uuid[], most_lanes integer, after_served timestamp with time zone, after_line uuid) RETURNS SETOF detent.head
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
begin
  return query
  with lane as materialized (
    select candidate.*, tasks.isolation, tasks.max_attempts, tasks.max_duration, (room ->> tasks.isolation)::integer as own_room
    from detent.version_tasks as tasks
    cross join lateral (
      select lanes.id, line_id, served_at, gates, concurrency_key is not null as may_sleep
      from detent.lanes
      where lanes.environment_id = environment and lanes.task_id = tasks.task_id and parked_on is null
        and (served_at, line_id) > (after_served, after_line)
        and (lanes.version_id is null or lanes.version_id = version or not is_pinned and lanes.version_id <> all(live))
        and (
          (room ->> tasks.isolation)::integer > 0
          -- Only what starts alone has room: not looked for behind all others.
          or (room ->> 'process')::integer > 0 and exists (
            select from detent.ready where ready.environment_id = environment and is_solo and ready.lane_id = lanes.id))
        -- Looked for from the end, as in `has_work`.
        and (concurrency_key is not null
          or (select true from detent.ready where ready.lane_id = lanes.id order by position desc, run_id desc limit 1))
      order by served_at, line_id
      limit most_lanes
    ) as candidate
    where tasks.version_id = version
    union
    select lanes.id, line_id, served_at, gates, concurrency_key is not null, tasks.isolation, tasks.max_attempts, tasks.max_duration,
      (room ->> tasks.isolation)::integer
    from detent.lanes join detent.version_tasks as tasks on tasks.version_id = version and tasks.task_id = lanes.task_id
    where lanes.id = any(woken)
      and (lanes.version_id is null or lanes.version_id = version or not is_pinned and lanes.version_id <> all(live))
    order by served_at, line_id
    limit most_lanes
  ), share as (
    -- Of few lanes each may fill the room; of many each gets its part, and in another pass what the others leave. And of each so many as
    -- its gates let pass, and one more: what they stop parks the lane, so that whoever frees a slot sees that it is waited for.
    select lane.*, least(
      case when total.lanes <= 8 then places else (places + total.lanes - 1) / total.lanes end,
      (select greatest(1, min(allowed - taken) + 1) from detent.gates
       where gates.id = any(lane.gates) and scope <> 'rate' and allowed is not null having count(*) > 0)) as most
    from (select count(*) as lanes from lane) as total
    cross join (select *, own_room + (room ->> 'process')::integer as places from lane) as lane
  ), head as (
    select lane.*, ready.run_id, ready.row, ready.position, ready.resident_session,
      case when ready.is_solo then 'process' else lane.isolation end as kind
    from share as lane left join lateral (
      select ready.ctid as row, ready.* from detent.ready
      where ready.lane_id = lane.id
        and case when is_solo then (room ->> 'process')::integer else lane.own_room end > 0
        and (resident_session is null or resident_session = by_session or resident_until < clock_timestamp())
      order by position, run_id
      limit lane.most
      for update skip locked
    ) as ready on true
    where ready.run_id is not null or lane.may_sleep
  )
  select id, line_id, served_at, gates, kind, max_attempts, max_duration, run_id, row, position, resident_session,
    row_number() over (partition by line_id, kind order by head.position, run_id),
    count(run_id) over (partition by head.id) >= most, false
  from head;
end $$;

CREATE FUNCTION detent.find_or_make_environment(wanted text) RETURNS integer
    LANGUAGE plpgsql
    AS $_$
declare
  found record;
begin
  loop
    select id, archived_at into found from detent.environments where slug = wanted;
    exit when found.id is not null;
    if wanted !~ '^[a-z0-9][a-z0-9_-]{0,62}$' then
      raise exception 'there is no environment "%"', wanted
        using errcode = 'invalid_parameter_value', hint = 'Make it with `detent environments create`, or name another one.';
    end if;
    insert into detent.environments (slug, type) values (wanted, detent.likely_type(wanted)) on conflict do nothing;
  end loop;
  if found.archived_at is not null then
    raise exception 'environment "%" is archived', wanted
      using errcode = 'object_not_in_prerequisite_state', hint = '`detent environments create` brings it back.';
  end if;
  return found.id;
end $_$;

CREATE FUNCTION detent.find_unrepeatable(held uuid[], not_begun bigint[]) RETURNS uuid[]
    LANGUAGE sql STABLE
    AS $$
  select array(
    select runs.id
    from detent.runs join detent.version_tasks as tasks on tasks.version_id = runs.version_id and tasks.task_id = runs.task_id
    where runs.id = any(held) and runs.status in ('DEQUEUED', 'EXECUTING') and runs.fence <> all(not_begun)
      and tasks.on_lost = 'fail')
$$;

CREATE FUNCTION detent.find_woken(environment integer, version integer, live integer[]) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_variable
declare
  woken uuid[];
begin
  with came as (
    delete from detent.arrivals where ctid = any(array(
      select arrivals.ctid from detent.arrivals where arrivals.environment_id = environment limit 1000 for update skip locked))
    returning lane_id
  )
  select coalesce(array_agg(distinct lane_id), '{}') into woken from came;
  return woken || array(
    select lane.id
    from detent.vacancies join detent.gates as gate on gate.id = gate_id
    cross join lateral (
      select lanes.id
      from detent.lanes join detent.version_tasks as tasks on tasks.version_id = version and tasks.task_id = lanes.task_id
      where parked_on = gate.id
        and (lanes.version_id is null or lanes.version_id = version or not is_pinned and lanes.version_id <> all(live))
        and exists (select from detent.ready where ready.lane_id = lanes.id)
      order by served_at, line_id
      -- Some more than there is room for: another gate may stop them.
      limit case when detent.room_of(gate, detent.now()) > 0 then detent.room_of(gate, detent.now()) + 20 else 0 end
    ) as lane
    where vacancies.environment_id = environment);
end $$;

CREATE FUNCTION detent.fire_schedules(environment integer, moment timestamp with time zone, timetables json, most integer) RETURNS TABLE(task_id text, moved bigint, fired bigint)
    LANGUAGE plpgsql
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
begin
  return query
  with timetable as materialized (
    select * from json_to_recordset(timetables) as t (
      task text, cron text, timezone text, spread text, at timestamptz, phase_from double precision, phase_until double precision,
      next_at timestamptz, next_spread double precision, fires_after timestamptz, run text, payload text)
  ), due as materialized (
    select schedules.*, t.at, t.next_at as following, t.next_spread, t.run, t.payload,
      t.run is not null and due_at >= t.fires_after
        and (overlap = 'allow' or not exists (select from detent.runs where runs.id = last_run_id)) as fires,
      detent.scheduled_run_id(schedules.id, t.at) as run_id
    from timetable as t
    join detent.schedules on task_id = t.task and schedules.cron = t.cron and schedules.timezone = t.timezone
      and schedules.spread is not distinct from t.spread and schedules.next_at = t.at
      and (t.spread is null or (detent.phase(schedules.id) >= t.phase_from and detent.phase(schedules.id) < t.phase_until))
    where environment_id = environment and due_at <= moment
    limit most
    for update of schedules skip locked
  ), request as (
    select coalesce('[' || string_agg(
      '{"i":' || i || ',"id":"' || run_id || '","schedule":"' || id || '","position":"' || due_at || '","payload":' || to_json(
        payload || ', "schedule_id": "' || label || '", "type": "' || type || '", "last_timestamp": '
        || coalesce('"' || to_char(last_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"') || '"', 'null')
        || ', "external_id": ' || coalesce(to_json(external_id)::text, 'null') || '}')
      || ', ' || run, ',') || ']', '[]')::json as requests
    from (select row_number() over () as i, due.* from due where fires) as numbered
  ), made as (
    select count(*) as count from request, detent.insert_runs(environment, requests, false, false)
  ), moved as (
    update detent.schedules
    set next_at = due.following,
        due_at = due.following + make_interval(secs => case when due.spread is null then 0 else due.next_spread * detent.phase(due.id) end),
        last_at = case when fires then due.at else due.last_at end,
        last_run_id = case when fires then run_id else due.last_run_id end
    from due
    where schedules.id = due.id
  )
  select task_id, count(*), count(*) filter (where fires) from due, made group by task_id;
end $$;

CREATE FUNCTION detent.first_id(moment timestamp with time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
  select (lpad(to_hex(greatest(0, floor(extract(epoch from moment) * 1000))::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

CREATE FUNCTION detent.forget_doubles(ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.forget_endings(holders json) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.forget_journals(ended uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.forget_past(most integer) RETURNS bigint
    LANGUAGE plpgsql
    AS $_$
declare
  past record;
  forgotten bigint;
  total bigint := 0;
begin
  for past in
    select name, parent, detent.now() - make_interval(days => greatest(keep_days, 0)) as before
    from detent.partitions where starts_at is null and keep_days <> 0
    order by parent
  loop
    if past.parent = 'history' then
      execute format($sql$
        with gone as (
          delete from detent.%1$I where ctid = any(array(
            select ctid from detent.%1$I as old
            where finished_at < $1 and not exists (select from detent.runs where runs.id = old.parent_id)
            limit $2))
          returning id
        ), attempt as (
          delete from detent.attempts using gone where attempts.run_id = gone.id
        )
        select count(*) from gone $sql$, past.name) into forgotten using past.before, most;
    else
      execute format($sql$
        with gone as (
          delete from detent.%1$I where ctid = any(array(
            select ctid from detent.%1$I as line
            where at < $1 and not exists (select from detent.runs where runs.id = line.run_id)
              and not exists (select from detent.history where history.id = line.run_id)
            limit $2))
          returning run_id
        )
        select count(*) from gone $sql$, past.name) into forgotten using past.before, most;
    end if;
    total := total + forgotten;
  end loop;
  return total;
end $_$;

CREATE FUNCTION detent.fresh_places(state detent.batches, indexes integer[]) RETURNS integer[]
    LANGUAGE sql IMMUTABLE
    AS $$
  select array(
    select first.place from (
      select distinct on (x) x, ordinality::integer - 1 as place
      from unnest(indexes) with ordinality as given (x) order by x, ordinality
    ) as first
    where state.sealed_at is null and not state.received @> first.x
    order by first.place)
$$;

CREATE FUNCTION detent.gate_id(limit_id uuid, scope text, key text) RETURNS uuid
    LANGUAGE sql IMMUTABLE
    AS $$
  select md5(json_build_array(limit_id, scope, key)::text)::uuid
$$;

CREATE TABLE detent.gates (
    id uuid NOT NULL,
    limit_id uuid NOT NULL,
    environment_id integer NOT NULL,
    scope text NOT NULL,
    concurrency_key text,
    allowed integer,
    taken integer DEFAULT 0 NOT NULL,
    period double precision,
    starts integer[] DEFAULT '{}'::integer[] NOT NULL,
    latest bigint,
    key_allowed integer,
    key_until timestamp with time zone,
    opens_at timestamp with time zone,
    CONSTRAINT gates_scope_check CHECK ((scope = ANY (ARRAY['total'::text, 'key'::text, 'rate'::text]))),
    CONSTRAINT gates_taken_check CHECK ((taken >= 0))
)
WITH (fillfactor='50');

CREATE FUNCTION detent.gather_starts(g detent.gates, moment timestamp with time zone) RETURNS integer[]
    LANGUAGE sql STABLE
    AS $$
  select array_fill(0, array[20]) || (select sum(n)::integer from unnest(detent.starts_at(g, moment)) as n)
$$;

CREATE FUNCTION detent.give_back(ids uuid[], suspects uuid[], loss integer, is_lost boolean) RETURNS TABLE(run_id uuid)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.hand_back(given_up json) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.has_work(by_session uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
begin
  return exists (
    select from detent.sessions
    join detent.version_tasks as tasks on tasks.version_id = sessions.version_id
    join detent.lanes on lanes.environment_id = sessions.environment_id and lanes.task_id = tasks.task_id and lanes.parked_on is null
    where sessions.id = by_session and (
      lanes.concurrency_key is not null
      or (select true from detent.ready where ready.lane_id = lanes.id order by position desc, run_id desc limit 1))
    union all
    select from detent.sessions join detent.arrivals on arrivals.environment_id = sessions.environment_id
    where sessions.id = by_session
    union all
    select from detent.sessions
    join detent.vacancies on vacancies.environment_id = sessions.environment_id
    join detent.lanes on parked_on = gate_id
    join detent.version_tasks as tasks on tasks.version_id = sessions.version_id and tasks.task_id = lanes.task_id
    where sessions.id = by_session
  );
end $$;

CREATE FUNCTION detent.hash_of(VARIADIC parts jsonb[]) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select md5(to_jsonb(parts)::text)::uuid
$$;

CREATE FUNCTION detent.held_slots(environment integer) RETURNS TABLE(gate_id uuid, n integer)
    LANGUAGE sql STABLE
    AS $$
  select gate, count(*)::integer
  from (
    select slots from detent.runs
    where session_id is not null and environment_id = environment and status in ('DEQUEUED', 'EXECUTING')
    union all
    select slots from detent.endings where environment_id = environment
  ) as holder
  cross join lateral unnest(slots) as gate
  group by gate
$$;

CREATE FUNCTION detent.hold_giver(giver uuid, by_fence bigint) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
  perform from detent.runs where id = giver and fence = by_fence for update;
  return found;
end $$;

CREATE FUNCTION detent.hold_lane(environment integer, task text, queue text, ckey text, limits text[], version integer) RETURNS uuid
    LANGUAGE plpgsql
    AS $$
declare
  line uuid := detent.hash_of(to_jsonb(environment), to_jsonb(queue), coalesce(to_jsonb(ckey), 'null'));
  lane uuid := detent.hash_of(
    to_jsonb(environment), to_jsonb(queue), coalesce(to_jsonb(ckey), 'null'), to_jsonb(task), coalesce(to_jsonb(limits), 'null'),
    coalesce(to_jsonb(version), 'null'));
begin
  perform from detent.lanes where id = lane for key share;
  if not found then
    perform detent.make_lanes(environment, json_build_array(json_build_object(
      'lane', lane, 'line', line, 'task', task, 'queue', queue, 'ckey', ckey, 'limits', limits, 'version', version,
      'pinned', version is not null)));
  else
    update detent.lanes set used_at = clock_timestamp() where id = lane and used_at < clock_timestamp() - interval '1 day';
  end if;
  return lane;
end $$;

CREATE FUNCTION detent.hold_leases(environment integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
  perform from detent.environments where id = environment for update;
  perform from detent.sessions where environment_id = environment and ended_at is null order by id for update;
end $$;

CREATE FUNCTION detent.insert_runs(environment integer, requests json, has_keys boolean, is_repeat boolean, wanted integer[] DEFAULT NULL::integer[], joins boolean DEFAULT false) RETURNS TABLE(i integer, run_id uuid, is_cached boolean)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.is_known(lane uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
begin
  return (
    select exists (
        select from detent.version_tasks as tasks
        where tasks.environment_id = lanes.environment_id and tasks.task_id = lanes.task_id
          and (not is_pinned or tasks.version_id = lanes.version_id))
      and not exists (select from detent.limits_of(lanes) as held where not held.is_declared)
    from detent.lanes where id = lane);
end $$;

CREATE FUNCTION detent.is_legal(before detent.run_status, after detent.run_status) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select case before
    when 'DELAYED' then after in ('QUEUED', 'CANCELED')
    when 'QUEUED' then after in ('DEQUEUED', 'WAITING', 'CANCELED', 'EXPIRED')
    when 'DEQUEUED' then after in ('EXECUTING', 'WAITING', 'QUEUED', 'COMPLETED', 'FAILED', 'CRASHED', 'SYSTEM_FAILURE', 'TIMED_OUT', 'CANCELED')
    when 'EXECUTING' then after in ('WAITING', 'QUEUED', 'COMPLETED', 'FAILED', 'CRASHED', 'SYSTEM_FAILURE', 'TIMED_OUT', 'CANCELED')
    when 'WAITING' then after in ('QUEUED', 'CANCELED')
    else false
  end
$$;

CREATE FUNCTION detent.join_delayed(environment integer, requests json, wanted integer[]) RETURNS TABLE(i integer, run_id uuid, is_new boolean)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.join_waitpoints(edges json) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.journal_batch(environment integer, batch uuid, cached boolean, giver uuid, operation text, fingerprint text, waits boolean, answers integer, seen text[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.key_is_free(holder uuid, expires_at timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
  return expires_at <= detent.now()
    or not exists (select from detent.runs where id = holder)
    and not exists (
      select from detent.history
      where id = holder and finished_at >= detent.made_at(holder) and status in ('COMPLETED', 'CANCELED'));
end $$;

CREATE FUNCTION detent.key_of(options jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select case when options ? 'idempotency_key' then jsonb_build_object(
    'key', encode(sha256(convert_to(options ->> 'idempotency_key', 'UTF8')), 'hex'), 'user_key', options ->> 'idempotency_key',
    'scope', 'global', 'key_ttl', coalesce((options ->> 'idempotency_key_ttl')::double precision, 30 * 86400))
  else options -> 'idempotency' end
$$;

CREATE FUNCTION detent.lease_hooks(by_session uuid, by_fence bigint, most integer) RETURNS TABLE(id uuid, attempt smallint, task_id text, isolation text, created_at timestamp with time zone, started_at timestamp with time zone, queue text, concurrency_key text, priority double precision, tags text[], payload text, metadata text, max_attempts smallint, max_duration double precision, idempotency_user_key text, idempotency_scope text, version text, parent_id uuid, root_id uuid, batch_id uuid, replay_of uuid, is_test boolean, machine text, active double precision, status text, output text, error text, tries smallint)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.lease_runs(by_session uuid, by_fence bigint, room json, most_lanes integer) RETURNS TABLE(id uuid, attempt smallint, task_id text, isolation text, is_resumed boolean, has_journal boolean, results json, created_at timestamp with time zone, started_at timestamp with time zone, queue text, concurrency_key text, priority double precision, tags text[], payload text, metadata text, metadata_applied text, max_attempts smallint, max_duration double precision, idempotency_user_key text, idempotency_scope text, version text, parent_id uuid, root_id uuid, batch_id uuid, replay_of uuid, is_test boolean, machine text, active double precision, attempt_active double precision)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
  leased detent.head[];
  is_unfinished boolean;
begin
  if not detent.has_work(by_session) then
    return;
  end if;
  -- Who changes limits locks the sessions: from here on all limits are those of this moment.
  perform from detent.sessions where sessions.id = by_session and ended_at is null for share;
  if not found then
    return;
  end if;
  select filled.leased, filled.is_unfinished into leased, is_unfinished from detent.fill_room(by_session, room, most_lanes) as filled;

  return query
  with chosen as (
    select * from unnest(leased) as h
  ), leased_run as (
    update detent.runs
    set status = 'DEQUEUED', session_id = by_session, fence = by_fence, slots = nullif(chosen.gates, '{}'), expires_at = null,
        leased_at = clock_timestamp(), started_at = coalesce(runs.started_at, detent.now()),
        attempt_started_at = coalesce(runs.attempt_started_at, detent.now()),
        version_id = session.version_id,
        max_attempts = coalesce(runs.max_attempts, chosen.max_attempts)
    from chosen, detent.sessions as session
    where runs.id = chosen.run_id and session.id = by_session
    returning runs.id, runs.attempt, runs.task_id, runs.started_at, runs.has_journal, runs.max_attempts, runs.parent_id,
      runs.active, runs.attempt_active, runs.batch_id, runs.version_id, chosen.isolation, chosen.max_duration as task_max_duration, chosen.position,
      chosen.resident_session is not null and chosen.resident_session = by_session as is_resumed
  ), result as (
    select * from detent.deliver(array(select leased_run.id from leased_run where leased_run.has_journal))
  )
  select
    leased_run.id, leased_run.attempt, leased_run.task_id, leased_run.isolation, leased_run.is_resumed, leased_run.has_journal,
    result.results, inputs.created_at, leased_run.started_at, inputs.queue, inputs.concurrency_key, inputs.priority, inputs.tags,
    case when not leased_run.is_resumed then inputs.payload end as payload,
    case when not leased_run.is_resumed then inputs.metadata end as metadata,
    case when not leased_run.is_resumed then inputs.metadata_applied::text end as metadata_applied,
    leased_run.max_attempts, coalesce(inputs.max_duration, leased_run.task_max_duration) as max_duration,
    inputs.idempotency_user_key, inputs.idempotency_scope, versions.name as version, leased_run.parent_id, inputs.root_id, leased_run.batch_id,
    inputs.replay_of, inputs.is_test, inputs.machine, leased_run.active, leased_run.attempt_active
  from leased_run
  join detent.inputs on inputs.run_id = leased_run.id
  join detent.versions on versions.id = leased_run.version_id
  left join result on result.run_id = leased_run.id
  order by leased_run.position, leased_run.id;
  if is_unfinished then
    id := null;
    return next;
  end if;
end $$;

CREATE TABLE detent.runs (
    id uuid NOT NULL,
    environment_id integer NOT NULL,
    task_id text NOT NULL,
    lane_id uuid NOT NULL,
    status detent.run_status NOT NULL,
    attempt smallint DEFAULT 1 NOT NULL,
    max_attempts smallint,
    version_id integer,
    "position" timestamp with time zone NOT NULL,
    due_at timestamp with time zone,
    expires_at timestamp with time zone,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    attempt_started_at timestamp with time zone,
    leased_at timestamp with time zone,
    session_id uuid,
    fence bigint,
    slots uuid[],
    waits integer DEFAULT 0 NOT NULL,
    losses integer DEFAULT 0 NOT NULL,
    losses_in_row smallint DEFAULT 0 NOT NULL,
    parent_id uuid,
    batch_id uuid,
    batch_index integer,
    is_awaited boolean DEFAULT false NOT NULL,
    is_watched boolean DEFAULT false NOT NULL,
    is_solo boolean DEFAULT false NOT NULL,
    has_journal boolean DEFAULT false NOT NULL,
    active double precision DEFAULT 0 NOT NULL,
    attempt_active double precision DEFAULT 0 NOT NULL,
    CONSTRAINT delayed_has_due_date CHECK (((status <> 'DELAYED'::detent.run_status) OR (due_at IS NOT NULL))),
    CONSTRAINT held_has_holder CHECK (((status <> ALL (ARRAY['DEQUEUED'::detent.run_status, 'EXECUTING'::detent.run_status])) OR ((session_id IS NOT NULL) AND (fence IS NOT NULL)))),
    CONSTRAINT runs_status_check CHECK ((status = ANY (ARRAY['DELAYED'::detent.run_status, 'QUEUED'::detent.run_status, 'DEQUEUED'::detent.run_status, 'EXECUTING'::detent.run_status, 'WAITING'::detent.run_status])))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000');

CREATE FUNCTION detent.life_of(run detent.runs) RETURNS double precision
    LANGUAGE plpgsql STABLE
    AS $$
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

CREATE FUNCTION detent.likely_type(slug text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select case split_part(translate(slug, '_/', '--'), '-', 1)
    when 'dev' then 'DEVELOPMENT' when 'development' then 'DEVELOPMENT'
    when 'prod' then 'PRODUCTION' when 'production' then 'PRODUCTION'
    when 'preview' then 'PREVIEW'
    else 'STAGING' end
$$;

CREATE FUNCTION detent.limit_id(environment integer, kind text, name text) RETURNS uuid
    LANGUAGE sql IMMUTABLE
    AS $$
  select md5(json_build_array(environment, kind, name)::text)::uuid
$$;

CREATE TABLE detent.lanes (
    id uuid NOT NULL,
    line_id uuid NOT NULL,
    environment_id integer NOT NULL,
    task_id text NOT NULL,
    queue text NOT NULL,
    concurrency_key text,
    limits text[],
    version_id integer,
    is_pinned boolean DEFAULT false NOT NULL,
    base_id uuid,
    gates uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    served_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    parked_on uuid,
    used_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
)
WITH (fillfactor='70');

CREATE FUNCTION detent.limits_of(lane detent.lanes) RETURNS SETOF detent.limits
    LANGUAGE sql STABLE
    AS $$
  select limits.*
  from (
    select 'queue' as kind, lane.queue as name
    union
    select 'limit', held.name
    from (
      select tasks.limits from detent.version_tasks as tasks
      where tasks.environment_id = lane.environment_id and tasks.task_id = lane.task_id
      order by version_id desc limit 1
    ) as task,
    unnest(task.limits) as held (name)
    where lane.limits is null or starts_with(held.name, 'task/')
    union
    select 'limit', named from unnest(lane.limits) as named
  ) as held
  join detent.limits on limits.id = detent.limit_id(lane.environment_id, held.kind, held.name)
$$;

CREATE FUNCTION detent.lock_heads(heads detent.head[]) RETURNS SETOF detent.head
    LANGUAGE plpgsql
    AS $$
begin
  perform from detent.runs where id in (select h.run_id from unnest(heads) as h) order by id desc for update;
  return query
  select h.lane_id, h.line_id, h.served_at, h.gates, h.isolation, h.max_attempts, h.max_duration, h.run_id, h.row, h.position,
    h.resident_session, h.place, h.is_cut, coalesce(runs.attempt_started_at is not null, false)
  from unnest(heads) as h
  left join detent.runs on runs.id = h.run_id and status = 'QUEUED' and (expires_at is null or expires_at > detent.now())
  where h.run_id is null or runs.id is not null;
end $$;

CREATE FUNCTION detent.longest_kept(environment integer) RETURNS integer
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select case when bool_or(keep_days = 0) then null else coalesce(max(keep_days), 30) end
  from detent.retention_rules where environment_id = environment
$$;

CREATE FUNCTION detent.machine_after_oom(run uuid) RETURNS text
    LANGUAGE sql STABLE
    AS $$
  select tasks.oom_machine
  from detent.runs
  join detent.inputs on inputs.run_id = runs.id
  join detent.version_tasks as tasks on tasks.version_id = runs.version_id and tasks.task_id = runs.task_id
  where runs.id = run and tasks.oom_machine <> coalesce(inputs.machine, tasks.machine, '')
$$;

CREATE FUNCTION detent.made_at(id uuid) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select to_timestamp(('x0000' || translate(left(id::text, 13), '-', ''))::bit(64)::bigint / 1000.0) - interval '1 day'
$$;

CREATE FUNCTION detent.make_bound_lanes(ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
  insert into detent.lanes (
    id, line_id, environment_id, task_id, queue, concurrency_key, limits, version_id, base_id, gates, served_at)
  select wanted.id, line_id, lanes.environment_id, lanes.task_id, queue, concurrency_key, limits, wanted.version_id,
    coalesce(base_id, lanes.id), gates, served_at
  from (
    select distinct on (1) detent.bound_lane(lane_id, version_id) as id, lane_id, version_id
    from detent.runs where runs.id = any(ids) and version_id is not null
    order by 1
  ) as wanted
  join detent.lanes on lanes.id = wanted.lane_id
  where not exists (select from detent.lanes as made where made.id = wanted.id)
  on conflict do nothing;
end $$;

CREATE FUNCTION detent.make_items(state detent.batches, requests json, has_keys boolean, indexes integer[], fresh integer[], refused integer[]) RETURNS TABLE(what text, i integer, run_id uuid, session_id uuid, facts json)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.make_lanes(environment integer, wanted json) RETURNS void
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
  made uuid[];
begin
  perform from detent.environments where id = environment for share;

  insert into detent.limits (id, environment_id, kind, name, is_declared)
  select detent.limit_id(environment, kind, name), environment, kind, name, false
  from (
    select 'queue' as kind, queue as name from json_to_recordset(wanted) as w (queue text)
    union
    select 'limit', name from json_to_recordset(wanted) as w (limits text[]), unnest(limits) as name
  ) as named
  order by 1
  on conflict do nothing;

  with lane as (
    insert into detent.lanes (
      id, line_id, environment_id, task_id, queue, concurrency_key, limits, version_id, is_pinned, base_id)
    select distinct on (lane) lane, line, environment, task, queue, ckey, limits, version, coalesce(pinned, false), base
    from json_to_recordset(wanted) as w (
      lane uuid, line uuid, task text, queue text, ckey text, limits text[], version integer, pinned boolean, base uuid)
    order by lane
    on conflict (id) do update set used_at = excluded.used_at
    returning id, xmax = 0 as is_new
  )
  select array_agg(id) filter (where is_new) into made from lane;
  perform detent.set_gates(made);
end $$;

CREATE FUNCTION detent.make_partition(ahead integer, of_shelf text DEFAULT NULL::text) RETURNS text
    LANGUAGE plpgsql
    SET lock_timeout TO '50ms'
    AS $_$
declare
  missing record;
begin
  perform pg_advisory_xact_lock(hashtext('detent.retention'));
  for missing in
    select relname as shelf, relname || to_char(starts_at at time zone 'utc', '_YYYYMMDD') as name, starts_at, ends_at
    from pg_class
    cross join lateral regexp_match(relname::text, '^(?:history|logs)_(\d+)$') as part
    cross join lateral detent.periods(part[1]::integer, ahead)
    where relnamespace = 'detent'::regnamespace and relkind = 'p' and part is not null
      and case when of_shelf is not null then relname = of_shelf
        else part[1]::integer in (select keep_days from detent.retention_rules)
          or part[1] = '30' and (
            not exists (select from detent.retention_rules)
            or exists (select from detent.environments where id not in (select environment_id from detent.retention_rules))) end
      and to_regclass(format('detent.%I', relname || to_char(starts_at at time zone 'utc', '_YYYYMMDD'))) is null
    order by starts_at, relname
  loop
    begin
      -- Attached, for `create table … partition of` would lock the shelf itself.
      execute format('create table detent.%I (like detent.%I including defaults including constraints)', missing.name, missing.shelf);
      execute format('alter table detent.%I attach partition detent.%I for values from (%L) to (%L)',
        missing.shelf, missing.name, missing.starts_at, missing.ends_at);
      return 'made';
    exception when check_violation then
      null; -- the period's first rows stand in the rest already: so do those to come
    end;
  end loop;
  return null;
exception when lock_not_available then
  return 'busy';
end $_$;

CREATE FUNCTION detent.make_refused_runs(environment integer, requests json, fresh integer[], refused integer[], errors text[]) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.make_run_waitpoints(edges json) RETURNS void
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.make_shelf(keep_days integer, ahead integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
  parent text; moment_column text; shelf text;
  is_new boolean;
begin
  for parent, moment_column in values ('history', 'finished_at'), ('logs', 'at') loop
    shelf := format('%s_%s', parent, keep_days);
    is_new := to_regclass(format('detent.%I', shelf)) is null;
    if is_new then
      execute format('create table detent.%I (like detent.%I including defaults including constraints) partition by range (%I)',
        shelf, parent, moment_column);
      execute format('create table detent.%I partition of detent.%I default', shelf || '_rest', shelf);
      execute format('create index on detent.%I (%I)', shelf || '_rest', moment_column);
    end if;
    while detent.make_partition(ahead, shelf) = 'made' loop
      null;
    end loop;
    if is_new then
      execute format('alter table detent.%I attach partition detent.%I for values in (%s)', parent, shelf, keep_days);
    end if;
  end loop;
end $$;

CREATE FUNCTION detent.new_id() RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    AS $$
  select overlay(
    replace(gen_random_uuid()::text, '-', '')
    placing lpad(to_hex(micros / 1000), 12, '0') || '7' || lpad(to_hex(micros % 1000 * 4096 / 1000), 3, '0') from 1)::uuid
  from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as micros) as moment
$$;

CREATE FUNCTION detent.note_served(leased detent.head[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
  moment timestamptz := clock_timestamp();
  served uuid[];
begin
  served := array(
    select id from detent.lanes where line_id in (select h.line_id from unnest(leased) as h) for no key update skip locked);
  update detent.lanes set served_at = moment + turn.number * interval '1 microsecond'
  from (
    select line_id, max(i) as number from unnest(leased) with ordinality as h (
      lane_id, line_id, served_at, gates, isolation, max_attempts, max_duration, run_id, row, position, resident_session, place, is_cut, begun, i)
    group by line_id
  ) as turn
  where lanes.id = any(served) and lanes.line_id = turn.line_id;
end $$;

CREATE FUNCTION detent.note_vacancies(gates uuid[], room integer[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
  delete from detent.vacancies using unnest(gates, room) as gate (id, room)
  where gate_id = gate.id and (gate.room <= 0 or not exists (select from detent.lanes where parked_on = gate.id));
  insert into detent.vacancies (environment_id, gate_id)
  select environment_id, gates.id from unnest(gates, room) as gate (id, room) join detent.gates on gates.id = gate.id
  where gate.room > 0 and exists (select from detent.lanes where parked_on = gate.id)
  on conflict do nothing;
end $$;

CREATE FUNCTION detent.open_gates(most integer) RETURNS TABLE(environment_id integer)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
  opened uuid[]; room integer[];
  parked uuid[];
begin
  opened := array(
    select id from detent.gates where opens_at <= moment order by opens_at limit most for update skip locked);
  if opened = '{}' then
    return;
  end if;
  update detent.gates set opens_at = null, key_allowed = null, key_until = null, allowed = bound.allowed
  from detent.limits as l left join lateral detent.bounds_of(l) as bound on bound.scope = 'key'
  where gates.id = any(opened) and gates.scope = 'key' and l.id = gates.limit_id;
  update detent.gates set starts = detent.starts_at(gates, moment), latest = detent.sub_window(period, moment)
  where id = any(opened) and scope = 'rate';
  update detent.gates set opens_at = detent.opens_at(gates) where id = any(opened) and scope = 'rate';
  select array_agg(id), array_agg(greatest(0, detent.room_of(gates, moment))) into opened, room
  from detent.gates where id = any(opened);
  parked := detent.parked_lanes(opened, room);
  perform detent.unpark(parked);
  perform detent.note_vacancies(opened, room);
  return query select distinct lanes.environment_id from detent.lanes where id = any(parked);
end $$;

CREATE FUNCTION detent.opens_at(g detent.gates) RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    AS $$
  select to_timestamp((g.latest + min(i)) * (g.period / 20))
  from generate_series(1, 21) as i where g.starts[i] > 0
$$;

CREATE FUNCTION detent.park_lanes(stopped uuid[], stops uuid[], gate_ids uuid[], gate_room integer[], woken uuid[], empty uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql
    AS $$
declare
  opened uuid[] := '{}';
  sleepers uuid[];
begin
  if stopped || woken <> '{}' then
    perform from detent.lanes where id = any(stopped || woken) order by id for no key update;
    update detent.lanes
    set parked_on = (select stop.gate from unnest(stopped, stops) as stop (lane, gate) where stop.lane = lanes.id limit 1)
    where id = any(stopped || woken);
  end if;
  if gate_ids <> '{}' then
    -- After that: those that were woken, and stopped elsewhere, leave the room to others. Who has one of these locked looks at it.
    opened := array(
      select id from detent.lanes
      where id = any(detent.parked_lanes(
        gate_ids, array(select greatest(0, n) from unnest(gate_room) with ordinality as free (n, i) order by i)))
      for no key update skip locked);
    update detent.lanes set parked_on = null where id = any(opened);
    perform detent.note_vacancies(gate_ids, gate_room);
  end if;
  if empty <> '{}' then
    sleepers := array(select id from detent.lanes where id = any(empty) for update skip locked);
    -- In a new snapshot: whoever puts something into them waits now, and will see them asleep.
    update detent.lanes set parked_on = detent.asleep()
    where id = any(sleepers) and not exists (select from detent.ready where ready.lane_id = lanes.id);
  end if;
  return opened;
end $$;

CREATE FUNCTION detent.parked_lanes(gates uuid[], room integer[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE
    AS $$
begin
  return array(
    select lanes.id
    from unnest(gates, room) as opened (gate, room)
    cross join lateral (
      select distinct served_at, line_id from detent.lanes
      where parked_on = opened.gate order by served_at, line_id limit opened.room
    ) as line
    join detent.lanes on lanes.line_id = line.line_id and lanes.parked_on = opened.gate);
end $$;

CREATE FUNCTION detent.period_days(keep_days integer) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select greatest(1, ceil(keep_days / 30.0)::integer) $$;

CREATE FUNCTION detent.periods(keep_days integer, ahead integer) RETURNS TABLE(starts_at timestamp with time zone, ends_at timestamp with time zone)
    LANGUAGE sql
    AS $$
  select (date '1970-01-01' + day)::timestamp at time zone 'utc', (date '1970-01-01' + day + width)::timestamp at time zone 'utc'
  from (select detent.period_days(keep_days) as width, floor(extract(epoch from detent.now()) / 86400)::integer as today) as unit
  cross join generate_series(today / width * width, today + ahead, width) as day
$$;

CREATE FUNCTION detent.phase(schedule uuid) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select ('x' || left(encode(sha256(convert_to('window', 'UTF8') || uuid_send(schedule)), 'hex'), 8))::bit(32)::bigint / 4294967296.0
$$;

CREATE FUNCTION detent.pinned_version(environment integer, wanted text) RETURNS integer
    LANGUAGE plpgsql STABLE
    AS $$
declare
  found_id integer;
begin
  select id into found_id from detent.versions where environment_id = environment and name = wanted;
  if wanted is not null and found_id is null then
    raise exception 'no worker has registered version "%"', wanted
      using errcode = 'invalid_parameter_value', hint = 'Leave out the option version, or name one that a worker has registered.';
  end if;
  return found_id;
end $$;

CREATE FUNCTION detent.public_id(prefix text, id uuid) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select prefix || '_' || string_agg(
    substr('0123456789abcdefghjkmnpqrstvwxyz', 1 + substring(bits from 1 + 5 * n for 5)::bit(5)::integer, 1), '' order by n)
  from (select B'00' || ('x' || replace(id::text, '-', ''))::bit(128) as bits) as value, generate_series(0, 25) as n
$$;

CREATE FUNCTION detent.put_at(document jsonb, path text[], value jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $_$
declare
  inner_value jsonb;
  index integer;
begin
  if cardinality(path) = 0 then
    return value;
  end if;
  document := coalesce(nullif(document, 'null'), '{}');
  if jsonb_typeof(document) = 'object' then
    inner_value := detent.put_at(document -> path[1], path[2:], value);
    return case when inner_value is not null then document || jsonb_build_object(path[1], inner_value) end;
  end if;
  if jsonb_typeof(document) <> 'array' or path[1] !~ '^[0-9]{1,9}$' or path[1]::integer > jsonb_array_length(document) then
    return null;
  end if;
  index := path[1]::integer;
  inner_value := detent.put_at(document -> index, path[2:], value);
  return case
    when inner_value is null then null
    when index = jsonb_array_length(document) then document || jsonb_build_array(inner_value)
    else jsonb_set(document, path[1:1], inner_value)
  end;
end $_$;

CREATE FUNCTION detent.rate_room(g detent.gates, moment timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql STABLE
    AS $$
begin
  return g.allowed - (select sum(n) from unnest(detent.starts_at(g, moment)) as n);
end $$;

CREATE FUNCTION detent.record_steps(environment integer, requests json) RETURNS TABLE(i integer)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.refusal_of_chunk(state detent.batches, environment integer, total integer, indexes integer[]) RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$
  select case
    when state.environment_id <> environment then 'foreign'
    when state.aborted is not null then 'aborted'
    when state.sealed_at is null and (
      state.total <> total or upper(state.received) > total
      or (select min(x) < 0 or max(x) >= coalesce(state.total, total) from unnest(indexes) as x)) then 'beyond'
  end
$$;

CREATE FUNCTION detent.refuse_transition() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
  raise exception 'run % cannot go from % to %', old.id, old.status, new.status using errcode = 'check_violation';
end $$;

CREATE FUNCTION detent.register_tasks(environment integer, version integer, tasks json, declared json) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
declare
  opened uuid[];
  changed uuid[];
  concerned text[];
  new_tasks text[]; new_limits uuid[];
begin
  perform detent.hold_leases(environment);
  new_tasks := array(
    select t.task from json_to_recordset(tasks) as t (task text)
    where not exists (
      select from detent.version_tasks as former where former.environment_id = environment and former.task_id = t.task));
  new_limits := array(select id from detent.limits where environment_id = environment and not is_declared);

  with declaration as (
    select kind, name, total, per_key, rate, most_queued, true as is_explicit
    from json_to_recordset(declared) as d (
      kind text, name text, total integer, per_key integer, rate jsonb, most_queued integer)
    union all
    select distinct 'queue', named.name, null::integer, null::integer, null::jsonb, null::integer, false
    from json_to_recordset(tasks) as t (task text, queue text)
    cross join lateral (values (t.queue), ('task/' || t.task)) as named (name)
  ), wanted as (
    select distinct on (kind, name) *, detent.limit_id(environment, kind, name) as id
    from declaration order by kind, name, is_explicit desc
  ), upserted as (
    insert into detent.limits as l (id, environment_id, kind, name, total, per_key, rate, most_queued)
    select id, environment, kind, name, total, per_key, rate, most_queued from wanted order by id
    on conflict (id) do update
    set is_declared = true, total = excluded.total, per_key = excluded.per_key, rate = excluded.rate, most_queued = excluded.most_queued
    where not l.is_declared
      or (select is_explicit from wanted where wanted.id = excluded.id)
        and (l.total, l.per_key, l.rate, l.most_queued)
          is distinct from (excluded.total, excluded.per_key, excluded.rate, excluded.most_queued)
    returning id
  )
  select coalesce(array_agg(id), '{}') into changed from upserted;
  insert into detent.limits (id, environment_id, kind, name, is_declared)
  select distinct detent.limit_id(environment, 'limit', held), environment, 'limit', held, false
  from json_to_recordset(tasks) as t (limits text[]) cross join lateral unnest(t.limits) as held
  order by 1
  on conflict do nothing;

  -- Tasks that nobody had, or whose limits are others than before.
  concerned := array(
    select t.task from json_to_recordset(tasks) as t (task text, limits text[])
    where coalesce(t.limits, '{}') is distinct from (
      select former.limits from detent.version_tasks as former
      where former.environment_id = environment and former.task_id = t.task order by former.version_id desc limit 1));
  delete from detent.version_tasks where version_id = version and task_id not in (
    select t.task from json_to_recordset(tasks) as t (task text));
  insert into detent.version_tasks (
    version_id, environment_id, task_id, isolation, file_path, queue, description, max_attempts, retry, max_duration, ttl, limits,
    on_lost, final_hooks, payload_schema, output_schema, machine, oom_machine)
  select version, environment, task, isolation, file, queue, description, max_attempts, retry, max_duration, ttl, coalesce(limits, '{}'),
    on_lost, coalesce(final_hooks, '{}'), payload_schema, output_schema, machine, oom_machine
  from json_to_recordset(tasks) as t (
    task text, isolation text, file text, queue text, description text, max_attempts smallint, retry text,
    max_duration double precision, ttl double precision, limits text[], on_lost text, final_hooks text[],
    payload_schema text, output_schema text, machine text, oom_machine text)
  on conflict (version_id, task_id) do update set
    isolation = excluded.isolation, file_path = excluded.file_path, queue = excluded.queue, description = excluded.description,
    max_attempts = excluded.max_attempts, retry = excluded.retry, max_duration = excluded.max_duration, ttl = excluded.ttl,
    limits = excluded.limits, on_lost = excluded.on_lost, final_hooks = excluded.final_hooks, payload_schema = excluded.payload_schema,
    output_schema = excluded.output_schema, machine = excluded.machine, oom_machine = excluded.oom_machine;

  -- The ttl of runs begins that waited for their task, their queue or a limit. There may be very many without one.
  opened := array(
    select lanes.id from detent.lanes
    where lanes.environment_id = environment and detent.is_known(lanes.id) and (
      task_id = any(new_tasks) or exists (select from detent.limits_of(lanes) as held where held.id = any(new_limits))));
  update detent.runs set queued_at = detent.now(), expires_at = detent.now() + make_interval(secs => waiting.life)
  from (
    select waited.id, coalesce(inputs.ttl, (
      select t.ttl from detent.version_tasks as t
      where t.environment_id = environment and t.task_id = waited.task_id order by version_id desc limit 1)) as life
    from detent.runs as waited join detent.inputs on inputs.run_id = waited.id
    where waited.lane_id = any(opened) and waited.status = 'QUEUED' and waited.started_at is null
  ) as waiting
  where runs.id = waiting.id and waiting.life > 0;
  if changed = '{}' and concerned = '{}' then
    return false;
  end if;
  perform detent.apply_limits(environment, changed, concerned);
  return true;
end $$;

CREATE FUNCTION detent.release_held_hooks(holders json) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
  return detent.release_hooks(array(
    select run_id from detent.final_hooks join json_to_recordset(holders) as h (id uuid, fence bigint)
      on run_id = h.id and final_hooks.fence = h.fence
    order by run_id for update of final_hooks));
end $$;

CREATE FUNCTION detent.release_hooks(ids uuid[]) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
begin
  if ids = '{}' then
    return false;
  end if;
  delete from detent.final_hooks where run_id = any(ids) and tries >= 3;
  update detent.final_hooks set session_id = null, fence = null where run_id = any(ids);
  return found;
end $$;

CREATE FUNCTION detent.release_slots(freed uuid[]) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
declare
  is_everywhere boolean;
  opened uuid[]; room integer[];
  parked uuid[];
begin
  if freed = '{}' or freed is null then
    return false;
  end if;
  perform from detent.gates where id = any(freed) order by id for update;
  -- No lane is parked on a limit of the whole environment.
  is_everywhere := exists (select from detent.environments where gates && freed);
  with given as (
    select gate, count(*)::integer as n from unnest(freed) as gate group by gate
  ), gate as (
    update detent.gates set taken = taken - n from given where gates.id = given.gate
    returning gates.id, least(n, coalesce(allowed - taken, n)) as room
  )
  select array_agg(gate.id), array_agg(gate.room) into opened, room from gate where gate.room > 0;
  parked := detent.parked_lanes(opened, room);
  if parked = '{}' then
    return is_everywhere;
  end if;
  perform detent.unpark(parked);
  perform detent.note_vacancies(opened, room);
  return true;
end $$;

CREATE FUNCTION detent.release_waiters(ended uuid[]) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.renew_session(environment integer, session uuid, held json, in_flight bigint[], is_repeat boolean) RETURNS TABLE(what text, run_id uuid)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.rest_lanes() RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
  quiet uuid[] := array(
    select id from detent.lanes
    where concurrency_key is null and version_id is not null and parked_on is null
      and not exists (select from detent.ready where ready.lane_id = lanes.id)
    for update skip locked);
  unused uuid[] := array(
    select id from detent.lanes
    where used_at < clock_timestamp() - interval '3 days' and not exists (select from detent.runs where runs.lane_id = lanes.id)
    for update skip locked);
begin
  update detent.lanes set parked_on = detent.asleep()
  where id = any(quiet) and not exists (select from detent.ready where ready.lane_id = lanes.id);
  delete from detent.lanes where id = any(unused) and not exists (select from detent.runs where runs.lane_id = lanes.id);
  delete from detent.gates
  where taken = 0 and opens_at is null and concurrency_key is not null and not exists (
    select from detent.lanes where lanes.environment_id = gates.environment_id and lanes.concurrency_key = gates.concurrency_key);
end $$;

CREATE FUNCTION detent.retry_pause(retry json, attempt integer) RETURNS double precision
    LANGUAGE sql
    AS $$
  select least(
    (retry ->> 'max_timeout')::double precision,
    (retry ->> 'min_timeout')::double precision
      * power(least((retry ->> 'factor')::double precision, 1000), least(attempt - 1, 100))
      * case when (retry ->> 'randomize')::boolean then 1 + random() else 1 end)
$$;

CREATE FUNCTION detent.room_left(room json, taken detent.head[]) RETURNS json
    LANGUAGE sql IMMUTABLE
    AS $$
  select json_object_agg(kind, places::integer - (select count(*) from unnest(taken) as h where h.isolation = kind))
  from json_each_text(room) as r (kind, places)
$$;

CREATE FUNCTION detent.room_of(g detent.gates, moment timestamp with time zone) RETURNS integer
    LANGUAGE sql STABLE
    AS $$
  select case when g.scope = 'rate' then detent.rate_room(g, moment) else coalesce(g.allowed - g.taken, 1000000000) end
$$;

CREATE FUNCTION detent.scheduled_run_id(schedule uuid, tick timestamp with time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select (lpad(to_hex(milliseconds), 12, '0') || '7' || substr(digest, 1, 3) || '8' || substr(digest, 4, 15))::uuid
  from (select (extract(epoch from tick) * 1000)::bigint as milliseconds) as moment,
    lateral (select encode(sha256(uuid_send(schedule) || int8send(milliseconds)), 'hex') as digest) as hashed
$$;

CREATE FUNCTION detent.seal_patience() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select interval '30 minutes' $$;

CREATE FUNCTION detent.seal_waitpoint(state detent.batches) RETURNS TABLE(run_id uuid, session_id uuid)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.seconds_leased(status detent.run_status, leased_at timestamp with time zone) RETURNS double precision
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select case when status in ('DEQUEUED', 'EXECUTING')
    then greatest(0, extract(epoch from statement_timestamp() - leased_at))::double precision else 0 end
$$;

CREATE FUNCTION detent.select_runs(environment integer, selection detent.run_selection, with_past boolean, is_falling boolean, beyond uuid, among uuid[], most integer) RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
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

CREATE FUNCTION detent.selects(selection detent.run_selection, status detent.run_status, task_id text, tags text[], queue text, parent_id uuid, batch_id uuid, schedule_id uuid, is_test boolean, created_at timestamp with time zone) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
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

CREATE FUNCTION detent.set_gates(ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
  insert into detent.gates (id, limit_id, environment_id, scope, concurrency_key, allowed, period)
  select distinct detent.gate_id(l.id, bound.scope, place.key), l.id, l.environment_id, bound.scope, place.key, bound.allowed, bound.period
  from detent.lanes
  cross join lateral detent.limits_of(lanes) as l
  cross join lateral detent.bounds_of(l) as bound
  cross join lateral (select case when bound.is_per_key then lanes.concurrency_key end as key) as place
  where lanes.id = any(ids)
  order by 1
  on conflict do nothing;

  update detent.lanes set gates = wanted.gates
  from (
    select lanes.id, coalesce(array_agg(gate.id order by gate.id) filter (where gate.id is not null), '{}') as gates
    from detent.lanes
    left join lateral (
      select detent.gate_id(l.id, bound.scope, case when bound.is_per_key then lanes.concurrency_key end) as id
      from detent.limits_of(lanes) as l cross join lateral detent.bounds_of(l) as bound
    ) as gate on true
    where lanes.id = any(ids)
    group by lanes.id
  ) as wanted
  where lanes.id = wanted.id and lanes.gates <> wanted.gates;
end $$;

CREATE FUNCTION detent.set_retention(environment integer, rules json, ahead integer) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
  perform pg_advisory_xact_lock(hashtext('detent.retention'));
  delete from detent.retention_rules
  where environment_id = environment and (task_id, status) not in (
    select r.task, r.status from json_to_recordset(rules) as r (task text, status text));
  perform detent.make_shelf(shelf.keep_days, ahead)
  from (select distinct r.keep_days from json_to_recordset(rules) as r (keep_days integer) where r.keep_days > 0) as shelf;
  insert into detent.retention_rules (environment_id, task_id, status, keep_days)
  select environment, r.task, r.status, r.keep_days
  from json_to_recordset(rules) as r (task text, status text, keep_days integer)
  on conflict (environment_id, task_id, status) do update set keep_days = excluded.keep_days
  where retention_rules.keep_days <> excluded.keep_days;
end $$;

CREATE FUNCTION detent.settle_runs(outcomes json, also_freed uuid[] DEFAULT '{}'::uuid[]) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.slots_of(ids uuid[]) RETURNS uuid[]
    LANGUAGE plpgsql STABLE
    AS $$
begin
  return array(
    select slot from detent.runs cross join lateral unnest(slots) as slot
    where id = any(ids) and status in ('DEQUEUED', 'EXECUTING'));
end $$;

CREATE FUNCTION detent.starts_at(g detent.gates, moment timestamp with time zone) RETURNS integer[]
    LANGUAGE sql STABLE
    AS $$
  select array(
    select coalesce(g.starts[i + past.n], 0)
    from (select least(21, greatest(0, detent.sub_window(g.period, moment) - coalesce(g.latest, 0)))::integer as n) as past,
      generate_series(1, 21) as i
    order by i)
$$;

CREATE FUNCTION detent.stir(ids uuid[], begun boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
  sleepers uuid[];
begin
  sleepers := array(
    select id from detent.lanes
    where id = any(ids) and (concurrency_key is not null or version_id is not null or begun)
    for key share);
  -- In a statement of its own: what the lock waited for is seen.
  if sleepers <> '{}' then
    insert into detent.arrivals (environment_id, lane_id)
    select environment_id, id from detent.lanes
    where id = any(sleepers) and (
      parked_on = detent.asleep()
      or begun and exists (select from detent.gates where gates.id = parked_on and scope = 'rate'));
  end if;
end $$;

CREATE FUNCTION detent.sub_window(period double precision, moment timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    AS $$
  select floor(extract(epoch from moment) / (period / 20))::bigint
$$;

CREATE FUNCTION detent.suspend(requests json) RETURNS TABLE(i integer, is_suspended boolean)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.suspend_runs(ids uuid[]) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.sync_schedules(environment integer, version integer, declared json, always boolean) RETURNS void
    LANGUAGE plpgsql
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
begin
  if not always and exists (
    select from detent.sessions
    where environment_id = environment and version_id > version
      and ended_at is null and beat_at > clock_timestamp() - interval '15 seconds')
  then
    return;
  end if;
  insert into detent.schedules (id, environment_id, type, task_id, cron, timezone, spread, overlap, next_at, due_at)
  select id, environment, 'DECLARATIVE', task, cron, timezone, spread, overlap, next_at, due_at
  from json_to_recordset(declared) as d (
    id uuid, task text, cron text, timezone text, spread text, overlap text, next_at timestamptz, due_at timestamptz)
  order by task
  on conflict (environment_id, task_id) where type = 'DECLARATIVE' do update
  set cron = excluded.cron, timezone = excluded.timezone, spread = excluded.spread, overlap = excluded.overlap,
      next_at = excluded.next_at, due_at = excluded.due_at
  where (schedules.cron, schedules.timezone, schedules.spread, schedules.overlap)
    is distinct from (excluded.cron, excluded.timezone, excluded.spread, excluded.overlap);
  delete from detent.schedules
  where environment_id = environment and type = 'DECLARATIVE'
    and task_id not in (select d.task from json_to_recordset(declared) as d (task text));
end $$;

CREATE FUNCTION detent.tag_runs(environment integer, requests json, most integer) RETURNS TABLE(i integer, count integer)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
  request record;
begin
  perform from detent.runs
  where environment_id = environment and id in (select r.id from json_to_recordset(requests) as r (id uuid))
  order by id desc for no key update;

  for request in select * from json_to_recordset(requests) as r (i integer, id uuid, tags text[]) order by r.i loop
    i := request.i;
    select cardinality(detent.tagged(tags, request.tags)) into count
    from detent.inputs where run_id = request.id and environment_id = environment;
    if found then
      update detent.inputs set tags = detent.tagged(tags, request.tags) where run_id = request.id and count <= most;
      return next;
      continue;
    end if;
    select cardinality(detent.tagged(tags, request.tags)) into count
    from detent.history where id = request.id and environment_id = environment and finished_at >= detent.made_at(request.id)
    for no key update;
    if found then
      update detent.history set tags = detent.tagged(tags, request.tags)
      where id = request.id and finished_at >= detent.made_at(request.id) and count <= most;
      return next;
    end if;
  end loop;
end $$;

CREATE FUNCTION detent.tagged(tags text[], added text[]) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  select tags || array(select tag from unnest(added) with ordinality as listed (tag, n) where tag <> all(tags) order by n)
$$;

CREATE FUNCTION detent.take_slots(heads detent.head[], everywhere uuid[], room json, OUT taken detent.head[], OUT is_short boolean, OUT stopped uuid[], OUT stops uuid[], OUT gate_ids uuid[], OUT gate_room integer[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
declare
  moment timestamptz := detent.now();
  is_rate boolean[]; took integer[];
  head detent.head; gate uuid; place integer;
  places integer[] := array[room ->> 'async', room ->> 'thread', room ->> 'process'];
  kind integer;
begin
  taken := '{}'; is_short := false; stopped := '{}'; stops := '{}';
  gate_ids := array(
    select unnest(h.gates) from unnest(heads) as h where h.run_id is not null
    union
    select unnest(everywhere) where exists (select from unnest(heads) as h where h.run_id is not null));
  if gate_ids = '{}' then
    select * into taken, is_short from detent.take_turns(heads, room);
    return;
  end if;

  perform from detent.gates where id = any(gate_ids) order by id for update;
  select array_agg(locked.id), array_agg(detent.room_of(locked, moment)), array_agg(locked.scope = 'rate'), array_agg(0)
  into gate_ids, gate_room, is_rate, took
  from detent.gates as locked where id = any(gate_ids);

  <<each_head>>
  foreach head in array array(
    select h from unnest(heads) as h where h.run_id is not null order by h.place, h.served_at, h.line_id, h.position, h.run_id
  ) loop
    kind := array_position('{async,thread,process}', head.isolation);
    if places[kind] <= 0 then
      is_short := true;
      continue;
    end if;
    foreach gate in array everywhere || head.gates loop
      place := array_position(gate_ids, gate);
      if gate_room[place] <= 0 and not (is_rate[place] and head.begun) then
        if gate = any(everywhere) then
          -- A full environment lets nothing start, whatever its lane.
          is_short := true;
          exit each_head;
        end if;
        stopped := stopped || head.lane_id; stops := stops || gate;
        continue each_head;
      end if;
    end loop;
    foreach gate in array everywhere || head.gates loop
      place := array_position(gate_ids, gate);
      if not (is_rate[place] and head.begun) then
        gate_room[place] := gate_room[place] - 1; took[place] := took[place] + 1;
      end if;
    end loop;
    places[kind] := places[kind] - 1;
    -- Else its gates are its slots as they stand: a query for each head would be a seventh of a lease.
    if everywhere <> '{}' or true = any(is_rate) then
      head.gates := array(
        select g from unnest(everywhere || head.gates) as g where not is_rate[array_position(gate_ids, g)] order by g);
    end if;
    taken := taken || head;
  end loop;

  update detent.gates set taken = gates.taken + counted.n
  from unnest(gate_ids, took) as counted (id, n)
  where gates.id = counted.id and counted.n > 0 and scope <> 'rate';
  update detent.gates
  set starts = (detent.starts_at(gates, moment))[:20] || ((detent.starts_at(gates, moment))[21] + counted.n),
      latest = greatest(latest, detent.sub_window(period, moment))
  from unnest(gate_ids, took) as counted (id, n)
  where gates.id = counted.id and counted.n > 0 and scope = 'rate';
  update detent.gates set opens_at = detent.opens_at(gates)
  where scope = 'rate' and id in (
    select id from unnest(gate_ids, took) as counted (id, n) where n > 0 union all select unnest(stops));
end $$;

CREATE FUNCTION detent.take_turns(heads detent.head[], room json, OUT taken detent.head[], OUT is_short boolean) RETURNS record
    LANGUAGE plpgsql STABLE
    AS $$
begin
  select coalesce(array_agg(turn.head order by number) filter (where fits), '{}'), coalesce(not bool_and(fits), false)
  into taken, is_short
  from (
    select h as head, row_number() over turns as number, row_number() over turns <= (room ->> h.isolation)::integer as fits
    from unnest(heads) as h
    where h.run_id is not null
    window turns as (partition by h.isolation order by h.place, h.served_at, h.line_id, h.position, h.run_id)
  ) as turn;
end $$;

CREATE FUNCTION detent.tick(most integer) RETURNS TABLE(what text, run_id uuid, status text, session_id uuid, is_watched boolean, environment_id integer, next_due timestamp with time zone)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.token_timeout(due timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  select json_build_object(
    'type', 'INTERNAL_ERROR', 'code', 'TOKEN_TIMED_OUT', 'name', 'WaitTimeoutError',
    'message', 'nobody completed the token before ' || to_char(due at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'stackTrace', '')::text
$$;

CREATE FUNCTION detent.trigger(task text, payload json DEFAULT NULL::json, options jsonb DEFAULT '{}'::jsonb) RETURNS text
    LANGUAGE plpgsql
    AS $$
declare
  environment integer := detent.find_or_make_environment(coalesce(options ->> 'environment', 'dev'));
  pinned integer := detent.pinned_version(environment, options ->> 'version');
  key jsonb := detent.key_of(options);
  ckey text := options ->> 'concurrency_key';
  limits text[] := case when options ? 'concurrency' then array(select jsonb_array_elements_text(options -> 'concurrency')) end;
  known record;
  queue text;
  request jsonb;
  run uuid;
begin
  perform detent.check_options(options);
  select * into known from detent.current_task(environment, task);
  queue := coalesce(options ->> 'queue', known.queue, 'task/' || task);
  request := jsonb_strip_nulls(jsonb_build_object(
    'i', 0, 'id', coalesce((options ->> 'id')::uuid, detent.new_id()), 'task', task, 'queue', queue, 'ckey', ckey, 'limits', limits,
    'lane', detent.hold_lane(environment, task, queue, ckey, limits, pinned), 'sleeps', ckey is not null or pinned is not null,
    'metadata', (options -> 'metadata')::text, 'tags', options -> 'tags', 'priority', options -> 'priority',
    'life', nullif(coalesce((options ->> 'ttl')::double precision, known.ttl), 0), 'ttl', options -> 'ttl',
    'delay', options -> 'delay', 'due_at', options -> 'starts_at',
    'max_attempts', options -> 'max_attempts', 'max_duration', options -> 'max_duration', 'machine', options -> 'machine'));
  request := request || coalesce(key, '{}') || coalesce(options -> 'debounce', '{}') || jsonb_build_object('payload', payload::text);
  run := (select run_id from detent.insert_runs(environment, json_build_array(request), key is not null, false));
  if exists (select from detent.runs where id = run and status = 'QUEUED') then
    perform pg_notify('detent_' || environment, '{"r": 1}');
  end if;
  return detent.public_id('run', run);
end $$;

CREATE FUNCTION detent.trigger_batch(environment integer, batch uuid, requests json, has_keys boolean, indexes integer[], refused integer[], errors text[], total integer, parent uuid, fence bigint, operation text, fingerprint text, waits boolean, suspends boolean, answers integer, seen text[]) RETURNS TABLE(what text, i integer, run_id uuid, session_id uuid, facts json)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.trigger_children(environment integer, requests json, has_keys boolean, is_repeat boolean) RETURNS TABLE(i integer, run_id uuid, is_cached boolean, is_pending boolean, is_suspended boolean, run_status text, task_id text, output text, error text)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.unpark(ids uuid[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
  perform from detent.lanes where id = any(ids) order by id for no key update;
  update detent.lanes set parked_on = null where id = any(ids) and parked_on <> detent.asleep();
end $$;

CREATE FUNCTION detent.unrepeatable_error(cause text) RETURNS text
    LANGUAGE sql STABLE
    AS $$
  select json_build_object(
    'type', 'INTERNAL_ERROR', 'code', 'TASK_RUN_CRASHED', 'name', 'TASK_RUN_CRASHED',
    'message', 'the worker was lost while it executed the run' || coalesce(' (' || (cause::json ->> 'message') || ')', '')
      || '; on_lost="fail" keeps it from running again', 'stackTrace', '')::text
$$;

CREATE FUNCTION detent.update_metadata(environment integer, requests json, most integer) RETURNS TABLE(i integer, document text, is_refused boolean)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
  request record;
  target record;
  marks jsonb;
  fresh jsonb;
begin
  perform from detent.runs
  where environment_id = environment and id in (
    select unnest(array[own.id, case when r.parent then own.parent_id end, case when r.root then inputs.root_id end])
    from json_to_recordset(requests) as r (id uuid, parent boolean, root boolean)
    join detent.runs as own on own.id = r.id
    join detent.inputs on inputs.run_id = own.id)
  order by id desc for no key update;

  for request in
    select r.i, r.operations, runs.id, runs.attempt, runs.parent_id, inputs.root_id, inputs.metadata_applied as applied
    from json_to_recordset(requests) as r (i integer, id uuid, fence bigint, operations jsonb)
    join detent.runs on runs.id = r.id and runs.fence = r.fence and runs.environment_id = environment
    join detent.inputs on inputs.run_id = runs.id
    order by r.i
  loop
    marks := case when (request.applied ->> 'attempt')::smallint = request.attempt then request.applied -> 'places' else '{}' end;
    select jsonb_agg(o order by n) into fresh
    from jsonb_array_elements(request.operations) with ordinality as listed (o, n)
    where (o ->> 'number')::bigint > coalesce((marks ->> (o ->> 'place'))::bigint, -1);

    i := request.i;
    is_refused := false;
    for target in
      select t.id, jsonb_agg(o order by n) as operations
      from jsonb_array_elements(fresh) with ordinality as listed (o, n)
      join (values ('own', request.id), ('parent', coalesce(request.parent_id, request.id)),
        ('root', coalesce(request.root_id, request.id))) as t (name, id) on t.name = o ->> 'target'
      group by t.id
    loop
      is_refused := not detent.change_metadata(target.id, target.operations, most) or is_refused;
    end loop;
    update detent.inputs
    set metadata_applied = jsonb_build_object('attempt', request.attempt, 'places', marks || (
      select jsonb_object_agg(place, number)
      from (select o ->> 'place' as place, max((o ->> 'number')::bigint) as number from jsonb_array_elements(fresh) as o group by 1) as latest))
    where run_id = request.id and fresh is not null;
    select coalesce(metadata, '{}') into document from detent.inputs where run_id = request.id;
    return next;
  end loop;
end $$;

CREATE FUNCTION detent.wait_for(environment integer, requests json, has_keys boolean) RETURNS TABLE(i integer, ref uuid, is_pending boolean, is_suspended boolean, output text, error text)
    LANGUAGE plpgsql
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

CREATE FUNCTION detent.wake_waiters(completed uuid[]) RETURNS TABLE(run_id uuid, session_id uuid)
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION detent.wanted_waitpoints(edges json) RETURNS TABLE(id uuid, is_shared boolean)
    LANGUAGE sql STABLE
    AS $$
  select e.waitpoint, count(distinct e.run) > 1
  from json_to_recordset(edges) as e (run uuid, waitpoint uuid) group by e.waitpoint
$$;

CREATE FUNCTION detent.with_parent(requests json, giver uuid, awaited boolean) RETURNS json
    LANGUAGE sql IMMUTABLE
    AS $$
  select json_agg(request::jsonb || jsonb_build_object('parent', giver, 'awaited', awaited)) from json_array_elements(requests) as request
$$;

CREATE TABLE detent.history (
    id uuid NOT NULL,
    environment_id integer NOT NULL,
    task_id text NOT NULL,
    status detent.run_status NOT NULL,
    attempt smallint NOT NULL,
    max_attempts smallint,
    version_id integer,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    attempt_started_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    waits integer NOT NULL,
    losses integer NOT NULL,
    parent_id uuid,
    batch_id uuid,
    batch_index integer,
    created_at timestamp with time zone NOT NULL,
    payload text,
    metadata text,
    tags text[] NOT NULL,
    queue text NOT NULL,
    concurrency_key text,
    priority double precision NOT NULL,
    ttl double precision,
    limits text[],
    max_duration double precision,
    idempotency_key text,
    idempotency_user_key text,
    idempotency_scope text,
    root_id uuid,
    replay_of uuid,
    schedule_id uuid,
    is_test boolean NOT NULL,
    output text,
    error text,
    keep_days integer DEFAULT 30 NOT NULL,
    machine text,
    active double precision DEFAULT 0 NOT NULL,
    CONSTRAINT failed_has_error CHECK (((status = 'COMPLETED'::detent.run_status) OR (error IS NOT NULL))),
    CONSTRAINT history_status_check CHECK ((status = ANY (ARRAY['COMPLETED'::detent.run_status, 'FAILED'::detent.run_status, 'CANCELED'::detent.run_status, 'CRASHED'::detent.run_status, 'SYSTEM_FAILURE'::detent.run_status, 'EXPIRED'::detent.run_status, 'TIMED_OUT'::detent.run_status])))
)
PARTITION BY LIST (keep_days);

CREATE TABLE detent.inputs (
    run_id uuid NOT NULL,
    environment_id integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    payload text,
    metadata text,
    metadata_applied jsonb,
    tags text[] NOT NULL,
    queue text NOT NULL,
    concurrency_key text,
    priority double precision NOT NULL,
    ttl double precision,
    limits text[],
    max_duration double precision,
    idempotency_key text,
    idempotency_user_key text,
    idempotency_scope text,
    root_id uuid,
    replay_of uuid,
    schedule_id uuid,
    is_test boolean NOT NULL,
    machine text
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='5000');

CREATE VIEW detent.all_runs AS
 SELECT runs.id,
    runs.environment_id,
    runs.task_id,
    runs.status,
    runs.attempt,
    runs.max_attempts,
    runs.version_id,
    runs.queued_at,
    runs.started_at,
    NULL::timestamp with time zone AS finished_at,
    runs.due_at,
    runs.expires_at,
    runs.waits,
    runs.losses,
    runs.parent_id,
    runs.batch_id,
    inputs.created_at,
    inputs.payload,
    inputs.metadata,
    inputs.tags,
    inputs.queue,
    inputs.concurrency_key,
    inputs.priority,
    inputs.ttl,
    inputs.limits,
    inputs.max_duration,
    inputs.idempotency_user_key,
    inputs.root_id,
    inputs.replay_of,
    inputs.schedule_id,
    inputs.is_test,
    NULL::text AS output,
    NULL::text AS error,
    runs.is_solo,
    (runs.fence IS NOT NULL) AS is_held,
    runs.lane_id,
    inputs.machine,
    (runs.active + detent.seconds_leased(runs.status, runs.leased_at)) AS active,
    runs.attempt_started_at,
    inputs.idempotency_scope
   FROM (detent.runs
     JOIN detent.inputs ON ((inputs.run_id = runs.id)))
UNION ALL
 SELECT history.id,
    history.environment_id,
    history.task_id,
    history.status,
    history.attempt,
    history.max_attempts,
    history.version_id,
    history.queued_at,
    history.started_at,
    history.finished_at,
    NULL::timestamp with time zone AS due_at,
    NULL::timestamp with time zone AS expires_at,
    history.waits,
    history.losses,
    history.parent_id,
    history.batch_id,
    history.created_at,
    history.payload,
    history.metadata,
    history.tags,
    history.queue,
    history.concurrency_key,
    history.priority,
    history.ttl,
    history.limits,
    history.max_duration,
    history.idempotency_user_key,
    history.root_id,
    history.replay_of,
    history.schedule_id,
    history.is_test,
    history.output,
    history.error,
    false AS is_solo,
    false AS is_held,
    NULL::uuid AS lane_id,
    history.machine,
    history.active,
    history.attempt_started_at,
    history.idempotency_scope
   FROM detent.history;

CREATE TABLE detent.arrivals (
    environment_id integer NOT NULL,
    lane_id uuid NOT NULL
);

CREATE TABLE detent.attempts (
    run_id uuid NOT NULL,
    environment_id integer NOT NULL,
    number smallint NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    error text NOT NULL
);

CREATE TABLE detent.batch_cached (
    batch_id uuid NOT NULL,
    index integer NOT NULL,
    run_id uuid NOT NULL
);

CREATE TABLE detent.batch_items (
    batch_id uuid NOT NULL,
    index integer NOT NULL,
    run_id uuid NOT NULL,
    environment_id integer NOT NULL,
    task_id text,
    run_status detent.run_status,
    output text,
    error text
);

CREATE TABLE detent.batch_keys (
    environment_id integer NOT NULL,
    key text NOT NULL,
    batch_id uuid NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

CREATE TABLE detent.bulk_runs (
    bulk_id uuid NOT NULL,
    run_id uuid NOT NULL
);

CREATE TABLE detent.debounces (
    environment_id integer NOT NULL,
    task_id text NOT NULL,
    key text NOT NULL,
    run_id uuid NOT NULL
);

CREATE TABLE detent.endings (
    run_id uuid NOT NULL,
    fence bigint NOT NULL,
    environment_id integer NOT NULL,
    session_id uuid NOT NULL,
    slots uuid[],
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE detent.environments (
    id integer NOT NULL,
    slug text NOT NULL,
    gates uuid[] DEFAULT '{}'::uuid[] NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    type text NOT NULL,
    parent_id integer,
    branch_name text,
    archived_at timestamp with time zone,
    CONSTRAINT branch_has_parent CHECK (((branch_name IS NULL) = (parent_id IS NULL))),
    CONSTRAINT branch_is_preview CHECK (((branch_name IS NULL) OR (type = 'PREVIEW'::text))),
    CONSTRAINT environments_type_check CHECK ((type = ANY (ARRAY['DEVELOPMENT'::text, 'STAGING'::text, 'PRODUCTION'::text, 'PREVIEW'::text])))
);

ALTER TABLE detent.environments ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME detent.environments_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE detent.final_hooks (
    run_id uuid NOT NULL,
    environment_id integer NOT NULL,
    task_id text NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    session_id uuid,
    fence bigint,
    held_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    tries smallint DEFAULT 0 NOT NULL,
    CONSTRAINT held_under_a_fence CHECK (((session_id IS NULL) = (fence IS NULL)))
);

CREATE TABLE detent.history_30 (
    id uuid CONSTRAINT history_id_not_null NOT NULL,
    environment_id integer CONSTRAINT history_environment_id_not_null NOT NULL,
    task_id text CONSTRAINT history_task_id_not_null NOT NULL,
    status detent.run_status CONSTRAINT history_status_not_null NOT NULL,
    attempt smallint CONSTRAINT history_attempt_not_null NOT NULL,
    max_attempts smallint,
    version_id integer,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    attempt_started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT history_finished_at_not_null NOT NULL,
    waits integer CONSTRAINT history_waits_not_null NOT NULL,
    losses integer CONSTRAINT history_losses_not_null NOT NULL,
    parent_id uuid,
    batch_id uuid,
    batch_index integer,
    created_at timestamp with time zone CONSTRAINT history_created_at_not_null NOT NULL,
    payload text,
    metadata text,
    tags text[] CONSTRAINT history_tags_not_null NOT NULL,
    queue text CONSTRAINT history_queue_not_null NOT NULL,
    concurrency_key text,
    priority double precision CONSTRAINT history_priority_not_null NOT NULL,
    ttl double precision,
    limits text[],
    max_duration double precision,
    idempotency_key text,
    idempotency_user_key text,
    idempotency_scope text,
    root_id uuid,
    replay_of uuid,
    schedule_id uuid,
    is_test boolean CONSTRAINT history_is_test_not_null NOT NULL,
    output text,
    error text,
    keep_days integer DEFAULT 30 CONSTRAINT history_keep_days_not_null NOT NULL,
    machine text,
    active double precision DEFAULT 0 CONSTRAINT history_active_not_null NOT NULL,
    CONSTRAINT failed_has_error CHECK (((status = 'COMPLETED'::detent.run_status) OR (error IS NOT NULL))),
    CONSTRAINT history_status_check CHECK ((status = ANY (ARRAY['COMPLETED'::detent.run_status, 'FAILED'::detent.run_status, 'CANCELED'::detent.run_status, 'CRASHED'::detent.run_status, 'SYSTEM_FAILURE'::detent.run_status, 'EXPIRED'::detent.run_status, 'TIMED_OUT'::detent.run_status])))
)
PARTITION BY RANGE (finished_at);

CREATE TABLE detent.history_30_rest (
    id uuid CONSTRAINT history_id_not_null NOT NULL,
    environment_id integer CONSTRAINT history_environment_id_not_null NOT NULL,
    task_id text CONSTRAINT history_task_id_not_null NOT NULL,
    status detent.run_status CONSTRAINT history_status_not_null NOT NULL,
    attempt smallint CONSTRAINT history_attempt_not_null NOT NULL,
    max_attempts smallint,
    version_id integer,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    attempt_started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT history_finished_at_not_null NOT NULL,
    waits integer CONSTRAINT history_waits_not_null NOT NULL,
    losses integer CONSTRAINT history_losses_not_null NOT NULL,
    parent_id uuid,
    batch_id uuid,
    batch_index integer,
    created_at timestamp with time zone CONSTRAINT history_created_at_not_null NOT NULL,
    payload text,
    metadata text,
    tags text[] CONSTRAINT history_tags_not_null NOT NULL,
    queue text CONSTRAINT history_queue_not_null NOT NULL,
    concurrency_key text,
    priority double precision CONSTRAINT history_priority_not_null NOT NULL,
    ttl double precision,
    limits text[],
    max_duration double precision,
    idempotency_key text,
    idempotency_user_key text,
    idempotency_scope text,
    root_id uuid,
    replay_of uuid,
    schedule_id uuid,
    is_test boolean CONSTRAINT history_is_test_not_null NOT NULL,
    output text,
    error text,
    keep_days integer DEFAULT 30 CONSTRAINT history_keep_days_not_null NOT NULL,
    machine text,
    active double precision DEFAULT 0 CONSTRAINT history_active_not_null NOT NULL,
    CONSTRAINT failed_has_error CHECK (((status = 'COMPLETED'::detent.run_status) OR (error IS NOT NULL))),
    CONSTRAINT history_status_check CHECK ((status = ANY (ARRAY['COMPLETED'::detent.run_status, 'FAILED'::detent.run_status, 'CANCELED'::detent.run_status, 'CRASHED'::detent.run_status, 'SYSTEM_FAILURE'::detent.run_status, 'EXPIRED'::detent.run_status, 'TIMED_OUT'::detent.run_status])))
);

CREATE TABLE detent.history_ever (
    id uuid CONSTRAINT history_id_not_null NOT NULL,
    environment_id integer CONSTRAINT history_environment_id_not_null NOT NULL,
    task_id text CONSTRAINT history_task_id_not_null NOT NULL,
    status detent.run_status CONSTRAINT history_status_not_null NOT NULL,
    attempt smallint CONSTRAINT history_attempt_not_null NOT NULL,
    max_attempts smallint,
    version_id integer,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    attempt_started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT history_finished_at_not_null NOT NULL,
    waits integer CONSTRAINT history_waits_not_null NOT NULL,
    losses integer CONSTRAINT history_losses_not_null NOT NULL,
    parent_id uuid,
    batch_id uuid,
    batch_index integer,
    created_at timestamp with time zone CONSTRAINT history_created_at_not_null NOT NULL,
    payload text,
    metadata text,
    tags text[] CONSTRAINT history_tags_not_null NOT NULL,
    queue text CONSTRAINT history_queue_not_null NOT NULL,
    concurrency_key text,
    priority double precision CONSTRAINT history_priority_not_null NOT NULL,
    ttl double precision,
    limits text[],
    max_duration double precision,
    idempotency_key text,
    idempotency_user_key text,
    idempotency_scope text,
    root_id uuid,
    replay_of uuid,
    schedule_id uuid,
    is_test boolean CONSTRAINT history_is_test_not_null NOT NULL,
    output text,
    error text,
    keep_days integer DEFAULT 30 CONSTRAINT history_keep_days_not_null NOT NULL,
    machine text,
    active double precision DEFAULT 0 CONSTRAINT history_active_not_null NOT NULL,
    CONSTRAINT failed_has_error CHECK (((status = 'COMPLETED'::detent.run_status) OR (error IS NOT NULL))),
    CONSTRAINT history_status_check CHECK ((status = ANY (ARRAY['COMPLETED'::detent.run_status, 'FAILED'::detent.run_status, 'CANCELED'::detent.run_status, 'CRASHED'::detent.run_status, 'SYSTEM_FAILURE'::detent.run_status, 'EXPIRED'::detent.run_status, 'TIMED_OUT'::detent.run_status])))
);

CREATE TABLE detent.history_held (
    id uuid CONSTRAINT history_id_not_null NOT NULL,
    environment_id integer CONSTRAINT history_environment_id_not_null NOT NULL,
    task_id text CONSTRAINT history_task_id_not_null NOT NULL,
    status detent.run_status CONSTRAINT history_status_not_null NOT NULL,
    attempt smallint CONSTRAINT history_attempt_not_null NOT NULL,
    max_attempts smallint,
    version_id integer,
    queued_at timestamp with time zone,
    started_at timestamp with time zone,
    attempt_started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT history_finished_at_not_null NOT NULL,
    waits integer CONSTRAINT history_waits_not_null NOT NULL,
    losses integer CONSTRAINT history_losses_not_null NOT NULL,
    parent_id uuid,
    batch_id uuid,
    batch_index integer,
    created_at timestamp with time zone CONSTRAINT history_created_at_not_null NOT NULL,
    payload text,
    metadata text,
    tags text[] CONSTRAINT history_tags_not_null NOT NULL,
    queue text CONSTRAINT history_queue_not_null NOT NULL,
    concurrency_key text,
    priority double precision CONSTRAINT history_priority_not_null NOT NULL,
    ttl double precision,
    limits text[],
    max_duration double precision,
    idempotency_key text,
    idempotency_user_key text,
    idempotency_scope text,
    root_id uuid,
    replay_of uuid,
    schedule_id uuid,
    is_test boolean CONSTRAINT history_is_test_not_null NOT NULL,
    output text,
    error text,
    keep_days integer DEFAULT 30 CONSTRAINT history_keep_days_not_null NOT NULL,
    machine text,
    active double precision DEFAULT 0 CONSTRAINT history_active_not_null NOT NULL,
    CONSTRAINT failed_has_error CHECK (((status = 'COMPLETED'::detent.run_status) OR (error IS NOT NULL))),
    CONSTRAINT history_status_check CHECK ((status = ANY (ARRAY['COMPLETED'::detent.run_status, 'FAILED'::detent.run_status, 'CANCELED'::detent.run_status, 'CRASHED'::detent.run_status, 'SYSTEM_FAILURE'::detent.run_status, 'EXPIRED'::detent.run_status, 'TIMED_OUT'::detent.run_status])))
);

CREATE TABLE detent.idempotency_keys (
    environment_id integer NOT NULL,
    task_id text NOT NULL,
    key text NOT NULL,
    run_id uuid NOT NULL,
    expires_at timestamp with time zone NOT NULL
);

CREATE TABLE detent.journal (
    run_id uuid NOT NULL,
    attempt smallint NOT NULL,
    operation text NOT NULL,
    number bigint NOT NULL,
    environment_id integer NOT NULL,
    kind text NOT NULL,
    fingerprint text NOT NULL,
    ref uuid,
    is_cached boolean DEFAULT false NOT NULL,
    answers integer DEFAULT 0 NOT NULL,
    seen text[],
    output text,
    error text,
    recorded_at timestamp with time zone DEFAULT detent.now() NOT NULL
);

ALTER TABLE detent.journal ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME detent.journal_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE detent.logs (
    run_id uuid NOT NULL,
    environment_id integer NOT NULL,
    attempt smallint NOT NULL,
    place text NOT NULL,
    number integer NOT NULL,
    at timestamp with time zone NOT NULL,
    level text NOT NULL,
    message text NOT NULL,
    fields text,
    keep_days integer DEFAULT 30 NOT NULL
)
PARTITION BY LIST (keep_days);

CREATE TABLE detent.logs_30 (
    run_id uuid CONSTRAINT logs_run_id_not_null NOT NULL,
    environment_id integer CONSTRAINT logs_environment_id_not_null NOT NULL,
    attempt smallint CONSTRAINT logs_attempt_not_null NOT NULL,
    place text CONSTRAINT logs_place_not_null NOT NULL,
    number integer CONSTRAINT logs_number_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT logs_at_not_null NOT NULL,
    level text CONSTRAINT logs_level_not_null NOT NULL,
    message text CONSTRAINT logs_message_not_null NOT NULL,
    fields text,
    keep_days integer DEFAULT 30 CONSTRAINT logs_keep_days_not_null NOT NULL
)
PARTITION BY RANGE (at);

CREATE TABLE detent.logs_30_rest (
    run_id uuid CONSTRAINT logs_run_id_not_null NOT NULL,
    environment_id integer CONSTRAINT logs_environment_id_not_null NOT NULL,
    attempt smallint CONSTRAINT logs_attempt_not_null NOT NULL,
    place text CONSTRAINT logs_place_not_null NOT NULL,
    number integer CONSTRAINT logs_number_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT logs_at_not_null NOT NULL,
    level text CONSTRAINT logs_level_not_null NOT NULL,
    message text CONSTRAINT logs_message_not_null NOT NULL,
    fields text,
    keep_days integer DEFAULT 30 CONSTRAINT logs_keep_days_not_null NOT NULL
);

CREATE TABLE detent.logs_ever (
    run_id uuid CONSTRAINT logs_run_id_not_null NOT NULL,
    environment_id integer CONSTRAINT logs_environment_id_not_null NOT NULL,
    attempt smallint CONSTRAINT logs_attempt_not_null NOT NULL,
    place text CONSTRAINT logs_place_not_null NOT NULL,
    number integer CONSTRAINT logs_number_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT logs_at_not_null NOT NULL,
    level text CONSTRAINT logs_level_not_null NOT NULL,
    message text CONSTRAINT logs_message_not_null NOT NULL,
    fields text,
    keep_days integer DEFAULT 30 CONSTRAINT logs_keep_days_not_null NOT NULL
);

CREATE TABLE detent.logs_held (
    run_id uuid CONSTRAINT logs_run_id_not_null NOT NULL,
    environment_id integer CONSTRAINT logs_environment_id_not_null NOT NULL,
    attempt smallint CONSTRAINT logs_attempt_not_null NOT NULL,
    place text CONSTRAINT logs_place_not_null NOT NULL,
    number integer CONSTRAINT logs_number_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT logs_at_not_null NOT NULL,
    level text CONSTRAINT logs_level_not_null NOT NULL,
    message text CONSTRAINT logs_message_not_null NOT NULL,
    fields text,
    keep_days integer DEFAULT 30 CONSTRAINT logs_keep_days_not_null NOT NULL
);

CREATE VIEW detent.partitions AS
 SELECT pg_class.oid,
    (pg_class.relname)::text AS name,
    part.part[1] AS parent,
    shelf.starts_at,
    period.ends_at,
    shelf.keep_days,
    (period.ends_at + make_interval(days => shelf.keep_days)) AS due_at
   FROM (((pg_class
     CROSS JOIN LATERAL regexp_match((pg_class.relname)::text, '^(history|logs)_(?:(ever)|(held)|(\d+)_(?:rest|(\d{8})))$'::text) part(part))
     CROSS JOIN LATERAL ( SELECT
                CASE
                    WHEN (part.part[2] IS NOT NULL) THEN 0
                    WHEN (part.part[3] IS NOT NULL) THEN '-1'::integer
                    ELSE (part.part[4])::integer
                END AS keep_days,
            ((to_date(part.part[5], 'YYYYMMDD'::text))::timestamp without time zone AT TIME ZONE 'utc'::text) AS starts_at) shelf)
     CROSS JOIN LATERAL ( SELECT (shelf.starts_at + make_interval(days => detent.period_days(shelf.keep_days))) AS ends_at) period)
  WHERE ((pg_class.relnamespace = ('detent'::regnamespace)::oid) AND (pg_class.relkind = 'r'::"char") AND (part.part IS NOT NULL));

CREATE TABLE detent.ready (
    lane_id uuid NOT NULL,
    "position" timestamp with time zone NOT NULL,
    run_id uuid NOT NULL,
    environment_id integer NOT NULL,
    resident_session uuid,
    resident_until timestamp with time zone,
    is_solo boolean DEFAULT false NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0');

CREATE TABLE detent.retention_rules (
    environment_id integer NOT NULL,
    task_id text NOT NULL,
    status text NOT NULL,
    keep_days integer NOT NULL,
    CONSTRAINT retention_rules_keep_days_check CHECK ((keep_days >= 0))
);

CREATE TABLE detent.schedules (
    id uuid NOT NULL,
    label text GENERATED ALWAYS AS (detent.public_id('sched'::text, id)) STORED,
    environment_id integer NOT NULL,
    type text NOT NULL,
    task_id text NOT NULL,
    cron text NOT NULL,
    timezone text NOT NULL,
    spread text,
    overlap text NOT NULL,
    external_id text,
    deduplication_key text,
    next_at timestamp with time zone,
    due_at timestamp with time zone,
    last_at timestamp with time zone,
    last_run_id uuid,
    created_at timestamp with time zone DEFAULT detent.now() NOT NULL,
    CONSTRAINT due_is_not_before_its_tick CHECK ((due_at >= next_at)),
    CONSTRAINT schedules_overlap_check CHECK ((overlap = ANY (ARRAY['allow'::text, 'skip'::text]))),
    CONSTRAINT schedules_type_check CHECK ((type = ANY (ARRAY['DECLARATIVE'::text, 'IMPERATIVE'::text]))),
    CONSTRAINT tick_has_due_date CHECK (((next_at IS NULL) = (due_at IS NULL)))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='2000');

CREATE TABLE detent.schema_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE detent.sessions (
    id uuid NOT NULL,
    environment_id integer NOT NULL,
    version_id integer NOT NULL,
    worker text NOT NULL,
    beat bigint DEFAULT 0 NOT NULL,
    opened_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    beat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone
)
WITH (fillfactor='50');

CREATE TABLE detent.vacancies (
    gate_id uuid NOT NULL,
    environment_id integer NOT NULL
);

CREATE TABLE detent.version_tasks (
    version_id integer NOT NULL,
    environment_id integer NOT NULL,
    task_id text NOT NULL,
    isolation text NOT NULL,
    file_path text NOT NULL,
    queue text NOT NULL,
    description text NOT NULL,
    max_attempts smallint NOT NULL,
    retry text NOT NULL,
    max_duration double precision,
    ttl double precision,
    limits text[] DEFAULT '{}'::text[] NOT NULL,
    on_lost text NOT NULL,
    final_hooks text[] DEFAULT '{}'::text[] NOT NULL,
    payload_schema text,
    output_schema text,
    machine text,
    oom_machine text,
    CONSTRAINT version_tasks_final_hooks_check CHECK ((final_hooks <@ '{success,failure,cancel}'::text[])),
    CONSTRAINT version_tasks_isolation_check CHECK ((isolation = ANY (ARRAY['async'::text, 'thread'::text, 'process'::text]))),
    CONSTRAINT version_tasks_max_attempts_check CHECK (((max_attempts >= 1) AND (max_attempts <= 250))),
    CONSTRAINT version_tasks_max_duration_check CHECK ((max_duration > (0)::double precision)),
    CONSTRAINT version_tasks_on_lost_check CHECK ((on_lost = ANY (ARRAY['restart'::text, 'fail'::text]))),
    CONSTRAINT version_tasks_ttl_check CHECK ((ttl > (0)::double precision))
);

CREATE TABLE detent.versions (
    id integer NOT NULL,
    environment_id integer NOT NULL,
    name text NOT NULL,
    fingerprint text NOT NULL,
    is_named boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    machines text[] DEFAULT '{}'::text[] NOT NULL
);

ALTER TABLE detent.versions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME detent.versions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE detent.waitpoint_keys (
    environment_id integer NOT NULL,
    key text NOT NULL,
    waitpoint_id uuid NOT NULL,
    expires_at timestamp with time zone
);

CREATE TABLE detent.waitpoints (
    id uuid NOT NULL,
    environment_id integer NOT NULL,
    kind text NOT NULL,
    due_at timestamp with time zone,
    completed_at timestamp with time zone,
    run_status detent.run_status,
    task_id text,
    output text,
    error text,
    is_shared boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone,
    tags text[],
    secret text,
    idempotency_key text,
    is_timed_out boolean DEFAULT false NOT NULL,
    CONSTRAINT time_has_due_date CHECK (((kind <> 'time'::text) OR (due_at IS NOT NULL))),
    CONSTRAINT waitpoints_kind_check CHECK ((kind = ANY (ARRAY['time'::text, 'run'::text, 'batch'::text, 'token'::text])))
);

CREATE TABLE detent.waits (
    run_id uuid NOT NULL,
    operation text NOT NULL,
    waitpoint_id uuid NOT NULL,
    environment_id integer NOT NULL,
    is_done boolean DEFAULT false NOT NULL
);

ALTER TABLE ONLY detent.history ATTACH PARTITION detent.history_30 FOR VALUES IN (30);

ALTER TABLE ONLY detent.history_30 ATTACH PARTITION detent.history_30_rest DEFAULT;

ALTER TABLE ONLY detent.history ATTACH PARTITION detent.history_ever FOR VALUES IN (0);

ALTER TABLE ONLY detent.history ATTACH PARTITION detent.history_held FOR VALUES IN ('-1');

ALTER TABLE ONLY detent.logs ATTACH PARTITION detent.logs_30 FOR VALUES IN (30);

ALTER TABLE ONLY detent.logs_30 ATTACH PARTITION detent.logs_30_rest DEFAULT;

ALTER TABLE ONLY detent.logs ATTACH PARTITION detent.logs_ever FOR VALUES IN (0);

ALTER TABLE ONLY detent.logs ATTACH PARTITION detent.logs_held FOR VALUES IN ('-1');

ALTER TABLE ONLY detent.attempts
    ADD CONSTRAINT attempts_pkey PRIMARY KEY (run_id, number);

ALTER TABLE ONLY detent.batch_cached
    ADD CONSTRAINT batch_cached_pkey PRIMARY KEY (batch_id, index);

ALTER TABLE ONLY detent.batch_items
    ADD CONSTRAINT batch_items_pkey PRIMARY KEY (batch_id, index);

ALTER TABLE ONLY detent.batch_keys
    ADD CONSTRAINT batch_keys_pkey PRIMARY KEY (environment_id, key);

ALTER TABLE ONLY detent.batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.bulk_actions
    ADD CONSTRAINT bulk_actions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.bulk_runs
    ADD CONSTRAINT bulk_runs_pkey PRIMARY KEY (bulk_id, run_id);

ALTER TABLE ONLY detent.debounces
    ADD CONSTRAINT debounces_pkey PRIMARY KEY (environment_id, task_id, key);

ALTER TABLE ONLY detent.endings
    ADD CONSTRAINT endings_pkey PRIMARY KEY (run_id, fence);

ALTER TABLE ONLY detent.environments
    ADD CONSTRAINT environments_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.environments
    ADD CONSTRAINT environments_slug_key UNIQUE (slug);

ALTER TABLE ONLY detent.envvars
    ADD CONSTRAINT envvars_pkey PRIMARY KEY (environment_id, name);

ALTER TABLE ONLY detent.final_hooks
    ADD CONSTRAINT final_hooks_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY detent.gates
    ADD CONSTRAINT gates_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.history
    ADD CONSTRAINT history_pkey PRIMARY KEY (id, keep_days, finished_at);

ALTER TABLE ONLY detent.history_30
    ADD CONSTRAINT history_30_pkey PRIMARY KEY (id, keep_days, finished_at);

ALTER TABLE ONLY detent.history_30_rest
    ADD CONSTRAINT history_30_rest_pkey PRIMARY KEY (id, keep_days, finished_at);

ALTER TABLE ONLY detent.history_ever
    ADD CONSTRAINT history_ever_pkey PRIMARY KEY (id, keep_days, finished_at);

ALTER TABLE ONLY detent.history_held
    ADD CONSTRAINT history_held_pkey PRIMARY KEY (id, keep_days, finished_at);

ALTER TABLE ONLY detent.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (environment_id, task_id, key);

ALTER TABLE ONLY detent.inputs
    ADD CONSTRAINT inputs_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY detent.journal
    ADD CONSTRAINT journal_pkey PRIMARY KEY (run_id, attempt, operation);

ALTER TABLE ONLY detent.lanes
    ADD CONSTRAINT lanes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.limits
    ADD CONSTRAINT limits_environment_id_kind_name_key UNIQUE (environment_id, kind, name);

ALTER TABLE ONLY detent.limits
    ADD CONSTRAINT limits_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.logs
    ADD CONSTRAINT logs_pkey PRIMARY KEY (run_id, attempt, place, number, at, keep_days);

ALTER TABLE ONLY detent.logs_30
    ADD CONSTRAINT logs_30_pkey PRIMARY KEY (run_id, attempt, place, number, at, keep_days);

ALTER TABLE ONLY detent.logs_30_rest
    ADD CONSTRAINT logs_30_rest_pkey PRIMARY KEY (run_id, attempt, place, number, at, keep_days);

ALTER TABLE ONLY detent.logs_ever
    ADD CONSTRAINT logs_ever_pkey PRIMARY KEY (run_id, attempt, place, number, at, keep_days);

ALTER TABLE ONLY detent.logs_held
    ADD CONSTRAINT logs_held_pkey PRIMARY KEY (run_id, attempt, place, number, at, keep_days);

ALTER TABLE ONLY detent.ready
    ADD CONSTRAINT ready_pkey PRIMARY KEY (lane_id, "position", run_id);

ALTER TABLE ONLY detent.retention_rules
    ADD CONSTRAINT retention_rules_pkey PRIMARY KEY (environment_id, task_id, status);

ALTER TABLE ONLY detent.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.schedules
    ADD CONSTRAINT schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY detent.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.vacancies
    ADD CONSTRAINT vacancies_pkey PRIMARY KEY (gate_id);

ALTER TABLE ONLY detent.version_tasks
    ADD CONSTRAINT version_tasks_pkey PRIMARY KEY (version_id, task_id);

ALTER TABLE ONLY detent.versions
    ADD CONSTRAINT versions_environment_id_name_key UNIQUE (environment_id, name);

ALTER TABLE ONLY detent.versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.waitpoint_keys
    ADD CONSTRAINT waitpoint_keys_pkey PRIMARY KEY (environment_id, key);

ALTER TABLE ONLY detent.waitpoints
    ADD CONSTRAINT waitpoints_pkey PRIMARY KEY (id);

ALTER TABLE ONLY detent.waits
    ADD CONSTRAINT waits_pkey PRIMARY KEY (run_id, operation);

CREATE INDEX arrivals_by_environment ON detent.arrivals USING btree (environment_id);

CREATE INDEX batch_items_pending ON detent.batch_items USING btree (run_id) WHERE (run_status IS NULL);

CREATE INDEX batch_keys_expiring ON detent.batch_keys USING btree (expires_at);

CREATE INDEX batches_unsealed ON detent.batches USING btree (seal_by) WHERE ((sealed_at IS NULL) AND (aborted IS NULL));

CREATE INDEX bulk_actions_by_environment ON detent.bulk_actions USING btree (environment_id, id);

CREATE INDEX bulk_actions_pending ON detent.bulk_actions USING btree (id) WHERE (status = 'PENDING'::text);

CREATE INDEX endings_by_session ON detent.endings USING btree (session_id);

CREATE INDEX final_hooks_by_session ON detent.final_hooks USING btree (session_id) WHERE (session_id IS NOT NULL);

CREATE INDEX final_hooks_due ON detent.final_hooks USING btree (environment_id, finished_at) WHERE (session_id IS NULL);

CREATE INDEX gates_by_limit ON detent.gates USING btree (limit_id);

CREATE INDEX gates_opening ON detent.gates USING btree (opens_at) WHERE (opens_at IS NOT NULL);

CREATE INDEX history_by_batch ON ONLY detent.history USING btree (batch_id, id) WHERE (batch_id IS NOT NULL);

CREATE INDEX history_30_batch_id_id_idx ON ONLY detent.history_30 USING btree (batch_id, id) WHERE (batch_id IS NOT NULL);

CREATE INDEX history_of_tests ON ONLY detent.history USING btree (environment_id, id) WHERE is_test;

CREATE INDEX history_30_environment_id_id_idx ON ONLY detent.history_30 USING btree (environment_id, id) WHERE is_test;

CREATE INDEX history_not_completed ON ONLY detent.history USING btree (environment_id, status, id) WHERE (status <> 'COMPLETED'::detent.run_status);

CREATE INDEX history_30_environment_id_status_id_idx ON ONLY detent.history_30 USING btree (environment_id, status, id) WHERE (status <> 'COMPLETED'::detent.run_status);

CREATE INDEX history_by_task ON ONLY detent.history USING btree (environment_id, task_id, id);

CREATE INDEX history_30_environment_id_task_id_id_idx ON ONLY detent.history_30 USING btree (environment_id, task_id, id);

CREATE INDEX history_by_parent ON ONLY detent.history USING btree (parent_id, id) WHERE (parent_id IS NOT NULL);

CREATE INDEX history_30_parent_id_id_idx ON ONLY detent.history_30 USING btree (parent_id, id) WHERE (parent_id IS NOT NULL);

CREATE INDEX history_30_rest_batch_id_id_idx ON detent.history_30_rest USING btree (batch_id, id) WHERE (batch_id IS NOT NULL);

CREATE INDEX history_30_rest_environment_id_id_idx ON detent.history_30_rest USING btree (environment_id, id) WHERE is_test;

CREATE INDEX history_30_rest_environment_id_status_id_idx ON detent.history_30_rest USING btree (environment_id, status, id) WHERE (status <> 'COMPLETED'::detent.run_status);

CREATE INDEX history_30_rest_environment_id_task_id_id_idx ON detent.history_30_rest USING btree (environment_id, task_id, id);

CREATE INDEX history_30_rest_finished_at_idx ON detent.history_30_rest USING btree (finished_at);

CREATE INDEX history_30_rest_parent_id_id_idx ON detent.history_30_rest USING btree (parent_id, id) WHERE (parent_id IS NOT NULL);

CREATE INDEX history_by_schedule ON ONLY detent.history USING btree (schedule_id, id) WHERE (schedule_id IS NOT NULL);

CREATE INDEX history_30_schedule_id_id_idx ON ONLY detent.history_30 USING btree (schedule_id, id) WHERE (schedule_id IS NOT NULL);

CREATE INDEX history_30_rest_schedule_id_id_idx ON detent.history_30_rest USING btree (schedule_id, id) WHERE (schedule_id IS NOT NULL);

CREATE INDEX history_by_tag ON ONLY detent.history USING gin (tags) WHERE (tags <> '{}'::text[]);

CREATE INDEX history_30_tags_idx ON ONLY detent.history_30 USING gin (tags) WHERE (tags <> '{}'::text[]);

CREATE INDEX history_30_rest_tags_idx ON detent.history_30_rest USING gin (tags) WHERE (tags <> '{}'::text[]);

CREATE INDEX history_ever_batch_id_id_idx ON detent.history_ever USING btree (batch_id, id) WHERE (batch_id IS NOT NULL);

CREATE INDEX history_ever_environment_id_id_idx ON detent.history_ever USING btree (environment_id, id) WHERE is_test;

CREATE INDEX history_ever_environment_id_status_id_idx ON detent.history_ever USING btree (environment_id, status, id) WHERE (status <> 'COMPLETED'::detent.run_status);

CREATE INDEX history_ever_environment_id_task_id_id_idx ON detent.history_ever USING btree (environment_id, task_id, id);

CREATE INDEX history_ever_parent_id_id_idx ON detent.history_ever USING btree (parent_id, id) WHERE (parent_id IS NOT NULL);

CREATE INDEX history_ever_schedule_id_id_idx ON detent.history_ever USING btree (schedule_id, id) WHERE (schedule_id IS NOT NULL);

CREATE INDEX history_ever_tags_idx ON detent.history_ever USING gin (tags) WHERE (tags <> '{}'::text[]);

CREATE INDEX history_held_batch_id_id_idx ON detent.history_held USING btree (batch_id, id) WHERE (batch_id IS NOT NULL);

CREATE INDEX history_held_environment_id_id_idx ON detent.history_held USING btree (environment_id, id) WHERE is_test;

CREATE INDEX history_held_environment_id_status_id_idx ON detent.history_held USING btree (environment_id, status, id) WHERE (status <> 'COMPLETED'::detent.run_status);

CREATE INDEX history_held_environment_id_task_id_id_idx ON detent.history_held USING btree (environment_id, task_id, id);

CREATE INDEX history_held_parent_id_id_idx ON detent.history_held USING btree (parent_id, id) WHERE (parent_id IS NOT NULL);

CREATE INDEX history_held_schedule_id_id_idx ON detent.history_held USING btree (schedule_id, id) WHERE (schedule_id IS NOT NULL);

CREATE INDEX history_held_tags_idx ON detent.history_held USING gin (tags) WHERE (tags <> '{}'::text[]);

CREATE INDEX idempotency_keys_expiring ON detent.idempotency_keys USING btree (expires_at);

CREATE INDEX lanes_by_line ON detent.lanes USING btree (line_id);

CREATE INDEX lanes_open ON detent.lanes USING btree (environment_id, task_id, served_at, line_id) WHERE (parked_on IS NULL);

CREATE INDEX lanes_parked ON detent.lanes USING btree (parked_on, served_at, line_id) WHERE (parked_on IS NOT NULL);

CREATE INDEX logs_30_rest_at_idx ON detent.logs_30_rest USING btree (at);

CREATE INDEX ready_resident ON detent.ready USING btree (resident_session) WHERE (resident_session IS NOT NULL);

CREATE INDEX ready_solo ON detent.ready USING btree (environment_id) WHERE is_solo;

CREATE INDEX runs_by_parent ON detent.runs USING btree (parent_id) WHERE (parent_id IS NOT NULL);

CREATE INDEX runs_by_session ON detent.runs USING btree (session_id) WHERE (session_id IS NOT NULL);

CREATE INDEX runs_due ON detent.runs USING btree (due_at) WHERE (due_at IS NOT NULL);

CREATE INDEX runs_expiring ON detent.runs USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX schedules_by_environment ON detent.schedules USING btree (environment_id, id);

CREATE UNIQUE INDEX schedules_by_key ON detent.schedules USING btree (environment_id, deduplication_key) WHERE (deduplication_key IS NOT NULL);

CREATE UNIQUE INDEX schedules_declared ON detent.schedules USING btree (environment_id, task_id) WHERE (type = 'DECLARATIVE'::text);

CREATE INDEX schedules_due ON detent.schedules USING btree (due_at) WHERE (due_at IS NOT NULL);

CREATE INDEX sessions_open ON detent.sessions USING btree (environment_id) WHERE (ended_at IS NULL);

CREATE INDEX vacancies_by_environment ON detent.vacancies USING btree (environment_id);

CREATE INDEX version_tasks_by_task ON detent.version_tasks USING btree (environment_id, task_id, version_id DESC);

CREATE INDEX versions_by_fingerprint ON detent.versions USING btree (environment_id, fingerprint);

CREATE UNIQUE INDEX versions_once ON detent.versions USING btree (environment_id, fingerprint) WHERE (NOT is_named);

CREATE INDEX waitpoint_keys_expiring ON detent.waitpoint_keys USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX waitpoints_by_key ON detent.waitpoints USING btree (environment_id, idempotency_key) WHERE (idempotency_key IS NOT NULL);

CREATE INDEX waitpoints_due ON detent.waitpoints USING btree (due_at) WHERE ((completed_at IS NULL) AND (due_at IS NOT NULL));

CREATE INDEX waitpoints_tokens ON detent.waitpoints USING btree (environment_id, id) WHERE (kind = 'token'::text);

CREATE INDEX waits_by_waitpoint ON detent.waits USING btree (waitpoint_id);

ALTER INDEX detent.history_by_batch ATTACH PARTITION detent.history_30_batch_id_id_idx;

ALTER INDEX detent.history_of_tests ATTACH PARTITION detent.history_30_environment_id_id_idx;

ALTER INDEX detent.history_not_completed ATTACH PARTITION detent.history_30_environment_id_status_id_idx;

ALTER INDEX detent.history_by_task ATTACH PARTITION detent.history_30_environment_id_task_id_id_idx;

ALTER INDEX detent.history_by_parent ATTACH PARTITION detent.history_30_parent_id_id_idx;

ALTER INDEX detent.history_pkey ATTACH PARTITION detent.history_30_pkey;

ALTER INDEX detent.history_30_batch_id_id_idx ATTACH PARTITION detent.history_30_rest_batch_id_id_idx;

ALTER INDEX detent.history_30_environment_id_id_idx ATTACH PARTITION detent.history_30_rest_environment_id_id_idx;

ALTER INDEX detent.history_30_environment_id_status_id_idx ATTACH PARTITION detent.history_30_rest_environment_id_status_id_idx;

ALTER INDEX detent.history_30_environment_id_task_id_id_idx ATTACH PARTITION detent.history_30_rest_environment_id_task_id_id_idx;

ALTER INDEX detent.history_30_parent_id_id_idx ATTACH PARTITION detent.history_30_rest_parent_id_id_idx;

ALTER INDEX detent.history_30_pkey ATTACH PARTITION detent.history_30_rest_pkey;

ALTER INDEX detent.history_30_schedule_id_id_idx ATTACH PARTITION detent.history_30_rest_schedule_id_id_idx;

ALTER INDEX detent.history_30_tags_idx ATTACH PARTITION detent.history_30_rest_tags_idx;

ALTER INDEX detent.history_by_schedule ATTACH PARTITION detent.history_30_schedule_id_id_idx;

ALTER INDEX detent.history_by_tag ATTACH PARTITION detent.history_30_tags_idx;

ALTER INDEX detent.history_by_batch ATTACH PARTITION detent.history_ever_batch_id_id_idx;

ALTER INDEX detent.history_of_tests ATTACH PARTITION detent.history_ever_environment_id_id_idx;

ALTER INDEX detent.history_not_completed ATTACH PARTITION detent.history_ever_environment_id_status_id_idx;

ALTER INDEX detent.history_by_task ATTACH PARTITION detent.history_ever_environment_id_task_id_id_idx;

ALTER INDEX detent.history_by_parent ATTACH PARTITION detent.history_ever_parent_id_id_idx;

ALTER INDEX detent.history_pkey ATTACH PARTITION detent.history_ever_pkey;

ALTER INDEX detent.history_by_schedule ATTACH PARTITION detent.history_ever_schedule_id_id_idx;

ALTER INDEX detent.history_by_tag ATTACH PARTITION detent.history_ever_tags_idx;

ALTER INDEX detent.history_by_batch ATTACH PARTITION detent.history_held_batch_id_id_idx;

ALTER INDEX detent.history_of_tests ATTACH PARTITION detent.history_held_environment_id_id_idx;

ALTER INDEX detent.history_not_completed ATTACH PARTITION detent.history_held_environment_id_status_id_idx;

ALTER INDEX detent.history_by_task ATTACH PARTITION detent.history_held_environment_id_task_id_id_idx;

ALTER INDEX detent.history_by_parent ATTACH PARTITION detent.history_held_parent_id_id_idx;

ALTER INDEX detent.history_pkey ATTACH PARTITION detent.history_held_pkey;

ALTER INDEX detent.history_by_schedule ATTACH PARTITION detent.history_held_schedule_id_id_idx;

ALTER INDEX detent.history_by_tag ATTACH PARTITION detent.history_held_tags_idx;

ALTER INDEX detent.logs_pkey ATTACH PARTITION detent.logs_30_pkey;

ALTER INDEX detent.logs_30_pkey ATTACH PARTITION detent.logs_30_rest_pkey;

ALTER INDEX detent.logs_pkey ATTACH PARTITION detent.logs_ever_pkey;

ALTER INDEX detent.logs_pkey ATTACH PARTITION detent.logs_held_pkey;

CREATE TRIGGER illegal_transition BEFORE UPDATE OF status ON detent.runs FOR EACH ROW WHEN (((old.status <> new.status) AND (NOT detent.is_legal(old.status, new.status)))) EXECUTE FUNCTION detent.refuse_transition();

ALTER TABLE ONLY detent.bulk_runs
    ADD CONSTRAINT bulk_runs_bulk_id_fkey FOREIGN KEY (bulk_id) REFERENCES detent.bulk_actions(id) ON DELETE CASCADE;

ALTER TABLE ONLY detent.environments
    ADD CONSTRAINT environments_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES detent.environments(id);

ALTER TABLE ONLY detent.envvars
    ADD CONSTRAINT envvars_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES detent.environments(id);

ALTER TABLE ONLY detent.schedules
    ADD CONSTRAINT schedules_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES detent.environments(id);

ALTER TABLE ONLY detent.version_tasks
    ADD CONSTRAINT version_tasks_version_id_fkey FOREIGN KEY (version_id) REFERENCES detent.versions(id) ON DELETE CASCADE;

ALTER TABLE ONLY detent.versions
    ADD CONSTRAINT versions_environment_id_fkey FOREIGN KEY (environment_id) REFERENCES detent.environments(id);
