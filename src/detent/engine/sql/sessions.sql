-- name: find_version
select id, name from detent.versions
where environment_id = %(environment)s and fingerprint = %(fingerprint)s and (%(name)s::text is null or name = %(name)s)
order by id desc limit 1

-- name: make_version
-- Names are YYYYMMDD.n; a lost race, for the name or for being the version of these tasks, is tried again by the caller.
insert into detent.versions (environment_id, name, fingerprint, machines, is_named)
select %(environment)s, coalesce(%(name)s::text, to_char(detent.now() at time zone 'utc', 'YYYYMMDD') || '.' || (
    select coalesce(max(substring(name from '^\d{8}\.(\d{1,9})$')::integer), 0) + 1 from detent.versions
    where environment_id = %(environment)s and name like to_char(detent.now() at time zone 'utc', 'YYYYMMDD') || '.%')),
  %(fingerprint)s, %(machines)s::text[], %(name)s::text is not null
on conflict do nothing
returning id, name

-- name: register_tasks
-- Locks the environment, its sessions, then its executing runs, then gates and lanes.
select detent.register_tasks(%(environment)s, %(version)s, %(tasks)s, %(limits)s)

-- name: open_session
-- Locks the environment (share): while limits change, nobody comes who could lease by the old ones.
insert into detent.sessions (id, environment_id, version_id, worker)
select %(session)s, %(environment)s, versions.id, %(worker)s
from detent.versions join detent.environments on environments.id = environment_id
where environment_id = %(environment)s and versions.name = %(version)s
for share of environments
on conflict do nothing

-- name: renew_session
-- Locks the session, then runs by id.
select what, run_id from detent.renew_session(%(environment)s, %(session)s::uuid, %(held)s, %(in_flight)s::bigint[], %(is_repeat)s)

-- name: count_solo
select count(*) from (
  select from detent.ready where environment_id = %(environment)s and is_solo limit 100
) as solo

-- name: end_session
-- Locks the session, then runs by id.
select what, run_id, status, session_id, is_watched, pause
from detent.end_session(%(session)s::uuid, %(suspects)s::uuid[], %(unanswered)s::bigint[], %(error)s, %(is_lost)s, %(beat)s::bigint)

-- name: list_sessions
select id, beat from detent.sessions where environment_id = %(environment)s and ended_at is null

-- name: list_tasks
-- Each task as its current version has it: the newest that has a live worker, else the newest.
select distinct on (t.task_id) t.task_id, t.isolation, t.file_path, t.queue, t.description, t.payload_schema, versions.name as version,
  live.version_id is not null as has_live_worker
from detent.version_tasks as t
join detent.versions on versions.id = t.version_id
left join (
  select distinct version_id from detent.sessions
  where environment_id = %(environment)s and ended_at is null and beat_at > clock_timestamp() - interval '15 seconds'
) as live on live.version_id = t.version_id
where t.environment_id = %(environment)s
order by t.task_id, live.version_id desc nulls last, t.version_id desc

-- name: find_named_version
-- The same name with other tasks: the newer registration is what the name means from here on.
update detent.versions set fingerprint = %(fingerprint)s, machines = %(machines)s::text[], is_named = true
where environment_id = %(environment)s and name = %(name)s
returning id, name
