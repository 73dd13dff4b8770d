"""What a hook may be, where it is kept, and what `catch_error` may decide."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from detent import DefinitionError, Local, LocalUnsetError, Next, OutsideRunError, RetryAt, task, tasks
from detent.protocol.final_hooks import FinalEnd
from detent.protocol.retry import Retry
from detent.sdk import scope
from detent.sdk.hooks import ARGUMENTS, HookKind, global_hooks
from tests.sdk.fake_run import FakeRun


@pytest.fixture(autouse=True)
def no_hooks() -> Iterator[None]:
    yield
    global_hooks.clear()


def names(kind: HookKind) -> list[str]:
    return [hook.name for hook in global_hooks.of(kind)]


@pytest.mark.parametrize("kind", HookKind)
def test_each_kind_is_a_decorator_of_a_task_an_option_and_one_of_all_tasks(kind: HookKind) -> None:
    async def hook(next: Next) -> None: ...

    if kind is not HookKind.MIDDLEWARE:

        def hook() -> None: ...  # type: ignore[misc, no-redef]

    options = {kind.value: hook}

    @task(id=f"with-{kind}", **options)  # type: ignore[call-overload, untyped-decorator]
    async def work() -> None: ...

    assert getattr(work, kind)(hook) is hook
    assert getattr(tasks, kind)(hook) is hook
    assert [kept.fn for kept in work.hooks.of(kind)] == [hook, hook]
    assert names(kind) == ["hook"]


@pytest.mark.parametrize("kind", HookKind)
def test_an_argument_that_there_is_not_is_refused_naming_those_that_there_are(kind: HookKind) -> None:
    def hook(extra: int = 3) -> None: ...

    with pytest.raises(DefinitionError) as refused:
        getattr(tasks, kind)(hook)

    assert f'{kind} "hook" in' in str(refused.value)
    assert 'nobody would fill in the parameter "extra"' in str(refused.value)
    assert all(name in str(refused.value) for name in ARGUMENTS[kind])


def test_an_option_that_is_a_bad_hook_names_the_task() -> None:
    def alert(result: object) -> None: ...

    with pytest.raises(DefinitionError, match=r'task "charge" in .*test_hooks.py:\d+: on_failure "alert"'):

        @task(on_failure=alert)
        async def charge() -> None: ...


@pytest.mark.parametrize(
    ("middleware", "why"),
    [
        (lambda next: None, "must be `async def`, for it awaits next"),
        (types.coroutine(lambda: (yield)), "must be `async def`"),
    ],
)
def test_a_middleware_awaits_next(middleware: Callable[..., object], why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        tasks.middleware(middleware)


def test_a_middleware_that_takes_no_next_is_refused() -> None:
    async def db(ctx: object) -> None: ...

    with pytest.raises(DefinitionError, match='must take "next"'):
        tasks.middleware(db)


def test_a_name_is_there_once() -> None:
    @tasks.on_failure("alert")
    def first() -> None: ...

    @tasks.on_failure("log")
    def log() -> None: ...

    @tasks.on_failure("alert")
    def second() -> None: ...

    assert [hook.fn for hook in global_hooks.of(HookKind.ON_FAILURE)] == [second, log]


def test_a_module_that_is_loaded_again_replaces_its_hooks() -> None:
    code = "from detent import tasks\n@tasks.on_success\ndef tell(): ...\n"
    for _ in range(2):
        exec(compile(code, "tasks/all.py", "exec"), {"__name__": "all"})
    assert names(HookKind.ON_SUCCESS) == ["tell"]


async def test_a_hook_is_not_registered_by_a_run(run: FakeRun) -> None:
    @task
    async def charge() -> None: ...

    refused = [tasks.on_success, tasks.on_success("alert"), charge.on_success]
    for decorate in refused:
        with pytest.raises(DefinitionError, match=r"test_hooks.py:\d+ is registered inside of a run"):
            decorate(lambda output: None)
    assert global_hooks.of(HookKind.ON_SUCCESS) == charge.hooks.of(HookKind.ON_SUCCESS) == ()


async def test_a_module_that_a_run_imports_registers_its_hooks(run: FakeRun) -> None:
    exec("@tasks.on_success\ndef alert(): ...", {"tasks": tasks})

    assert [hook.name for hook in global_hooks.of(HookKind.ON_SUCCESS)] == ["alert"]


def test_a_task_registers_the_ends_that_have_hooks() -> None:
    @task
    async def charge() -> None: ...

    assert charge.registration(Retry()).final_hooks == ()
    charge.on_failure(lambda: None)
    assert charge.registration(Retry()).final_hooks == (FinalEnd.FAILURE,)
    tasks.on_complete(lambda: None)
    assert charge.registration(Retry()).final_hooks == (FinalEnd.SUCCESS, FinalEnd.FAILURE)
    tasks.on_cancel(lambda: None)
    assert charge.registration(Retry()).final_hooks == tuple(FinalEnd)


@pytest.mark.parametrize(("when", "why"), [(datetime(2030, 1, 1), "give the datetime a time zone"), ("soon", "is no duration")])
def test_a_moment_that_is_none_is_refused(when: datetime | str, why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        RetryAt(when)


def test_a_moment_is_a_date_or_a_time_from_now() -> None:
    date = datetime(2030, 1, 1, tzinfo=UTC)
    assert (RetryAt(date).moment, RetryAt("1m").moment) == (date, timedelta(minutes=1))


async def test_a_local_is_of_the_run_and_known_by_its_name() -> None:
    with scope.entered(FakeRun()):
        Local[int]("n").set(5)
        assert Local[int]("n").get_or_raise() == 5
        assert Local[int]("m").get() is None
        with pytest.raises(LocalUnsetError, match="set it in a middleware"):
            Local[int]("m").get_or_raise()
    assert Local[int]("n").get() is None


def test_a_local_is_set_in_a_run_only() -> None:
    with pytest.raises(OutsideRunError):
        Local[int]("n").set(5)
    with pytest.raises(OutsideRunError):
        Local[int]("n").get_or_raise()
