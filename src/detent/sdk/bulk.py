"""`runs.bulk`: the same done to many runs, by an operation that goes on by itself."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from detent.duration import Duration, seconds
from detent.errors import NotFoundError
from detent.protocol import ids
from detent.protocol.ids import BulkId, RunId
from detent.sdk.blocking import blocking
from detent.sdk.handles import RunHandle
from detent.sdk.page import Page, PageCall
from detent.sdk.run_query import RunQuery, to_selection
from detent.sdk.target import HERE, Target

if TYPE_CHECKING:
    from detent.protocol.bulk import BulkKind, BulkRecord
    from detent.protocol.selection import RunSelection

LARGEST_PAGE = 100
POLL_SECONDS = 0.5


class Bulk:
    """Bulk actions. The workers carry them out, whatever becomes of the caller; only runs that exist by then are concerned."""

    label = "runs.bulk"

    def __init__(self, target: Target = HERE) -> None:
        self._target = target
        self.sync = BulkSync(self)

    def cancel(
        self,
        *,
        filter: RunQuery | None = None,  # noqa: A002 - what the HTTP API and the docs call it
        run_ids: Iterable[RunHandle[Any] | str] | None = None,
        name: str | None = None,
        reason: str = "cancelled by user",
    ) -> Coroutine[Any, Any, BulkRecord]:
        """Begin to cancel all runs that a filter selects, or that are named, with their children.

        Example::

            action = await runs.bulk.cancel(filter={"task_id": "import", "status": "QUEUED"})
            print((await runs.bulk.poll(action.id)).success)

        Raises `ValueError` for a filter that selects nothing out.
        """
        from detent.protocol.bulk import BulkKind

        return self._begin(BulkKind.CANCEL, _runs(filter, run_ids), name, reason)

    def replay(
        self,
        *,
        filter: RunQuery | None = None,  # noqa: A002 - as above
        run_ids: Iterable[RunHandle[Any] | str] | None = None,
        name: str | None = None,
    ) -> Coroutine[Any, Any, BulkRecord]:
        """Begin to start new runs with the inputs of all runs that a filter selects, or that are named: each once.

        Example::

            await runs.bulk.replay(filter={"status": ["FAILED", "CRASHED"], "period": "1d"}, name="after the outage")
        """
        from detent.protocol.bulk import BulkKind

        return self._begin(BulkKind.REPLAY, _runs(filter, run_ids), name, "")

    async def retrieve(self, bulk_id: str) -> BulkRecord:
        """Return a bulk action as it stands. Raises `NotFoundError`."""
        (record,) = await self._target.connection().backend.retrieve_bulk_actions([_checked(bulk_id)])
        if record is None:
            raise NotFoundError(f"there is no bulk action {bulk_id} in this environment", code="bulk_action_not_found")
        return record

    def list(self, *, limit: int = 25) -> PageCall[BulkRecord]:
        """Return bulk actions, newest first: a page of at most *limit* (1 to 100), or with `async for` all of them."""
        if not 1 <= limit <= LARGEST_PAGE:
            raise ValueError(f"limit={limit!r} must be 1 to {LARGEST_PAGE}; use `async for` to go through more")
        return PageCall(self._page(None, limit), "runs.bulk.list")

    async def poll(self, bulk_id: str, *, timeout: Duration | None = None) -> BulkRecord:
        """Return a bulk action when it is over. Raises `TimeoutError` after *timeout*; default: none."""
        import asyncio

        async with asyncio.timeout(None if timeout is None else seconds(timeout)):
            while (  # noqa: ASYNC110 - it goes on in other processes, which tell nobody
                record := await self.retrieve(bulk_id)
            ).completed_at is None:
                await asyncio.sleep(POLL_SECONDS)
            return record

    async def abort(self, bulk_id: str) -> BulkRecord:
        """Stop a bulk action after the part that is under way, and return it. What was done stays done."""
        await self._target.connection().backend.abort_bulk_action(_checked(bulk_id))
        return await self.retrieve(bulk_id)

    async def _begin(
        self, kind: BulkKind, chosen: RunSelection | tuple[RunId, ...], name: str | None, reason: str
    ) -> BulkRecord:
        from detent.protocol.bulk import BulkRequest

        request = BulkRequest(bulk_id=ids.new_bulk_id(), kind=kind, runs=chosen, name=name, reason=reason)
        return await self._target.connection().backend.create_bulk_action(request)

    async def _page(self, before: BulkId | None, limit: int) -> Page[BulkRecord]:
        records = await self._target.connection().backend.list_bulk_actions(before=before, limit=limit)
        is_last = len(records) < limit
        return Page(
            items=tuple(records), read_next=None if is_last else lambda: self._page(records[-1].id, limit)
        )


class BulkSync:
    """`runs.bulk` as blocking calls."""

    def __init__(self, bulk: Bulk) -> None:
        self.cancel = blocking(bulk.cancel)
        self.replay = blocking(bulk.replay)
        self.retrieve = blocking(bulk.retrieve)
        self.list = blocking(bulk.list)
        self.poll = blocking(bulk.poll)
        self.abort = blocking(bulk.abort)


def _runs(
    query: RunQuery | None, run_ids: Iterable[RunHandle[Any] | str] | None
) -> RunSelection | tuple[RunId, ...]:
    if (query is None) == (run_ids is None):
        raise TypeError("a bulk action is about the runs of filter=, or about run_ids=: give one of the two")
    if run_ids is not None:
        if isinstance(run_ids, str):
            raise TypeError(f"run_ids= takes several ids, not the text {run_ids!r}; put it into a list")
        named = tuple(run.id if isinstance(run, RunHandle) else _run_id(run) for run in run_ids)
        if not named:
            raise ValueError("run_ids= is empty: name at least one run")
        return named
    assert query is not None
    return _selection(query)


def _selection(query: RunQuery) -> RunSelection:
    from detent.protocol.selection import RunSelection

    if not isinstance(query, Mapping):
        raise TypeError(f'filter= is a mapping such as {{"status": "FAILED"}}, not {query!r}')
    selection = to_selection(query)
    if selection == RunSelection():
        raise ValueError(f"filter={query!r} selects every run; give it at least one field, such as status or task_id")
    return selection


def _run_id(run: object) -> RunId:
    if not isinstance(run, str):
        raise TypeError(f"a run is named by its id or its handle, not by {run!r}")
    ids.decode("run", run)
    return RunId(run)


def _checked(bulk_id: str) -> BulkId:
    ids.decode("bulk", bulk_id)
    return cast("BulkId", bulk_id)
