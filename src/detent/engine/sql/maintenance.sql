-- name: tick
-- Takes due rows with skip locked; wakes runs by id.
select what, run_id, session_id, environment_id, next_due from detent.tick(%(most)s)

-- name: make_partitions
select detent.make_partitions(%(days)s)

-- name: forget_expired
-- What nobody can ask for any more: expired idempotency keys, sessions long ended, shared waitpoints of long ago.
with key as (
  delete from detent.idempotency_keys where expires_at < detent.now() - interval '1 day'
), session as (
  delete from detent.sessions where ended_at < clock_timestamp() - interval '1 day'
)
delete from detent.waitpoints
where is_shared and completed_at < detent.now() - interval '60 days'

-- name: notify
select pg_notify(%(channel)s, %(notice)s)
