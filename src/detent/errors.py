"""Every public exception of detent.

    DetentError
    ├── DefinitionError                 a task, option or config is wrong; raised at import
    │   ├── DuplicateTaskIdError
    │   ├── DuplicateLimitError         a queue or a limit is declared twice, with other bounds
    │   ├── ScheduleError               a cron pattern, a time zone or a window is none (also a ValueError)
    │   └── ConfigError
    │       └── EncryptionKeyError      the key of environment variables is missing, no key, or another one
    ├── PayloadError                    a value cannot be stored (also a ValueError)
    │   ├── SerializationError
    │   └── PayloadTooLargeError
    ├── AbortTaskRunError               raised by a task: fail now, do not retry
    │   └── TaskPayloadParsedError      the payload does not fit the task's schema
    ├── RunFailedError                  what a final hook gets of a run whose own exception is not at hand
    ├── MiddlewareError                 a middleware did not call next(), or twice
    ├── HookWaitError                   a hook made a durable wait
    ├── LocalUnsetError                 a `Local` has no value in this attempt (also a LookupError)
    ├── StepError                       what a step raised before, where its own class is not at hand
    ├── OutOfMemoryError                raised by a task that ran out of memory
    ├── SubtaskUnwrapError              `unwrap()` of a child that failed
    ├── WaitTimeoutError                `unwrap()` of a token that nobody completed in time
    ├── TokenFailedError                `unwrap()` of a token that was completed with an error
    ├── MaxDurationExceededError        the attempt ran longer than its `max_duration`
    ├── RunCancelledError               the run was cancelled
    ├── OutsideRunError                 a call that needs a run was made outside one
    ├── BlockingCallError               a blocking twin was called on a running event loop
    ├── NonDeterminismError             a replay asked for something else than was recorded
    ├── JournalFullError                an attempt asked for too many durable operations
    ├── StaleRunError                   the run is no longer held by this worker
    ├── TooManyTagsError                (also a ValueError)
    ├── MetadataTooLargeError           (also a ValueError)
    ├── ResultMisuseError               a `Result` was used as if it were the output (also an AttributeError and TypeError)
    ├── BatchTriggerError               a batch could not be triggered: phase, batch_id, item_count …
    ├── ApiError                        status, code
    │   ├── BadRequestError             400
    │   ├── AuthenticationError         401
    │   ├── PermissionDeniedError       403
    │   ├── NotFoundError               404
    │   ├── ConflictError               409
    │   ├── UnprocessableEntityError    422
    │   ├── RateLimitError              429
    │   ├── InternalServerError         500 and above
    │   └── ApiConnectionError          no answer
    └── DatabaseError                   what `detent` needs of PostgreSQL is not there
        ├── DatabaseUnreachableError
        ├── DatabaseVersionError
        ├── DatabaseRightsError
        ├── SchemaVersionError
        ├── SchemaDriftError
        ├── MigrationError
        └── EmbeddedServerError

    RunSuspended (a BaseException)      a run that waits leaves its process; its code closes what it holds
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class DetentError(Exception):
    """The root of every error that detent raises on purpose. It can be pickled, with the facts it carries."""

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are rebuilt by calling the class with their args, which here is the message and not the facts.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[DetentError], args: tuple[object, ...], facts: dict[str, object]) -> DetentError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class DefinitionError(DetentError):
    """A task, an option or a config file is wrong. Raised at import, naming the place and the fix."""


class DuplicateTaskIdError(DefinitionError):
    def __init__(self, task_id: str, first: str, second: str) -> None:
        super().__init__(f'task "{task_id}" in {second} is already defined in {first}; give one of the two another id=')
        self.task_id, self.first, self.second = task_id, first, second


class DuplicateLimitError(DefinitionError):
    """A queue or a limit is declared twice, with other bounds; `kind` says which of both it is."""

    def __init__(self, kind: str, name: str, first: str, second: str) -> None:
        super().__init__(
            f'{kind} "{name}" in {second} is already declared in {first} with other bounds; '
            "import that one, or give one of the two another name"
        )
        self.kind, self.name, self.first, self.second = kind, name, first, second


class ScheduleError(DefinitionError, ValueError):
    """What should say when a task runs says nothing that can be understood."""


class ConfigError(DefinitionError):
    """The config file is missing, does not load, or holds an unknown key."""


class EncryptionKeyError(ConfigError):
    """Environment variables cannot be sealed or opened with the key that is there."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}; DETENT_ENCRYPTION_KEY must hold the key that they are sealed with: 32 bytes in base64 or hex, such as "
            "`openssl rand -base64 32` prints (or several with commas between them, the newest first)"
        )
        self.what = what


class PayloadError(DetentError, ValueError):
    """A payload, output, metadata or other value cannot be stored."""


