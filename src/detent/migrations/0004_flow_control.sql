-- Who may start: limits, the gates they set before lanes, and the lease that takes slots in all of them or in none.
-- Reason: bounds that hold exactly, whoever leases. Lock: none (functions only). Pre: before the code that needs it.
--
-- A limit has up to three gates: for all its runs (`total`, also closed by a pause), for each concurrency key (`key`), and for starts in
-- a window of time (`rate`). A lane names those its runs have to pass. A run that is executed names those it holds a slot in
-- (`runs.slots`, or `endings.slots` while its code ends): `gates.taken` counts these, and can be counted anew from them.
--
-- A lane that cannot start is parked on the gate that stops it, and who opens the gate unparks as many lines as there is room. These
-- may have no use for it (a run was cancelled, a worker is gone or busy): as long as others stay parked, the gate has a vacancy, and
-- who leases looks among them for what it can execute. A
-- lane of a key in which nothing is ready sleeps, and after a while one of a version; what is put into it then leaves an arrival. So
-- a lease looks only at lanes that may have something to start.
--
-- Locks, after those of 0002: gates by id, lanes by id. Who has locked a gate waits for lanes only, and who has locked a lane for
-- nothing. A lane is parked on a gate, or unparked from it, by whoever has the gate locked: no slot is freed unseen in between. Who
-- puts something into a lane that may sleep has a share of its key: no lane falls asleep over what is not committed yet.
-- A change of limits locks the environment, then the sessions: nothing is leased, and no lane made, meanwhile.

create function detent.asleep() returns uuid language sql immutable parallel safe as $$
  select '00000000-0000-0000-0000-000000000000'::uuid
$$;

-- ---- limits and their gates -----------------------------------------------------------------------------------------

create function detent.limit_id(environment integer, kind text, name text) returns uuid language sql immutable as $$
  select md5(json_build_array(environment, kind, name)::text)::uuid
$$;

create function detent.gate_id(limit_id uuid, scope text, key text) returns uuid language sql immutable as $$
  select md5(json_build_array(limit_id, scope, key)::text)::uuid
$$;

-- What a limit allows at present, under each scope. A key of its own has only those that count for each key.
create function detent.bounds_of(l detent.limits)
returns table (scope text, is_per_key boolean, allowed integer, period double precision) language sql stable as $$
  select bound.*
  from (select case when l.rate_overridden_at is null then l.rate else l.rate_override end as rate) as present,
  lateral (values
    ('total', false,
      case when l.paused_at is not null or not l.is_declared then 0
        when l.total_overridden_at is null then l.total else l.total_override end, null::double precision),
    ('key', true, case when l.per_key_overridden_at is null then l.per_key else l.per_key_override end, null),
    ('rate', (rate ->> 'per_key')::boolean, (rate ->> 'starts')::integer, (rate ->> 'period')::double precision)
  ) as bound (scope, is_per_key, allowed, period)
  where bound.allowed is not null
$$;

-- The limits that the runs of a lane hold: its queue's, and those of its task's newest version, of which a trigger may have
-- replaced the named ones.
create function detent.limits_of(lane detent.lanes) returns setof detent.limits language sql stable as $$
  select limits.*
  from (
    select 'queue' as kind, lane.queue as name
    union
    select 'limit', held.name
    from (
      select tasks.limits from detent.version_tasks as tasks
      where tasks.environment_id = lane.environment_id and tasks.task_id = lane.task_id
      order by version_id desc limit 1
    ) as task,
    unnest(task.limits) as held (name)
    where lane.limits is null or starts_with(held.name, 'task/')
    union
    select 'limit', named from unnest(lane.limits) as named
  ) as held
  join detent.limits on limits.id = detent.limit_id(lane.environment_id, held.kind, held.name)
$$;

-- Sets before lanes the gates that their limits say. The environment is locked by the caller.
create function detent.set_gates(ids uuid[]) returns void language plpgsql as $$
begin
  insert into detent.gates (id, limit_id, environment_id, scope, concurrency_key, allowed, period)
  select distinct detent.gate_id(l.id, bound.scope, place.key), l.id, l.environment_id, bound.scope, place.key, bound.allowed, bound.period
  from detent.lanes
  cross join lateral detent.limits_of(lanes) as l
  cross join lateral detent.bounds_of(l) as bound
  cross join lateral (select case when bound.is_per_key then lanes.concurrency_key end as key) as place
  where lanes.id = any(ids)
  order by 1
  on conflict do nothing;

  update detent.lanes set gates = wanted.gates
  from (
    select lanes.id, coalesce(array_agg(gate.id order by gate.id) filter (where gate.id is not null), '{}') as gates
    from detent.lanes
    left join lateral (
      select detent.gate_id(l.id, bound.scope, case when bound.is_per_key then lanes.concurrency_key end) as id
      from detent.limits_of(lanes) as l cross join lateral detent.bounds_of(l) as bound
    ) as gate on true
    where lanes.id = any(ids)
    group by lanes.id
  ) as wanted
  where lanes.id = wanted.id and lanes.gates <> wanted.gates;
end $$;

-- Makes lanes before their first run, and remembers of those that are there that they are in use. A queue or limit that nobody
-- has declared lets nothing pass. A share of the environment: no limits change meanwhile.
create function detent.make_lanes(environment integer, wanted json) returns void language plpgsql as $$
declare
  made uuid[];
begin
  perform from detent.environments where id = environment for share;

  insert into detent.limits (id, environment_id, kind, name, is_declared)
  select detent.limit_id(environment, kind, name), environment, kind, name, false
  from (
    select 'queue' as kind, queue as name from json_to_recordset(wanted) as w (queue text)
    union
    select 'limit', name from json_to_recordset(wanted) as w (limits text[]), unnest(limits) as name
  ) as named
  order by 1
  on conflict do nothing;

  with lane as (
    insert into detent.lanes (
      id, line_id, environment_id, task_id, queue, concurrency_key, limits, version_id, is_pinned, base_id)
    select distinct on (lane) lane, line, environment, task, queue, ckey, limits, version, coalesce(pinned, false), base
    from json_to_recordset(wanted) as w (
      lane uuid, line uuid, task text, queue text, ckey text, limits text[], version integer, pinned boolean, base uuid)
    order by lane
    on conflict (id) do update set used_at = excluded.used_at
    returning id, xmax = 0 as is_new
  )
  select array_agg(id) filter (where is_new) into made from lane;
  perform detent.set_gates(made);
