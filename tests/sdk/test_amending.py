"""What callers add to runs that are not theirs, and what they read of them: on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from detent import MetadataTooLargeError, NotFoundError, RunHandle, SerializationError, TooManyTagsError, runs, tasks
from detent.engine.backend import EngineBackend
from detent.protocol.attempts import Succeeded
from detent.protocol.codec import JsonValue
from detent.protocol.execution import Isolation
from detent.protocol.fence import Holder
from detent.protocol.ids import new_run_id, new_session_id
from detent.protocol.leases import Lease, LeaseRequest
from detent.protocol.logs import LogLine
from detent.protocol.sessions import SessionOpening
from tests.engine.stage import registration

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def test_tags_are_added_to_a_run_from_outside(home: str) -> None:
    handle = await tasks.trigger("charge", 1, tags="a")
    await runs.add_tags(handle, "b")
    await runs.add_tags(handle.id, ["a", " ", "c"])
    assert (await runs.retrieve(handle)).tags == ("a", "b", "c")
    with pytest.raises(TooManyTagsError, match="11 tags are over the limit of 10"):
        await runs.add_tags(handle, [str(n) for n in range(8)])


async def test_values_are_put_into_metadata_from_outside(home: str) -> None:
    handle = await tasks.trigger("charge", 1, metadata={"state": "new", "files": [{"name": "a"}]})
    document = await runs.update_metadata(handle, {"state": "seen", "$.files.0.ok": True})
    assert document == {"state": "seen", "files": [{"name": "a", "ok": True}]}
    assert (await runs.retrieve(handle)).metadata == document
    with pytest.raises(MetadataTooLargeError, match="nothing was changed"):
        await runs.update_metadata(handle, {"a": "x" * 150_000, "b": "x" * 150_000})
    assert (await runs.retrieve(handle)).metadata == document


def test_blocking_calls_do_the_same(home: str) -> None:
    handle = tasks.sync.trigger("charge", 1)
    runs.sync.add_tags(handle, "b")
    assert runs.sync.update_metadata(handle, {"a": 1}) == {"a": 1}
    assert list(runs.sync.logs(handle)) == []
    assert runs.sync.retrieve(handle).tags == ("b",)


async def read_logs(run_id: str) -> None:
    async for _ in runs.logs(run_id):
        pass


CALLS: dict[str, Callable[[str], Awaitable[object]]] = {
    "add_tags": lambda run_id: runs.add_tags(run_id, "a"),
    "update_metadata": lambda run_id: runs.update_metadata(run_id, {"a": 1}),
    "logs": read_logs,
}


@pytest.mark.parametrize("name", CALLS)
async def test_unknown_run_is_not_found(home: str, name: str) -> None:
    with pytest.raises(NotFoundError, match="there is no run run_"):
        await CALLS[name](new_run_id())
    with pytest.raises(ValueError, match="is no run id"):
        await CALLS[name]("run_1")


async def test_metadata_that_is_none_is_refused_at_the_call(home: str) -> None:
    run_id = new_run_id()
    with pytest.raises(SerializationError, match="it must be an object, not list"):
        await runs.update_metadata(run_id, [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a metadata key cannot be empty"):
        await runs.update_metadata(run_id, {"": 1})


# ---- logs ----


async def leased(engine: EngineBackend) -> tuple[RunHandle[JsonValue], Lease]:
    session = new_session_id()
    version = await engine.register_worker(registration("charge"))
    await engine.open_session(SessionOpening(session_id=session, version=version, worker="test"))
    handle = await tasks.trigger("charge", 1)
    (lease,) = await engine.lease(LeaseRequest(session_id=session, fence=1, room={Isolation.ASYNC: 1}))
    return handle, lease


def line(lease: Lease, number: int, *, fields: str | None = None) -> LogLine:
    holder = Holder(run_id=lease.run_id, fence=lease.fence)
    at = NOON + timedelta(seconds=number)
    return LogLine(
        holder=holder, attempt=1, place="main/0", number=number, at=at, level="info", message=f"line {number}", fields=fields
    )


async def test_lines_of_a_run_are_read_page_by_page(engine: EngineBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detent.sdk.run_logs.PAGE", 2)
    handle, lease = await leased(engine)
    await engine.append_logs([line(lease, n, fields='{"n": 1}' if n else None) for n in range(5)])
    read = [log async for log in runs.logs(handle)]
    assert [log.message for log in read] == [f"line {n}" for n in range(5)]
    assert [(log.attempt, log.level, log.at) for log in read[:1]] == [(1, "info", NOON)]
    assert [log.fields for log in read[:2]] == [{}, {"n": 1}]


async def test_lines_are_followed_until_the_run_has_ended(engine: EngineBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detent.sdk.run_logs.FOLLOW_SECONDS", 0.01)
    handle, lease = await leased(engine)
    await engine.append_logs([line(lease, 0)])
    read: list[str] = []
    async with asyncio.timeout(10):
        async for log in runs.logs(handle, follow=True):
            read.append(log.message)
            if len(read) < 3:
                await engine.append_logs([line(lease, len(read))])
            else:
                await engine.complete_attempts([Succeeded(holder=Holder(run_id=lease.run_id, fence=lease.fence), output="1")])
    assert read == ["line 0", "line 1", "line 2"]


async def test_end_of_a_run_ends_its_lines_at_once(engine: EngineBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is announced: nobody waits for the next look."""
    monkeypatch.setattr("detent.sdk.run_logs.FOLLOW_SECONDS", 60.0)
    handle, lease = await leased(engine)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        reading = group.create_task(read_logs(handle.id))
        await engine.complete_attempts([Succeeded(holder=Holder(run_id=lease.run_id, fence=lease.fence), output="1")])
        await reading
