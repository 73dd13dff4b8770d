"""Waiting for runs to end from outside: announcements are hints, and one that is lost is made good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from detent.errors import ApiConnectionError, DatabaseVersionError
from detent.protocol.backend import CallerBackend
from detent.protocol.ids import RunId, new_run_id
from detent.protocol.runs import RunOutcome
from detent.protocol.status import RunStatus
from detent.protocol.wake_ups import Wake
from detent.sdk import watch
from detent.sdk.watch import Watch


class Announcer:
    """A backend of which a test says what it announces, and which runs have ended."""

    def __init__(self) -> None:
        self.wakes: asyncio.Queue[Wake | Exception] = asyncio.Queue()
        self.ended: set[RunId] = set()
        self.asked: list[list[RunId]] = []
        self.listeners = 0

    async def watch_runs(self, run_ids: Sequence[RunId]) -> list[RunOutcome | None]:
        self.asked.append(list(run_ids))
        return [self._outcome(run_id) if run_id in self.ended else None for run_id in run_ids]

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[Wake]]:
        self.listeners += 1
        yield self._wakes()

    async def _wakes(self) -> AsyncIterator[Wake]:
        while True:
            wake = await self.wakes.get()
            if isinstance(wake, Exception):
                raise wake
            yield wake

    def _outcome(self, run_id: RunId) -> RunOutcome:
        return RunOutcome(run_id=run_id, task_id="charge", status=RunStatus.COMPLETED)


@pytest.fixture
def announcer() -> Announcer:
    return Announcer()


@pytest.fixture
async def watching(announcer: Announcer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watch]:
    monkeypatch.setattr(watch, "_RECONNECT_AFTER", 0)
    watching = Watch(cast("CallerBackend", announcer))
    yield watching
    await watching.close()


RUN = new_run_id()


async def test_announced_end_wakes_all_who_wait_for_that_run(announcer: Announcer, watching: Watch) -> None:
    first, second, other = watching.expect(RUN), watching.expect(RUN), watching.expect(new_run_id())

    announcer.wakes.put_nowait(Wake(finished=(RUN,)))
    await asyncio.wait_for(asyncio.gather(first, second), 5)

    assert not other.done()
    assert announcer.listeners == 1


async def test_end_before_the_listening_began_is_found_by_looking(announcer: Announcer, watching: Watch) -> None:
    announcer.ended.add(RUN)

    await asyncio.wait_for(watching.expect(RUN), 5)


async def test_lost_announcement_is_made_good(
    announcer: Announcer, watching: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_LOOK_EVERY", 0)
    end = watching.expect(RUN)
    announcer.wakes.put_nowait(Wake(ready=1))
    announcer.ended.add(RUN)
    announcer.wakes.put_nowait(Wake())

    await asyncio.wait_for(end, 5)


async def test_broken_listening_begins_again(announcer: Announcer, watching: Watch) -> None:
    end = watching.expect(RUN)
    announcer.wakes.put_nowait(ApiConnectionError("away"))
    announcer.wakes.put_nowait(Wake(finished=(RUN,)))

    await asyncio.wait_for(end, 5)

    assert announcer.listeners == 2


async def test_what_will_not_get_better_reaches_who_waits(announcer: Announcer, watching: Watch) -> None:
    end = watching.expect(RUN)
    announcer.wakes.put_nowait(DatabaseVersionError("12", 15))

    with pytest.raises(DatabaseVersionError):
        await asyncio.wait_for(end, 5)


async def test_closing_tells_who_waits(announcer: Announcer, watching: Watch) -> None:
    end = watching.expect(RUN)
    await watching.close()

    with pytest.raises(ApiConnectionError, match="was closed while a run was waited for"):
        await end


async def test_who_gave_up_is_forgotten(announcer: Announcer, watching: Watch) -> None:
    watching.expect(RUN).cancel()
    await asyncio.sleep(0)

    assert watching._waiting == {}