end $$;

-- ---- versions -------------------------------------------------------------------------------------------------------

-- The lane of runs that a version has begun: it goes on with them while it lives.
create function detent.bound_lane(lane uuid, version integer) returns uuid language plpgsql stable as $$
begin
  return (
    select case when is_pinned or version is null or version_id = version then id
      else md5(coalesce(base_id, id)::text || ':' || version)::uuid end
    from detent.lanes where id = lane);
end $$;

-- Makes the lanes to which runs go back that a version has begun.
create function detent.make_bound_lanes(ids uuid[]) returns void language plpgsql as $$
begin
  insert into detent.lanes (
    id, line_id, environment_id, task_id, queue, concurrency_key, limits, version_id, base_id, gates, served_at)
  select wanted.id, line_id, lanes.environment_id, lanes.task_id, queue, concurrency_key, limits, wanted.version_id,
    coalesce(base_id, lanes.id), gates, served_at
  from (
    select distinct on (1) detent.bound_lane(lane_id, version_id) as id, lane_id, version_id
    from detent.runs where runs.id = any(ids) and version_id is not null
    order by 1
  ) as wanted
  join detent.lanes on lanes.id = wanted.lane_id
  where not exists (select from detent.lanes as made where made.id = wanted.id)
  on conflict do nothing;
end $$;

-- Whether anybody has ever registered what a lane's runs need: their task, in the version they are pinned to, their queue and limits.
create function detent.is_known(lane uuid) returns boolean language plpgsql stable as $$
begin
  return (
    select exists (
        select from detent.version_tasks as tasks
        where tasks.environment_id = lanes.environment_id and tasks.task_id = lanes.task_id
          and (not is_pinned or tasks.version_id = lanes.version_id))
      and not exists (select from detent.limits_of(lanes) as held where not held.is_declared)
    from detent.lanes where id = lane);
end $$;

-- ---- what comes into a lane, and what goes --------------------------------------------------------------------------

-- To be called before something becomes ready in lanes. `begun`: runs that do not start but go on, which no rate holds back.
create function detent.stir(ids uuid[], begun boolean) returns void language plpgsql as $$
declare
  sleepers uuid[];
begin
  sleepers := array(
    select id from detent.lanes
    where id = any(ids) and (concurrency_key is not null or version_id is not null or begun)
    for key share);
  -- In a statement of its own: what the lock waited for is seen.
  if sleepers <> '{}' then
    insert into detent.arrivals (environment_id, lane_id)
    select environment_id, id from detent.lanes
    where id = any(sleepers) and (
      parked_on = detent.asleep()
      or begun and exists (select from detent.gates where gates.id = parked_on and scope = 'rate'));
  end if;
end $$;

-- The first lines parked on each gate, so many as given. The gates are locked by the caller.
create function detent.parked_lanes(gates uuid[], room integer[]) returns uuid[] language plpgsql stable as $$
begin
  return array(
    select lanes.id
    from unnest(gates, room) as opened (gate, room)
    cross join lateral (
      select distinct served_at, line_id from detent.lanes
      where parked_on = opened.gate order by served_at, line_id limit opened.room
    ) as line
    join detent.lanes on lanes.line_id = line.line_id and lanes.parked_on = opened.gate);
end $$;

create function detent.unpark(ids uuid[]) returns void language plpgsql as $$
begin
  perform from detent.lanes where id = any(ids) order by id for no key update;
  update detent.lanes set parked_on = null where id = any(ids) and parked_on <> detent.asleep();
end $$;

-- Remembers which gates have room although lanes are parked on them. The gates are locked by the caller, the lanes opened.
create function detent.note_vacancies(gates uuid[], room integer[]) returns void language plpgsql as $$
begin
  delete from detent.vacancies using unnest(gates, room) as gate (id, room)
  where gate_id = gate.id and (gate.room <= 0 or not exists (select from detent.lanes where parked_on = gate.id));
  insert into detent.vacancies (environment_id, gate_id)
  select environment_id, gates.id from unnest(gates, room) as gate (id, room) join detent.gates on gates.id = gate.id
  where gate.room > 0 and exists (select from detent.lanes where parked_on = gate.id)
  on conflict do nothing;
end $$;

-- Gives slots back, and opens lanes that were parked for want of them: says whether there are any. The last locks of a transaction.
create function detent.release_slots(freed uuid[]) returns boolean language plpgsql as $$
declare
  is_everywhere boolean;
  opened uuid[]; room integer[];
  parked uuid[];
begin
  if freed = '{}' or freed is null then
    return false;
  end if;
  perform from detent.gates where id = any(freed) order by id for update;
  -- No lane is parked on a limit of the whole environment.
  is_everywhere := exists (select from detent.environments where gates && freed);
  with given as (
    select gate, count(*)::integer as n from unnest(freed) as gate group by gate
  ), gate as (
    update detent.gates set taken = taken - n from given where gates.id = given.gate
    returning gates.id, least(n, coalesce(allowed - taken, n)) as room
  )
  select array_agg(gate.id), array_agg(gate.room) into opened, room from gate where gate.room > 0;
  parked := detent.parked_lanes(opened, room);
  if parked = '{}' then
    return is_everywhere;
  end if;
  perform detent.unpark(parked);
  perform detent.note_vacancies(opened, room);
  return true;
end $$;

-- ---- rates ----------------------------------------------------------------------------------------------------------

-- A window is counted in twenty sub-windows, and the one that is not over yet: never more than allowed start in any window, and
-- a start is forgotten at the latest a twentieth of the window after it has left it.
create function detent.sub_window(period double precision, moment timestamptz) returns bigint language sql immutable as $$
  select floor(extract(epoch from moment) / (period / 20))::bigint
$$;

-- The starts of each sub-window as of `moment`: those that have left the window are gone.
create function detent.starts_at(g detent.gates, moment timestamptz) returns integer[] language sql stable as $$
  select array(
    select coalesce(g.starts[i + past.n], 0)
    from (select least(21, greatest(0, detent.sub_window(g.period, moment) - coalesce(g.latest, 0)))::integer as n) as past,
      generate_series(1, 21) as i
    order by i)
$$;

