-- Environments: what type they are, the branches of previews, and the variables that runs are given.
-- Reason: isolated copies of a project, and their secrets. Lock: access exclusive on environments, for a moment. Pre: before the code
-- that needs it.

-- The type of an environment of which nobody has said it: by the first word of its slug. What tells nothing is not production: schedules
-- that are for production alone must not fire in a copy of it.
create function detent.likely_type(slug text) returns text language sql immutable parallel safe as $$
  select case split_part(translate(slug, '_/', '--'), '-', 1)
    when 'dev' then 'DEVELOPMENT' when 'development' then 'DEVELOPMENT'
    when 'prod' then 'PRODUCTION' when 'production' then 'PRODUCTION'
    when 'preview' then 'PREVIEW'
    else 'STAGING' end
$$;

alter table detent.environments
  add column type text check (type in ('DEVELOPMENT', 'STAGING', 'PRODUCTION', 'PREVIEW')),
  add column parent_id integer references detent.environments,
  add column branch_name text,                     -- its slug is that of its parent, a slash, and this
  add column archived_at timestamptz,
  add constraint branch_has_parent check ((branch_name is null) = (parent_id is null)),
  add constraint branch_is_preview check (branch_name is null or type = 'PREVIEW');
update detent.environments set type = detent.likely_type(slug);
alter table detent.environments alter column type set not null;

create or replace function detent.find_or_make_environment(wanted text) returns integer language plpgsql as $$
declare
  found record;
begin
  loop
    select id, archived_at into found from detent.environments where slug = wanted;
    exit when found.id is not null;
    if wanted !~ '^[a-z0-9][a-z0-9_-]{0,62}$' then
      raise exception 'there is no environment "%"', wanted
        using errcode = 'invalid_parameter_value', hint = 'Make it with `detent environments create`, or name another one.';
    end if;
    insert into detent.environments (slug, type) values (wanted, detent.likely_type(wanted)) on conflict do nothing;
  end loop;
  if found.archived_at is not null then
    raise exception 'environment "%" is archived', wanted
      using errcode = 'object_not_in_prerequisite_state', hint = '`detent environments create` brings it back.';
  end if;
  return found.id;
end $$;

-- A variable is sealed with AES-GCM: the nonce, then the text with its tag; environment_id and name are the associated data.
create table detent.envvars (
  environment_id integer not null references detent.environments,
  name text not null,
  sealed bytea not null,
  key_id text not null,                            -- which key seals it
  is_secret boolean not null,
  created_at timestamptz not null default clock_timestamp(),
  updated_at timestamptz not null default clock_timestamp(),
  primary key (environment_id, name)
);

-- The variables of an environment: those of a branch, and those of its parent that it does not have.
create function detent.envvars_of(environment integer) returns setof detent.envvars language sql stable as $$
  select distinct on (envvars.name) envvars.*
  from detent.environments as here
  join detent.envvars on envvars.environment_id in (here.id, here.parent_id)
  where here.id = environment
  order by envvars.name, envvars.environment_id = here.id desc
$$;
