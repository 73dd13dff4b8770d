"""Functions that are called around the attempts of runs: a task's own, and those of all tasks.

A hook declares only the arguments that it wants, by name; what there is for each kind is in `ARGUMENTS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

from detent.errors import DefinitionError
from detent.sdk import scope, source
from detent.sdk.source import Source

if TYPE_CHECKING:
    from detent.protocol.ids import RunId

F = TypeVar("F", bound=Callable[..., object])

Next: TypeAlias = Callable[[], Awaitable[None]]
"""What a middleware awaits once: the rest of the attempt. It raises what the run raised."""
HookOption: TypeAlias = Callable[..., object] | Sequence[Callable[..., object]]


class HookKind(StrEnum):
    """The values are the names of the decorators and of the options of `@task`."""

    MIDDLEWARE = "middleware"
    ON_START_ATTEMPT = "on_start_attempt"
    ON_WAIT = "on_wait"
    ON_RESUME = "on_resume"
    CATCH_ERROR = "catch_error"
    ON_SUCCESS = "on_success"
    ON_FAILURE = "on_failure"
    ON_COMPLETE = "on_complete"
    ON_CANCEL = "on_cancel"


_EACH = frozenset({"ctx", "payload", "signal", "task"})

ARGUMENTS: dict[HookKind, frozenset[str]] = {
    HookKind.MIDDLEWARE: _EACH | {"next"},
    HookKind.ON_START_ATTEMPT: _EACH,
    HookKind.ON_WAIT: _EACH | {"wait"},
    HookKind.ON_RESUME: _EACH | {"wait"},
    HookKind.CATCH_ERROR: _EACH | {"error", "retry", "retry_at", "retry_delay"},
    HookKind.ON_SUCCESS: _EACH | {"output"},
    HookKind.ON_FAILURE: _EACH | {"error"},
    HookKind.ON_COMPLETE: _EACH | {"result"},
    HookKind.ON_CANCEL: _EACH | {"reason"},
}


class WaitKind(StrEnum):
    """What a run waits for."""

    DURATION = "duration"
    TOKEN = "token"
    TASK = "task"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitInfo:
    """The `wait` of `on_wait` and `on_resume`."""

    kind: WaitKind
    subject: str = ""
    """The id of the task, the token or the batch; empty for a duration."""
    until: datetime | None = None
    """Of a duration: the moment at which it is over, by this process's clock."""
    run_id: RunId | None = None
    """Of a task: the child. None in `on_wait` where an idempotency key may give an older run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hook:
    """A function and the names of the arguments that it wants."""

    kind: HookKind
    fn: Callable[..., object]
    wants: tuple[str, ...]
    origin: Source = field(repr=False)
    name: str
    is_named: bool
    """By its user; then it replaces the one of that name."""

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.fn)

    def call(self, given: dict[str, object]) -> object:
        """Call the function with what it wants of *given*: a coroutine for `async def`."""
        return self.fn(**{name: given[name] for name in self.wants})

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}" in {self.origin.place}'


def read(kind: HookKind, fn: object, name: str = "") -> Hook:
    """Make a hook of a function. Raises `DefinitionError` for an argument that there is not, naming those that there are."""
    if not callable(fn) or isinstance(fn, type):
        raise DefinitionError(f"{kind} is made of a function, not of {fn!r}")
    origin = source.of_function(fn)
    hook = Hook(
        kind=kind,
        fn=fn,
        wants=_wants(kind, fn, origin),
        origin=origin,
        name=name or _name_of(fn),
        is_named=bool(name),
    )
    if kind is HookKind.MIDDLEWARE:
        _check_middleware(hook)
    return hook


def _wants(kind: HookKind, fn: Callable[..., object], origin: Source) -> tuple[str, ...]:
    wants = []
    for parameter in inspect.signature(fn).parameters.values():
        by_name = parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
        if not by_name or parameter.name not in ARGUMENTS[kind]:
            raise DefinitionError(
                f'{kind} "{_name_of(fn)}" in {origin.place}: nobody would fill in the parameter "{parameter.name}"; '
                f"it may take, by name, {', '.join(sorted(ARGUMENTS[kind]))}"
            )
        wants.append(parameter.name)
    return tuple(wants)


def _check_middleware(hook: Hook) -> None:
    if not hook.is_async:
        raise DefinitionError(f"{hook} must be `async def`, for it awaits next()")
    if "next" not in hook.wants:
        raise DefinitionError(f'{hook} must take "next" and await next() once: the attempt goes on in it')


def _name_of(fn: Callable[..., object]) -> str:
    return str(getattr(fn, "__name__", fn))


def _outside_of_runs(hook: Hook) -> Hook:
    """Return *hook*. Raises `DefinitionError` where the code of a run registers it."""
    # A module that is first imported inside of a run may: it is loaded once.
    if scope.current() is not None and source.caller().f_code.co_flags & inspect.CO_OPTIMIZED:
        raise DefinitionError(
            f"{hook} is registered inside of a run, and would be called for all later runs of this process; "
            "register it where its module is loaded"
        )
    return hook


class Hooks:
    """Hooks by kind, in the order in which they were given."""

    def __init__(self) -> None:
        self._known: dict[HookKind, list[Hook]] = {}

    def add(self, hook: Hook) -> None:
        self._known.setdefault(hook.kind, []).append(hook)

    def put(self, hook: Hook) -> None:
        """Keep a hook in the place of the one that has its name, or that it is defined anew (reload on save)."""
        hooks = self._known.setdefault(hook.kind, [])
        for place, known in enumerate(hooks):
            if hook.name == known.name if hook.is_named else hook.origin.replaces(known.origin):
                hooks[place] = hook
                return
        hooks.append(hook)

    def of(self, kind: HookKind) -> tuple[Hook, ...]:
        return tuple(self._known.get(kind, ()))

    def clear(self) -> None:
        self._known.clear()


global_hooks = Hooks()
"""Those of all tasks."""


def from_option(kind: HookKind, option: object) -> list[Hook]:
    """Return the hooks that an option of `@task` gives: one function, or a list."""
    given = option if isinstance(option, Iterable) and not isinstance(option, str) else [option]
    return [read(kind, fn) for fn in given]


class TaskHooks:
    """The decorators of a task: `@charge.on_failure`."""

    hooks: Hooks

    def on_start_attempt(self, fn: F) -> F:
        """Call *fn* before the function, in each attempt, and once more where a replay goes on.

        It may take `payload`, `ctx`, `task` and `signal`, as every hook. What it raises is an error of the attempt.
        """
        return self._keep(HookKind.ON_START_ATTEMPT, fn)

    def on_wait(self, fn: F) -> F:
        """Call *fn* before a run suspends, with `wait` (a `WaitInfo`). What it raises is raised by the wait."""
        return self._keep(HookKind.ON_WAIT, fn)

    def on_resume(self, fn: F) -> F:
        """Call *fn* when a run goes on after a wait, with `wait`; where it goes on by replay, once more."""
        return self._keep(HookKind.ON_RESUME, fn)

    def catch_error(self, fn: F) -> F:
        """Ask *fn* what shall come of an `error`: it returns `SkipRetrying`, `RetryAt`, `RetryWith`, or None for the default.

        It may take `retry` (the policy), and `retry_at` and `retry_delay`, None when the default is not to try again.
        """
        return self._keep(HookKind.CATCH_ERROR, fn)

    def on_success(self, fn: F) -> F:
        """Call *fn* when the run is COMPLETED, with its `output`."""
        return self._keep(HookKind.ON_SUCCESS, fn)

    def on_failure(self, fn: F) -> F:
        """Call *fn* when the run has failed for good, whatever it failed of, with its `error`.

        Where its own exception is not at hand, that is a `RunFailedError`.
        """
        return self._keep(HookKind.ON_FAILURE, fn)

    def on_complete(self, fn: F) -> F:
        """Call *fn* when the run has succeeded or failed for good, with its `result`: `Ok` or `Err`."""
        return self._keep(HookKind.ON_COMPLETE, fn)

    def on_cancel(self, fn: F) -> F:
        """Call *fn* when the run was cancelled, with the `reason`; its code has 30 s for it before it is interrupted."""
        return self._keep(HookKind.ON_CANCEL, fn)

    def middleware(self, fn: F) -> F:
        """Wrap each attempt in *fn*, which takes `next` and awaits `next()` once. Final hooks are wrapped apart."""
        return self._keep(HookKind.MIDDLEWARE, fn)

    def _keep(self, kind: HookKind, fn: F) -> F:
        self.hooks.add(_outside_of_runs(read(kind, fn)))
        return fn


class GlobalHook:
    """A decorator for all tasks: `@tasks.on_failure`, or with a name that is there once, `@tasks.on_failure("alert")`."""

    def __init__(self, kind: HookKind) -> None:
        self._kind = kind
        self.__doc__ = getattr(TaskHooks, kind).__doc__

    @overload
    def __call__(self, fn: F, /) -> F: ...
    @overload
    def __call__(self, name: str, /) -> Callable[[F], F]: ...
    def __call__(self, what: F | str, /) -> F | Callable[[F], F]:
        if not isinstance(what, str):
            return self._keep(what, "")
        if not what.strip():
            raise DefinitionError(f"{self._kind}({what!r}): give the hook a name, or leave the parentheses out")
        return lambda fn: self._keep(fn, what)

    def _keep(self, fn: F, name: str) -> F:
        global_hooks.put(_outside_of_runs(read(self._kind, fn, name)))
        return fn


class GlobalHooks:
    """The decorators of `tasks`, of the same meaning as those of a task. They come first, but for `catch_error`."""

    on_start_attempt = GlobalHook(HookKind.ON_START_ATTEMPT)
    on_wait = GlobalHook(HookKind.ON_WAIT)
    on_resume = GlobalHook(HookKind.ON_RESUME)
    catch_error = GlobalHook(HookKind.CATCH_ERROR)
    on_success = GlobalHook(HookKind.ON_SUCCESS)
    on_failure = GlobalHook(HookKind.ON_FAILURE)
    on_complete = GlobalHook(HookKind.ON_COMPLETE)
    on_cancel = GlobalHook(HookKind.ON_CANCEL)
    middleware = GlobalHook(HookKind.MIDDLEWARE)