-- The starts that a gate counts, as if all of them were of this moment: for a window of another length.
create function detent.gather_starts(g detent.gates, moment timestamptz) returns integer[] language sql stable as $$
  select array_fill(0, array[20]) || (select sum(n)::integer from unnest(detent.starts_at(g, moment)) as n)
$$;

-- When the first of the starts that it counts leaves the window.
create function detent.opens_at(g detent.gates) returns timestamptz language sql stable as $$
  select to_timestamp((g.latest + min(i)) * (g.period / 20))
  from generate_series(1, 21) as i where g.starts[i] > 0
$$;

create function detent.rate_room(g detent.gates, moment timestamptz) returns integer language plpgsql stable as $$
begin
  return g.allowed - (select sum(n) from unnest(detent.starts_at(g, moment)) as n);
end $$;

create function detent.room_of(g detent.gates, moment timestamptz) returns integer language sql stable as $$
  select case when g.scope = 'rate' then detent.rate_room(g, moment) else coalesce(g.allowed - g.taken, 1000000000) end
$$;

-- ---- leasing --------------------------------------------------------------------------------------------------------

-- A ready run that is about to be leased, or with no `run_id` a lane that had none. `place`: its place among those of its line. `is_cut`:
-- its lane may have more.
create type detent.head as (
  lane_id uuid, line_id uuid, served_at timestamptz, gates uuid[], isolation text, max_attempts smallint,
  max_duration double precision, run_id uuid, row tid, position timestamptz, resident_session uuid, place bigint, is_cut boolean, begun boolean);

-- The first ready runs of the lanes that this version may execute, those of lines not served for longest. Locks them, and passes over
-- locked ones.
create function detent.find_heads(
  environment integer, version integer, live integer[], by_session uuid, room json, woken uuid[], most_lanes integer,
  after_served timestamptz, after_line uuid)
returns setof detent.head language plpgsql as $$
#variable_conflict use_variable
begin
  return query
  with lane as materialized (
    select candidate.*, tasks.isolation, tasks.max_attempts, tasks.max_duration, (room ->> tasks.isolation)::integer as own_room
    from detent.version_tasks as tasks
    cross join lateral (
      select lanes.id, line_id, served_at, gates, concurrency_key is not null as may_sleep
      from detent.lanes
      where lanes.environment_id = environment and lanes.task_id = tasks.task_id and parked_on is null
        and (served_at, line_id) > (after_served, after_line)
        and (lanes.version_id is null or lanes.version_id = version or not is_pinned and lanes.version_id <> all(live))
        and (
          (room ->> tasks.isolation)::integer > 0
          -- Only what starts alone has room: not looked for behind all others.
          or (room ->> 'process')::integer > 0 and exists (
            select from detent.ready where ready.environment_id = environment and is_solo and ready.lane_id = lanes.id))
        -- Looked for from the end, as in `has_work`.
        and (concurrency_key is not null
          or (select true from detent.ready where ready.lane_id = lanes.id order by position desc, run_id desc limit 1))
      order by served_at, line_id
      limit most_lanes
    ) as candidate
    where tasks.version_id = version
    union
    select lanes.id, line_id, served_at, gates, concurrency_key is not null, tasks.isolation, tasks.max_attempts, tasks.max_duration,
      (room ->> tasks.isolation)::integer
    from detent.lanes join detent.version_tasks as tasks on tasks.version_id = version and tasks.task_id = lanes.task_id
    where lanes.id = any(woken)
      and (lanes.version_id is null or lanes.version_id = version or not is_pinned and lanes.version_id <> all(live))
    order by served_at, line_id
    limit most_lanes
  ), share as (
    -- Of few lanes each may fill the room; of many each gets its part, and in another pass what the others leave. And of each so many as
    -- its gates let pass, and one more: what they stop parks the lane, so that whoever frees a slot sees that it is waited for.
    select lane.*, least(
      case when total.lanes <= 8 then places else (places + total.lanes - 1) / total.lanes end,
      (select greatest(1, min(allowed - taken) + 1) from detent.gates
       where gates.id = any(lane.gates) and scope <> 'rate' and allowed is not null having count(*) > 0)) as most
    from (select count(*) as lanes from lane) as total
    cross join (select *, own_room + (room ->> 'process')::integer as places from lane) as lane
  ), head as (
    select lane.*, ready.run_id, ready.row, ready.position, ready.resident_session,
      case when ready.is_solo then 'process' else lane.isolation end as kind
    from share as lane left join lateral (
      select ready.ctid as row, ready.* from detent.ready
      where ready.lane_id = lane.id
        and case when is_solo then (room ->> 'process')::integer else lane.own_room end > 0
        and (resident_session is null or resident_session = by_session or resident_until < clock_timestamp())
      order by position, run_id
      limit lane.most
      for update skip locked
    ) as ready on true
    where ready.run_id is not null or lane.may_sleep
  )
  select id, line_id, served_at, gates, kind, max_attempts, max_duration, run_id, row, position, resident_session,
    row_number() over (partition by line_id, kind order by head.position, run_id),
    count(run_id) over (partition by head.id) >= most, false
  from head;
end $$;

-- Which of these heads may start: as many as there is room, lines in turn, each with a slot in all its gates or in none. The runs are
-- locked by the caller. `is_short`: the worker's room, or that of the environment, kept some from starting. `stopped`: lanes, each at the gate in `stops`.
-- `gate_room`: what is left of the gates in `gate_ids`, which stay locked.
create function detent.take_slots(
  heads detent.head[], everywhere uuid[], room json,
  out taken detent.head[], out is_short boolean, out stopped uuid[], out stops uuid[], out gate_ids uuid[], out gate_room integer[])
language plpgsql as $$
declare
  moment timestamptz := detent.now();
  is_rate boolean[]; took integer[];
  head detent.head; gate uuid; place integer;
  places integer[] := array[room ->> 'async', room ->> 'thread', room ->> 'process'];
  kind integer;
