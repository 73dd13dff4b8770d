-- name: read_clock
select detent.now()

-- name: find_due_schedules
-- What the first ones that are due, or will be within some seconds, have in common; none of what is archived. Locks nothing: whoever fires
-- them looks again.
select s.slug, s.task_id, s.cron, s.timezone, s.spread, s.next_at, moment, count(*),
  extract(epoch from min(s.due_at) - moment)::double precision as pause
from (select detent.now() as moment offset 0) as clock, lateral (
  select schedules.*, environments.slug
  from detent.schedules join detent.environments on environments.id = schedules.environment_id
  where due_at <= moment + make_interval(secs => %(ahead)s) and archived_at is null
  order by due_at
  limit %(most)s
) as s
group by 1, 2, 3, 4, 5, 6, 7

-- name: fire_schedules
-- Locks schedules, passing over locked ones; then inserts runs.
select task_id, moved, fired from detent.fire_schedules(%(environment)s, %(moment)s, %(timetables)s, %(most)s)

-- name: find_current_tasks
-- The tasks of the current version: the newest that has a live worker, else the newest.
select current.name, current.is_live, array(select task_id from detent.version_tasks where version_id = current.id)
from (
  select versions.id, versions.name, live.version_id is not null as is_live
  from detent.versions
  left join (
    select distinct version_id from detent.sessions
    where environment_id = %(environment)s and ended_at is null and beat_at > clock_timestamp() - interval '15 seconds'
  ) as live on live.version_id = versions.id
  where versions.environment_id = %(environment)s
  order by is_live desc, versions.id desc
  limit 1
) as current

-- name: sync_schedules
-- Locks the declarative schedules of an environment.
select detent.sync_schedules(%(environment)s, %(version)s, %(declared)s, %(always)s)

-- name: insert_schedules
-- Makes none where the id or the deduplication key has one. In order, so that two who make the same ones do not wait crosswise.
insert into detent.schedules (
  id, environment_id, type, task_id, cron, timezone, spread, overlap, external_id, deduplication_key, next_at, due_at)
select id, %(environment)s, 'IMPERATIVE', task, cron, timezone, spread, overlap, external_id, key, next_at, due_at
from json_to_recordset(%(definitions)s) as d (
  id uuid, task text, cron text, timezone text, spread text, overlap text, external_id text, key text, next_at timestamptz,
  due_at timestamptz)
order by key, id
on conflict do nothing

-- name: find_schedules
-- Each key by itself: of a list of them PostgreSQL 15 does not see that none is null, as the index has it, or reads the whole table.
select id, type, task_id, cron, timezone, spread, overlap, external_id, deduplication_key, next_at, due_at, last_at, created_at
from detent.schedules
where environment_id = %(environment)s and id = any(array(
  select unnest(%(ids)s::uuid[])
  union all
  select named.id
  from unnest(%(keys)s::text[]) as wanted (key)
  cross join lateral (
    select id from detent.schedules where environment_id = %(environment)s and deduplication_key = wanted.key offset 0
  ) as named))
order by id

-- name: list_schedules
select id, type, task_id, cron, timezone, spread, overlap, external_id, deduplication_key, next_at, due_at, last_at, created_at
from detent.schedules
where environment_id = %(environment)s
order by id
offset %(offset)s limit %(limit)s::bigint

-- name: count_schedules
select count(*) from detent.schedules where environment_id = %(environment)s

-- name: update_schedules
-- Locks schedules by id. Their next ticks stay, unless they come at other times now. A deactivated one stays so.
update detent.schedules
set task_id = d.task, external_id = d.external_id, overlap = d.overlap,
  next_at = case
    when next_at is null or (schedules.cron, schedules.timezone, schedules.spread) is not distinct from (d.cron, d.timezone, d.spread)
    then next_at else d.following_at end,
  due_at = case
    when next_at is null or (schedules.cron, schedules.timezone, schedules.spread) is not distinct from (d.cron, d.timezone, d.spread)
    then due_at else d.following_due_at end,
  cron = d.cron, timezone = d.timezone, spread = d.spread
from (
  select given.id, task, given.cron, given.timezone, given.spread, given.overlap, given.external_id, given.next_at as following_at,
    given.due_at as following_due_at
  from (
    select * from json_to_recordset(%(definitions)s) as each (
      id uuid, task text, cron text, timezone text, spread text, overlap text, external_id text, next_at timestamptz,
      due_at timestamptz)
    order by id
  ) as given
  cross join lateral (
    select from detent.schedules where id = given.id and environment_id = %(environment)s and type = 'IMPERATIVE' for update
  ) as held
) as d
-- By key, whatever is guessed of how many there are.
where schedules.id = d.id and schedules.id = any(array(select id from json_to_recordset(%(definitions)s) as each (id uuid)))

-- name: set_next_tick
-- Activates, with the next tick; or deactivates, with none. One that is active already keeps its own.
update detent.schedules
set next_at = %(next_at)s::timestamptz, due_at = %(due_at)s::timestamptz
where id = %(id)s and environment_id = %(environment)s and type = 'IMPERATIVE'
  and (next_at is null) <> (%(next_at)s::timestamptz is null)

-- name: delete_schedule
delete from detent.schedules where id = %(id)s and environment_id = %(environment)s and type = 'IMPERATIVE'
