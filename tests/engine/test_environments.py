"""Environments: their types, their branches, and that nothing of one is seen in another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from detent.engine import environments
from detent.engine.backend import EngineBackend, connect
from detent.errors import BadRequestError, ConfigError, ConflictError
from detent.protocol import ids
from detent.protocol.batches import BatchCreation
from detent.protocol.bulk import BulkKind, BulkRequest
from detent.protocol.cron import Cron
from detent.protocol.environments import EnvironmentRecord, EnvironmentType
from detent.protocol.envvars import EnvVarValue, PutMode
from detent.protocol.flow import LimitKind, Pause, Resume
from detent.protocol.idempotency import Idempotency
from detent.protocol.refusal import Refused
from detent.protocol.runs import ReplayRequest, Rescheduling
from detent.protocol.selection import RunSelection
from detent.protocol.status import RunStatus
from detent.protocol.tokens import TokenCompletion, TokenFilter, TokenRequest
from tests.database import Clock
from tests.engine.scheduling import EVERY_HOUR, HOUR, all_schedules, create, fire, scheduled
from tests.engine.stage import ENVIRONMENT, Stage, Worker, chunk, limit, queue, queue_ref, registration, request, task
from tests.pooler import direct

KEY = "k" * 43 + "="
Connect = Callable[[str], EngineBackend]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETENT_ENCRYPTION_KEY", KEY)


@pytest.fixture
async def at(dsn: str) -> AsyncIterator[Connect]:
    """Connects to an environment."""
    opened: list[EngineBackend] = []

    def connect_to(name: str) -> EngineBackend:
        opened.append(connect(dsn, environment=name, listen_url=direct(dsn)))
        return opened[-1]

    yield connect_to
    for backend in opened:
        await backend.close()


@pytest.fixture
def asked_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "FRESH_SECONDS", -1.0)


# ---- what they are ----


@pytest.mark.parametrize(
    ("slug", "kind"),
    [
        ("dev", EnvironmentType.DEVELOPMENT),
        ("dev-ada", EnvironmentType.DEVELOPMENT),
        ("staging", EnvironmentType.STAGING),
        ("prod", EnvironmentType.PRODUCTION),
        ("production_eu", EnvironmentType.PRODUCTION),
        ("preview", EnvironmentType.PREVIEW),
        ("qa", EnvironmentType.STAGING),
        ("devices", EnvironmentType.STAGING),
    ],
)
async def test_slug_says_the_type_where_nobody_does(at: Connect, slug: str, kind: EnvironmentType) -> None:
    here = await at(slug).retrieve_environment()
    assert (here.slug, here.name, here.type, here.branch_name) == (slug, slug, kind, None)


async def test_type_is_given_once(engine: EngineBackend) -> None:
    made = await engine.create_environment("qa", EnvironmentType.PRODUCTION)
    assert isinstance(made, EnvironmentRecord)
    assert made.type is EnvironmentType.PRODUCTION
    assert await engine.create_environment("qa", None) == made

    refused = await engine.create_environment("qa", EnvironmentType.STAGING)
    assert isinstance(refused, Refused)
    assert refused.message == (
        'environment "qa" is of type PRODUCTION, and that is for ever; give another one the type STAGING'
    )


async def test_branch_is_an_environment_under_its_preview(at: Connect) -> None:
    here = await at("preview/feat/checkout").retrieve_environment()
    assert (here.slug, here.branch_name, here.type) == ("preview", "feat/checkout", EnvironmentType.PREVIEW)
    assert [record.name for record in await at("dev").list_environments()] == ["preview", "preview/feat/checkout"]


async def test_only_previews_have_branches(at: Connect) -> None:
    with pytest.raises(BadRequestError, match='environment "prod" is of type PRODUCTION and has no branches'):
        await at("prod/feat").retrieve_environment()


async def test_name_that_is_none_is_refused_before_anything_is_asked(dsn: str) -> None:
    with pytest.raises(ConfigError, match="'Prod EU' is no name of an environment"):
        connect(dsn, environment="Prod EU")


async def test_id_is_that_of_the_limit_of_the_environment(stage: Stage) -> None:
    await stage.change(Pause(ref=ENVIRONMENT))
    (limit_record,) = await stage.engine.retrieve_limits([ENVIRONMENT])
    assert limit_record is not None
    assert (await stage.engine.retrieve_environment()).id == limit_record.id


async def test_counts_are_of_runs_that_are_not_over(stage: Stage, worker: Worker) -> None:
    await worker.succeed(await stage.leased(worker))
    await worker.start(await stage.leased(worker))
    await worker.sleep(await stage.leased(worker))
    await stage.trigger()
    await stage.trigger(delay=timedelta(hours=1))

    (record,) = await stage.engine.list_environments()
    assert (record.name, record.queued, record.running, record.waiting) == ("dev", 2, 1, 1)


# ---- development ----


async def test_every_environment_of_the_type_is_development(at: Connect, stage: Stage) -> None:
    mine = at("dev-ada")
    await mine.register_worker(registration(scheduled()))
    (record,), _ = await mine.list_schedules()
    assert record.obstacle == "no worker runs, and in development schedules fire only while one does; start `detent dev`"


async def test_schedule_is_for_the_types_that_it_names(at: Connect) -> None:
    tasks = [
        scheduled("by_type", Cron("0 * * * *", environments=[EnvironmentType.PRODUCTION])),
        scheduled("by_slug", Cron("0 * * * *", environments=["qa", "eu"])),
        scheduled("everywhere"),
    ]
    found: dict[str, set[str]] = {}
    for name in ("prod", "qa", "preview/x"):
        backend = at(name)
        await backend.register_worker(registration(*tasks))
        found[name] = {record.task_id for record in (await backend.list_schedules())[0]}
    assert found == {"prod": {"by_type", "everywhere"}, "qa": {"by_slug", "everywhere"}, "preview/x": {"everywhere"}}


# ---- archived ones ----


async def archived(stage: Stage) -> None:
    answer = await stage.engine.archive_environment("dev")
    assert isinstance(answer, EnvironmentRecord)
    assert answer.archived_at is not None


async def test_queued_runs_of_an_archived_environment_stay_until_it_comes_back(
    stage: Stage, worker: Worker, asked_always: None
) -> None:
    run_id = await stage.trigger()
    await archived(stage)
    assert await worker.lease() == []
    assert await stage.status(run_id) is RunStatus.QUEUED

    await stage.engine.create_environment("dev", None)
    assert (await worker.lease_one()).run_id == run_id


async def test_what_executes_goes_on_in_an_archived_environment(
    stage: Stage, worker: Worker, asked_always: None
) -> None:
    lease = await stage.leased(worker)
    await archived(stage)
    await worker.succeed(lease)
    assert await stage.status(lease.run_id) is RunStatus.COMPLETED


WRITES: dict[str, Callable[[EngineBackend], Awaitable[object]]] = {
    "trigger": lambda engine: engine.trigger([request()]),
    "trigger_batch": lambda engine: engine.trigger_batch(chunk(ids.new_batch_id(), [0], total=1)),
    "create_batch": lambda engine: engine.create_batch(BatchCreation(batch_id=ids.new_batch_id())),
    "replay_runs": lambda engine: engine.replay_runs([ReplayRequest(run_id=ids.new_run_id(), replay_of=ids.new_run_id())]),
    "reschedule_runs": lambda engine: engine.reschedule_runs([Rescheduling(run_id=ids.new_run_id(), delay=HOUR)]),
    "change_limits": lambda engine: engine.change_limits([Resume(ref=ENVIRONMENT)]),
    "create_bulk_action": lambda engine: engine.create_bulk_action(
        BulkRequest(bulk_id=ids.new_bulk_id(), kind=BulkKind.REPLAY, runs=(ids.new_run_id(),))
    ),
    "create_schedules": lambda engine: engine.create_schedules([]),
    "change_schedules": lambda engine: engine.change_schedules([]),
    "create_tokens": lambda engine: engine.create_tokens([TokenRequest(waitpoint_id=ids.new_waitpoint_id())]),
    "complete_tokens": lambda engine: engine.complete_tokens([TokenCompletion(waitpoint_id=ids.new_waitpoint_id())]),
    "put_envvars": lambda engine: engine.put_envvars([EnvVarValue(name="A", value="1")], PutMode.SET),
    "delete_envvars": lambda engine: engine.delete_envvars(["A"]),
    "register_worker": lambda engine: engine.register_worker(registration("work")),
}


@pytest.mark.parametrize("write", WRITES)
async def test_archived_environment_refuses_writes(stage: Stage, write: str, asked_always: None) -> None:
    await stage.engine.retrieve_environment()
    await archived(stage)
    with pytest.raises(ConflictError) as refused:
        await WRITES[write](stage.engine)
    assert str(refused.value) == (
        'environment "dev" is archived: nothing can be written to it; `detent environments create dev` brings it back'
    )
    assert refused.value.code == "environment_archived"


async def test_schedules_of_an_archived_environment_make_no_runs(
    at: Connect, clock: Clock, asked_always: None
) -> None:
    prod = at("prod")
    await prod.register_worker(registration(scheduled()))
    await prod.archive_environment("prod")
    clock.advance(2 * HOUR)
    await fire(prod)
    assert await prod.list_runs(RunSelection()) == []


async def test_unknown_environment_cannot_be_archived(engine: EngineBackend) -> None:
    refused = await engine.archive_environment("prdo")
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code) == (404, "environment_not_found")
    assert await engine.list_environments() == []


async def test_branch_cannot_be_made_under_an_archived_preview(at: Connect, asked_always: None) -> None:
    dev = at("dev")
    await dev.create_environment("preview", None)
    await dev.archive_environment("preview")
    with pytest.raises(ConflictError, match='environment "preview" is archived'):
        await at("preview/feat").trigger([request()])


@pytest.mark.parametrize(
    ("name", "why"), [("dev", 'environment "dev" is archived'), ("preview/x", 'there is no environment "preview/x"')]
)
async def test_plain_sql_triggers_in_no_archived_environment_and_in_no_unknown_branch(
    stage: Stage, name: str, why: str
) -> None:
    await stage.engine.create_environment("dev", None)
    await archived(stage)
    with pytest.raises(psycopg.Error, match=why):
        await stage.query("select detent.trigger('work', '{}', jsonb_build_object('environment', %s::text))", name)


# ---- apart from one another ----


async def test_nothing_of_one_environment_is_seen_in_another(at: Connect, dsn: str, conn: Any) -> None:
    """The same names and keys in both; whatever is read, changed or leased in one is of that one alone."""
    mine, theirs = Stage(at("preview/a"), conn), Stage(at("preview/b"), conn)
    declared = [queue("q", 1), limit("l", total=1)]
    tasks = [task(limits=("l",), queue="q", task_id="work"), scheduled("daily")]
    worker, other = await mine.worker(*tasks, limits=declared), await theirs.worker(*tasks, limits=declared)
    once = Idempotency(key="k" * 64, user_key="k", scope="global")

    run_id = await mine.trigger(idempotency=once, tags=("t",))
    assert await other.lease() == []
    assert await theirs.engine.retrieve_runs([run_id]) == [None]
    assert await theirs.engine.cancel_runs([run_id], "not mine") == [None]
    assert await theirs.engine.list_runs(RunSelection(tags=("t",))) == []

    twin = await theirs.trigger(idempotency=once, tags=("t",))
    assert twin != run_id
    assert [lease.run_id for lease in await worker.lease()] == [run_id]
    # Each limit of one run is another's in the other environment.
    assert [lease.run_id for lease in await other.lease()] == [twin]

    await mine.change(Pause(ref=queue_ref("q")))
    (theirs_queue,) = await theirs.engine.retrieve_limits([queue_ref("q")])
    assert theirs_queue is not None
    assert theirs_queue.paused_at is None
    assert [record.running for record in (await theirs.engine.list_limits(LimitKind.LIMIT))[0]] == [1]

    made = await create(mine, EVERY_HOUR, "daily", deduplication_key="d")
    assert made.id not in {record.id for record in await all_schedules(theirs)}
    assert await theirs.engine.retrieve_schedules([made.id]) == [None]

    token = ids.new_waitpoint_id()
    await mine.engine.create_tokens([TokenRequest(waitpoint_id=token, tags=("t",))])
    assert await theirs.engine.retrieve_tokens([token]) == [None]
    assert await theirs.engine.list_tokens(TokenFilter(tags=("t",))) == []
    assert await theirs.engine.complete_tokens([TokenCompletion(waitpoint_id=token)]) == [None]

    await mine.engine.put_envvars([EnvVarValue(name="A", value="mine")], PutMode.SET)
    assert await theirs.engine.list_envvars() == []
    assert {beat.session_id for beat in await theirs.engine.list_sessions()} == {other.session_id}