begin
  taken := '{}'; is_short := false; stopped := '{}'; stops := '{}';
  gate_ids := array(
    select unnest(h.gates) from unnest(heads) as h where h.run_id is not null
    union
    select unnest(everywhere) where exists (select from unnest(heads) as h where h.run_id is not null));
  if gate_ids = '{}' then
    select * into taken, is_short from detent.take_turns(heads, room);
    return;
  end if;

  perform from detent.gates where id = any(gate_ids) order by id for update;
  select array_agg(locked.id), array_agg(detent.room_of(locked, moment)), array_agg(locked.scope = 'rate'), array_agg(0)
  into gate_ids, gate_room, is_rate, took
  from detent.gates as locked where id = any(gate_ids);

  <<each_head>>
  foreach head in array array(
    select h from unnest(heads) as h where h.run_id is not null order by h.place, h.served_at, h.line_id, h.position, h.run_id
  ) loop
    kind := array_position('{async,thread,process}', head.isolation);
    if places[kind] <= 0 then
      is_short := true;
      continue;
    end if;
    foreach gate in array everywhere || head.gates loop
      place := array_position(gate_ids, gate);
      if gate_room[place] <= 0 and not (is_rate[place] and head.begun) then
        if gate = any(everywhere) then
          -- A full environment lets nothing start, whatever its lane.
          is_short := true;
          exit each_head;
        end if;
        stopped := stopped || head.lane_id; stops := stops || gate;
        continue each_head;
      end if;
    end loop;
    foreach gate in array everywhere || head.gates loop
      place := array_position(gate_ids, gate);
      if not (is_rate[place] and head.begun) then
        gate_room[place] := gate_room[place] - 1; took[place] := took[place] + 1;
      end if;
    end loop;
    places[kind] := places[kind] - 1;
    -- Else its gates are its slots as they stand: a query for each head would be a seventh of a lease.
    if everywhere <> '{}' or true = any(is_rate) then
      head.gates := array(
        select g from unnest(everywhere || head.gates) as g where not is_rate[array_position(gate_ids, g)] order by g);
    end if;
    taken := taken || head;
  end loop;

  update detent.gates set taken = gates.taken + counted.n
  from unnest(gate_ids, took) as counted (id, n)
  where gates.id = counted.id and counted.n > 0 and scope <> 'rate';
  update detent.gates
  set starts = (detent.starts_at(gates, moment))[:20] || ((detent.starts_at(gates, moment))[21] + counted.n),
      latest = greatest(latest, detent.sub_window(period, moment))
  from unnest(gate_ids, took) as counted (id, n)
  where gates.id = counted.id and counted.n > 0 and scope = 'rate';
  update detent.gates set opens_at = detent.opens_at(gates)
  where scope = 'rate' and id in (
    select id from unnest(gate_ids, took) as counted (id, n) where n > 0 union all select unnest(stops));
end $$;

-- The same where no gate stands before any of them: the loop would cost 20 us a run more.
create function detent.take_turns(heads detent.head[], room json, out taken detent.head[], out is_short boolean)
language plpgsql stable as $$
begin
  select coalesce(array_agg(turn.head order by number) filter (where fits), '{}'), coalesce(not bool_and(fits), false)
  into taken, is_short
  from (
    select h as head, row_number() over turns as number, row_number() over turns <= (room ->> h.isolation)::integer as fits
    from unnest(heads) as h
    where h.run_id is not null
    window turns as (partition by h.isolation order by h.place, h.served_at, h.line_id, h.position, h.run_id)
  ) as turn;
end $$;

-- Parks the lanes that were stopped, opens others where a gate has room left, wakes those that something has come into, and lets the
-- empty ones sleep. Returns the lanes that it opened. Their gates are locked by the caller.
create function detent.park_lanes(
  stopped uuid[], stops uuid[], gate_ids uuid[], gate_room integer[], woken uuid[], empty uuid[])
returns uuid[] language plpgsql as $$
declare
  opened uuid[] := '{}';
  sleepers uuid[];
begin
  if stopped || woken <> '{}' then
    perform from detent.lanes where id = any(stopped || woken) order by id for no key update;
    update detent.lanes
    set parked_on = (select stop.gate from unnest(stopped, stops) as stop (lane, gate) where stop.lane = lanes.id limit 1)
    where id = any(stopped || woken);
  end if;
  if gate_ids <> '{}' then
    -- After that: those that were woken, and stopped elsewhere, leave the room to others. Who has one of these locked looks at it.
    opened := array(
      select id from detent.lanes
      where id = any(detent.parked_lanes(
        gate_ids, array(select greatest(0, n) from unnest(gate_room) with ordinality as free (n, i) order by i)))
      for no key update skip locked);
    update detent.lanes set parked_on = null where id = any(opened);
    perform detent.note_vacancies(gate_ids, gate_room);
  end if;
  if empty <> '{}' then
    sleepers := array(select id from detent.lanes where id = any(empty) for update skip locked);
    -- In a new snapshot: whoever puts something into them waits now, and will see them asleep.
    update detent.lanes set parked_on = detent.asleep()
    where id = any(sleepers) and not exists (select from detent.ready where ready.lane_id = lanes.id);
  end if;
  return opened;
end $$;

-- Lanes that may have something to start although they are asleep or parked: in which something has arrived, or whose gate has a
-- vacancy and which this version may execute.
create function detent.find_woken(environment integer, version integer, live integer[]) returns uuid[] language plpgsql as $$
#variable_conflict use_variable
declare
  woken uuid[];
begin
  with came as (
    delete from detent.arrivals where ctid = any(array(
      select arrivals.ctid from detent.arrivals where arrivals.environment_id = environment limit 1000 for update skip locked))
    returning lane_id
  )
  select coalesce(array_agg(distinct lane_id), '{}') into woken from came;
  return woken || array(
    select lane.id
    from detent.vacancies join detent.gates as gate on gate.id = gate_id
    cross join lateral (
      select lanes.id
      from detent.lanes join detent.version_tasks as tasks on tasks.version_id = version and tasks.task_id = lanes.task_id
      where parked_on = gate.id
        and (lanes.version_id is null or lanes.version_id = version or not is_pinned and lanes.version_id <> all(live))
        and exists (select from detent.ready where ready.lane_id = lanes.id)
      order by served_at, line_id
      -- Some more than there is room for: another gate may stop them.
      limit case when detent.room_of(gate, detent.now()) > 0 then detent.room_of(gate, detent.now()) + 20 else 0 end
    ) as lane
    where vacancies.environment_id = environment);
end $$;

