-- The tables of detent.
-- Reason: first schema. Lock: none (everything is new). Pre: runs before the code that needs it.
--
-- A run lives in `runs` (narrow, changes) and `inputs` (wide, written once) until it is final; then both rows move to
-- `history`, partitioned by how long it is kept and when it finished (see 0007). `ready` has a row only while a run may start. Who executes a run is told by
-- `runs.session_id` and `runs.fence`. What a run waits for are `waitpoints`, joined to it by `waits`; what it has done so
-- far is its `journal`. Payloads, outputs and errors are JSON text, byte for byte as given.

-- The clock of delays, waits, retries and schedules; replaced by a movable one in tests. Liveness uses clock_timestamp().
create function detent.now() returns timestamptz language sql volatile parallel safe as $$ select clock_timestamp() $$;

create type detent.run_status as enum (
  'DELAYED', 'QUEUED', 'DEQUEUED', 'EXECUTING', 'WAITING',
  'COMPLETED', 'FAILED', 'CANCELED', 'CRASHED', 'SYSTEM_FAILURE', 'EXPIRED', 'TIMED_OUT'
);

create table detent.environments (
  id integer primary key generated always as identity,
  slug text not null unique,
  gates uuid[] not null default '{}',              -- what every run has to pass
  created_at timestamptz not null default clock_timestamp()
);

-- ---- code: versions and their tasks ---------------------------------------------------------------------------------

create table detent.versions (
  id integer primary key generated always as identity,
  environment_id integer not null references detent.environments,
  name text not null,
  fingerprint text not null,
  is_named boolean not null default false,         -- the name was given, not made
  created_at timestamptz not null default clock_timestamp(),
  unique (environment_id, name)
);
create unique index versions_once on detent.versions (environment_id, fingerprint) where not is_named;
create index versions_by_fingerprint on detent.versions (environment_id, fingerprint);

create table detent.version_tasks (
  version_id integer not null references detent.versions on delete cascade,
  environment_id integer not null,
  task_id text not null,
  isolation text not null check (isolation in ('async', 'thread', 'process')),
  file_path text not null,
  queue text not null,
  description text not null,
  max_attempts smallint not null check (max_attempts between 1 and 250),
  retry text not null,
  max_duration double precision check (max_duration > 0),
  ttl double precision check (ttl > 0),            -- seconds in the queue after which a run that never started expires
  limits text[] not null default '{}',
  on_lost text not null check (on_lost in ('restart', 'fail')),
  final_hooks text[] not null default '{}' check (final_hooks <@ '{success, failure, cancel}'),
  payload_schema text,
  output_schema text,
  primary key (version_id, task_id)
);
create index version_tasks_by_task on detent.version_tasks (environment_id, task_id, version_id desc);

-- ---- workers --------------------------------------------------------------------------------------------------------

create table detent.sessions (
  id uuid primary key,
  environment_id integer not null,
  version_id integer not null,
  worker text not null,
  beat bigint not null default 0,
  opened_at timestamptz not null default clock_timestamp(),
  beat_at timestamptz not null default clock_timestamp(),
  ended_at timestamptz
) with (fillfactor = 50);
create index sessions_open on detent.sessions (environment_id) where ended_at is null;

-- ---- flow control: limits, gates, lanes ----------------------------------------------------------------------------

-- A queue, a limit, or the environment itself: how many of its runs may hold a slot, and how many may start in a time. `base`
-- values are those declared by the newest version; an override replaces them until it is reset.
create table detent.limits (
  id uuid primary key,                             -- a hash of the next three columns
  environment_id integer not null,
  kind text not null check (kind in ('environment', 'queue', 'limit')),
  name text not null,
  is_declared boolean not null default true,       -- false: a trigger has named it, and nothing passes before code declares it
  total integer check (total >= 0),
  total_override integer check (total_override >= 0),
  total_overridden_at timestamptz,
  per_key integer check (per_key >= 0),            -- of each concurrency key; runs without one share a pool
  per_key_override integer check (per_key_override >= 0),
  per_key_overridden_at timestamptz,
  rate jsonb,                                      -- {"starts": 10, "period": 60.0, "per_key": false}
  rate_override jsonb,
  rate_overridden_at timestamptz,
  most_queued integer check (most_queued >= 0),    -- of a queue: triggers beyond it are refused
  paused_at timestamptz,
  unique (environment_id, kind, name)
);

