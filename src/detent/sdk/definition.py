"""What a task is, as the worker sees it: its function, its rules, and how its values become JSON."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NoReturn, TypedDict

from detent.duration import Duration, seconds
from detent.errors import DefinitionError, SerializationError, TaskPayloadParsedError
from detent.protocol import codec
from detent.protocol.retry import Retry
from detent.sdk import concurrency, schema, signature, source, spelling
from detent.sdk import queue as queues
from detent.sdk.concurrency import TaskLimit, TaskLimits
from detent.sdk.hooks import HookKind, HookOption, Hooks, TaskHooks, from_option, global_hooks
from detent.sdk.queue import Queue
from detent.sdk.schema import JsonSchema
from detent.sdk.signature import UNTYPED, Annotation

if TYPE_CHECKING:
    from detent.protocol.cron import Cron
    from detent.protocol.execution import Isolation, OnLost
    from detent.protocol.final_hooks import FinalEnd
    from detent.protocol.registration import TaskRegistration
    from detent.sdk.context import CancelSignal, Context

LONGEST_ID = 128


class SchemaTaskOptions(TypedDict, total=False):
    """Options of `@task` and `@schema_task`, all optional.

    - `id`: the task's name in the database; default the function's name. At most 128 characters.
    - `description`: a sentence for people.
    - `retry`: a `Retry`, or a number of attempts. Default: the config's, else `Retry()`.
    - `queue`: the queue its runs go to, as `queue()` returns it or by its name; default one of its own, named `task/<id>`.
    - `concurrency`: what bounds its runs, one thing or a list: at most one `Concurrency` or number (of all its runs that
      execute at once), one `RateLimit`, and two named limits, as `concurrency_limit()` returns them or by their names. A
      run starts when all that it holds have room. Default: no bounds.
    - `ttl`: how long a run may stay in the queue without ever having started; then it is `EXPIRED`. 0 is for ever. Default: the
      config's.
    - `max_duration`: wall time that one attempt may take, its waits not counted; then the run is `TIMED_OUT`.
    - `machine`: what a run may take, as the name of a preset (`"micro"` to `"large-2x"`) or of a machine of the config. Held with
      `isolation="process"`; other tasks are only told it (`ctx.machine`). Default: the config's, else no limit.
    - `isolation`: `"process"` runs each attempt in a process of its own.
    - `on_lost`: what to do when its worker is lost while a run executes. `"restart"`, the default: run it again. `"fail"`: end it
      `CRASHED`, so that no attempt is begun twice, and none after it.
    - `middleware`, `on_start_attempt`, `on_wait`, `on_resume`, `catch_error`, `on_success`, `on_failure`, `on_complete`,
      `on_cancel`: a function or a list of them, as the decorators of the task take them.
    """

    id: str
    description: str
    retry: Retry | int
    queue: Queue | str
    concurrency: TaskLimit | Sequence[TaskLimit]
    ttl: Duration
    max_duration: Duration
    machine: str
    isolation: str
    on_lost: Literal["restart", "fail"]
    middleware: HookOption
    on_start_attempt: HookOption
    on_wait: HookOption
    on_resume: HookOption
    catch_error: HookOption
    on_success: HookOption
    on_failure: HookOption
    on_complete: HookOption
    on_cancel: HookOption


class TaskOptions(SchemaTaskOptions, total=False):
    """Options of `@task`: those of `SchemaTaskOptions`, and `schema`.

    - `schema`: a pydantic model, a `TypeAdapter`, or a callable that parses; default the payload's annotation.
    """

    schema: object


KNOWN = frozenset({*SchemaTaskOptions.__annotations__, *TaskOptions.__annotations__})


class AnyTask(TaskHooks):
    """A task without its types: what the registry holds and the worker executes."""

    cron: Cron | None = None
    """When it runs by itself, as `@schedules.task` was told."""

    def __init__(self, fn: Callable[..., object], options: Mapping[str, object]) -> None:
        self._fn = fn
        self.origin = source.of_function(fn)
        self.id = self._checked_id(options.get("id", getattr(fn, "__name__", "")))
        self._refuse_unknown(options)
        self.description = str(options.get("description") or inspect.cleandoc(fn.__doc__ or "").partition("\n")[0])
        self.retry = self._checked_retry(options.get("retry"))
        self.max_duration = self._checked_max_duration(options.get("max_duration"))
        self.ttl = self._checked_duration("ttl", options.get("ttl"))
        self.queue_name = self._checked_queue(options.get("queue"))
        self.limits = self._checked_limits(options.get("concurrency"))
        self.isolation = self._checked_isolation(options.get("isolation"))
        self.machine = self._checked_machine("machine", options.get("machine"))
        self._check_oom_machine()
        self.on_lost = self._checked_on_lost(options.get("on_lost", "restart"))
        self.hooks = self._read_hooks(options)
        self._signature = self._read_signature()
        self._positional, self._keywords = self._signature.positional, self._signature.keywords
        self._payload = self._payload_schema(options.get("schema"))
        self._output = self._schema_of(self._signature.output, "the return annotation")
        self._has_default = self._signature.default is not inspect.Parameter.empty
        self._check_default()
        self.__name__, self.__qualname__ = getattr(fn, "__name__", self.id), self.origin.qualname
        self.__doc__, self.__module__, self.__wrapped__ = fn.__doc__, fn.__module__, fn

    def __repr__(self) -> str:
        return f'<task "{self.id}" of {self.place}>'

    @property
    def payload_schema(self) -> JsonSchema | None:
        """The JSON Schema that payloads must fit; None for a task without payload, and where any JSON will do.

        Raises `DefinitionError` for a type that is no schema.
        """
        described = None if self._payload is None else self._payload.json_schema(mode="validation")
        if described is None or not self._has_default:
            return described
        # The engine lets a payload be missing whose schema has a default.
        default = codec.decode(schema.PLAIN.encode(self._signature.default, what="the default of the payload"))
        return {**described, "default": default}

    @property
    def output_schema(self) -> JsonSchema | None:
        """The JSON Schema of outputs; None where any JSON will do. Raises `DefinitionError` for a type that is no schema."""
        return self._output.json_schema(mode="serialization")

    # ---- for the worker ----

    @property
    def place(self) -> str:
        """Where the task is defined: `file:line`."""
        return self.origin.place

    @property
    def file_path(self) -> str:
        return source.relative(self.origin.file)

    @property
    def takes_payload(self) -> bool:
        return self._payload is not None

    @property
    def is_async(self) -> bool:
        """Whether the function is `async def`, whatever its isolation."""
        return inspect.iscoroutinefunction(self._fn)

    @property
    def takes_signal(self) -> bool:
        """Whether the function declares a `CancelSignal`: then it has 30 s after a cancel to end by itself."""
        return self._signature.takes_signal

    def registration(
        self,
        default_retry: Retry,
        default_max_duration: float | None = None,
        default_ttl: float | None = None,
        default_machine: str | None = None,
    ) -> TaskRegistration:
        """Return what the engine must know of this task. Raises `DefinitionError` for a type that is no schema."""
        from detent.protocol.execution import Isolation
        from detent.protocol.registration import TaskRegistration

        retry = self.retry or default_retry
        return TaskRegistration(
            task_id=self.id,
            isolation=self.isolation,
            file_path=self.file_path,
            queue=self.queue_name,
            retry=_retry_json(retry),
            description=self.description,
            max_duration=default_max_duration if self.max_duration is None else self.max_duration,
            ttl=(default_ttl if self.ttl is None else self.ttl) or None,
            limits=self.limits.names,
            on_lost=self.on_lost,
            final_hooks=self._final_hooks(),
            payload_schema=_schema_text(self.payload_schema),
            output_schema=_schema_text(self.output_schema),
            cron=self.cron,
            machine=self.machine or default_machine,
            oom_machine=retry.oom_machine if self.isolation is Isolation.PROCESS else None,
        )

    @property
    def has_final_hooks(self) -> bool:
        """Whether its runs may have to be leased for their final hooks alone."""
        return bool(self._final_hooks())

    def _final_hooks(self) -> tuple[FinalEnd, ...]:
        from detent.protocol.final_hooks import FinalEnd

        kinds = {
            FinalEnd.SUCCESS: (HookKind.ON_SUCCESS, HookKind.ON_COMPLETE),
            FinalEnd.FAILURE: (HookKind.ON_FAILURE, HookKind.ON_COMPLETE),
            FinalEnd.CANCEL: (HookKind.ON_CANCEL,),
        }
        return tuple(
            end for end, wanted in kinds.items() if any(global_hooks.of(kind) + self.hooks.of(kind) for kind in wanted)
        )

    def decode_payload(self, text: str | None) -> object:
        """Return the payload that the function is given; raises `TaskPayloadParsedError`."""
        if self._payload is None:
            return None
        if text is None and self._has_default:
            return self._signature.default
        try:
            return self._payload.decode("null" if text is None else text)
        except schema.MismatchError as error:
            raise TaskPayloadParsedError(self.id, str(error), error.details) from error
        except SerializationError as error:
            raise TaskPayloadParsedError(self.id, str(error)) from error

    def invoke(self, payload: object, context: Context, signal: CancelSignal) -> object:
        """Call the function: a coroutine for `async def`, the result itself for `def`."""
        given = (payload, context, signal)
        positional = [given[place] for place in self._positional]
        if not self._keywords:
            return self._fn(*positional)
        return self._fn(*positional, **{name: given[place] for name, place in self._keywords})

    def encode_output(self, value: object) -> str | None:
        """Return the output as JSON text, None for None. Raises `SerializationError`, `PayloadTooLargeError`."""
        if value is None and self._output is schema.PLAIN:
            return None
        what = f'the output of task "{self.id}"'
        try:
            text = self._output.encode(value, what=what)
        except schema.MismatchError as error:
            raise SerializationError(what, f"it does not fit the return annotation: {error}") from error
        return None if text == "null" else text

    def take_payload_of(self, expected: type) -> None:
        """Take payloads of one type, which the annotation of the payload may only repeat. Raises `DefinitionError`."""
        annotation = self._signature.payload
        if annotation is None:
            return
        try:
            resolved = annotation.resolve()
        except NameError:  # imported for type checkers only
            resolved = UNTYPED
        if resolved is UNTYPED:
            self._payload = schema.of(expected, what=f'the payload of task "{self.id}" in {self.place}')
        elif resolved is not expected:
            self._refuse(f"its payload is a {expected.__name__}: annotate it so, or leave it out")

    # ---- for callers that hold the task ----

    is_validating = True

    def encode_payload(self, value: object) -> str | None:
        """Return *value* as JSON text, checked by the task's schema. Raises `TaskPayloadParsedError`, `PayloadError`."""
        if self._payload is None:
            if value is not None:
                raise TypeError(f'task "{self.id}" takes no payload; call trigger() without one')
            return None
        if value is None and self._has_default:
            return None
        try:
            return self._payload.encode(value, what=f'the payload of task "{self.id}"')
        except schema.MismatchError as error:
            raise TaskPayloadParsedError(self.id, str(error), error.details) from error

    def decode_output(self, text: str | None) -> object:
        """Return a stored output as the declared return type."""
        if text is None:
            return None
        try:
            return self._output.decode(text)
        except schema.MismatchError as error:
            what = f'the stored output of task "{self.id}"'
            raise SerializationError(what, f"it does not fit the return annotation: {error}") from error

    # ---- definition ----

    def _refuse(self, why: str) -> NoReturn:
        name = getattr(self, "id", None) or getattr(self._fn, "__name__", "?")
        raise DefinitionError(f'task "{name}" in {self.place}: {why}')

    def _refuse_unknown(self, options: Mapping[str, object]) -> None:
        for name in options:
            if name == "cron":
                self._refuse("cron= is an option of @schedules.task; use that decorator")
            if name not in KNOWN:
                self._refuse(f"unknown option {name!r}{spelling.hint(name, KNOWN)}")

    def _checked_id(self, task_id: object) -> str:
        if isinstance(task_id, str) and _is_name(task_id):
            return task_id
        return self._refuse(f"id={task_id!r} must be printable text of 1 to {LONGEST_ID} characters")

    def _checked_retry(self, retry: object) -> Retry | None:
        if retry is None or isinstance(retry, Retry):
            return retry
        if isinstance(retry, int) and not isinstance(retry, bool):
            try:
                return Retry(max_attempts=retry)
            except DefinitionError as error:
                self._refuse(str(error))
        self._refuse(f"retry={retry!r} must be a Retry or a number of attempts")
        return None

    def _checked_duration(self, name: str, duration: object) -> float | None:
        if duration is None:
            return None
        try:
            return seconds(duration)  # type: ignore[arg-type]  # what is no duration is refused by it
        except ValueError as error:
            self._refuse(f"{name}={duration!r}: {error}")

    def _checked_max_duration(self, duration: object) -> float | None:
        allowed = self._checked_duration("max_duration", duration)
        return self._refuse("max_duration must be longer than 0 s") if allowed == 0 else allowed

    def _checked_queue(self, queue: object) -> str:
        from detent.protocol.flow import INLINE_PREFIX

        if queue is None:
            return f"{INLINE_PREFIX}{self.id}"
        try:
            return queues.name_of(queue)
        except (TypeError, ValueError) as error:
            self._refuse(f"queue: {error}")

    def _checked_limits(self, option: object) -> TaskLimits:
        if option is None:
            return TaskLimits()
        try:
            return concurrency.of_task(self.id, option)
        except (TypeError, ValueError, DefinitionError) as error:
            self._refuse(f"concurrency: {error}")

    def _checked_isolation(self, isolation: object) -> Isolation:
        from detent.protocol.execution import Isolation

        if isolation is None:
            return Isolation.ASYNC if inspect.iscoroutinefunction(self._fn) else Isolation.THREAD
        if isolation != Isolation.PROCESS:
            self._refuse(
                f'isolation={isolation!r}: only "process" can be asked for; `async def` runs on the event loop, `def` in a thread'
            )
        return Isolation.PROCESS

    def _checked_machine(self, name: str, machine: object) -> str | None:
        if machine is None:
            return None
        # Loaded by those tasks alone that name a machine.
        from detent.sdk.machines import machines

        try:
            return machines.check(machine)
        except (TypeError, ValueError) as error:
            self._refuse(f"{name}: {error}")

    def _check_oom_machine(self) -> None:
        oom_machine = self._checked_machine("Retry(oom_machine=)", self.retry and self.retry.oom_machine)
        if oom_machine is None:
            return
        from detent.protocol.execution import Isolation

        if self.isolation is not Isolation.PROCESS:
            self._refuse(
                f'its retry names oom_machine="{oom_machine}", and only runs in processes of their own have a limit of memory; '
                'add isolation="process"'
            )
        if oom_machine == self.machine:
            self._refuse(f'a run that ran out of memory on "{oom_machine}" is not tried there again; name a larger oom_machine')

    def _checked_on_lost(self, on_lost: object) -> OnLost:
        from detent.protocol.execution import OnLost

        if isinstance(on_lost, str) and on_lost in set(OnLost):
            return OnLost(on_lost)
        return self._refuse(
            f'on_lost={on_lost!r} must be "restart" (a run whose worker was lost starts again) '
            'or "fail" (it ends CRASHED, and never starts twice)'
        )

    def _read_hooks(self, options: Mapping[str, object]) -> Hooks:
        hooks = Hooks()
        for kind in HookKind:
            if options.get(kind) is None:
                continue
            try:
                for hook in from_option(kind, options[kind]):
                    hooks.add(hook)
            except DefinitionError as error:
                self._refuse(str(error))
        return hooks

    def _read_signature(self) -> signature.Signature:
        if inspect.isasyncgenfunction(self._fn) or inspect.isgeneratorfunction(self._fn):
            self._refuse("a generator cannot be a task; return a value")
        names = source.caller().f_locals if "<locals>" in self.origin.qualname else {}
        try:
            return signature.read(self._fn, names)
        except DefinitionError as error:
            self._refuse(str(error))

    def _payload_schema(self, given: object) -> schema.Schema | None:
        annotation = self._signature.payload
        if annotation is None:
            return None if given is None else self._refuse("it has a schema but its function takes no payload")
        if given is not None:
            return schema.of(given, what=f'the schema of task "{self.id}" in {self.place}')
        return self._schema_of(annotation, "the annotation of the payload")

    def _schema_of(self, annotation: Annotation, what: str) -> schema.Schema:
        """Return the schema of an annotation: resolved now, or when first used if it names what is defined later."""
        try:
            resolved = annotation.resolve()
        except NameError:
            return schema.Typed(annotation.resolve, what=f'{what} of task "{self.id}" in {self.place}')
        except (TypeError, SyntaxError, AttributeError) as error:
            self._refuse(f"{what} is no type: {error}")
        if resolved is UNTYPED or resolved is type(None):
            return schema.PLAIN
        return schema.Typed(lambda: resolved, what=f'{what} of task "{self.id}" in {self.place}')

    def _check_default(self) -> None:
        if not self._has_default:
            return
        try:
            schema.PLAIN.encode(self._signature.default, what="the default of the payload")
        except ValueError as error:
            self._refuse(str(error))


def _schema_text(described: JsonSchema | None) -> str | None:
    return None if described is None else json.dumps(described)


def _is_name(text: str) -> bool:
    return bool(text.strip()) and text.isprintable() and len(text) <= LONGEST_ID


def _retry_json(retry: Retry) -> str:
    return json.dumps({
        "max_attempts": retry.max_attempts,
        "factor": retry.factor,
        "min_timeout": seconds(retry.min_timeout),
        "max_timeout": seconds(retry.max_timeout),
        "randomize": retry.randomize,
    })  # fmt: skip
