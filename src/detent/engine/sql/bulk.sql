-- name: create_bulk_action
select detent.create_bulk_action(%(environment)s, %(action)s::uuid, %(request)s)

-- name: reserve_bulk_action
-- Takes the oldest action that nobody is at, skipping locked ones; a process that dies with one keeps it for so many seconds.
update detent.bulk_actions set carried_until = clock_timestamp() + make_interval(secs => %(seconds)s)
from detent.environments
where bulk_actions.id = (
    select id from detent.bulk_actions
    where status = 'PENDING' and (carried_until is null or carried_until < clock_timestamp())
    order by id limit 1
    for update skip locked)
  and environments.id = bulk_actions.environment_id
returning bulk_actions.id, slug, kind, reason, last_id

-- name: carry_bulk_cancel
-- Locks the action, then the runs, level by level.
select what, run_id, status, session_id, is_watched
from detent.carry_bulk_cancel(%(action)s::uuid, %(most)s, %(error)s)

-- name: find_bulk_runs
select found.id from detent.bulk_actions as action, detent.find_bulk_runs(action, null, %(most)s) as found
where action.id = %(action)s and action.status = 'PENDING'
order by found.id

-- name: advance_bulk_action
select detent.advance_bulk_action(%(action)s::uuid, %(from)s::uuid, %(to)s::uuid, %(acted)s::uuid[], %(failure)s::integer)

-- name: complete_bulk_action
select detent.complete_bulk_action(%(action)s::uuid, %(from)s::uuid)

-- name: abort_bulk_action
-- Waits for the part that is under way.
update detent.bulk_actions set status = 'ABORTED', completed_at = detent.now()
where id = %(action)s and environment_id = %(environment)s and status = 'PENDING'

-- name: find_bulk_actions
-- Newest first by id, which rises with the time of making.
select id, kind, name, status, total, success, failure, created_at, completed_at
from detent.bulk_actions
where environment_id = %(environment)s
  and (%(ids)s::uuid[] is null or id = any(%(ids)s::uuid[]))
  and (%(before)s::uuid is null or id < %(before)s::uuid)
order by id desc
limit %(limit)s
