-- How long what is over is kept: rules by task and status, and partitions that go as a whole.
-- Reason: tables of finished runs would grow for ever. Lock: none (the tables it completes are empty). Pre.
--
-- `history` and `logs` are partitioned by how many days a row is kept. Rows kept equally long stand on one *shelf*, partitioned by
-- time, at most some thirty periods of it: a day each up to 30 days, more beyond. A period is dropped as a whole, when its last row
-- was kept as long as it should be. Shelf 0 (`_ever`) is kept for ever. Shelf -1 (`_held`) is for the few rows that something longer-lived
-- still needs when their period goes: past children of a live parent, lines of a run that is still there. Rows that came when their
-- period had no partition stand in the shelf's `_rest`. Rows in `_held` and `_rest` are deleted, some at a time.
--
-- Whoever reads or writes history locks every partition for a moment, so a statement that waits for such a lock in earnest would
-- stop them all. Here nobody waits for one longer than 50 ms; the caller tries again later.

create table detent.retention_rules (
  environment_id integer not null,
  task_id text not null,                           -- '': of every task
  status text not null,                            -- '': with every status
  keep_days integer not null check (keep_days >= 0),  -- 0: for ever
  primary key (environment_id, task_id, status)
);

-- The most specific rule: task and status, task, status, neither. One row, and inlined where it is joined.
create function detent.days_kept(environment integer, task text, final text) returns table (keep_days integer)
language sql stable parallel safe as $$
  select coalesce((
    select rule.keep_days from detent.retention_rules as rule
    where rule.environment_id = environment and rule.task_id in (task, '') and rule.status in (final, '')
    order by rule.task_id desc, rule.status desc
    limit 1), 30)
$$;

-- The most days that a run of an environment may be kept after its end; null is for ever.
create function detent.longest_kept(environment integer) returns integer language sql stable parallel safe as $$
  select case when bool_or(keep_days = 0) then null else coalesce(max(keep_days), 30) end
  from detent.retention_rules where environment_id = environment
$$;

create table detent.history_ever partition of detent.history for values in (0);
create table detent.history_held partition of detent.history for values in (-1);
create table detent.logs_ever partition of detent.logs for values in (0);
create table detent.logs_held partition of detent.logs for values in (-1);

create function detent.period_days(keep_days integer) returns integer language sql immutable parallel safe as
$$ select greatest(1, ceil(keep_days / 30.0)::integer) $$;

-- The periods of a shelf from the present one to the one `ahead` days from now.
create function detent.periods(keep_days integer, ahead integer)
returns table (starts_at timestamptz, ends_at timestamptz) language sql volatile as $$
  select (date '1970-01-01' + day)::timestamp at time zone 'utc', (date '1970-01-01' + day + width)::timestamp at time zone 'utc'
  from (select detent.period_days(keep_days) as width, floor(extract(epoch from detent.now()) / 86400)::integer as today) as unit
  cross join generate_series(today / width * width, today + ahead, width) as day
$$;

-- The partitions that hold rows, those of a period with the moment from which they may go.
create view detent.partitions as
select pg_class.oid, relname::text as name, part[1] as parent, starts_at, ends_at, keep_days,
  ends_at + make_interval(days => keep_days) as due_at
from pg_class
cross join lateral regexp_match(relname::text, '^(history|logs)_(?:(ever)|(held)|(\d+)_(?:rest|(\d{8})))$') as part
cross join lateral (
  select case when part[2] is not null then 0 when part[3] is not null then -1 else part[4]::integer end as keep_days,
    to_date(part[5], 'YYYYMMDD')::timestamp at time zone 'utc' as starts_at
) as shelf
cross join lateral (
  select starts_at + make_interval(days => detent.period_days(keep_days)) as ends_at
) as period
where relnamespace = 'detent'::regnamespace and relkind = 'r' and part is not null;

-- Makes the next missing partition of the present or a coming period: of one shelf, or of all that a rule names. Says 'made', or 'busy' where
-- somebody's lock stood in the way, or nothing where nothing is missing.
create function detent.make_partition(ahead integer, of_shelf text default null) returns text language plpgsql
set lock_timeout = '50ms' as $$
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
end $$;

-- Makes the shelf for rows that are kept so many days, and its partitions up to `ahead` days from now (null: none). A new one is complete
-- before it is attached, which locks out nobody who reads or writes.
create function detent.make_shelf(keep_days integer, ahead integer) returns void language plpgsql as $$
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

-- Replaces the rules of an environment. Runs that are over stay on the shelf they were put on.
create function detent.set_retention(environment integer, rules json, ahead integer) returns void language plpgsql as $$
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

-- Says whether the partition is gone; if not, somebody's lock stood in the way.
create function detent.drop_partition(name text) returns boolean language plpgsql set lock_timeout = '50ms' as $$
begin
  perform pg_advisory_xact_lock(hashtext('detent.retention'));
  execute format('drop table if exists detent.%I', name);
  return true;
exception when lock_not_available then
  return false;
end $$;

-- Deletes rows that no period takes along, at most `most` of each partition: what is old enough in the rests, and what nothing needs any more of
-- what is held. Returns how many.
create function detent.forget_past(most integer) returns bigint language plpgsql as $$
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
end $$;

select detent.make_shelf(30, null);
