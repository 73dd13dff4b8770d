-- name: find_envvars
select name, sealed, is_secret, environment_id, created_at, updated_at
from detent.envvars_of(%(environment)s)
where %(names)s::text[] is null or name = any(%(names)s::text[])
order by name

-- name: read_variables
-- What runs are given, with a fingerprint of it; no row when that is the one that is known.
with given as (
  select * from detent.envvars_of(%(environment)s)
), version as (
  select md5(coalesce(string_agg(concat_ws(' ', environment_id, name, extract(epoch from updated_at)), ',' order by name), ''))
    as fingerprint
  from given
)
select fingerprint, environment_id, name, sealed
from version left join given on true
where fingerprint is distinct from %(known)s::text
order by name

-- name: put_envvars
-- Locks variables by name. `keep` leaves those that are there, `update` makes none; a secret stays one. Returns those that were written:
-- a repeated call knows its own by what it has sealed.
insert into detent.envvars as present (environment_id, name, sealed, key_id, is_secret)
select %(environment)s, name, decode(sealed, 'hex'), %(key)s, is_secret
from json_to_recordset(%(variables)s) as given (name text, sealed text, is_secret boolean)
where %(mode)s <> 'update'
  or exists (select from detent.envvars where environment_id = %(environment)s and envvars.name = given.name)
order by name
on conflict (environment_id, name) do update
set sealed = excluded.sealed, key_id = excluded.key_id, is_secret = present.is_secret or excluded.is_secret,
  updated_at = clock_timestamp()
where %(mode)s <> 'keep' or present.sealed = excluded.sealed
returning name

-- name: delete_envvars
-- Returns those that were there. A repeated call cannot tell, and takes it that all were.
with gone as (
  delete from detent.envvars where environment_id = %(environment)s and name = any(%(names)s) returning name
)
select name from unnest(%(names)s::text[]) as name where %(is_repeat)s or name in (select name from gone)

-- name: find_sealed_otherwise
-- Variables of all environments that another key seals, after one of them.
select environment_id, name, sealed from detent.envvars
where key_id <> %(key)s and (environment_id, name) > (%(environment)s, %(name)s)
order by environment_id, name
limit %(most)s

-- name: seal_anew
-- Locks variables by environment and name. One that was changed meanwhile is passed over. Its readers see no change.
update detent.envvars set sealed = decode(given.new, 'hex'), key_id = %(key)s
from (
  select * from json_to_recordset(%(variables)s) as each (environment integer, name text, old text, new text)
) as given
where envvars.environment_id = given.environment and envvars.name = given.name and envvars.sealed = decode(given.old, 'hex')
