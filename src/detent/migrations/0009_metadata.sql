-- Metadata and tags: what a run says about itself while it runs.
-- Reason: many runs change one document, in order and each operation once, in one round trip. Lock: none. Pre: before the code
-- that needs it.
--
-- Operations know where in the run's code they were asked for: a place, and a number that rises along it. The highest number
-- that was applied is kept for each place (`inputs.metadata_applied`), so what a replay asks for again, or a call repeats whose
-- answer was lost, changes nothing; also where it is the document of another run.

-- A document with a value put at a path; what is not there becomes an object. Null when the path leads through something else.
create function detent.put_at(document jsonb, path text[], value jsonb) returns jsonb language plpgsql immutable parallel safe as $$
declare
  inner_value jsonb;
  index integer;
begin
  if cardinality(path) = 0 then
    return value;
  end if;
  document := coalesce(nullif(document, 'null'), '{}');
  if jsonb_typeof(document) = 'object' then
    inner_value := detent.put_at(document -> path[1], path[2:], value);
    return case when inner_value is not null then document || jsonb_build_object(path[1], inner_value) end;
  end if;
  if jsonb_typeof(document) <> 'array' or path[1] !~ '^[0-9]{1,9}$' or path[1]::integer > jsonb_array_length(document) then
    return null;
  end if;
  index := path[1]::integer;
  inner_value := detent.put_at(document -> index, path[2:], value);
  return case
    when inner_value is null then null
    when index = jsonb_array_length(document) then document || jsonb_build_array(inner_value)
    else jsonb_set(document, path[1:1], inner_value)
  end;
end $$;

-- Derived from `apply` in detent/protocol/metadata.py; a test compares the two.
create function detent.apply_metadata(document jsonb, operations jsonb) returns jsonb language plpgsql immutable parallel safe as $$
declare
  operation record;
  present jsonb;
