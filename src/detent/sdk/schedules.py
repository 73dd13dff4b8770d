"""`schedules`: tasks that run by themselves, and the schedules that say when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from detent.duration import Duration
from detent.errors import DefinitionError, NotFoundError
from detent.protocol import ids
from detent.protocol.cron import Cron, Overlap, timezones
from detent.protocol.ids import ScheduleId
from detent.protocol.schedules import ScheduledPayload
from detent.sdk import limits, spelling
from detent.sdk.blocking import blocking
from detent.sdk.definition import SchemaTaskOptions
from detent.sdk.page import Page, PageCall
from detent.sdk.target import HERE, Target
from detent.sdk.task import Async, BareTask, Task, define
from detent.sdk.triggering import Triggerable, task_id_of

if TYPE_CHECKING:
    from detent.protocol.refusal import Refused
    from detent.protocol.schedules import ScheduleChange, ScheduleRecord

Out = TypeVar("Out")
P = ParamSpec("P")


class ScheduledTaskOptions(SchemaTaskOptions, total=False):
    """Options of `@schedules.task`: those of `@task`, and `cron`.

    - `cron`: when it runs by itself: a pattern, in UTC, or a `Cron`. Default: when `schedules.create` says so.
    """

    cron: Cron | str | None


class ScheduleOptions(TypedDict, total=False):
    """What `schedules.create` and `schedules.update` take.

    - `task`: the task, defined with `@schedules.task`, or its id.
    - `cron`: a pattern of five fields, or a `Cron`, which says the time zone, the window and the overlap as well.
    - `timezone`: an IANA name; default UTC.
    - `window`: spreads schedules that share a pattern; default none. See `Cron`.
    - `overlap`: `"skip"` makes no run while the one before is not over; default `"allow"`.
    - `external_id`: an id of yours, such as a user's: given to the runs.
    """

    task: Triggerable[Any] | str
    cron: Cron | str
    timezone: str
    window: Duration | None
    overlap: Overlap
    external_id: str | None


class ScheduledTaskDecorator:
    """What `@schedules.task(...)` is applied with."""

    def __init__(self, cron: Cron | None, options: Mapping[str, object]) -> None:
        self._cron, self._options = cron, options

    @overload
    def __call__(
        self, fn: Callable[Concatenate[ScheduledPayload, P], Async[Out]], /
    ) -> Task[ScheduledPayload, Out, Concatenate[ScheduledPayload, P], Async[Out]]: ...
    @overload
    def __call__(self, fn: Callable[[], Async[Out]], /) -> BareTask[Out, [], Async[Out]]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[ScheduledPayload, P], Out], /
    ) -> Task[ScheduledPayload, Out, Concatenate[ScheduledPayload, P], Out]: ...
    @overload
    def __call__(self, fn: Callable[[], Out], /) -> BareTask[Out, [], Out]: ...
    def __call__(self, fn: Callable[..., object], /) -> object:
        """Make a scheduled task of a function. Raises `DefinitionError`."""
        made = define(fn, self._options)
        made.take_payload_of(ScheduledPayload)
        made.cron = self._cron
        return made


class Schedules:
    """Schedules of this environment: those that tasks declare, and those made here.

    Methods raise `ScheduleError`, a `ValueError`, for a pattern, a time zone or a window that is none; `NotFoundError` for a
    schedule that is not there; `UnprocessableEntityError` for a task that cannot be scheduled, and for changing what the code
    declares.
    """

    label = "schedules"

    def __init__(self, target: Target = HERE) -> None:
        self._target = target
        self.sync = SchedulesSync(self)

    def task(self, **options: Unpack[ScheduledTaskOptions]) -> ScheduledTaskDecorator:
        """Make a function a task whose payload is a `ScheduledPayload`, and which a schedule runs.

        Example::

            @schedules.task(id="daily-report", cron=Cron("0 5 * * *", timezone="Asia/Tokyo"))
            async def daily_report(payload: ScheduledPayload) -> None: ...

        A function that needs no payload may do without. Raises `DefinitionError`.
        """
        if callable(next(iter(options.values()), None)):
            raise DefinitionError("schedules.task takes options by name: @schedules.task(cron=...)")
        given: dict[str, object] = {**options}
        return ScheduledTaskDecorator(_as_cron(given.pop("cron", None)), given)

    async def create(self, *, deduplication_key: str | None = None, **options: Unpack[ScheduleOptions]) -> ScheduleRecord:
        """Make a schedule. With a *deduplication_key* that has one already, change that.

        Example::

            await schedules.create(
                task=reminder, cron="0 8 * * *", timezone="Asia/Tokyo", external_id="user_7", deduplication_key="user_7-reminder"
            )
        """
        from detent.protocol.schedules import ScheduleRequest

        _refuse_unknown("schedules.create", options)
        if "task" not in options or "cron" not in options:
            raise TypeError('schedules.create needs task= and cron=, such as create(task=reminder, cron="0 8 * * *")')
        request = ScheduleRequest(
            schedule_id=ids.new_schedule_id(),
            task_id=task_id_of(options["task"]),
            cron=_cron_of(options, None),
            external_id=options.get("external_id"),
            deduplication_key=deduplication_key,
        )
        return _accepted(await self._target.connection().create_schedule(request))

    async def retrieve(self, schedule_id: str) -> ScheduleRecord:
        """Return a schedule as it stands."""
        checked = _checked(schedule_id)
        (record,) = await self._target.connection().backend.retrieve_schedules([checked])
        if record is None:
            raise NotFoundError(f"there is no schedule {checked} in this environment", code="schedule_not_found")
        return record

    def list(self, *, page: int = 1, per_page: int = 25) -> PageCall[ScheduleRecord]:
        """Return schedules, the oldest first: a page of at most *per_page* (1 to 100), or with `async for` all that follow, too.

        Example::

            async for schedule in schedules.list():
                print(schedule.task_id, schedule.cron, schedule.next_run_at)
        """
        limits.check_page(page, per_page)
        return PageCall(self._page(page, per_page), "schedules.list")

    async def update(self, schedule_id: str, **options: Unpack[ScheduleOptions]) -> ScheduleRecord:
        """Change what is given of an imperative schedule. The rest stays, and its next run, too, unless its times are others.

        Example::

            await schedules.update(schedule.id, cron="0 9 * * *")
        """
        from detent.protocol.schedules import ScheduleUpdate

        _refuse_unknown("schedules.update", options)
        present = await self.retrieve(schedule_id)
        update = ScheduleUpdate(
            schedule_id=present.id,
            task_id=task_id_of(options.get("task", present.task_id)),
            cron=_cron_of(options, present),
            external_id=options.get("external_id", present.external_id),
        )
        return await self._change(update)

    async def activate(self, schedule_id: str) -> ScheduleRecord:
        """Let a deactivated schedule run again, from its next tick on."""
        from detent.protocol.schedules import Activation

        return await self._change(Activation(schedule_id=_checked(schedule_id)))

    async def deactivate(self, schedule_id: str) -> ScheduleRecord:
        """Make no runs any more until it is activated again."""
        from detent.protocol.schedules import Deactivation

        return await self._change(Deactivation(schedule_id=_checked(schedule_id)))

    async def delete(self, schedule_id: str) -> ScheduleRecord:
        """Remove a schedule, and return it as it was. Its runs stay."""
        from detent.protocol.schedules import Deletion

        return await self._change(Deletion(schedule_id=_checked(schedule_id)))

    async def timezones(self, *, exclude_utc: bool = False) -> tuple[str, ...]:
        """Return the names of the time zones there are: UTC first, the others in order."""
        return tuple(timezones(exclude_utc=exclude_utc))

    async def _change(self, change: ScheduleChange) -> ScheduleRecord:
        (answer,) = await self._target.connection().backend.change_schedules([change])
        return _accepted(answer)

    async def _page(self, number: int, per_page: int) -> Page[ScheduleRecord]:
        backend = self._target.connection().backend
        records, count = await backend.list_schedules(offset=(number - 1) * per_page, limit=per_page)
        return Page(
            items=tuple(records),
            read_next=(lambda: self._page(number + 1, per_page)) if number * per_page < count else None,
        )


class SchedulesSync:
    """`schedules` as blocking calls."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules
        self.retrieve = blocking(schedules.retrieve)
        self.list = blocking(schedules.list)
        self.activate = blocking(schedules.activate)
        self.deactivate = blocking(schedules.deactivate)
        self.delete = blocking(schedules.delete)
        self.timezones = blocking(schedules.timezones)

    # Keyword options are lost on the way through `blocking`: these name them once more.

    def create(self, *, deduplication_key: str | None = None, **options: Unpack[ScheduleOptions]) -> ScheduleRecord:
        """`schedules.create` as a blocking call."""
        return blocking(self._schedules.create)(deduplication_key=deduplication_key, **options)

    def update(self, schedule_id: str, **options: Unpack[ScheduleOptions]) -> ScheduleRecord:
        """`schedules.update` as a blocking call."""
        return blocking(self._schedules.update)(schedule_id, **options)


