"""How long does one ticker take to fire very many schedules of the same minute, and how fast are they made by calls?"""

from __future__ import annotations

import asyncio
import time

from benchmarks.database import Database
from benchmarks.measuring import MeasurementError, figure
from benchmarks.stage import Stage
from benchmarks.tasks import noop, stamp
from detent import Client
from detent.engine import backend
from detent.protocol.registration import WorkerRegistration
from detent.protocol.retry import Retry

SCHEDULES = 100_000
CREATED = 10_000
ENVIRONMENT = "production"
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Dubai", "Australia/Sydney", "America/Sao_Paulo",
    "Africa/Cairo", "America/Chicago", "Pacific/Auckland",
]  # fmt: skip

MAKE = """
insert into detent.schedules (
  id, environment_id, type, task_id, cron, timezone, overlap, external_id, deduplication_key, next_at, due_at)
select gen_random_uuid(), environments.id, 'IMPERATIVE', %(task)s, '0 * * * *',
  (%(zones)s::text[])[1 + n %% cardinality(%(zones)s::text[])],
  case when n %% 2 = 0 then 'allow' else 'skip' end, 'user_' || n, 'key_' || n, date_trunc('hour', detent.now()),
  date_trunc('hour', detent.now())
from detent.environments, generate_series(1, %(count)s) as n
where slug = %(environment)s
"""


def answer(stage: Stage) -> dict[str, float]:
    count = stage.sized(SCHEDULES)
    with stage.database() as database:
        seconds = asyncio.run(_fire(database, count))
        fired = int(database.number("select count(*) from detent.inputs where schedule_id is not null"))
        if fired != count:
            raise MeasurementError(f"{count} schedules were due, and {fired} made a run")
        created = stage.sized(CREATED)
        per_s = created / asyncio.run(_create(database, created))
    return {"fired": fired, "seconds": figure(seconds), "created_per_s": figure(per_s)}


async def _fire(database: Database, count: int) -> float:
    engine = backend.connect(database.dsn, environment=ENVIRONMENT)
    await engine.register_worker(WorkerRegistration(tasks=(noop.registration(Retry()), stamp.registration(Retry()))))
    params = {"task": noop.id, "zones": ZONES, "count": count, "environment": ENVIRONMENT}
    database.connection.execute(MAKE, params)
    database.connection.execute("vacuum analyze detent.schedules")
    maintenance = engine.maintenance
    began = time.monotonic()
    while database.number("select count(*) from (select from detent.schedules where due_at <= detent.now() limit 1) as due"):
        await maintenance.fire_schedules()
    seconds = time.monotonic() - began
    await maintenance.close()
    await engine.close()
    return seconds


async def _create(database: Database, count: int) -> float:
    """Call `schedules.create` so often, under `gather`; return the seconds."""
    async with Client(database_url=database.dsn, environment=ENVIRONMENT) as client:
        create = client.schedules.create
        began = time.monotonic()
        await asyncio.gather(*(create(task=stamp, cron="0 8 * * *", deduplication_key=f"made {n}") for n in range(count)))
        return time.monotonic() - began
