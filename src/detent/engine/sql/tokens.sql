-- name: create_tokens
-- Locks the runs by falling id, then idempotency keys.
select i, ref, secret, is_cached from detent.create_tokens(%(environment)s, %(requests)s)

-- name: complete_tokens
-- Locks the waitpoints by id, then who waits for them, and the runs that wake.
select what, i, run_id, session_id from detent.complete_tokens(%(environment)s, %(completions)s, %(is_repeat)s)

-- name: find_tokens
select waitpoints.id, is_timed_out, tags, created_at, due_at, completed_at, idempotency_key, held.expires_at, secret, output, error
from detent.waitpoints
left join detent.waitpoint_keys as held
  on held.environment_id = waitpoints.environment_id and held.key = idempotency_key and held.waitpoint_id = waitpoints.id
where waitpoints.id = any(%(ids)s::uuid[]) and waitpoints.environment_id = %(environment)s and kind = 'token'

-- name: list_tokens
-- Newest first by id, which rises with the time of making; without the outputs, which may be large.
select waitpoints.id, is_timed_out, tags, created_at, due_at, completed_at, idempotency_key, held.expires_at, secret,
  null::text as output, error
from detent.waitpoints
left join detent.waitpoint_keys as held
  on held.environment_id = waitpoints.environment_id and held.key = idempotency_key and held.waitpoint_id = waitpoints.id
where waitpoints.environment_id = %(environment)s and kind = 'token'
  and (%(before)s::uuid is null or waitpoints.id < %(before)s::uuid)
  and (%(statuses)s::text[] is null or
    case when completed_at is null then 'WAITING' when is_timed_out then 'TIMED_OUT' else 'COMPLETED' end = any(%(statuses)s::text[]))
  and (%(key)s::text is null or idempotency_key = %(key)s::text)
  and (%(tags)s::text[] is null or tags && %(tags)s::text[])
  and (%(after)s::timestamptz is null or created_at > %(after)s::timestamptz)
  and (%(until)s::timestamptz is null or created_at < %(until)s::timestamptz)
order by waitpoints.id desc
limit %(limit)s
