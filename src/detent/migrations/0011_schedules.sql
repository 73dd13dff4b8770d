-- Schedules: when tasks run by themselves.
-- Reason: recurring runs, declared by code or made by calls. Lock: none (everything is new). Pre: before the code that needs it.
--
-- The dates of a pattern are computed outside, once for all schedules that share it, and hold only for those that still stand at the tick that
-- was read. A tick makes its run and moves on to the next in one transaction, so it fires once, whoever dies when.

create table detent.schedules (
  id uuid primary key,
  label text generated always as (detent.public_id('sched', id)) stored,    -- its id as others see it; a third of a tick to compute
  environment_id integer not null references detent.environments,
  type text not null check (type in ('DECLARATIVE', 'IMPERATIVE')),
  task_id text not null,
  cron text not null,
  timezone text not null,
  spread text,                                     -- its window, as given
  overlap text not null check (overlap in ('allow', 'skip')),
  external_id text,
  deduplication_key text,
  next_at timestamptz,                             -- the next tick; null: deactivated
  due_at timestamptz,                              -- when that fires: later, where there is a window
  last_at timestamptz,                             -- the tick that fired last
  last_run_id uuid,
  created_at timestamptz not null default detent.now(),
  constraint due_is_not_before_its_tick check (due_at >= next_at),
  constraint tick_has_due_date check ((next_at is null) = (due_at is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);
create unique index schedules_declared on detent.schedules (environment_id, task_id) where type = 'DECLARATIVE';
create unique index schedules_by_key on detent.schedules (environment_id, deduplication_key) where deduplication_key is not null;
create index schedules_due on detent.schedules (due_at) where due_at is not null;
create index schedules_by_environment on detent.schedules (environment_id, id);

-- The id of the run that a schedule makes for a tick: the same at every try, and of the tick's time.
create function detent.scheduled_run_id(schedule uuid, tick timestamptz) returns uuid language sql immutable parallel safe as $$
  select (lpad(to_hex(milliseconds), 12, '0') || '7' || substr(digest, 1, 3) || '8' || substr(digest, 4, 15))::uuid
  from (select (extract(epoch from tick) * 1000)::bigint as milliseconds) as moment,
    lateral (select encode(sha256(uuid_send(schedule) || int8send(milliseconds)), 'hex') as digest) as hashed
$$;

-- Where in its window a schedule fires, from 0 up to 1: as `phase` in detent/engine/ticks.py; a test compares the two.
create function detent.phase(schedule uuid) returns double precision language sql immutable parallel safe as $$
  select ('x' || left(encode(sha256(convert_to('window', 'UTF8') || uuid_send(schedule)), 'hex'), 8))::bit(32)::bigint / 4294967296.0
$$;

-- Makes the runs of schedules that were due at a moment, and moves them on; at most so many. `timetables` are what `timetable_fields` in
-- detent/engine/ticks.py makes of those schedules that share a task, a pattern and a tick: their next tick, which may depend on where in its
-- window a schedule is, and what their runs have in common, if they make any. A schedule that somebody else has locked is passed over; one
-- that does not overlap makes no run while its last one is not over. Returns for each task how many were moved on, and how many made a run.
create function detent.fire_schedules(environment integer, moment timestamptz, timetables json, most integer)
returns table (task_id text, moved bigint, fired bigint) language plpgsql as $$
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

-- Makes the declarative schedules of an environment those that its code declares. One that has not changed keeps its next tick. A version
-- declares nothing while a newer one has a live worker, unless `always`: it is on its way out.
create function detent.sync_schedules(environment integer, version integer, declared json, always boolean) returns void language plpgsql as $$
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

-- As in 0002: looked up by key in tables of any size. What comes as JSON is hashed: comparing each with each costs more.
do $$
declare
  name text;
begin
  foreach name in array array['fire_schedules', 'sync_schedules'] loop
    execute format('alter function detent.%I set enable_mergejoin = off', name);
    execute format('alter function detent.%I set enable_seqscan = off', name);
    execute format('alter function detent.%I set plan_cache_mode = force_generic_plan', name);
  end loop;
end $$;