-- Whether there may be anything for a session to take; no lock, which would cost a flush to disk. Looked for from the end, here and
-- below: while an old snapshot keeps what was taken from being removed, it lies before all that waits (14 ms for 100,000 rows each time).
create function detent.has_work(by_session uuid) returns boolean language plpgsql stable as $$
begin
  return exists (
    select from detent.sessions
    join detent.version_tasks as tasks on tasks.version_id = sessions.version_id
    join detent.lanes on lanes.environment_id = sessions.environment_id and lanes.task_id = tasks.task_id and lanes.parked_on is null
    where sessions.id = by_session and (
      lanes.concurrency_key is not null
      or (select true from detent.ready where ready.lane_id = lanes.id order by position desc, run_id desc limit 1))
    union all
    select from detent.sessions join detent.arrivals on arrivals.environment_id = sessions.environment_id
    where sessions.id = by_session
    union all
    select from detent.sessions
    join detent.vacancies on vacancies.environment_id = sessions.environment_id
    join detent.lanes on parked_on = gate_id
    join detent.version_tasks as tasks on tasks.version_id = sessions.version_id and tasks.task_id = lanes.task_id
    where sessions.id = by_session
  );
end $$;

-- Chooses runs for a session, as many as there is room of each kind, and takes their slots. Where there are gates, the first lanes only:
-- `is_unfinished` says that another call may find more. The session is locked by the caller.
create function detent.fill_room(by_session uuid, room json, most_lanes integer, out leased detent.head[], out is_unfinished boolean)
language plpgsql as $$
declare
  environment integer; version integer; everywhere uuid[]; live integer[]; woken uuid[] := '{}';
  heads detent.head[]; startable detent.head[]; taken detent.head[];
  is_short boolean := false; is_contended boolean := false; is_again boolean := false;
  stopped uuid[]; stops uuid[]; gate_ids uuid[]; gate_room integer[]; opened uuid[];
  lanes integer; rest json := room; after_served timestamptz := '-infinity'; after_line uuid := detent.asleep();
begin
  leased := '{}'; is_unfinished := false;
  -- Of an archived environment nothing is known, and so nothing found.
  select mine.environment_id, mine.version_id, environments.gates, array(
    select distinct sessions.version_id from detent.sessions
    where sessions.environment_id = mine.environment_id and ended_at is null and sessions.version_id <> mine.version_id
      and beat_at > clock_timestamp() - interval '15 seconds')
  into environment, version, everywhere, live
  from detent.sessions as mine join detent.environments on environments.id = mine.environment_id
  where mine.id = by_session and environments.archived_at is null;
  if exists (select from detent.arrivals where arrivals.environment_id = environment)
    or exists (select from detent.vacancies where vacancies.environment_id = environment)
  then
    woken := detent.find_woken(environment, version, live);
  end if;

  for passes in 1..20 loop
    heads := array(select detent.find_heads(
      environment, version, live, by_session, rest, woken, most_lanes, after_served, after_line));
    if heads = '{}' and woken = '{}' then
      exit when not is_again;
      after_served := '-infinity';
      is_again := false;
      continue;
    end if;
    startable := array(select detent.lock_heads(heads));
    select * into taken, is_short, stopped, stops, gate_ids, gate_room from detent.take_slots(startable, everywhere, rest);
    opened := detent.park_lanes(stopped, stops, gate_ids, gate_room, woken, array(
      select h.lane_id from unnest(heads) as h where h.run_id is null));
    -- What has a place in the queue, but may not start any more, goes with those that do.
    delete from detent.ready where ctid = any(array(
      select h.row from unnest(taken) as h
      union all
      select h.row from unnest(heads) as h where h.run_id not in (select f.run_id from unnest(startable) as f where f.run_id is not null)));
    leased := leased || taken;
    is_contended := is_contended or is_short or stopped <> '{}';
    exit when is_short;
    -- What cannot start any more has uncovered others, too.
    select count(distinct h.lane_id),
      is_again or opened <> '{}' or cardinality(startable) < cardinality(heads)
        or exists (select cut.lane_id from unnest(heads) as cut where cut.is_cut except select unnest(stopped))
    into lanes, is_again
    from unnest(heads) as h;
    rest := detent.room_left(rest, taken);
    if not exists (select from json_each_text(rest) as r (kind, places) where places::integer > 0) then
      is_contended := is_contended or lanes > 1;
      exit;
    end if;
    if gate_ids <> '{}' then
      -- Gates are locked by id, and after runs: another pass might come to some that stand before these.
      is_unfinished := (is_again or lanes >= most_lanes)
        and (taken <> '{}' or stopped <> '{}' or opened <> '{}' or cardinality(startable) < cardinality(heads));
      exit;
    end if;
    if lanes >= most_lanes then
      select h.served_at, h.line_id into after_served, after_line
      from unnest(heads) as h order by h.served_at desc, h.line_id desc limit 1;
    else
      -- The last lanes: what room they leave is for those that may have more.
      exit when not is_again;
      after_served := '-infinity';
      is_again := false;
    end if;
    woken := '{}';
  end loop;
  if is_contended then
    perform detent.note_served(leased);
  end if;
end $$;

-- Takes the first ready runs of the lanes whose tasks this session's version has, as much as there is room of each kind, and a slot
-- in every limit that they hold. A row without a run says that another call may find more.
create function detent.lease_runs(by_session uuid, by_fence bigint, room json, most_lanes integer)
returns table (
  id uuid, attempt smallint, task_id text, isolation text, is_resumed boolean, has_journal boolean, results json,
  created_at timestamptz, started_at timestamptz, queue text, concurrency_key text, priority double precision, tags text[],
  payload text, metadata text, metadata_applied text, max_attempts smallint, max_duration double precision, idempotency_user_key text,
  idempotency_scope text, version text, parent_id uuid, root_id uuid, batch_id uuid, replay_of uuid, is_test boolean, machine text, active double precision,
  attempt_active double precision) language plpgsql as $$
#variable_conflict use_column
declare
  leased detent.head[];
  is_unfinished boolean;
