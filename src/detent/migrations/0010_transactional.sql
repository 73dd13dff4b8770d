-- Triggering from plain SQL: a run that is there when the caller's transaction commits, and was never there when it does not.
-- Reason: no window between what a program has stored and the run that goes with it. Lock: none. Pre: before the code that needs it.
--
-- The transaction may stay open for long, so nothing is locked that others wait for: of a lane that is there, only that it stays. The first run
-- of a lane makes it; others that make the same lane meanwhile wait for the end of the transaction.

-- The public form of an id: as `encode` in detent/protocol/ids.py; a test compares the two.
create function detent.public_id(prefix text, id uuid) returns text language sql immutable parallel safe as $$
  select prefix || '_' || string_agg(
    substr('0123456789abcdefghjkmnpqrstvwxyz', 1 + substring(bits from 1 + 5 * n for 5)::bit(5)::integer, 1), '' order by n)
  from (select B'00' || ('x' || replace(id::text, '-', ''))::bit(128) as bits) as value, generate_series(0, 25) as n
$$;

-- A UUIDv7 with the fraction of the millisecond in the twelve bits after it.
create function detent.new_id() returns uuid language sql volatile parallel safe as $$
  select overlay(
    replace(gen_random_uuid()::text, '-', '')
    placing lpad(to_hex(micros / 1000), 12, '0') || '7' || lpad(to_hex(micros % 1000 * 4096 / 1000), 3, '0') from 1)::uuid
  from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as micros) as moment
$$;

-- As `lane_of` in detent/engine/lanes.py hashes what a line or a lane is; a test compares the two.
create function detent.hash_of(variadic parts jsonb[]) returns uuid language sql immutable parallel safe as $$
  select md5(to_jsonb(parts)::text)::uuid
$$;

create function detent.find_or_make_environment(wanted text) returns integer language plpgsql as $$
declare
  found_id integer;
begin
  loop
    select id into found_id from detent.environments where slug = wanted;
    exit when found_id is not null;
    insert into detent.environments (slug) values (wanted) on conflict do nothing;
  end loop;
  return found_id;
end $$;

-- Finds the lane of a run, and keeps it from being removed before the run is committed; or makes it.
create function detent.hold_lane(environment integer, task text, queue text, ckey text, limits text[], version integer)
returns uuid language plpgsql as $$
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

-- Refuses what is not an option of `trigger`.
create function detent.check_options(options jsonb) returns void language plpgsql as $$
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

-- The version that the options ask for; null: any.
create function detent.pinned_version(environment integer, wanted text) returns integer language plpgsql stable as $$
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

-- The idempotency key that the options ask for, as `insert_runs` takes it: hashed already, or in words.
create function detent.key_of(options jsonb) returns jsonb language sql immutable parallel safe as $$
  select case when options ? 'idempotency_key' then jsonb_build_object(
    'key', encode(sha256(convert_to(options ->> 'idempotency_key', 'UTF8')), 'hex'), 'user_key', options ->> 'idempotency_key',
    'scope', 'global', 'key_ttl', coalesce((options ->> 'idempotency_key_ttl')::double precision, 30 * 86400))
  else options -> 'idempotency' end
$$;

-- A task's queue and ttl as its current version has them: the newest that has a live worker, else the newest.
create function detent.current_task(environment integer, task text, out queue text, out ttl double precision)
language sql stable as $$
  select tasks.queue, tasks.ttl from detent.version_tasks as tasks
  left join (
    select distinct version_id from detent.sessions
    where environment_id = environment and ended_at is null and beat_at > clock_timestamp() - interval '15 seconds'
  ) as live on live.version_id = tasks.version_id
  where tasks.environment_id = environment and tasks.task_id = task
  order by live.version_id desc nulls last, tasks.version_id desc limit 1
$$;

-- Starts a run of a task and returns its id, or that of the run which stands for its idempotency key. The payload is not checked. Options:
-- environment, queue, concurrency_key, concurrency, priority, tags, metadata, delay, ttl, max_duration (in seconds), starts_at, max_attempts,
-- machine, version, idempotency_key, idempotency_key_ttl (in seconds); and as the SDK gives them: id, idempotency, debounce.
create function detent.trigger(task text, payload json default null, options jsonb default '{}') returns text language plpgsql as $$
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
