-- name: set_retention
-- Locks the rules of an environment. A shelf that is not there is made and attached, which nobody who reads or writes waits for.
select detent.set_retention(%(environment)s, %(rules)s, %(ahead)s)

-- name: find_retention_rules
select task_id, status, keep_days from detent.retention_rules where environment_id = %(environment)s order by task_id, status

-- name: find_partitions
select name, keep_days, starts_at, ends_at, due_at, greatest(reltuples, 0)::bigint, pg_total_relation_size(partitions.oid)
from detent.partitions join pg_class on pg_class.oid = partitions.oid
order by parent, keep_days, starts_at nulls first

-- name: make_partition
-- Locks the shelf against other changes, and its rest against everybody, for which it waits 50 ms at most.
select detent.make_partition(%(ahead)s)

-- name: find_due_partitions
select name, keep_days, starts_at, ends_at from detent.partitions
where parent = %(parent)s and due_at <= detent.now()
order by due_at, name

-- name: clear_history
-- Prepares the next runs of a period that is about to go: children of a live parent are held, for it may ask for them again; attempts
-- go. Returns how far it came.
with past as materialized (
  select id, finished_at, attempt, parent_id from detent.history
  where keep_days = %(keep_days)s and finished_at >= %(starts_at)s and finished_at < %(ends_at)s and id > %(after)s
  order by id
  limit %(most)s
), held as (
  update detent.history set keep_days = -1
  from past join detent.runs on runs.id = past.parent_id
  where history.keep_days = %(keep_days)s and history.finished_at >= %(starts_at)s and history.finished_at < %(ends_at)s
    and history.id = past.id and history.finished_at = past.finished_at
), attempt as (
  delete from detent.attempts using past
  where attempts.run_id = past.id and past.attempt > 1
    and not exists (select from detent.runs where runs.id = past.parent_id)
)
select id from past order by id desc limit 1

-- name: clear_logs
-- Prepares the lines of the next runs of a period that is about to go: those of a run that is still there move to where it stands. It may
-- have finished after the period, and then its own shelf would let go of them too early. Returns how far it came.
with run as materialized (
  select distinct run_id as id from detent.logs
  where keep_days = %(keep_days)s and at >= %(starts_at)s and at < %(ends_at)s and run_id > %(after)s
  order by 1
  limit %(most)s
), kept as (
  select run.id, -1 as keep_days from run join detent.runs using (id)
  union all
  select run.id, case when past.keep_days = 0 or past.keep_days > %(keep_days)s then past.keep_days else -1 end
  from run join detent.history as past on past.id = run.id and past.finished_at >= %(starts_at)s - interval '1 day'
), moved as (
  update detent.logs set keep_days = kept.keep_days from kept
  where logs.keep_days = %(keep_days)s and at >= %(starts_at)s and at < %(ends_at)s and run_id = kept.id
)
select id from run order by id desc limit 1

-- name: drop_partition
-- Locks the shelf and its rest against everybody; waits 50 ms at most for each.
select detent.drop_partition(%(name)s)

-- name: forget_past
select detent.forget_past(%(most)s)