-- What a run has to pass in order to start: one bound of a limit, for all runs or for one concurrency key. Bounds that do not
-- bound have no gate in any lane.
create table detent.gates (
  id uuid primary key,                             -- a hash of limit, scope and key
  limit_id uuid not null,
  environment_id integer not null,
  scope text not null check (scope in ('total', 'key', 'rate')),
  concurrency_key text,
  allowed integer,                                 -- slots; of a rate: starts in any window; null: any number
  taken integer not null default 0 check (taken >= 0),
  period double precision,                         -- of a rate: its window, in seconds
  starts integer[] not null default '{}',          -- of a rate: starts in the latest sub-windows, the last of which is
  latest bigint,                                   --   the one of this number
  key_allowed integer,                             -- an override for this key alone, until the next column
  key_until timestamptz,
  opens_at timestamptz                             -- when it may let runs pass although nobody gives a slot back
) with (fillfactor = 50);
create index gates_by_limit on detent.gates (limit_id);
create index gates_opening on detent.gates (opens_at) where opens_at is not null;

-- A line is the unit of order and fairness: a queue, or one concurrency key of it. A lane is a part of a line whose runs all have
-- the same constraints. Ids of lines and lanes are hashes of what they are.
create table detent.lanes (
  id uuid primary key,
  line_id uuid not null,
  environment_id integer not null,
  task_id text not null,
  queue text not null,
  concurrency_key text,
  limits text[],                                   -- named at the trigger instead of the task's
  version_id integer,                              -- its runs were begun by this version, or must be executed by it
  is_pinned boolean not null default false,        -- by no other
  base_id uuid,                                    -- the lane of such runs before they were bound to a version
  gates uuid[] not null default '{}',              -- what its runs have to pass, in order
  served_at timestamptz not null default clock_timestamp(),  -- the same in all lanes of a line
  parked_on uuid,                                  -- the gate that stops it; the nil uuid: asleep, as nothing was ready
  used_at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
create index lanes_open on detent.lanes (environment_id, task_id, served_at, line_id) where parked_on is null;
create index lanes_parked on detent.lanes (parked_on, served_at, line_id) where parked_on is not null;
create index lanes_by_line on detent.lanes (line_id);

-- Something became ready in a lane that was asleep or parked.
create table detent.arrivals (
  environment_id integer not null,
  lane_id uuid not null
);
create index arrivals_by_environment on detent.arrivals (environment_id);

-- A gate has room, and lanes are parked on it: those that were opened for the room may have no use for it.
create table detent.vacancies (
  gate_id uuid primary key,
  environment_id integer not null
);
create index vacancies_by_environment on detent.vacancies (environment_id);

-- ---- runs -----------------------------------------------------------------------------------------------------------

create table detent.runs (
  id uuid primary key,
  environment_id integer not null,
  task_id text not null,
  lane_id uuid not null,
  status detent.run_status not null check (status in ('DELAYED', 'QUEUED', 'DEQUEUED', 'EXECUTING', 'WAITING')),
  attempt smallint not null default 1,             -- the one that runs, or runs next
  max_attempts smallint,                           -- fixed at the first lease
  version_id integer,                              -- of the latest lease
  position timestamptz not null,                   -- in its line: time of queueing minus priority
  due_at timestamptz,                              -- end of a delay, of the pause before a retry, of a timer that it waits with
  expires_at timestamptz,                          -- end of its ttl, while it has never been leased
  queued_at timestamptz,
  started_at timestamptz,                          -- of the first lease
  attempt_started_at timestamptz,
  leased_at timestamptz,
  session_id uuid,                                 -- who executes it, or has it in memory while it waits
  fence bigint,
  slots uuid[],                                    -- the gates in which it holds one, while it is executed
  waits integer not null default 0,                -- how often it suspended
  losses integer not null default 0,
  losses_in_row smallint not null default 0,       -- since the last new attempt or journal entry
  parent_id uuid,
  batch_id uuid,
  batch_index integer,
  is_awaited boolean not null default false,       -- a waitpoint or a waiting batch wants its outcome
  is_watched boolean not null default false,       -- its end is announced to callers outside runs
  is_solo boolean not null default false,          -- was on the CPU when its process died: starts alone
  has_journal boolean not null default false,
  constraint held_has_holder check (status not in ('DEQUEUED', 'EXECUTING') or (session_id is not null and fence is not null)),
  constraint delayed_has_due_date check (status <> 'DELAYED' or due_at is not null)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
create index runs_by_session on detent.runs (session_id) where session_id is not null;
create index runs_due on detent.runs (due_at) where due_at is not null;
create index runs_expiring on detent.runs (expires_at) where expires_at is not null;
create index runs_by_parent on detent.runs (parent_id) where parent_id is not null;

create table detent.inputs (
  run_id uuid primary key,
  environment_id integer not null,
  created_at timestamptz not null,
  payload text,
  metadata text,
  metadata_applied jsonb,                          -- what of the present attempt's updates is in it: see 0009
  tags text[] not null,
  queue text not null,
  concurrency_key text,
  priority double precision not null,
  ttl double precision,                            -- as given; 0: never
  limits text[],                                   -- as given
  max_duration double precision,
  idempotency_key text,
  idempotency_user_key text,
  idempotency_scope text,
  root_id uuid,
  replay_of uuid,
  schedule_id uuid,
  is_test boolean not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);

create table detent.ready (
  lane_id uuid not null,
  position timestamptz not null,
  run_id uuid not null,
  environment_id integer not null,
  resident_session uuid,                           -- has the run in memory, and a head start until the next column
  resident_until timestamptz,
  is_solo boolean not null default false,
  primary key (lane_id, position, run_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index ready_resident on detent.ready (resident_session) where resident_session is not null;
create index ready_solo on detent.ready (environment_id) where is_solo;

-- Attempts that failed and were followed by another.
create table detent.attempts (
  run_id uuid not null,
  environment_id integer not null,
  number smallint not null,
  started_at timestamptz,
  finished_at timestamptz not null,
  error text not null,
  primary key (run_id, number)
);

create table detent.history (
  id uuid not null,
  environment_id integer not null,
  task_id text not null,
  status detent.run_status not null
    check (status in ('COMPLETED', 'FAILED', 'CANCELED', 'CRASHED', 'SYSTEM_FAILURE', 'EXPIRED', 'TIMED_OUT')),
  attempt smallint not null,
  max_attempts smallint,
  version_id integer,
  queued_at timestamptz,
  started_at timestamptz,
  attempt_started_at timestamptz,                  -- of the last one; null: it had not begun
  finished_at timestamptz not null,
  waits integer not null,
  losses integer not null,
  parent_id uuid,
  batch_id uuid,
  batch_index integer,
  created_at timestamptz not null,
  payload text,
  metadata text,
  tags text[] not null,
  queue text not null,
  concurrency_key text,
  priority double precision not null,
  ttl double precision,
  limits text[],
  max_duration double precision,
  idempotency_key text,
  idempotency_user_key text,
  idempotency_scope text,
  root_id uuid,
  replay_of uuid,
  schedule_id uuid,
  is_test boolean not null,
  output text,
  error text,
  keep_days integer not null default 30,           -- after it finished
  primary key (id, keep_days, finished_at),
  constraint failed_has_error check (status = 'COMPLETED' or error is not null)
) partition by list (keep_days);
create index history_by_task on detent.history (environment_id, task_id, id);

-- Runs that are final while their code still runs (cancelled or timed out): the slot is theirs until it has truly ended.
create table detent.endings (
  run_id uuid not null,
  fence bigint not null,
  environment_id integer not null,
  session_id uuid not null,
  slots uuid[],
  since timestamptz not null default clock_timestamp(),
  primary key (run_id, fence)
);
create index endings_by_session on detent.endings (session_id);

-- The delayed run that the next trigger with a debounce key joins.
create table detent.debounces (
  environment_id integer not null,
  task_id text not null,
  key text not null,
  run_id uuid not null,
  primary key (environment_id, task_id, key)
);

create table detent.idempotency_keys (
  environment_id integer not null,
  task_id text not null,
  key text not null,
  run_id uuid not null,
  expires_at timestamptz not null,
  primary key (environment_id, task_id, key)
);
create index idempotency_keys_expiring on detent.idempotency_keys (expires_at);

-- ---- waits ----------------------------------------------------------------------------------------------------------

-- What a run can wait for. The id is the run's for kind 'run', the batch's for kind 'batch'.
create table detent.waitpoints (
  id uuid primary key,
  environment_id integer not null,
  kind text not null check (kind in ('time', 'run', 'batch', 'token')),
  due_at timestamptz,                              -- of a token: its timeout
  completed_at timestamptz,
  run_status detent.run_status,
  task_id text,
  output text,
  error text,
  is_shared boolean not null default false,        -- others may wait for it, too: kept when the run that made it ends
  -- Of tokens, and of waits with an idempotency key:
  created_at timestamptz,
  tags text[],
  secret text,
  idempotency_key text,
  constraint time_has_due_date check (kind <> 'time' or due_at is not null)
);
create index waitpoints_due on detent.waitpoints (due_at) where completed_at is null and due_at is not null;

-- One name space for tokens and for waits for a moment.
create table detent.waitpoint_keys (
  environment_id integer not null,
  key text not null,
  waitpoint_id uuid not null,
  expires_at timestamptz,
  primary key (environment_id, key)
);

create table detent.waits (
  run_id uuid not null,
  operation text not null,
  waitpoint_id uuid not null,
  environment_id integer not null,
  is_done boolean not null default false,
  primary key (run_id, operation)
);
create index waits_by_waitpoint on detent.waits (waitpoint_id);

-- The operations of an attempt, each recorded once. Appended to only: the order in which the run's code was given its answers
-- is told by the entries that came after.
create table detent.journal (
  run_id uuid not null,
  attempt smallint not null,
  operation text not null,
  number bigint generated always as identity,      -- the order of recording
  environment_id integer not null,
  kind text not null,
  fingerprint text not null,
  ref uuid,                                        -- what it made: a run, a batch, a waitpoint
  is_cached boolean not null default false,
  answers integer not null default 0,              -- how many the code had been given when it asked
  seen text[],                                     -- the last of these, in order; null: in the order of recording
  output text,                                     -- of a step
  error text,
  recorded_at timestamptz not null default detent.now(),
  primary key (run_id, attempt, operation)
);

create table detent.batches (
  id uuid primary key,
  environment_id integer not null,
  parent_id uuid,
  total integer,                                   -- items expected; null until whoever gives them says so
  received int4multirange not null default '{}',   -- the indexes of the items that were given
  refused integer not null default 0,              -- items that could not be triggered: their runs were born failed
  finished integer not null default 0,             -- counted only when somebody waits
  is_awaited boolean not null,
  idempotency_user_key text,
  seal_by timestamptz,                             -- the rest is not waited for any longer
  sealed_at timestamptz,                           -- every item was given
  aborted text,
  created_at timestamptz not null default detent.now(),
  constraint sealed_is_whole check (sealed_at is null or total is not null and aborted is null)
);
create index batches_unsealed on detent.batches (seal_by) where sealed_at is null and aborted is null;

-- The outcomes of the items of an awaited batch; of an item that an idempotency key answered, also before it is final.
create table detent.batch_items (
  batch_id uuid not null,
  index integer not null,
  run_id uuid not null,
  environment_id integer not null,
  task_id text,
  run_status detent.run_status,
  output text,
  error text,
  primary key (batch_id, index)
);
create index batch_items_pending on detent.batch_items (run_id) where run_status is null;

-- ---- logs -----------------------------------------------------------------------------------------------------------

create table detent.logs (
  run_id uuid not null,
  environment_id integer not null,
  attempt smallint not null,
  place text not null,                             -- the operation that comes next where it was written
  number integer not null,                         -- among the lines of this place
  at timestamptz not null,
  level text not null,
  message text not null,
  fields text,
  keep_days integer not null default 30,
  primary key (run_id, attempt, place, number, at, keep_days)
) partition by list (keep_days);
