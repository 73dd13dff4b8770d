-- name: make_lanes
-- In a transaction of its own, before the first run of a lane: no trigger waits for another's open transaction. Locks the environment (share).
select detent.make_lanes(%(environment)s, %(lanes)s)

-- name: change_limit
-- Locks the environment, its sessions, then its executing runs, then gates and lanes.
select detent.change_limit(
  %(environment)s, %(limit)s::uuid, %(change)s, %(total)s, %(per_key)s, %(rate)s, %(key)s,
  detent.now() + make_interval(secs => %(ttl)s))

-- name: make_environment_limit
insert into detent.limits (id, environment_id, kind, name)
values (detent.limit_id(%(environment)s, 'environment', ''), %(environment)s, 'environment', '')
on conflict do nothing

-- name: find_limits
-- With live counts: of the runs that are executed, and of those that are ready. A queue's are those of its lanes; a limit's those of the
-- lanes whose runs hold it.
with wanted as (
  select * from detent.limits
  where environment_id = %(environment)s and kind = %(kind)s
    and (%(ids)s::uuid[] is null or id = any(%(ids)s::uuid[]))
  order by name
  limit %(limit)s offset %(offset)s
), lane as materialized (
  select wanted.id as limit_id, lanes.id from wanted join detent.lanes on lanes.environment_id = wanted.environment_id
  where case wanted.kind
    when 'queue' then lanes.queue = wanted.name
    when 'limit' then exists (select from detent.limits_of(lanes) as held where held.id = wanted.id)
    else true end
), running as (
  select lane.limit_id, count(*) as n
  from detent.runs join lane on lane.id = runs.lane_id
  where runs.session_id is not null and runs.environment_id = %(environment)s and runs.status in ('DEQUEUED', 'EXECUTING')
  group by lane.limit_id
), ready as (
  select lane.limit_id, count(*) as n from lane join detent.ready on ready.lane_id = lane.id group by lane.limit_id
), key as (
  select limit_id, json_agg(json_build_array(concurrency_key, key_allowed, extract(epoch from key_until)) order by concurrency_key) as overrides
  from detent.gates where limit_id in (select id from wanted) and key_until > detent.now()
  group by limit_id
)
select wanted.id, name, total, total_override, total_overridden_at, per_key, per_key_override, per_key_overridden_at,
  rate, rate_override, rate_overridden_at, most_queued, paused_at, coalesce(running.n, 0), coalesce(ready.n, 0), key.overrides
from wanted
left join running on running.limit_id = wanted.id
left join ready on ready.limit_id = wanted.id
left join key on key.limit_id = wanted.id
order by name

-- name: count_limits
select count(*) from detent.limits where environment_id = %(environment)s and kind = %(kind)s

-- name: find_obstacles
-- The gates that runs have to pass and cannot, with a few of the runs that hold their slots.
select
  runs.id, limits.kind, limits.name, gate.scope, gate.concurrency_key, gate.allowed, gate.taken, gate.period, gate.opens_at,
  limits.paused_at, limits.is_declared,
  array(
    select holder.id from detent.runs as holder
    where holder.session_id is not null and holder.slots @> array[gate.id] and holder.status in ('DEQUEUED', 'EXECUTING')
    union all
    select run_id from detent.endings where endings.environment_id = runs.environment_id and endings.slots @> array[gate.id]
    limit 5)
from detent.runs
join detent.lanes on lanes.id = runs.lane_id
join detent.environments on environments.id = runs.environment_id
join detent.gates as gate on gate.id = any(lanes.gates || environments.gates)
join detent.limits on limits.id = gate.limit_id
where runs.id = any(%(ids)s::uuid[]) and detent.room_of(gate, detent.now()) <= 0
order by runs.id, limits.kind, limits.name, gate.scope

-- name: find_miscounted
-- Gates whose counter is not what the runs say, in one snapshot: there are none unless the engine is wrong.
select environments.id, array_agg(gates.limit_id)
from detent.environments
join detent.gates on gates.environment_id = environments.id
left join detent.held_slots(environments.id) as held on held.gate_id = gates.id
where gates.taken <> coalesce(held.n, 0)
group by environments.id

-- name: recount_slots
-- Locks as `change_limit` does.
select detent.hold_leases(%(environment)s), detent.apply_limits(%(environment)s, %(limits)s::uuid[], '{}')