begin
  if not detent.has_work(by_session) then
    return;
  end if;
  -- Who changes limits locks the sessions: from here on all limits are those of this moment.
  perform from detent.sessions where sessions.id = by_session and ended_at is null for share;
  if not found then
    return;
  end if;
  select filled.leased, filled.is_unfinished into leased, is_unfinished from detent.fill_room(by_session, room, most_lanes) as filled;

  return query
  with chosen as (
    select * from unnest(leased) as h
  ), leased_run as (
    update detent.runs
    set status = 'DEQUEUED', session_id = by_session, fence = by_fence, slots = nullif(chosen.gates, '{}'), expires_at = null,
        leased_at = clock_timestamp(), started_at = coalesce(runs.started_at, detent.now()),
        attempt_started_at = coalesce(runs.attempt_started_at, detent.now()),
        version_id = session.version_id,
        max_attempts = coalesce(runs.max_attempts, chosen.max_attempts)
    from chosen, detent.sessions as session
    where runs.id = chosen.run_id and session.id = by_session
    returning runs.id, runs.attempt, runs.task_id, runs.started_at, runs.has_journal, runs.max_attempts, runs.parent_id,
      runs.active, runs.attempt_active, runs.batch_id, runs.version_id, chosen.isolation, chosen.max_duration as task_max_duration, chosen.position,
      chosen.resident_session is not null and chosen.resident_session = by_session as is_resumed
  ), result as (
    select * from detent.deliver(array(select leased_run.id from leased_run where leased_run.has_journal))
  )
  select
    leased_run.id, leased_run.attempt, leased_run.task_id, leased_run.isolation, leased_run.is_resumed, leased_run.has_journal,
    result.results, inputs.created_at, leased_run.started_at, inputs.queue, inputs.concurrency_key, inputs.priority, inputs.tags,
    case when not leased_run.is_resumed then inputs.payload end as payload,
    case when not leased_run.is_resumed then inputs.metadata end as metadata,
    case when not leased_run.is_resumed then inputs.metadata_applied::text end as metadata_applied,
    leased_run.max_attempts, coalesce(inputs.max_duration, leased_run.task_max_duration) as max_duration,
    inputs.idempotency_user_key, inputs.idempotency_scope, versions.name as version, leased_run.parent_id, inputs.root_id, leased_run.batch_id,
    inputs.replay_of, inputs.is_test, inputs.machine, leased_run.active, leased_run.attempt_active
  from leased_run
  join detent.inputs on inputs.run_id = leased_run.id
  join detent.versions on versions.id = leased_run.version_id
  left join result on result.run_id = leased_run.id
  order by leased_run.position, leased_run.id;
  if is_unfinished then
    id := null;
    return next;
  end if;
end $$;

-- Locks the runs of heads, and returns those that may still start, and the lanes that had none. What is left of the others is a
-- row of the queue: its run was cancelled, or suspended, when that was locked already, or its ttl is over.
create function detent.lock_heads(heads detent.head[]) returns setof detent.head language plpgsql as $$
begin
  perform from detent.runs where id in (select h.run_id from unnest(heads) as h) order by id desc for update;
  return query
  select h.lane_id, h.line_id, h.served_at, h.gates, h.isolation, h.max_attempts, h.max_duration, h.run_id, h.row, h.position,
    h.resident_session, h.place, h.is_cut, coalesce(runs.attempt_started_at is not null, false)
  from unnest(heads) as h
  left join detent.runs on runs.id = h.run_id and status = 'QUEUED' and (expires_at is null or expires_at > detent.now())
  where h.run_id is null or runs.id is not null;
end $$;

create function detent.room_left(room json, taken detent.head[]) returns json language sql immutable as $$
  select json_object_agg(kind, places::integer - (select count(*) from unnest(taken) as h where h.isolation = kind))
  from json_each_text(room) as r (kind, places)
$$;

-- Puts the lines that were served behind the others, in the order in which they were: for when there is not room for all, be it the
-- worker's or a limit's.
create function detent.note_served(leased detent.head[]) returns void language plpgsql as $$
declare
  moment timestamptz := clock_timestamp();
  served uuid[];
begin
  served := array(
    select id from detent.lanes where line_id in (select h.line_id from unnest(leased) as h) for no key update skip locked);
  update detent.lanes set served_at = moment + turn.number * interval '1 microsecond'
  from (
    select line_id, max(i) as number from unnest(leased) with ordinality as h (
      lane_id, line_id, served_at, gates, isolation, max_attempts, max_duration, run_id, row, position, resident_session, place, is_cut, begun, i)
    group by line_id
  ) as turn
  where lanes.id = any(served) and lanes.line_id = turn.line_id;
end $$;

-- Lets the lanes of versions sleep in which nothing is ready, and forgets lanes that nobody has used for three days. (Who remembers
-- that a lane exists makes it again after an hour.) Not in the lease: between two waits of a run its lane is empty for a moment.
create function detent.rest_lanes() returns void language plpgsql as $$
declare
  quiet uuid[] := array(
    select id from detent.lanes
    where concurrency_key is null and version_id is not null and parked_on is null
      and not exists (select from detent.ready where ready.lane_id = lanes.id)
    for update skip locked);
  unused uuid[] := array(
    select id from detent.lanes
    where used_at < clock_timestamp() - interval '3 days' and not exists (select from detent.runs where runs.lane_id = lanes.id)
    for update skip locked);
begin
  update detent.lanes set parked_on = detent.asleep()
  where id = any(quiet) and not exists (select from detent.ready where ready.lane_id = lanes.id);
  delete from detent.lanes where id = any(unused) and not exists (select from detent.runs where runs.lane_id = lanes.id);
  delete from detent.gates
  where taken = 0 and opens_at is null and concurrency_key is not null and not exists (
    select from detent.lanes where lanes.environment_id = gates.environment_id and lanes.concurrency_key = gates.concurrency_key);
end $$;

-- ---- changes of limits ----------------------------------------------------------------------------------------------

-- Keeps everybody from leasing and from making lanes until the transaction ends. To be called before limits are changed.
create function detent.hold_leases(environment integer) returns void language plpgsql as $$
begin
  perform from detent.environments where id = environment for update;
  perform from detent.sessions where environment_id = environment and ended_at is null order by id for update;
end $$;

-- Makes what limits and tasks say now true of gates, lanes, and runs: those that are executed already hold slots in what was set
-- before them, too. Who may start now is told by opening every lane that these stopped.
create function detent.apply_limits(environment integer, changed uuid[], tasks text[]) returns void language plpgsql as $$
declare
  touched uuid[];
  mine uuid[];