def _accepted(answer: ScheduleRecord | Refused) -> ScheduleRecord:
    from detent.protocol.refusal import Refused, to_error

    if isinstance(answer, Refused):
        raise to_error(answer)
    return answer


def _refuse_unknown(call: str, options: Mapping[str, object]) -> None:
    for name in options:
        if name not in ScheduleOptions.__annotations__:
            raise TypeError(f"unknown option {name!r} of {call}{spelling.hint(name, ScheduleOptions.__annotations__)}")


def _as_cron(cron: object) -> Cron | None:
    return cron if cron is None or isinstance(cron, Cron) else Cron(cast("str", cron))


def _cron_of(options: ScheduleOptions, present: ScheduleRecord | None) -> Cron:
    """Return when a schedule runs: as given, else as it is at present."""
    given = options.get("cron")
    if isinstance(given, Cron):
        for name in ("timezone", "window", "overlap"):
            if name in options:
                raise TypeError(f"cron= is a Cron, which says its {name} itself; give {name}= to Cron, or a pattern as text")
        return given
    base = _cron_of_record(present) if present is not None else Cron(cast("str", given))
    return Cron(
        base.pattern if given is None else given,
        options.get("timezone", base.timezone),
        window=options.get("window", base.window),
        overlap=options.get("overlap", base.overlap),
    )


def _cron_of_record(record: ScheduleRecord) -> Cron:
    return Cron(record.cron, record.timezone, window=record.window, overlap=record.overlap)


def _checked(schedule_id: object) -> ScheduleId:
    if not isinstance(schedule_id, str):
        raise TypeError(f"a schedule is named by its id, not by {schedule_id!r}")
    ids.decode("sched", schedule_id)
    return ScheduleId(schedule_id)


schedules = Schedules()
