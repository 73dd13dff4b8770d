-- name: find_environment
select id, slug, type, branch_name, archived_at from detent.environments where slug = %(slug)s

-- name: make_environment
insert into detent.environments (slug, type, parent_id, branch_name)
values (%(slug)s, coalesce(%(type)s::text, detent.likely_type(%(slug)s)), %(parent)s::integer, %(branch)s::text)
on conflict do nothing

-- name: set_archived
-- Archives an environment, or brings it back; one that is so already stays as it is.
update detent.environments set archived_at = case when %(is_archived)s then coalesce(archived_at, clock_timestamp()) end
where slug = %(slug)s

-- name: list_environments
-- With counts of the runs that are not over. Reads all of these.
select environments.id, slug, type, branch_name, created_at, archived_at,
  coalesce(queued, 0), coalesce(running, 0), coalesce(waiting, 0)
from detent.environments
left join (
  select environment_id,
    count(*) filter (where status in ('QUEUED', 'DELAYED')) as queued,
    count(*) filter (where status in ('DEQUEUED', 'EXECUTING')) as running,
    count(*) filter (where status = 'WAITING') as waiting
  from detent.runs group by environment_id
) as counts on counts.environment_id = environments.id
where %(slug)s::text is null or slug = %(slug)s::text
order by environments.id
