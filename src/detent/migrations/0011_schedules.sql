-- Schedules: when tasks run by themselves.
-- Reason: recurring runs, declared by code or made by calls. Lock: none (everything is new). Pre: before the code that needs it.
--
-- The dates of a pattern are computed outside, and written only where nobody has written others since: `next_at` and `definition` are
-- what was read. A tick makes its run and moves on to the next in one transaction, so it fires once, whoever dies when.

create table detent.schedules (
  id uuid primary key,
  environment_id integer not null references detent.environments,
  type text not null check (type in ('DECLARATIVE', 'IMPERATIVE')),
  task_id text not null,
  cron text not null,
  timezone text not null,
  spread text,                                     -- its window, as given
  overlap text not null check (overlap in ('allow', 'skip')),
  external_id text,
  deduplication_key text,
  definition integer not null default 1,           -- counts its changes
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

-- Makes the runs of ticks that are due, and moves their schedules on. A schedule that somebody else has locked, changed or moved on is
-- passed over; one that does not overlap makes no run while its last one is not over. `requests`, as `insert_runs` reads them, have the
-- places of their ticks. Returns the places of those that made a run.
create function detent.fire_schedules(environment integer, ticks json, requests json)
returns table (i integer) language plpgsql as $$
#variable_conflict use_column
declare
  taken integer[];
  fired integer[];
begin
  with locked as (
    select t.i
    from json_to_recordset(ticks) as t (i integer, schedule uuid, definition integer, at timestamptz)
    join detent.schedules on schedules.id = t.schedule
    where schedules.next_at = t.at and schedules.definition = t.definition
    order by schedules.id
    for update of schedules skip locked
  )
  select array_agg(i) into taken from locked;
  fired := array(
    select r.i
    from json_to_recordset(requests) as r (i integer, schedule uuid)
    join unnest(taken) as place on place = r.i
    join detent.schedules on schedules.id = r.schedule
    where overlap = 'allow' or not exists (select from detent.runs where runs.id = schedules.last_run_id));
  if fired <> '{}' then
    perform detent.insert_runs(environment, requests, false, false, fired);
  end if;
  update detent.schedules
  set next_at = t.next_at, due_at = t.due_at,
      last_at = case when made is null then schedules.last_at else schedules.next_at end,
      last_run_id = case when made is null then schedules.last_run_id else t.run end
  from json_to_recordset(ticks) as t (i integer, schedule uuid, run uuid, next_at timestamptz, due_at timestamptz)
  join unnest(taken) as place on place = t.i
  left join unnest(fired) as made on made = t.i
  where schedules.id = t.schedule;
  return query select unnest(fired);
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
      next_at = excluded.next_at, due_at = excluded.due_at, definition = schedules.definition + 1
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
