-- name: tick
-- Takes due rows with skip locked; wakes runs by id.
select what, run_id, status, session_id, is_watched, environment_id, extract(epoch from next_due - detent.now())::double precision as pause
from detent.tick(%(most)s)

-- name: forget_expired
-- What nobody can ask for any more: expired idempotency keys, sessions long ended, batches older than any run of theirs that is kept,
-- and that nobody waits for (what remembers that their items were given), bulk actions as old as that, final hooks that no worker called, tokens and shared waitpoints completed as
-- long ago as runs are kept, that no key stands for.
with key as (
  delete from detent.idempotency_keys where expires_at < detent.now() - interval '1 day'
), waitpoint_key as (
  delete from detent.waitpoint_keys where expires_at < detent.now() - interval '1 day'
), debounce as (
  delete from detent.debounces
  where not exists (select from detent.runs where runs.id = debounces.run_id and status = 'DELAYED')
), session as (
  delete from detent.sessions where ended_at < clock_timestamp() - interval '1 day'
), batch as (
  delete from detent.batches
  where not is_awaited and created_at < detent.now() - make_interval(days => detent.longest_kept(environment_id))
    and not exists (select from detent.runs where runs.id = batches.parent_id)
    and not exists (select from detent.runs where runs.batch_id = batches.id)
  returning id
), batch_cached as (
  delete from detent.batch_cached where batch_id in (select id from batch)
), bulk_action as (
  delete from detent.bulk_actions where completed_at < detent.now() - make_interval(days => detent.longest_kept(environment_id))
), hooks as (
  delete from detent.final_hooks
  where session_id is null and finished_at < detent.now() - make_interval(days => detent.longest_kept(environment_id))
), batch_key as (
  delete from detent.batch_keys where expires_at < detent.now() - interval '1 day'
)
delete from detent.waitpoints
where is_shared
  and completed_at < detent.now() - (
    select make_interval(days => nullif(keep_days, 0)) from detent.days_kept(waitpoints.environment_id, '', ''))
  and not exists (select from detent.journal where journal.ref = waitpoints.id)
  and not exists (
    select from detent.waitpoint_keys as held
    where held.environment_id = waitpoints.environment_id and held.key = waitpoints.idempotency_key and held.waitpoint_id = waitpoints.id)

-- name: rest_lanes
-- Locks lanes, and passes over locked ones.
select detent.rest_lanes()

-- name: notify
select pg_notify(%(channel)s, %(notice)s)
