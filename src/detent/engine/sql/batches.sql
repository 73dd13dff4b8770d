-- name: create_batch
-- Locks the parent, then the key.
select what, batch_id, expected, is_sealed, opens
from detent.create_batch(
  %(environment)s, %(batch)s::uuid, %(total)s::integer, %(key)s::text, %(user_key)s::text, %(key_ttl)s::double precision,
  %(parent)s::uuid, %(fence)s::bigint, %(operation)s::text, %(fingerprint)s::text, %(waits)s::boolean,
  %(suspends)s::boolean, %(answers)s::integer, %(seen)s::text[])

-- name: trigger_batch
-- Locks the parent, then the batch, the older runs that stand for items, the waitpoint, the runs that wake.
select what, i, run_id, session_id, facts
from detent.trigger_batch(
  %(environment)s, %(batch)s::uuid, %(requests)s, %(has_keys)s, %(indexes)s::integer[], %(refused)s::integer[], %(errors)s::text[],
  %(total)s::integer, %(parent)s::uuid, %(fence)s::bigint, %(operation)s::text, %(fingerprint)s::text, %(waits)s::boolean,
  %(suspends)s::boolean, %(answers)s::integer, %(seen)s::text[])

-- name: abort_batch
-- Locks the batch, then its waitpoint and the runs that wake.
select what, run_id, status, session_id, is_watched
from detent.abort_batch(%(environment)s, %(batch)s::uuid, %(reason)s)

-- name: abort_late_batches
-- Locks batches, skipping locked ones, then their waitpoints and the runs that wake.
select what, run_id, status, session_id, is_watched, environment_id from detent.abort_late_batches(%(most)s)

-- name: find_batches
-- `firsts` and `lasts` bound the ids of each batch's own runs.
select batches.id, total, refused, idempotency_user_key, sealed_at, aborted, created_at,
  array(select lower(part) from unnest(received) as part order by 1) as froms,
  array(select upper(part) from unnest(received) as part order by 1) as tos,
  (select json_object_agg(index, run_id) from detent.batch_cached where batch_id = batches.id) as cached,
  runs.counts, runs.finished_at
from unnest(%(ids)s::uuid[], %(firsts)s::uuid[], %(lasts)s::uuid[]) as wanted (id, first, last)
join detent.batches using (id)
cross join lateral (
  select json_object_agg(status, number) as counts, max(finished_at) as finished_at
  from (
    select status, count(*) as number, max(finished_at) as finished_at
    from (
      select status, null::timestamptz as finished_at from detent.runs
      where runs.id between first and last and runs.batch_id = batches.id
      union all
      select status, finished_at from detent.history
      where history.id between first and last and finished_at >= detent.made_at(batches.id) and history.batch_id = batches.id
      union all
      select status, null from detent.batch_cached join detent.runs on runs.id = run_id where batch_cached.batch_id = batches.id
      union all
      select status, finished_at from detent.batch_cached join detent.history on history.id = run_id
      where batch_cached.batch_id = batches.id
    ) as run
    group by status
  ) as counted
) as runs
where environment_id = %(environment)s

-- name: find_refused_items
-- The first of a batch, in the order of its items.
select batch_id, batch_index, id, task_id, error
from unnest(%(ids)s::uuid[], %(firsts)s::uuid[], %(lasts)s::uuid[]) as wanted (batch, first, last)
cross join lateral (
  select * from detent.history
  where history.id between first and last and finished_at >= detent.made_at(batch) and batch_id = batch
    and status = 'SYSTEM_FAILURE' and error::json ->> 'code' = %(code)s
  order by history.id
  limit %(limit)s
) as item

-- name: read_batch_results
select index, run_id, task_id, run_status, output, error from detent.batch_items
where batch_id = %(batch)s and index > %(after)s
order by index
limit %(limit)s
