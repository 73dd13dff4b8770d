-- Tokens, which somebody completes from anywhere, and the idempotency keys of tokens and of waits for a moment.
-- Reason: waits for people and other systems. Lock: short ones on `waitpoints`. Pre: before the code that needs it.

alter table detent.waitpoints add column is_timed_out boolean not null default false;
create index waitpoints_tokens on detent.waitpoints (environment_id, id) where kind = 'token';
create index waitpoints_by_key on detent.waitpoints (environment_id, idempotency_key) where idempotency_key is not null;
create index waitpoint_keys_expiring on detent.waitpoint_keys (expires_at) where expires_at is not null;

-- What a token comes to that nobody completed in time.
create function detent.token_timeout(due timestamptz) returns text language sql stable parallel safe as $$
  select json_build_object(
    'type', 'INTERNAL_ERROR', 'code', 'TOKEN_TIMED_OUT', 'name', 'WaitTimeoutError',
    'message', 'nobody completed the token before ' || to_char(due at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    'stackTrace', '')::text
$$;

-- Gives each key to the first wanted request that names it, unless it is held and has not expired. Returns the requests, each
-- wanted one with what its key stands for (`ref`) and what kind of thing that is (`holder`). What a key stands for is made in the
-- transaction that claims it: whoever finds the key held finds that, too, or is about to make it.
create function detent.claim_waitpoint_keys(environment integer, requests json, wanted integer[])
returns json language plpgsql as $$
declare
  moment timestamptz := detent.now();
begin
  insert into detent.waitpoint_keys (environment_id, key, waitpoint_id, expires_at)
  select distinct on (r.key) environment, r.key, r.id, moment + make_interval(secs => r.key_ttl)
  from json_to_recordset(requests) as r (i integer, id uuid, key text, key_ttl double precision)
  where r.i = any(wanted)
  order by r.key, r.i
  on conflict do nothing;

  update detent.waitpoint_keys as held set waitpoint_id = r.id, expires_at = moment + make_interval(secs => r.key_ttl)
  from (
    select distinct on (key) *
    from json_to_recordset(requests) as r (i integer, id uuid, key text, key_ttl double precision)
    where i = any(wanted)
    order by key, i
  ) as r
  where held.environment_id = environment and held.key = r.key and held.waitpoint_id <> r.id and held.expires_at <= moment;

  return (
    select json_agg(
      case when held.key is null then request
        else request || jsonb_build_object('ref', held.waitpoint_id, 'holder', coalesce(waitpoints.kind, request ->> 'kind')) end)
    from jsonb_array_elements(requests::jsonb) as request
    left join detent.waitpoint_keys as held
      on held.environment_id = environment and held.key = request ->> 'key' and (request ->> 'i')::integer = any(wanted)
    left join detent.waitpoints on waitpoints.id = held.waitpoint_id);
end $$;

-- Makes tokens; those of runs are recorded in the journals, with their secrets. An operation recorded before is answered as
-- then, a stale one not at all, and one whose key a wait for a moment holds with no `ref`.
create function detent.create_tokens(environment integer, requests json)
returns table (i integer, ref uuid, secret text, is_cached boolean) language plpgsql as $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
  fresh integer[];
  keyed integer[];
begin
  perform from detent.runs
  where id in (select r.parent from json_to_recordset(requests) as r (parent uuid)) order by id desc for update;

  select coalesce(array_agg(r.i), '{}'), coalesce(array_agg(r.i) filter (where r.key is not null), '{}') into fresh, keyed
  from json_to_recordset(requests) as r (i integer, parent uuid, fence bigint, operation text, key text)
  left join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
  left join detent.journal on journal.run_id = parent.id and journal.attempt = parent.attempt and journal.operation = r.operation
  where (r.parent is null or parent.id is not null) and journal.run_id is null;
  if keyed <> '{}' then
    requests := detent.claim_waitpoint_keys(environment, requests, keyed);
  end if;

  insert into detent.waitpoints (
    id, environment_id, kind, due_at, completed_at, is_timed_out, error, is_shared, created_at, tags, secret, idempotency_key)
  select r.id, environment, 'token', r.due, case when r.due <= moment then moment end, coalesce(r.due <= moment, false),
    case when r.due <= moment then detent.token_timeout(r.due) end, true, moment, coalesce(r.tags, '{}'), r.secret, r.key
  from (
    select *, coalesce(due_at, moment + make_interval(secs => delay)) as due
    from json_to_recordset(requests) as r (
      i integer, id uuid, ref uuid, delay double precision, due_at timestamptz, tags text[], secret text, key text)
  ) as r
  where r.i = any(fresh) and coalesce(r.ref, r.id) = r.id
  order by r.id
  on conflict do nothing;

  with entry as (
    insert into detent.journal (run_id, attempt, operation, environment_id, kind, fingerprint, ref, is_cached, answers, seen, output)
    select r.parent, parent.attempt, r.operation, environment, 'new_token', 'new_token', waitpoints.id, waitpoints.id <> r.id,
      r.answers, r.seen, waitpoints.secret
    from json_to_recordset(requests) as r (
      i integer, id uuid, ref uuid, holder text, parent uuid, operation text, answers integer, seen text[])
    join detent.runs as parent on parent.id = r.parent
    join detent.waitpoints on waitpoints.id = coalesce(r.ref, r.id)
    where r.i = any(fresh) and coalesce(r.holder, 'token') = 'token'
    order by r.i
    returning run_id
  )
  update detent.runs set has_journal = true, losses_in_row = 0
  where id in (select entry.run_id from entry) and not (has_journal and losses_in_row = 0);

  return query
  select r.i, waitpoints.id, waitpoints.secret, coalesce(journal.is_cached, waitpoints.id <> r.id)
  from json_to_recordset(requests) as r (
    i integer, id uuid, ref uuid, holder text, parent uuid, fence bigint, operation text)
  left join detent.runs as parent on parent.id = r.parent and parent.fence = r.fence
  left join detent.journal on journal.run_id = parent.id and journal.attempt = parent.attempt and journal.operation = r.operation
  left join detent.waitpoints
    on waitpoints.id = coalesce(journal.ref, r.ref, r.id) and coalesce(r.holder, 'token') = 'token'
  where r.parent is null or parent.id is not null
  order by r.i;
end $$;

-- Completes tokens, the first time only, and wakes who waits for them. Returns a row for each that is a token ('first' or 'late'),
-- and one for each run that woke. `is_repeat`: an earlier call may have been committed; what it did is answered as done.
create function detent.complete_tokens(environment integer, completions json, is_repeat boolean)
returns table (what text, i integer, run_id uuid, session_id uuid) language plpgsql as $$
#variable_conflict use_column
declare
  completed uuid[];
  firsts integer[];
begin
  perform from detent.waitpoints
  where id in (select c.id from json_to_recordset(completions) as c (id uuid)) order by id for update;

  with done as (
    update detent.waitpoints set completed_at = detent.now(), output = c.output, error = c.error
    from (
      select distinct on (id) *
      from json_to_recordset(completions) as c (i integer, id uuid, output text, error text) order by id, i
    ) as c
    where waitpoints.id = c.id and environment_id = environment and kind = 'token' and completed_at is null
    returning waitpoints.id, c.i
  )
  select array_agg(id), array_agg(done.i) into completed, firsts from done;

  return query
  select
    case when c.i = any(firsts)
      or is_repeat and (waitpoints.output, waitpoints.error) is not distinct from (c.output, c.error) then 'first' else 'late' end,
    c.i, null::uuid, null::uuid
  from json_to_recordset(completions) as c (i integer, id uuid, output text, error text)
  join detent.waitpoints on waitpoints.id = c.id
  where environment_id = environment and kind = 'token';

  if completed is not null then
    return query select 'woken', null::integer, woken.run_id, woken.session_id from detent.wake_waiters(completed) as woken;
  end if;
end $$;

-- As in 0002: some rows by key, in tables of any size.
do $$
declare
  name text;
begin
  foreach name in array array['create_tokens', 'complete_tokens'] loop
    execute format('alter function detent.%I set enable_hashjoin = off', name);
    execute format('alter function detent.%I set enable_mergejoin = off', name);
    execute format('alter function detent.%I set enable_seqscan = off', name);
    execute format('alter function detent.%I set plan_cache_mode = force_generic_plan', name);
  end loop;
end $$;