begin
  -- Before lanes are looked for: whoever gives a run back makes one that has the gates of that moment.
  perform from detent.runs
  where session_id is not null and runs.environment_id = environment and status in ('DEQUEUED', 'EXECUTING') order by id desc for update;
  touched := array(
    select lanes.id from detent.lanes
    where lanes.environment_id = environment and (
      lanes.task_id = any(tasks)
      or exists (select from detent.limits_of(lanes) as l where l.id = any(changed))
      or exists (select from detent.gates where gates.id = any(lanes.gates) and gates.limit_id = any(changed))));
  update detent.environments set gates = array(
    select detent.gate_id(l.id, bound.scope, null)
    from detent.limits as l cross join lateral detent.bounds_of(l) as bound
    where l.id = detent.limit_id(environment, 'environment', '') and bound.scope = 'total')
  where id = environment and detent.limit_id(environment, 'environment', '') = any(changed);
  insert into detent.gates (id, limit_id, environment_id, scope)
  select gate, detent.limit_id(environment, 'environment', ''), environment, 'total'
  from detent.environments cross join lateral unnest(gates) as gate where environments.id = environment
  on conflict do nothing;
  perform detent.set_gates(touched);

  update detent.runs set slots = array(
    select distinct gate.id
    from unnest(runs.slots || lanes.gates || environments.gates) as held
    join detent.gates as gate on gate.id = held and gate.scope <> 'rate' order by gate.id)
  from detent.lanes, detent.environments
  where runs.session_id is not null and runs.environment_id = environment and status in ('DEQUEUED', 'EXECUTING')
    and lanes.id = runs.lane_id and environments.id = environment
    and not coalesce(runs.slots, '{}') @> (lanes.gates || environments.gates);

  -- Also those that lanes are parked on, and do not have to pass any more.
  mine := array(select gates.id from detent.gates where limit_id = any(changed) or gates.id in (
    select unnest(lanes.gates || parked_on) from detent.lanes where lanes.id = any(touched)) order by 1);
  perform from detent.gates where id = any(mine) order by id for update;
  update detent.gates
  set taken = coalesce(held.n, 0),
      allowed = case when g.scope = 'key' and g.key_until > detent.now() then g.key_allowed else bound.allowed end,
      period = coalesce(bound.period, gates.period),
      starts = case when bound.period <> g.period then detent.gather_starts(g, detent.now()) else gates.starts end,
      latest = case when bound.period <> g.period then detent.sub_window(bound.period, detent.now()) else gates.latest end
  from detent.gates as g
  join detent.limits as l on l.id = g.limit_id
  left join lateral detent.bounds_of(l) as bound on bound.scope = g.scope
  left join detent.held_slots(environment) as held on held.gate_id = g.id
  where gates.id = g.id and g.id = any(mine);
  perform detent.unpark(array(select id from detent.lanes where parked_on = any(mine)));
  delete from detent.vacancies where gate_id = any(mine);
end $$;

-- Registers the tasks of a version, and the queues and limits that its code declares; says whether something may start because of
-- it. What a limit is overridden with stays. Queues that tasks only name are declared without bounds of their own.
create function detent.register_tasks(environment integer, version integer, tasks json, declared json) returns boolean language plpgsql as $$
declare
  opened uuid[];
  changed uuid[];
  concerned text[];
  new_tasks text[]; new_limits uuid[];
begin
  perform detent.hold_leases(environment);
  new_tasks := array(
    select t.task from json_to_recordset(tasks) as t (task text)
    where not exists (
      select from detent.version_tasks as former where former.environment_id = environment and former.task_id = t.task));
  new_limits := array(select id from detent.limits where environment_id = environment and not is_declared);

  with declaration as (
    select kind, name, total, per_key, rate, most_queued, true as is_explicit
    from json_to_recordset(declared) as d (
      kind text, name text, total integer, per_key integer, rate jsonb, most_queued integer)
    union all
    select distinct 'queue', named.name, null::integer, null::integer, null::jsonb, null::integer, false
    from json_to_recordset(tasks) as t (task text, queue text)
    cross join lateral (values (t.queue), ('task/' || t.task)) as named (name)
  ), wanted as (
    select distinct on (kind, name) *, detent.limit_id(environment, kind, name) as id
    from declaration order by kind, name, is_explicit desc
  ), upserted as (
    insert into detent.limits as l (id, environment_id, kind, name, total, per_key, rate, most_queued)
    select id, environment, kind, name, total, per_key, rate, most_queued from wanted order by id
    on conflict (id) do update
    set is_declared = true, total = excluded.total, per_key = excluded.per_key, rate = excluded.rate, most_queued = excluded.most_queued
    where not l.is_declared
      or (select is_explicit from wanted where wanted.id = excluded.id)
        and (l.total, l.per_key, l.rate, l.most_queued)
          is distinct from (excluded.total, excluded.per_key, excluded.rate, excluded.most_queued)
    returning id
  )
  select coalesce(array_agg(id), '{}') into changed from upserted;
  insert into detent.limits (id, environment_id, kind, name, is_declared)
  select distinct detent.limit_id(environment, 'limit', held), environment, 'limit', held, false
  from json_to_recordset(tasks) as t (limits text[]) cross join lateral unnest(t.limits) as held
  order by 1
  on conflict do nothing;

  -- Tasks that nobody had, or whose limits are others than before.
  concerned := array(
    select t.task from json_to_recordset(tasks) as t (task text, limits text[])
    where coalesce(t.limits, '{}') is distinct from (
      select former.limits from detent.version_tasks as former
      where former.environment_id = environment and former.task_id = t.task order by former.version_id desc limit 1));
  delete from detent.version_tasks where version_id = version and task_id not in (
    select t.task from json_to_recordset(tasks) as t (task text));
  insert into detent.version_tasks (
    version_id, environment_id, task_id, isolation, file_path, queue, description, max_attempts, retry, max_duration, ttl, limits,
    on_lost, final_hooks, payload_schema, output_schema, machine, oom_machine)
  select version, environment, task, isolation, file, queue, description, max_attempts, retry, max_duration, ttl, coalesce(limits, '{}'),
    on_lost, coalesce(final_hooks, '{}'), payload_schema, output_schema, machine, oom_machine
  from json_to_recordset(tasks) as t (
    task text, isolation text, file text, queue text, description text, max_attempts smallint, retry text,
    max_duration double precision, ttl double precision, limits text[], on_lost text, final_hooks text[],
    payload_schema text, output_schema text, machine text, oom_machine text)
  on conflict (version_id, task_id) do update set
    isolation = excluded.isolation, file_path = excluded.file_path, queue = excluded.queue, description = excluded.description,
    max_attempts = excluded.max_attempts, retry = excluded.retry, max_duration = excluded.max_duration, ttl = excluded.ttl,
    limits = excluded.limits, on_lost = excluded.on_lost, final_hooks = excluded.final_hooks, payload_schema = excluded.payload_schema,
    output_schema = excluded.output_schema, machine = excluded.machine, oom_machine = excluded.oom_machine;

  -- The ttl of runs begins that waited for their task, their queue or a limit. There may be very many without one.
  opened := array(
    select lanes.id from detent.lanes
    where lanes.environment_id = environment and detent.is_known(lanes.id) and (
      task_id = any(new_tasks) or exists (select from detent.limits_of(lanes) as held where held.id = any(new_limits))));
  update detent.runs set queued_at = detent.now(), expires_at = detent.now() + make_interval(secs => waiting.life)
  from (
    select waited.id, coalesce(inputs.ttl, (
      select t.ttl from detent.version_tasks as t
      where t.environment_id = environment and t.task_id = waited.task_id order by version_id desc limit 1)) as life
    from detent.runs as waited join detent.inputs on inputs.run_id = waited.id
    where waited.lane_id = any(opened) and waited.status = 'QUEUED' and waited.started_at is null
  ) as waiting
  where runs.id = waiting.id and waiting.life > 0;
  if changed = '{}' and concerned = '{}' then
    return false;
  end if;
  perform detent.apply_limits(environment, changed, concerned);
  return true;