class SerializationError(PayloadError):
    """A value cannot become JSON: `what` names it, `why` the cause."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} cannot be turned into JSON: {why}")
        self.what, self.why = what, why


class PayloadTooLargeError(PayloadError):
    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} is {size:,} bytes of JSON, over the limit of {limit:,}; "
            "store it elsewhere and pass a reference to it"
        )
        self.what, self.size, self.limit = what, size, limit


class AbortTaskRunError(DetentError):
    """Raise it in a task to fail the run at once, whatever attempts are left."""


class TaskPayloadParsedError(AbortTaskRunError):
    """The payload does not fit the task's schema. Never retried.

    `cause` says why in one line; `details` names each field that is wrong, as `ApiError.details` does of a call by id.
    """

    def __init__(self, task_id: str, cause: str, details: Sequence[str] = ()) -> None:
        super().__init__(f'the payload of task "{task_id}" does not fit its schema: {cause}')
        self.task_id, self.cause, self.details = task_id, cause, tuple(details) or (cause,)


class RunFailedError(DetentError):
    """How a run ended whose own exception is not at hand: it crashed, expired, timed out, or failed in another process."""

    def __init__(self, run_id: str, status: str, name: str, message: str, code: str = "") -> None:
        super().__init__(f"run {run_id} is {status}: {name}: {message}")
        self.run_id, self.status, self.name, self.message, self.code = run_id, status, name, message, code


class MiddlewareError(DetentError):
    """A middleware did not call `next()` once."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f'middleware "{name}" {what}; a middleware awaits next() exactly once')
        self.name, self.what = name, what


class HookWaitError(DetentError):
    """A hook asked for a durable wait. Hooks are called around the code of a run, and are not replayed with it."""

    def __init__(self, run_id: str, what: str) -> None:
        super().__init__(f"a hook of run {run_id} {what}, which only the code of a task can; trigger a task that waits")
        self.run_id, self.what = run_id, what


class LocalUnsetError(DetentError, LookupError):
    def __init__(self, name: str) -> None:
        super().__init__(f'Local("{name}") has no value in this attempt; set it in a middleware, or use get()')
        self.name = name


class StepError(DetentError):
    """A recorded step is answered with what it raised, and that cannot be made again: its class is not loaded, or refuses.

    `name` is the name of that class, `message` what it said.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.name, self.message = name, message


class OutOfMemoryError(DetentError):
    """Raise it in a task that ran out of memory."""

    def __init__(self, message: str = "the task ran out of memory") -> None:
        super().__init__(message)


class SubtaskUnwrapError(DetentError):
    """`unwrap()` of a child run that did not succeed; `cause` is its `RunError`."""

    def __init__(self, run_id: str, task_id: str, cause: Exception | object) -> None:
        super().__init__(f'run {run_id} of task "{task_id}" did not succeed: {cause}')
        self.run_id, self.task_id, self.cause = run_id, task_id, cause


class WaitTimeoutError(DetentError):
    """`unwrap()` of a token that nobody completed before its timeout."""

    def __init__(self, token_id: str, cause: Exception | object) -> None:
        super().__init__(f"the wait for token {token_id} timed out: {cause}")
        self.token_id, self.cause = token_id, cause


class TokenFailedError(DetentError):
    """`unwrap()` of a token that was completed with an error; `cause` is the `RunError`."""

    def __init__(self, token_id: str, cause: Exception | object) -> None:
        super().__init__(f"token {token_id} was completed with an error: {cause}")
        self.token_id, self.cause = token_id, cause


class MaxDurationExceededError(DetentError):
    def __init__(self, run_id: str, seconds: float) -> None:
        super().__init__(f"run {run_id} ran longer than its max_duration of {seconds:g} s")
        self.run_id, self.seconds = run_id, seconds


class RunCancelledError(DetentError):
    def __init__(self, run_id: str, reason: str = "") -> None:
        super().__init__(f"run {run_id} was cancelled" + (f": {reason}" if reason else ""))
        self.run_id, self.reason = run_id, reason


class OutsideRunError(DetentError):
    def __init__(self, call: str) -> None:
        super().__init__(f"{call} needs a run: call it inside a task, in code that the run itself started")
        self.call = call


class BlockingCallError(DetentError):
    """A blocking twin was called on a running event loop; `instead` is the call to await there."""

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(f"{call} is the blocking twin and would stop the running event loop; await {instead} instead")
        self.call, self.instead = call, instead


class NonDeterminismError(DetentError):
    """A replay asked for another operation than the journal holds at this place."""

    def __init__(self, run_id: str, operation: str, recorded: str, asked: str, line: str = "") -> None:
        super().__init__(
            f"run {run_id} recorded {recorded} as its operation {operation}, but the code now asks for {asked}"
            f"{f' ({line})' if line else ''}; code between waits must take the same path again: put what changes (time, "
            "randomness, reads) into a step; if the code was changed, run it with the version that began it, or replay the "
            "run from its start"
        )
        self.run_id, self.operation, self.recorded, self.asked, self.line = run_id, operation, recorded, asked, line


class JournalFullError(DetentError):
    """The attempt has asked for more durable operations than its journal takes. Not retried: it would be full again."""

    def __init__(self, run_id: str, most: int) -> None:
        super().__init__(
            f"run {run_id} has asked for more than {most:,} durable operations in one attempt; split its work over child runs, "
            "or put many small steps into one"
        )
        self.run_id, self.most = run_id, most


class RunSuspended(BaseException):
    """Raised in a run's code where it waits when its memory is given up; the run goes on elsewhere, by replay.

    Not an `Exception`: `except Exception` lets it pass. `finally` and `with` close what the code holds; every call of detent is
    refused meanwhile. Do not catch it.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} waits, and leaves this process meanwhile")
        self.run_id = run_id


