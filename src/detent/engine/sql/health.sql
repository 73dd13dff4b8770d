-- name: examine_server
-- Asks for nothing that is detent's own: it is asked before the schema is there.
select
  current_setting('server_version'), current_user::text, current_setting('transaction_read_only') = 'on',
  to_regnamespace('detent') is not null or has_database_privilege(current_database(), 'create'),
  array(
    select relname::text from pg_class
    where relnamespace = to_regnamespace('detent') and relkind in ('r', 'p')
      and not (
        has_schema_privilege(relnamespace, 'usage') and has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert')
        and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete'))
    order by relname),
  array(
    select distinct pg_get_userbyid(relowner)::text from pg_class
    where relnamespace = to_regnamespace('detent') and relkind = 'p' and not pg_has_role(relowner, 'usage')),
  extract(epoch from clock_timestamp())::double precision

-- name: find_workers
select worker, versions.name, count(*), extract(epoch from clock_timestamp() - max(beat_at))::double precision,
  max(beat_at) > clock_timestamp() - interval '15 seconds'
from detent.sessions join detent.versions on versions.id = version_id
where sessions.environment_id = %(environment)s and ended_at is null
group by worker, versions.name
order by worker, versions.name

-- name: find_tasks_without_worker
with pending as (
  select task_id, count(*) as n from detent.runs where environment_id = %(environment)s group by task_id
), served as (
  select distinct task_id
  from detent.sessions join detent.version_tasks using (version_id)
  where sessions.environment_id = %(environment)s and ended_at is null and beat_at > clock_timestamp() - interval '15 seconds'
)
select task_id, n from pending
where task_id not in (select task_id from served)
order by n desc, task_id

-- name: find_paused
select kind, name, paused_at from detent.limits
where environment_id = %(environment)s and paused_at is not null
order by kind, name

-- name: find_undeclared
-- Those that stop a run. A task that nobody has registered has an undeclared queue of its own, and is told of as a task.
select limits.kind, limits.name, count(*)
from detent.limits
join detent.lanes on lanes.environment_id = limits.environment_id
  and case limits.kind
    when 'queue' then lanes.queue = limits.name and limits.name <> 'task/' || lanes.task_id
    else exists (select from detent.limits_of(lanes) as held where held.id = limits.id) end
join detent.ready on ready.lane_id = lanes.id
where limits.environment_id = %(environment)s and not limits.is_declared
group by limits.kind, limits.name
order by limits.kind, limits.name

-- name: find_late_runs
-- Both: one that has waited for a month resumes at its old position, and a priority moves a position back.
select runs.id, runs.task_id, runs.queued_at, count(*) over ()
from detent.ready join detent.runs on runs.id = ready.run_id
where ready.environment_id = %(environment)s
  and ready.position < detent.now() - make_interval(secs => %(seconds)s)
  and runs.queued_at < detent.now() - make_interval(secs => %(seconds)s)
order by ready.position, runs.id
limit %(most)s

-- name: find_shelves_behind
-- Of the shelves on which runs of this environment are put when they end.
with kept as (
  select keep_days from detent.retention_rules where environment_id = %(environment)s and keep_days > 0
  union
  select 30 where not exists (select from detent.retention_rules where environment_id = %(environment)s)
)
select parent || '_' || keep_days
from detent.partitions join kept using (keep_days)
group by parent, keep_days
having coalesce(max(ends_at), '-infinity') < detent.now()
order by parent, keep_days

-- name: find_overdue_partitions
select name from detent.partitions
where due_at < detent.now() - make_interval(secs => %(seconds)s)
order by name