begin
  for operation in
    select o ->> 'kind' as kind, o -> 'value' as value, array(select jsonb_array_elements_text(o -> 'path')) as path
    from jsonb_array_elements(operations) with ordinality as listed (o, n)
    order by n
  loop
    present := nullif(document #> operation.path, 'null');
    document := coalesce(
      case operation.kind
        when 'replace' then operation.value
        when 'set' then detent.put_at(document, operation.path, operation.value)
        when 'delete' then
          case when detent.put_at(document, operation.path, 'null') is not null then document #- operation.path end
        when 'increment' then
          detent.put_at(document, operation.path, to_jsonb(
            case when jsonb_typeof(present) = 'number' then present::numeric else 0 end + operation.value::numeric))
        when 'append' then
          detent.put_at(document, operation.path, case
            when present is null then '[]'
            when jsonb_typeof(present) = 'array' then present
            else jsonb_build_array(present)
          end || jsonb_build_array(operation.value))
        when 'remove' then
          case when jsonb_typeof(present) = 'array' then
            detent.put_at(document, operation.path, (
              select coalesce(jsonb_agg(member order by n), '[]')
              from jsonb_array_elements(present) with ordinality as members (member, n)
              where member <> operation.value))
          end
      end, document);
  end loop;
  return document;
end $$;

-- Changes the document of one run, which is locked if it is live; that of a run that is over for an hour more. False: it would
-- be larger than `most` bytes, and is as before.
create function detent.change_metadata(changed uuid, operations jsonb, most integer) returns boolean language plpgsql as $$
declare
  before text;
  after text;
begin
  select metadata into before from detent.inputs where run_id = changed;
  if found then
    after := detent.apply_metadata(coalesce(before, '{}')::jsonb, operations)::text;
    if octet_length(after) > most and octet_length(after) > octet_length(coalesce(before, '')) then
      return false;
    end if;
    update detent.inputs set metadata = after where run_id = changed;
    return true;
  end if;
  update detent.history set metadata = detent.apply_metadata(coalesce(metadata, '{}')::jsonb, operations)::text
  where id = changed and finished_at > detent.now() - interval '1 hour' and octet_length(coalesce(metadata, '')) < most;
  return true;
end $$;

-- Locks the runs whose documents change, and those that ask, by falling id. Stale ones are not answered.
create function detent.update_metadata(environment integer, requests json, most integer)
returns table (i integer, document text, is_refused boolean) language plpgsql as $$
#variable_conflict use_column
declare
  request record;
  target record;
  marks jsonb;
  fresh jsonb;
begin
  perform from detent.runs
  where environment_id = environment and id in (
    select unnest(array[own.id, case when r.parent then own.parent_id end, case when r.root then inputs.root_id end])
    from json_to_recordset(requests) as r (id uuid, parent boolean, root boolean)
    join detent.runs as own on own.id = r.id
    join detent.inputs on inputs.run_id = own.id)
  order by id desc for no key update;

  for request in
    select r.i, r.operations, runs.id, runs.attempt, runs.parent_id, inputs.root_id, inputs.metadata_applied as applied
    from json_to_recordset(requests) as r (i integer, id uuid, fence bigint, operations jsonb)
    join detent.runs on runs.id = r.id and runs.fence = r.fence and runs.environment_id = environment
    join detent.inputs on inputs.run_id = runs.id
    order by r.i
  loop
    marks := case when (request.applied ->> 'attempt')::smallint = request.attempt then request.applied -> 'places' else '{}' end;
    select jsonb_agg(o order by n) into fresh
    from jsonb_array_elements(request.operations) with ordinality as listed (o, n)
    where (o ->> 'number')::bigint > coalesce((marks ->> (o ->> 'place'))::bigint, -1);

    i := request.i;
    is_refused := false;
    for target in
      select t.id, jsonb_agg(o order by n) as operations
      from jsonb_array_elements(fresh) with ordinality as listed (o, n)
      join (values ('own', request.id), ('parent', coalesce(request.parent_id, request.id)),
        ('root', coalesce(request.root_id, request.id))) as t (name, id) on t.name = o ->> 'target'
      group by t.id
    loop
      is_refused := not detent.change_metadata(target.id, target.operations, most) or is_refused;
    end loop;
    update detent.inputs
    set metadata_applied = jsonb_build_object('attempt', request.attempt, 'places', marks || (
      select jsonb_object_agg(place, number)
      from (select o ->> 'place' as place, max((o ->> 'number')::bigint) as number from jsonb_array_elements(fresh) as o group by 1) as latest))
    where run_id = request.id and fresh is not null;
    select coalesce(metadata, '{}') into document from detent.inputs where run_id = request.id;
    return next;
  end loop;
end $$;

-- Tags with others behind them that are new.
create function detent.tagged(tags text[], added text[]) returns text[] language sql immutable parallel safe as $$
  select tags || array(select tag from unnest(added) with ordinality as listed (tag, n) where tag <> all(tags) order by n)
$$;

-- Adds tags to runs, all of a request or none: where there would be more than `most`, `count` says how many. Stale ones are not
-- answered.
create function detent.add_tags(environment integer, requests json, most integer)
returns table (i integer, count integer) language plpgsql as $$
#variable_conflict use_column
declare
  request record;
begin
  perform from detent.runs
  where environment_id = environment and id in (select r.id from json_to_recordset(requests) as r (id uuid))
  order by id desc for no key update;

  for request in
    select r.i, runs.id, r.tags
    from json_to_recordset(requests) as r (i integer, id uuid, fence bigint, tags text[])
    join detent.runs on runs.id = r.id and runs.fence = r.fence and runs.environment_id = environment
    order by r.i
  loop
    i := request.i;
    select cardinality(detent.tagged(tags, request.tags)) into count from detent.inputs where run_id = request.id;
    update detent.inputs set tags = detent.tagged(tags, request.tags) where run_id = request.id and count <= most;
    return next;
  end loop;
end $$;

-- The same from outside, to runs that are over, too. Locks live ones by falling id, so that none ends between the look at those and
-- at the others. Unknown ones are not answered.
create function detent.tag_runs(environment integer, requests json, most integer)
returns table (i integer, count integer) language plpgsql as $$
#variable_conflict use_column
declare
  request record;
begin
  perform from detent.runs
  where environment_id = environment and id in (select r.id from json_to_recordset(requests) as r (id uuid))
  order by id desc for no key update;

  for request in select * from json_to_recordset(requests) as r (i integer, id uuid, tags text[]) order by r.i loop
    i := request.i;
    select cardinality(detent.tagged(tags, request.tags)) into count
    from detent.inputs where run_id = request.id and environment_id = environment;
    if found then
      update detent.inputs set tags = detent.tagged(tags, request.tags) where run_id = request.id and count <= most;
      return next;
      continue;
    end if;
    select cardinality(detent.tagged(tags, request.tags)) into count
    from detent.history where id = request.id and environment_id = environment and finished_at >= detent.made_at(request.id)
    for no key update;
    if found then
      update detent.history set tags = detent.tagged(tags, request.tags)
      where id = request.id and finished_at >= detent.made_at(request.id) and count <= most;
      return next;
    end if;
  end loop;
end $$;

-- Puts values into the metadata of runs from outside, live or over; locks as `tag_runs`. `size` is that of a document, of JSON text, that
-- would be larger than `most` bytes and than before: then it is as it was. Unknown ones are not answered.
create function detent.annotate_runs(environment integer, requests json, most integer)
returns table (i integer, document text, size integer) language plpgsql as $$
#variable_conflict use_column
declare
  request record;
  is_live boolean;
  after text;
begin
  perform from detent.runs
  where environment_id = environment and id in (select r.id from json_to_recordset(requests) as r (id uuid))
  order by id desc for no key update;

  for request in select * from json_to_recordset(requests) as r (i integer, id uuid, operations jsonb) order by r.i loop
    i := request.i;
    size := null;
    select coalesce(metadata, '{}') into document from detent.inputs where run_id = request.id and environment_id = environment;
    is_live := found;
    if not is_live then
      select coalesce(metadata, '{}') into document
      from detent.history where id = request.id and environment_id = environment and finished_at >= detent.made_at(request.id)
      for no key update;
      continue when not found;
    end if;
    after := detent.apply_metadata(document::jsonb, request.operations)::text;
    if octet_length(after) > greatest(most, octet_length(document)) then
      size := octet_length(after);
    elsif is_live then
      update detent.inputs set metadata = after where run_id = request.id returning metadata into document;
    else
      update detent.history set metadata = after
      where id = request.id and finished_at >= detent.made_at(request.id) returning metadata into document;
    end if;
    return next;
  end loop;
end $$;