class StaleRunError(DetentError):
    """The call came from a worker that no longer holds the run; nothing was written."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} is no longer held by this worker; its attempt goes on elsewhere or has ended")
        self.run_id = run_id


class TooManyTagsError(DetentError, ValueError):
    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"{count} tags are over the limit of {limit}; none was added")
        self.count, self.limit = count, limit


class MetadataTooLargeError(DetentError, ValueError):
    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the metadata would be {size:,} bytes of JSON, over the limit of {limit:,}; nothing was changed")
        self.size, self.limit = size, limit


class ResultMisuseError(DetentError, AttributeError, TypeError):
    """A `Result` was used as if it were the output."""

    def __init__(self, used: str) -> None:
        super().__init__(f"{used} was asked of a Result, not of the output; check result.ok first, or call result.unwrap()")
        self.used = used


class BatchTriggerError(DetentError):
    """A batch could not be triggered whole.

    `phase` is `"create"` or `"items"`; `item_count` says how many runs were made before the failure.
    """

    def __init__(
        self,
        phase: str,
        batch_id: str,
        item_count: int,
        cause: str,
        *,
        is_rate_limited: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"batch {batch_id} failed in phase {phase} after {item_count} items: {cause}")
        self.phase, self.batch_id, self.item_count, self.cause = phase, batch_id, item_count, cause
        self.is_rate_limited, self.retry_after = is_rate_limited, retry_after


class ApiError(DetentError):
    """A call was refused: `status` as in HTTP, `code` for programs."""

    status: ClassVar[int] = 500
    code: str

    def __init__(self, message: str, *, code: str = "", details: Sequence[str] = ()) -> None:
        super().__init__("; ".join([message, *details]))
        self.code, self.details = code, tuple(details)


class BadRequestError(ApiError):
    status = 400


class AuthenticationError(ApiError):
    status = 401


class PermissionDeniedError(ApiError):
    status = 403


class NotFoundError(ApiError):
    status = 404


class ConflictError(ApiError):
    status = 409


class UnprocessableEntityError(ApiError):
    status = 422


class RateLimitError(ApiError):
    status = 429


class InternalServerError(ApiError):
    status = 500


class ApiConnectionError(ApiError):
    """No answer came: the database or the server is out of reach."""

    status = 503


class DatabaseError(DetentError):
    """What detent needs of PostgreSQL is not there."""


class DatabaseUnreachableError(DatabaseError):
    def __init__(self, target: str, cause: str) -> None:
        super().__init__(f"cannot reach PostgreSQL at {target}: {cause}; check DETENT_DATABASE_URL and that the server runs")
        self.target, self.cause = target, cause


class DatabaseVersionError(DatabaseError):
    def __init__(self, found: str, required: int) -> None:
        super().__init__(f"the server is PostgreSQL {found}; detent needs {required} or newer: upgrade the server")
        self.found, self.required = found, required


class DatabaseRightsError(DatabaseError):
    def __init__(self, user: str, cause: str) -> None:
        super().__init__(
            f'user "{user}" lacks rights in the database: {cause}; '
            f'grant create on the database to "{user}", or migrate as its owner'
        )
        self.user, self.cause = user, cause


class SchemaVersionError(DatabaseError):
    def __init__(self, found: int, required: int) -> None:
        remedy = "run `detent migrate`" if found < required else "upgrade the detent package"
        super().__init__(f"the database schema is at version {found}, this detent needs {required}: {remedy}")
        self.found, self.required = found, required


class SchemaDriftError(DatabaseError):
    def __init__(self, migration: str) -> None:
        super().__init__(
            f"migration {migration} was applied with another text than this detent ships; "
            "install the release that applied it, or migrate an empty database"
        )
        self.migration = migration


class MigrationError(DatabaseError):
    def __init__(self, migration: str, cause: str) -> None:
        super().__init__(f"migration {migration} failed: {cause}; put that right and run `detent migrate` again")
        self.migration, self.cause = migration, cause


class EmbeddedServerError(DatabaseError):
    """The embedded PostgreSQL could not be started."""

    def __init__(self, folder: str, cause: str, remedy: str) -> None:
        super().__init__(f"the embedded PostgreSQL in {folder} did not start: {cause}; {remedy}")
        self.folder, self.cause, self.remedy = folder, cause, remedy