end $$;

-- Changes one queue or limit, and says whether it could: `outcome` is done, unknown, unchanged (nothing to reset), or unbounded (a key
-- cannot be given another bound than none). Null in `total`, `per_key` or `rate` leaves a bound as it is, 'none' takes it away.
create function detent.change_limit(
  environment integer, target uuid, change text, new_total text, new_per_key text, new_rate text, key text, until timestamptz)
returns text language plpgsql as $$
declare
  moment timestamptz := detent.now();
  l detent.limits;
  gate uuid := detent.gate_id(target, 'key', key);
begin
  perform detent.hold_leases(environment);
  select * into l from detent.limits where id = target and environment_id = environment for update;
  if not found then
    return 'unknown';
  end if;

  case change
    when 'pause' then
      update detent.limits set paused_at = coalesce(paused_at, moment) where id = target;
    when 'resume' then
      update detent.limits set paused_at = null where id = target;
    when 'override' then
      update detent.limits
      set total_override = case when new_total is null then total_override else nullif(new_total, 'none')::integer end,
          total_overridden_at = case when new_total is null then total_overridden_at else moment end,
          per_key_override = case when new_per_key is null then per_key_override else nullif(new_per_key, 'none')::integer end,
          per_key_overridden_at = case when new_per_key is null then per_key_overridden_at else moment end,
          rate_override = case when new_rate is null then rate_override else nullif(new_rate, 'none')::jsonb end,
          rate_overridden_at = case when new_rate is null then rate_overridden_at else moment end
      where id = target;
    when 'reset' then
      if coalesce(l.total_overridden_at, l.per_key_overridden_at, l.rate_overridden_at) is null then
        return 'unchanged';
      end if;
      update detent.limits
      set total_override = null, total_overridden_at = null, per_key_override = null, per_key_overridden_at = null,
          rate_override = null, rate_overridden_at = null
      where id = target;
    when 'override_key' then
      if not exists (select from detent.bounds_of(l) where scope = 'key') then
        return 'unbounded';
      end if;
      insert into detent.gates (id, limit_id, environment_id, scope, concurrency_key, key_allowed, key_until, opens_at)
      values (gate, target, environment, 'key', key, new_per_key::integer, until, until)
      on conflict (id) do update
      set key_allowed = excluded.key_allowed, key_until = excluded.key_until, opens_at = excluded.opens_at;
    when 'reset_key' then
      update detent.gates set key_allowed = null, key_until = null, opens_at = null where id = gate and key_until is not null;
      if not found then
        return 'unchanged';
      end if;
  end case;
  perform detent.apply_limits(environment, array[target], '{}');
  return 'done';
end $$;

-- How many slots of each gate are held, counted from the runs that hold them.
create function detent.held_slots(environment integer) returns table (gate_id uuid, n integer) language sql stable as $$
  select gate, count(*)::integer
  from (
    select slots from detent.runs
    where session_id is not null and environment_id = environment and status in ('DEQUEUED', 'EXECUTING')
    union all
    select slots from detent.endings where environment_id = environment
  ) as holder
  cross join lateral unnest(slots) as gate
  group by gate
$$;

-- Gates that let runs pass again because of the time: windows of rates, and overrides of keys that end. Opens the lanes before them.
create function detent.open_gates(most integer) returns table (environment_id integer) language plpgsql as $$
#variable_conflict use_column
declare
  moment timestamptz := detent.now();
  opened uuid[]; room integer[];
  parked uuid[];
begin
  opened := array(
    select id from detent.gates where opens_at <= moment order by opens_at limit most for update skip locked);
  if opened = '{}' then
    return;
  end if;
  update detent.gates set opens_at = null, key_allowed = null, key_until = null, allowed = bound.allowed
  from detent.limits as l left join lateral detent.bounds_of(l) as bound on bound.scope = 'key'
  where gates.id = any(opened) and gates.scope = 'key' and l.id = gates.limit_id;
  update detent.gates set starts = detent.starts_at(gates, moment), latest = detent.sub_window(period, moment)
  where id = any(opened) and scope = 'rate';
  update detent.gates set opens_at = detent.opens_at(gates) where id = any(opened) and scope = 'rate';
  select array_agg(id), array_agg(greatest(0, detent.room_of(gates, moment))) into opened, room
  from detent.gates where id = any(opened);
  parked := detent.parked_lanes(opened, room);
  perform detent.unpark(parked);
  perform detent.note_vacancies(opened, room);
  return query select distinct lanes.environment_id from detent.lanes where id = any(parked);
end $$;

-- As in 0002: look-ups by key in tables of any size.
do $$
declare
  name text;
begin
  foreach name in array array['make_lanes', 'lease_runs'] loop
    execute format('alter function detent.%I set enable_hashjoin = off', name);
    execute format('alter function detent.%I set enable_mergejoin = off', name);
    execute format('alter function detent.%I set enable_seqscan = off', name);
    execute format('alter function detent.%I set plan_cache_mode = force_generic_plan', name);
  end loop;
end $$;
